"""Shape bias on datasets whose images have a shape and a texture of different classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.intervals import proportion_interval
from analyze.metrics import shape_decisions
from analyze.suites.base import Case, Number, with_interval, without
from closerlook_common.errors import UserError

METRICS = ("shape_bias", "shape_share", "texture_share")


def run(case: Case) -> Iterator[Number]:
    """Yield the shape bias, overall and by shape category; nothing for datasets without the two columns."""
    options = case.settings["shape_bias"]
    metadata = case.summary.metadata
    if options["shape_column"] not in metadata or options["texture_column"] not in metadata:
        return
    shape, texture = metadata[options["shape_column"]], metadata[options["texture_column"]]
    if shape.dtype.kind != "O" or texture.dtype.kind != "O":
        return  # a 0/1 factor called shape is no category
    use = case.summary["valid"]
    try:
        names = category_names(case)
    except ValueError as error:
        yield from without(METRICS, str(error), options=case.settings.changed("shape_bias"))
        return
    predicted = np.array([names.get(int(p), f"class {p}") for p in case.summary.prediction[use]], dtype=object)
    shape, texture = shape[use], texture[use]
    yield from _numbers(case, predicted, shape, texture, "")
    for category in sorted(set(shape.tolist())):
        rows = shape == category
        yield from _numbers(case, predicted[rows], shape[rows], texture[rows], f"shape={category}")


def category_names(case: Case) -> dict[int, str]:
    """Return the category's name of each predicted index: the card's class names, else what labels and
    shapes say.
    """
    card = case.summary.dataset
    shape = case.summary.metadata[case.settings["shape_bias"]["shape_column"]]
    if card.class_names and set(shape.tolist()) <= set(card.class_names):
        return dict(enumerate(card.class_names))
    labels = case.summary["label"]
    pairs = {(int(label), str(name)) for label, name in zip(labels, shape, strict=True) if label >= 0}
    names = dict(pairs)
    if len(names) != len(pairs) or not names:
        raise UserError(
            f"dataset {card.id}: predicted classes cannot be named as shapes: neither the class names nor the"
            " labels agree with the shape column"
        )
    return names


def _numbers(
    case: Case, predicted: NDArray[Any], shape: NDArray[Any], texture: NDArray[Any], factor: str
) -> Iterator[Number]:
    level = case.settings["accuracy"]["confidence_level"]
    method = case.settings["accuracy"]["interval"]
    variant: dict[str, Any] = {"factor": factor, "options": case.settings.changed("shape_bias")}
    decisions = shape_decisions(predicted, shape, texture)
    n = decisions.shape + decisions.texture + decisions.other
    decided = decisions.shape + decisions.texture
    if n == 0:
        yield from without(METRICS, "no image whose shape and texture differ", **variant)
        return
    for metric, hits, base in (
        ("shape_bias", decisions.shape, decided),
        ("shape_share", decisions.shape, n),
        ("texture_share", decisions.texture, n),
    ):
        if base == 0:
            reason = "no decision was for the shape or for the texture"
            yield Number(metric=metric, reason=reason, **variant)
            continue
        interval = proportion_interval(hits, base, level=level, method=method)
        yield with_interval(Number(metric=metric, value=hits / base, n=base, **variant), interval)
