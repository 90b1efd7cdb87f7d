"""Shape or texture: what decides on images whose shape and texture disagree (cue conflict)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from cache_schema.errors import UserError


def _categories(name: str, values: ArrayLike, n: int | None = None) -> NDArray[np.generic]:
    array = np.asarray(values)
    if array.ndim != 1:
        raise UserError(f"{name} must have 1 dimension(s); its shape is {array.shape}")
    if n is not None:
        _checks.same_length("predicted_category", n, name, array.size)
    if array.size == 0:
        raise UserError(f"{name} has no rows; a metric needs at least one")
    if array.dtype.kind == "f":
        _checks.vector(name, array)
    return array


@dataclass(frozen=True)
class ShapeDecisions:
    """Counts over the images whose shape and texture differ.

    Attributes
    ----------
    shape, texture, other
        Decisions for the shape's category, for the texture's, and for neither.
    """

    shape: int
    texture: int
    other: int

    @property
    def shape_bias(self) -> float:
        """Shape decisions among those for shape or texture."""
        if self.shape + self.texture == 0:
            raise UserError("no decision was for the shape or for the texture: shape bias is undefined")
        return self.shape / (self.shape + self.texture)


def shape_decisions(predicted_category: ArrayLike, shape: ArrayLike, texture: ArrayLike) -> ShapeDecisions:
    """Count decisions for shape, texture and neither; parameters as for :func:`shape_bias`."""
    predicted = _categories("predicted_category", predicted_category)
    shapes = _categories("shape", shape, predicted.size)
    textures = _categories("texture", texture, predicted.size)
    conflict = shapes != textures
    for_shape = int(np.count_nonzero(conflict & (predicted == shapes)))
    for_texture = int(np.count_nonzero(conflict & (predicted == textures)))
    return ShapeDecisions(for_shape, for_texture, int(conflict.sum()) - for_shape - for_texture)


def shape_bias(predicted_category: ArrayLike, shape: ArrayLike, texture: ArrayLike) -> float:
    """Return shape decisions / (shape + texture decisions) on images where the two differ.

    Parameters
    ----------
    predicted_category
        (n,) category (name or number) that was predicted; see :func:`predict_categories`.
    shape, texture
        (n,) category of the image's shape and of its texture. Images where they agree are left out,
        decisions for neither are ignored.

    Returns
    -------
    float
        In [0, 1]; humans reach about 0.96. No direction is better: it describes.

    Raises
    ------
    UserError
        Where no decision was for shape or texture, there are no rows, or lengths differ.

    References
    ----------
    Geirhos et al., ICLR 2019; code bethgelab/model-vs-human.

    Examples
    --------
    >>> shape_bias(["cat", "dog", "car"], ["cat", "cat", "cat"], ["dog", "dog", "dog"])
    0.5
    """
    return shape_decisions(predicted_category, shape, texture).shape_bias


def shape_bias_by_category(
    predicted_category: ArrayLike, shape: ArrayLike, texture: ArrayLike
) -> dict[str, ShapeDecisions]:
    """Return the decisions on the conflict images of each shape category, by category name."""
    predicted = _categories("predicted_category", predicted_category)
    shapes = _categories("shape", shape, predicted.size)
    textures = _categories("texture", texture, predicted.size)
    answer: dict[str, ShapeDecisions] = {}
    for category in np.unique(shapes):
        rows = shapes == category
        answer[str(category)] = shape_decisions(predicted[rows], shapes[rows], textures[rows])
    return answer


def predict_categories(probabilities: ArrayLike, members: Mapping[str, Sequence[int]]) -> NDArray[np.str_]:
    """Return the category of the highest mean probability over its member classes (1,000 to 16).

    Parameters
    ----------
    probabilities
        (n, C) softmax probabilities over all classes.
    members
        Category name -> class numbers. A category with many classes gains nothing by their number: it is
        their mean that counts, as in model-vs-human. Of equal means the first category wins.

    Raises
    ------
    UserError
        For NaN, inf or numbers outside [0, 1] (the row is named), no categories, or members that are no
        class.
    """
    scores = _checks.probabilities(probabilities)
    if not members:
        raise UserError("no categories were given")
    means = np.empty((scores.shape[0], len(members)))
    for place, (category, numbers) in enumerate(members.items()):
        columns = np.asarray(numbers, np.int64)
        last = scores.shape[1] - 1
        if columns.size == 0 or columns.min() < 0 or columns.max() > last:
            raise UserError(f"category {category!r} needs classes from 0 to {last}; got {list(numbers)}")
        means[:, place] = scores[:, columns].mean(axis=1, dtype=np.float64)
    winners: NDArray[np.str_] = np.asarray(list(members), np.str_)[means.argmax(axis=1)]
    return winners
