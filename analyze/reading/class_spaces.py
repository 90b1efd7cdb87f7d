"""Whether two sets of logits are over the same classes: scores of logits cannot be compared otherwise."""

from __future__ import annotations

import re

from cache_schema.format.records import DatasetCard
from cache_schema.reading.store import PredictionStore
from closerlook_common.console.terminal import counted

_UNNAMED = re.compile(r"(\d+)-classes")


def other_classes(inside: DatasetCard, outside: DatasetCard, *, n_inside: int = 0, n_outside: int = 0) -> str:
    """Return why scores of logits of two datasets cannot be compared; empty where they can.

    Parameters
    ----------
    inside, outside
        Cards of the in-distribution set and of the other one.
    n_inside, n_outside
        Columns of their logits; 0 where that is not known.

    Notes
    -----
    A class space without a name (``1000-classes``, what an import gives) is any of that size.
    """
    spaces = (inside.class_space, outside.class_space)
    sizes = [size or _size(space) for size, space in zip((n_inside, n_outside), spaces, strict=True)]
    named = {space for space in spaces if space and not _size(space)}
    if len(named) < 2 and (0 in sizes or sizes[0] == sizes[1]):
        return ""
    by_name = all(spaces) and spaces[0] != spaces[1]
    shown = [space if by_name else counted(size, "class", "classes") for space, size in zip(spaces, sizes, strict=True)]
    return (
        f"the logits of {outside.id} are over other classes ({shown[1]}) than those of {inside.id} ({shown[0]}): run"
        f" {outside.id} with the classes of {inside.id}"
    )


def stores_apart(inside: PredictionStore, outside: PredictionStore) -> str:
    """Return why scores of logits of two stores cannot be compared; empty where they can."""
    sizes = {"n_inside": inside.n_classes or 0, "n_outside": outside.n_classes or 0}
    return other_classes(inside.dataset, outside.dataset, **sizes)


def _size(space: str) -> int:
    """Return the size of a class space without a name, 0 for one with a name."""
    match = _UNNAMED.fullmatch(space)
    return int(match[1]) if match else 0


def other_view(inside: DatasetCard, outside: DatasetCard) -> str:
    """Return why the probabilities of two datasets of one class space cannot be compared; empty where they can.

    A mask of the outer set is none of the reasons: the in-distribution rows are then taken over its classes.
    """
    masked = inside.class_mask is not None and outside.class_mask is None
    if not masked and inside.class_map == outside.class_map:
        return ""
    return (
        f"{inside.id} and {outside.id} do not have the same competing classes (class_mask, class_map), so that their"
        " scores cannot be compared"
    )
