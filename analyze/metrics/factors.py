"""Accuracy and error ratio by visual factor or any other annotation, and what few images cannot decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from analyze.metrics.proportions import wilson_interval
from analyze.metrics.spec import INFINITY, Evidence, Metric
from closerlook_common.errors import UserError


@dataclass(frozen=True)
class FactorResult:
    """One factor's numbers.

    Attributes
    ----------
    factor
        Its name.
    n
        Images that have it.
    accuracy
        Share of them that was right; higher is better.
    low, high
        Wilson interval of the accuracy.
    error_ratio
        (1 - accuracy) / (1 - overall accuracy): above 1 the factor is harder than the whole. NaN where the
        whole has no error.
    decided
        Whether the interval leaves the overall accuracy out, so that "harder" or "easier" is more than
        chance.
    """

    factor: str
    n: int
    accuracy: float
    low: float
    high: float
    error_ratio: float
    decided: bool


def factor_accuracy(correct: ArrayLike, member: ArrayLike) -> float:
    """Return the share of right rows among those that have the factor. Higher is better; in [0, 1].

    Source: ImageNet-X (Idrissi et al., ICLR 2023).

    Parameters
    ----------
    correct
        (n,) whether the prediction was right, over the annotated images.
    member
        (n,) whether the image has the factor.

    Raises
    ------
    UserError
        Where no image has it, or lengths differ.
    """
    right = _checks.correct(correct)
    rows = _checks.correct(member, right.size, name="member", other="correct")
    if not rows.any():
        raise UserError("no image has this factor: its accuracy is undefined")
    return int(np.count_nonzero(right & rows)) / int(np.count_nonzero(rows))


def error_ratio(correct: ArrayLike, member: ArrayLike) -> float:
    """Return (1 - factor accuracy) / (1 - accuracy over all rows given). Lower is better; 1 is no harder; in [0, inf).

    All rows given are the annotated images without prototypes, as in ImageNet-X (Idrissi et al., ICLR
    2023), not the whole validation set. Parameters and errors as for :func:`factor_accuracy`; also where
    there is no error at all.
    """
    right = _checks.correct(correct)
    inside = factor_accuracy(right, member)
    if right.all():
        raise UserError("no row is wrong: the error ratio is undefined")
    return (1 - inside) / (1 - int(np.count_nonzero(right)) / right.size)


def factor_results(
    correct: ArrayLike, members: Mapping[str, ArrayLike], *, level: float = 0.95
) -> tuple[FactorResult, ...]:
    """Return the numbers of every factor that has images, in the order given.

    Parameters
    ----------
    correct
        (n,) whether the prediction was right, over the annotated images.
    members
        Factor -> (n,) whether the image has it; an image may have several.
    level
        Coverage of the intervals.
    """
    right = _checks.correct(correct)
    overall = int(np.count_nonzero(right)) / right.size
    results = []
    for factor, member in members.items():
        rows = _checks.correct(member, right.size, name=factor, other="correct")
        n = int(np.count_nonzero(rows))
        if n == 0:
            continue
        hits = int(np.count_nonzero(right & rows))
        interval = wilson_interval(hits, n, level=level)
        ratio = (1 - hits / n) / (1 - overall) if overall < 1 else float("nan")
        decided = not interval.low <= overall <= interval.high
        results.append(FactorResult(factor, n, hits / n, interval.low, interval.high, ratio, decided))
    return tuple(results)


def worst_factor(results: Sequence[FactorResult]) -> FactorResult:
    """Return the factor of lowest accuracy; the first of several."""
    if not results:
        raise UserError("no factor has images, so there is no worst one")
    return min(results, key=lambda result: result.accuracy)


def factor_accuracy_matrix(correct: ArrayLike, members: ArrayLike) -> NDArray[np.float64]:
    """Return the accuracy of every model on every factor by one matrix product.

    Parameters
    ----------
    correct
        (models, n) whether each was right.
    members
        (n, factors) whether the image has the factor.

    Returns
    -------
    ndarray of shape (models, factors)
        NaN in the column of a factor without images.
    """
    right, rows = _checks.correct_matrix("correct", correct), _checks.correct_matrix("members", members)
    if right.shape[1] != rows.shape[0]:
        raise UserError(f"correct is {right.shape}, members {rows.shape}: give (models, n) and (n, factors)")
    if right.shape[1] >= 1 << 24:
        raise UserError("more than 16,777,215 images: give them in parts")
    counts = rows.sum(axis=0)
    # Whole numbers below 2^24: exact in float32.
    hits = right.astype(np.float32) @ rows.astype(np.float32)
    return np.where(counts > 0, hits / np.maximum(counts, 1), np.nan)


ROWS = (
    Metric(
        "factor_accuracy", "Factor accuracy", "higher", "share", columns=("correct", "member"),
        function=factor_accuracy, version=5,
        evidence=Evidence(
            "mean of y_i over images that have the factor", "Idrissi et al., ICLR 2023 (ImageNet-X)", "numpy masks",
        ),
    ),
    Metric(
        "worst_factor_accuracy", "Worst-factor accuracy", "higher", "share", version=5,
        evidence=Evidence(
            "min over factors with enough images of the factor accuracy", "Idrissi et al., ICLR 2023 (ImageNet-X)",
            "numpy masks", "test_metrics_other.py::test_factors_equal_the_masks",
        ),
    ),
    Metric(
        "error_ratio", "Error ratio", "lower", high=INFINITY, columns=("correct", "member"), function=error_ratio,
        version=5,
        evidence=Evidence(
            "(1 - factor accuracy) / (1 - accuracy over the annotated images)",
            "Idrissi et al., ICLR 2023 (ImageNet-X)", "numpy masks",
        ),
    ),
)  # fmt: skip
