"""Which classifiers torchvision has, and what their weights were trained on."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torchvision
from torchvision.models import get_model_weights, list_models

from cache_schema.format.model_names.families import family_of
from cache_schema.format.model_names.training_sources import SOURCES
from cache_schema.format.records import UNKNOWN
from closerlook_common.errors import UserError, nearest
from extract.libraries.base import Entry, Line

SUPERVISED, MORE_DATA = "supervised-in1k", "more-data"


@cache
def architectures() -> tuple[str, ...]:
    """Return the classifiers: no detectors, no segmentation, no quantized ones."""
    return tuple(list_models(module=torchvision.models))


@cache
def published() -> tuple[str, ...]:
    """Return the names of classifiers with weights, ``arch.WEIGHTS``; weights without classes are left out."""
    return tuple(f"{name}.{weights.name}" for name in architectures() for weights in weights_of(name))


def weights_of(architecture: str) -> list[Any]:
    """Return the weights of an architecture that have a classifier, torchvision's default first."""
    known = get_model_weights(architecture)
    return sorted((w for w in known if w.meta.get("categories")), key=lambda w: w is not known.DEFAULT)


def weights_named(architecture: str, name: str, where: str) -> Any:
    """Return weights by name."""
    found = {weights.name: weights for weights in weights_of(architecture)}
    if name not in found:
        raise UserError(
            f"{where}: {architecture} has no weights {name!r}{nearest(name, found)}; there are {', '.join(found)}"
        )
    return found[name]


def full_name(line: Line) -> str:
    """Return ``arch.WEIGHTS``, or ``arch`` where the line brings the weights."""
    name, stated = line.name, line.options.get("weights", "")
    architecture, _, tag = name.partition(".")
    if architecture not in architectures():
        near = nearest(name, (*published(), *architectures()))
        raise UserError(f"{line.where}: torchvision has no classifier {architecture!r}{near}")
    if tag and stated and tag != stated:
        raise UserError(f"{line.where}: {name} weights={stated} names two sets of weights")
    if tag or (stated and stated != "none"):
        weights_named(architecture, tag or stated, line.where)
    if line.brings_weights:
        if tag:
            raise UserError(
                f"{line.where}: {name} names torchvision's weights, and the line brings others; write"
                f" {line.library}:{architecture} weights={tag}"
            )
        return architecture
    if stated == "none":
        raise UserError(f"{line.where}: weights=none goes with checkpoint=FILE")
    return f"{architecture}.{tag or stated or weights_of(architecture)[0].name}"


def card_fields(name: str) -> dict[str, Any]:
    """Return the card fields of a name; the weights of a bare architecture are not known."""
    architecture, _, tag = name.partition(".")
    source = "instagram-3.6b" if "SWAG" in tag else "imagenet-1k" if tag else UNKNOWN
    return {
        "group": MORE_DATA if "SWAG" in tag else SUPERVISED if tag else UNKNOWN,
        "source": source,
        "source_size": SOURCES[source],
        "samples_seen": None,
        "family": family_of(architecture),
    }


def entries() -> Iterator[Entry]:
    """Yield every classifier with weights."""
    for name in published():
        architecture, _, tag = name.partition(".")
        size = int(weights_named(architecture, tag, name).transforms().crop_size[0])
        yield Entry("torchvision", name, architecture, size, UNKNOWN, card_fields(name))
