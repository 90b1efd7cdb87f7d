"""Which names timm knows: with weights, bare, renamed, without a trained classifier."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from cache_schema.format.model_names.card_fields import derive
from cache_schema.format.records import UNKNOWN
from closerlook_common.errors import UserError, nearest
from extract.libraries.base import Entry, Line

UNTRAINED_HEADS = ("resmlp_12_224.fb_dino", "resmlp_24_224.fb_dino")
"""timm's entries say 1,000 classes, but the files are of self-supervised training: their heads were never trained."""


@cache
def published() -> tuple[str, ...]:
    """Return the names that have weights, ``arch.tag``; towers without a classifier are among them."""
    import timm

    return tuple(timm.list_models(pretrained=True))


@cache
def bare() -> tuple[str, ...]:
    """Return the architectures."""
    import timm

    return tuple(timm.list_models())


def config_of(name: str) -> Any:
    """Return timm's pretrained configuration of a name, or None where this timm does not have it."""
    from timm.models import get_pretrained_cfg

    try:
        return get_pretrained_cfg(name)
    except RuntimeError:
        return None


def licence_of(name: str) -> str:
    """Return the licence of published weights, or ``unknown``."""
    config = config_of(name)
    return (config.license if config else None) or UNKNOWN


def has_trained_head(name: str) -> bool:
    """Return whether published weights have a trained classifier."""
    config = None if name in UNTRAINED_HEADS else config_of(name)
    return config is not None and config.num_classes > 0


def full_name(line: Line) -> str:
    """Return the full name of a line's model; timm's default tag where the weights are to come from timm."""
    name = line.name
    if name in published():
        if name in UNTRAINED_HEADS and not line.brings_weights and line.options.get("num_classes") != "0":
            raise UserError(
                f"{line.where}: the published weights of {name} have no trained classifier, so its answers are at"
                " chance; num_classes=0 takes its features alone, checkpoint=FILE weights that were fine-tuned"
            )
        return name
    from timm.models import get_deprecated_models

    if renamed := get_deprecated_models().get(name):
        raise UserError(f"{line.where}: timm has renamed {name} to {renamed}; did you mean {renamed}?")
    if name in bare():
        tag = getattr(config_of(name), "tag", None)
        return f"{name}.{tag}" if tag and not line.brings_weights and f"{name}.{tag}" in published() else name
    raise UserError(f"{line.where}: timm has no model {name!r}{nearest(name, (*published(), *bare()))}")


def entries() -> Iterator[Entry]:
    """Yield every pretrained model of the installed timm."""
    for name in published():
        config = config_of(name)
        size = (config.test_input_size or config.input_size)[-1] if config else None
        yield Entry("timm", name, name.partition(".")[0], size, licence_of(name), derive("timm", name))


def imagenet_names() -> list[str]:
    """Return every pretrained tag that answers in ImageNet's 1,000 classes, with a trained classifier."""
    configs = {name: config_of(name) for name in published()}
    return [
        name
        for name, config in configs.items()
        if config and config.num_classes == 1000 and name not in UNTRAINED_HEADS
    ]
