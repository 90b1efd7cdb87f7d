"""What a conformal promise hides: coverage by class and by size of the set, and p-values of classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from analyze.metrics.conformal import Method, score_rule
from analyze.metrics.spec import Evidence, Metric
from closerlook_common.errors import UserError


@dataclass(frozen=True, eq=False)
class GroupedCoverage:
    """Coverage of groups of images.

    Attributes
    ----------
    groups
        (k,) class numbers, or least sizes of a set.
    counts
        (k,) images of each group, int64.
    coverage
        (k,) share of them whose set holds the label; NaN for a group without images.
    """

    groups: NDArray[np.int64]
    counts: NDArray[np.int64]
    coverage: NDArray[np.float64]

    @property
    def worst(self) -> float:
        """Lowest coverage of a group that has images. Higher is better; in [0, 1]."""
        return float(np.nanmin(self.coverage))

    def gap(self, alpha: float) -> float:
        """Return the mean over groups with images of the size of (coverage - (1 - alpha)). Lower is better.

        By class this is CovGap of Ding et al., NeurIPS 2023; in [0, 1].
        """
        wanted = 1 - _checks.fraction("alpha", alpha, open_ends=True)
        return float(np.nanmean(np.abs(self.coverage - wanted)))

    def largest_violation(self, alpha: float) -> float:
        """Return the largest size of (coverage - (1 - alpha)) of a group with images. Lower is better; in [0, 1].

        By size of the set this is SSCV of Angelopoulos et al., ICLR 2021.
        """
        wanted = 1 - _checks.fraction("alpha", alpha, open_ends=True)
        return float(np.nanmax(np.abs(self.coverage - wanted)))


def _covered(sets: ArrayLike, labels: ArrayLike) -> tuple[_checks.Bools, _checks.Integers, _checks.Bools]:
    inside = _checks.correct_matrix("sets", sets)
    classes = _checks.labels(labels, inside.shape[1], inside.shape[0], other="sets")
    return inside, classes, inside[np.arange(classes.size), classes]


SIZES = (0, 2, 4, 7, 11, 101)
"""Least sizes of the groups of sets: 0-1, 2-3, 4-6, 7-10, 11-100 and more classes."""


def grouped_coverage(covered: ArrayLike, groups: ArrayLike) -> GroupedCoverage:
    """Return the coverage of groups of images.

    Parameters
    ----------
    covered
        (n,) whether each image's set holds its label.
    groups
        (n,) number of each image's group, a class or the place of a size (`size_groups`).

    Raises
    ------
    UserError
        For entries other than in and out, groups that are not integers, no rows, lengths that differ.
    """
    inside = _checks.correct(covered, name="covered")
    given = _checks.whole_numbers("groups", groups)
    _checks.same_length("covered", inside.size, "groups", given.size)
    present, place = np.unique(given, return_inverse=True)
    return _grouped(inside, place, present.astype(np.int64))


def size_groups(sizes: ArrayLike, *, bounds: tuple[int, ...] = SIZES) -> NDArray[np.int64]:
    """Return the group that each set's size falls into, (n,): the least size of the group."""
    limits = _limits(bounds)
    given = _checks.whole_numbers("sizes", sizes)
    if given.min() < 0:
        raise UserError(f"sizes: row {int(np.argmax(given < 0))} is {given.min()}, a negative number of classes")
    return limits[np.searchsorted(limits, given.astype(np.int64), side="right") - 1]


def _limits(bounds: tuple[int, ...]) -> NDArray[np.int64]:
    try:
        entries = list(bounds)
    except TypeError:
        raise UserError(f"bounds must be whole numbers that rise from 0; got {bounds!r}") from None
    limits = np.asarray([_checks.whole_number("bounds", b, least=0) for b in entries], np.int64)
    if not limits.size or limits[0] != 0 or (np.diff(limits) <= 0).any():
        raise UserError(f"bounds must rise from 0; got {bounds!r}")
    return limits


def _grouped(covered: _checks.Bools, place: NDArray[np.int64], groups: NDArray[np.int64]) -> GroupedCoverage:
    counts = np.bincount(place, minlength=groups.size)
    hits = np.bincount(place, weights=covered, minlength=groups.size)
    shares = np.where(counts > 0, hits / np.maximum(counts, 1), np.nan)
    return GroupedCoverage(groups, counts.astype(np.int64), shares)


def coverage_by_class(sets: ArrayLike, labels: ArrayLike) -> GroupedCoverage:
    """Return the coverage of the images of each class.

    Parameters
    ----------
    sets
        (n, C) whether each class is in the set, as :meth:`analyze.metrics.ConformalSets.sets` gives.
    labels
        (n,) class numbers.

    Raises
    ------
    UserError
        For entries other than in and out, labels that are not a class, no rows, lengths that differ.

    References
    ----------
    Ding et al., "Class-conditional conformal prediction with many classes", NeurIPS 2023.

    Examples
    --------
    >>> coverage_by_class([[1, 0], [1, 0], [1, 1]], [0, 1, 1]).coverage.tolist()
    [1.0, 0.5]
    """
    inside, classes, covered = _covered(sets, labels)
    return _grouped(covered, classes, np.arange(inside.shape[1]))


def coverage_by_size(sets: ArrayLike, labels: ArrayLike, *, bounds: tuple[int, ...] = SIZES) -> GroupedCoverage:
    """Return the coverage of images by the size of their set.

    Parameters
    ----------
    sets, labels
        As for `coverage_by_class`.
    bounds
        Least size of each group, rising from 0: by default 0-1, 2-3, 4-6, 7-10, 11-100 and more classes.

    Raises
    ------
    UserError
        As for `coverage_by_class`; for bounds that do not rise from 0.

    References
    ----------
    Angelopoulos et al., "Uncertainty sets for image classifiers using conformal prediction", ICLR 2021.
    """
    limits = _limits(bounds)
    inside, _, covered = _covered(sets, labels)
    place = np.searchsorted(limits, inside.sum(axis=1), side="right") - 1
    return _grouped(covered, place, limits)


def conformal_p_values(
    probabilities: ArrayLike,
    labels: ArrayLike,
    test_probabilities: ArrayLike,
    *,
    method: Method = "lac",
    penalty: float = 0.01,
    free_ranks: int = 5,
    weight: float = 0.02,
    by_class: bool = False,
) -> NDArray[np.float64]:
    """Return the p-value of every class for every test image: a class of p > alpha is in the set of level alpha.

    p = (1 + held-out labels whose score is at least that of the class) / (n + 1). For the true class P(p <= alpha) is
    at most alpha, for images like the held-out ones.

    Parameters
    ----------
    probabilities, labels
        (n, C) and (n,) of the held-out images.
    test_probabilities
        (m, C) of the images in question.
    method, penalty, free_ranks, weight
        As for :func:`analyze.metrics.fit_conformal`.
    by_class
        Compare with held-out images of that class only (Mondrian): the promise then holds within each class.

    Returns
    -------
    ndarray of float64, shape (m, C)
        In (0, 1].

    Raises
    ------
    UserError
        As for :func:`analyze.metrics.fit_conformal`; where the two have other numbers of classes.

    References
    ----------
    Vovk, Gammerman and Shafer, Algorithmic learning in a random world, 2005.
    """
    by_class = _checks.switch("by_class", by_class)
    rule = score_rule(method, penalty=penalty, free_ranks=free_ranks, weight=weight)
    held_out = _checks.probabilities(probabilities)
    scores = rule.label_scores(held_out, labels)
    classes = _checks.labels(labels, held_out.shape[1], held_out.shape[0])
    tested = rule.class_scores(_checks.probabilities(test_probabilities, "test_probabilities"))
    if tested.shape[1] != held_out.shape[1]:
        raise UserError(f"probabilities has {held_out.shape[1]} classes and test_probabilities has {tested.shape[1]}")
    if not by_class:
        return _tail_shares(np.sort(scores), tested)
    return np.column_stack([_tail_shares(np.sort(scores[classes == c]), tested[:, c]) for c in range(tested.shape[1])])


def _tail_shares(ordered: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (1 + scores that are at least each value) / (n + 1)."""
    at_least = ordered.size - np.searchsorted(ordered, values, side="left")
    return np.asarray((1 + at_least) / (ordered.size + 1), np.float64)


ROWS = (
    Metric(
        "conformal_class_gap", "Conformal coverage gap by class", "lower", "fraction",
        evidence=Evidence(
            "mean over classes of |coverage_c - (1 - alpha)|", "Ding et al., NeurIPS 2023",
            "the definition, class by class", "test_conformal_classes.py::test_coverage_by_group_by_loops",
        ),
    ),
    Metric(
        "conformal_worst_class", "Conformal coverage of the worst class", "higher", "fraction",
        evidence=Evidence(
            "min_c coverage_c", "Ding et al., NeurIPS 2023", "the definition, class by class",
            "test_conformal_classes.py::test_coverage_by_group_by_loops",
        ),
    ),
    Metric(
        "conformal_size_violation", "Conformal coverage violation by set size", "lower", "fraction",
        evidence=Evidence(
            "max over strata of set size of |coverage - (1 - alpha)|", "Angelopoulos et al., ICLR 2021",
            "the definition, stratum by stratum", "test_conformal_classes.py::test_coverage_by_group_by_loops",
        ),
    ),
)  # fmt: skip
