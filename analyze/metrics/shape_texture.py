"""Shape or texture: what decides on images whose shape and texture disagree (cue conflict)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from analyze.metrics.spec import Evidence, Metric
from closerlook_common.errors import UserError


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
    predicted = _checks.names("predicted_category", predicted_category)
    shapes = _checks.names("shape", shape, predicted.size, "predicted_category")
    textures = _checks.names("texture", texture, predicted.size, "predicted_category")
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
    predicted = _checks.names("predicted_category", predicted_category)
    shapes = _checks.names("shape", shape, predicted.size, "predicted_category")
    textures = _checks.names("texture", texture, predicted.size, "predicted_category")
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
        columns = _checks.labels(numbers, scores.shape[1], name=f"category {category!r}")
        means[:, place] = scores[:, columns].mean(axis=1, dtype=np.float64)
    winners: NDArray[np.str_] = np.asarray(list(members), np.str_)[means.argmax(axis=1)]
    return winners


ROWS = (
    Metric(
        "shape_bias", "Shape bias", "none", "fraction", columns=("predicted_category", "shape", "texture"),
        function=shape_bias, version=2,
        evidence=Evidence(
            "shape decisions / (shape + texture decisions), where the two differ", "Geirhos et al., ICLR 2019",
            "the definition, image by image",
        ),
    ),
    Metric(
        "shape_share", "Shape decisions", "none", "fraction", version=2,
        evidence=Evidence(
            "shape decisions / conflict images", "Geirhos et al., ICLR 2019", "counts by hand",
            "test_metrics_other.py::test_shape_bias_counts_conflicts_only",
        ),
    ),
    Metric(
        "texture_share", "Texture decisions", "none", "fraction", version=2,
        evidence=Evidence(
            "texture decisions / conflict images", "Geirhos et al., ICLR 2019", "counts by hand",
            "test_metrics_other.py::test_shape_bias_counts_conflicts_only",
        ),
    ),
)  # fmt: skip
