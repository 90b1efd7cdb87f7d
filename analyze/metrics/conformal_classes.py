"""Conformal sets whose promise holds within classes: a quantile for every class, or for clusters of like classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from analyze.metrics.conformal import ConformalSets, Method, score_rule, upper_quantile
from closerlook_common.errors import UserError

QUANTILE_LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""A class is described to the clustering by these quantiles of its labels' scores, and that of 1 - alpha."""
_STARTS, _ROUNDS = 10, 100


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassConformalSets:
    """A fitted conformal predictor with a quantile for each class.

    Attributes
    ----------
    rule
        How classes are scored.
    quantiles
        (C,) largest score with which each class is let in; inf where there were too few images.
    groups
        (C,) number of the group of classes that shares a quantile; -1 for those that have the quantile of all images.
    n
        Images it was fitted on.
    """

    rule: ConformalSets
    quantiles: NDArray[np.float64]
    groups: NDArray[np.int64]
    n: int

    def sets(self, probabilities: ArrayLike) -> NDArray[np.bool_]:
        """Return the prediction sets, (n, C) booleans."""
        scores = self.rule.class_scores(probabilities)
        if scores.shape[1] != self.quantiles.size:
            raise UserError(
                f"probabilities has {scores.shape[1]} classes; the sets were fitted on {self.quantiles.size}"
            )
        inside: NDArray[np.bool_] = scores <= self.quantiles
        return inside

    def coverage(self, probabilities: ArrayLike, labels: ArrayLike) -> float:
        """Return the share of images whose set holds the label."""
        inside = self.sets(probabilities)
        classes = _checks.labels(labels, inside.shape[1], inside.shape[0])
        return int(np.count_nonzero(inside[np.arange(classes.size), classes])) / classes.size

    def mean_size(self, probabilities: ArrayLike) -> float:
        """Return the mean number of classes in a set. Lower is better, at equal coverage."""
        return float(self.sets(probabilities).sum(axis=1).mean())


def fit_class_conformal(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    method: Method = "lac",
    alpha: float = 0.1,
    penalty: float = 0.01,
    free_ranks: int = 5,
    weight: float = 0.02,
) -> ClassConformalSets:
    """Fit class-conditional conformal sets: each class has the quantile of its own images.

    Coverage of at least 1 - alpha is promised for the images of every class. A class of fewer than 1 / alpha - 1 images
    enters every set: with few images a class the sets are large, see `fit_clustered_conformal`.

    Parameters
    ----------
    probabilities, labels, method, alpha, penalty, free_ranks, weight
        As for :func:`analyze.metrics.fit_conformal`.

    Raises
    ------
    UserError
        As there.

    References
    ----------
    Vovk, Conditional validity of inductive conformal predictors, 2012; Sadinle, Lei and Wasserman, 2019.
    """
    rule, scores, classes, n_classes = _scored(probabilities, labels, method, alpha, penalty, free_ranks, weight)
    return class_sets(rule, scores, classes, n_classes)


def class_sets(
    rule: ConformalSets, scores: NDArray[np.float64], classes: NDArray[np.int64], n_classes: int
) -> ClassConformalSets:
    """Return class-conditional sets of the scores of labels.

    Parameters
    ----------
    rule
        How they were scored.
    scores, classes
        (n,) scores of the labels, and the labels.
    n_classes
        Number of classes.
    """
    groups = np.arange(n_classes)
    quantiles = _quantiles(scores, classes, groups, rule.alpha)
    return ClassConformalSets(rule=rule, quantiles=quantiles, groups=groups, n=scores.size)


def fit_clustered_conformal(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    method: Method = "lac",
    alpha: float = 0.1,
    penalty: float = 0.01,
    free_ranks: int = 5,
    weight: float = 0.02,
    n_clusters: int | None = None,
    fraction: float | None = None,
    seed: int = 0,
) -> ClassConformalSets:
    """Fit clustered conformal sets: classes whose scores are alike share a quantile.

    One part of the images finds the clusters (k-means of the quantiles of each class's scores, weighted by the square
    root of its images), the other the quantile of each cluster. Classes with too few images for their own quantiles
    (fewer than 1 / alpha - 1) have the quantile of all images.

    Parameters
    ----------
    probabilities, labels, method, alpha, penalty, free_ranks, weight
        As for :func:`analyze.metrics.fit_conformal`.
    n_clusters, fraction
        Clusters, and share of the images that finds them. None: the authors' rule of the rarest clustered class, of m
        images, and the number k of these classes: fraction k / (75 + k), m x fraction / 2 clusters, at least one.
    seed
        Of the division and of k-means. Equal arguments give equal sets.

    Raises
    ------
    UserError
        As for :func:`analyze.metrics.fit_conformal`; a fraction outside (0, 1); where no class has enough images.

    References
    ----------
    Ding et al., "Class-conditional conformal prediction with many classes", NeurIPS 2023.
    """
    rule, scores, classes, n_classes = _scored(probabilities, labels, method, alpha, penalty, free_ranks, weight)
    return clustered_sets(rule, scores, classes, n_classes, n_clusters=n_clusters, fraction=fraction, seed=seed)


def clustered_sets(
    rule: ConformalSets,
    scores: NDArray[np.float64],
    classes: NDArray[np.int64],
    n_classes: int,
    *,
    n_clusters: int | None = None,
    fraction: float | None = None,
    seed: int = 0,
) -> ClassConformalSets:
    """Return clustered sets of the scores of labels: arguments of `class_sets`, then of `fit_clustered_conformal`."""
    counts = np.bincount(classes, minlength=n_classes)
    enough = counts >= 1 / rule.alpha - 1
    if not enough.any():
        raise UserError(f"no class has the {int(np.ceil(1 / rule.alpha - 1))} images that a cluster is found with")
    rarest, kept = int(counts[enough].min()), int(enough.sum())
    share = kept / (75 + kept) if fraction is None else _checks.fraction("fraction", fraction, open_ends=True)
    clusters = max(1, int(rarest * share / 2)) if n_clusters is None else _checks.whole_number("n_clusters", n_clusters)
    rng = np.random.default_rng(_checks.whole_number("seed", seed, least=0, most=2**63 - 1))
    finding = rng.random(scores.size) < share
    levels = [*QUANTILE_LEVELS, 1 - rule.alpha]
    found = [c for c in np.flatnonzero(enough).tolist() if (finding & (classes == c)).sum() >= 1 / rule.alpha - 1]
    groups = np.full(n_classes, -1)
    if found:
        points = np.array([np.quantile(scores[finding & (classes == c)], levels) for c in found])
        mass = np.sqrt([np.count_nonzero(finding & (classes == c)) for c in found])
        groups[found] = _k_means(points, mass, min(clusters, len(found)), rng)
    fitting = ~finding
    quantiles = _quantiles(scores[fitting], classes[fitting], groups, rule.alpha)
    return ClassConformalSets(rule=rule, quantiles=quantiles, groups=groups, n=scores.size)


def _scored(
    probabilities: ArrayLike, labels: ArrayLike, method: Method, *options: float
) -> tuple[ConformalSets, NDArray[np.float64], NDArray[np.int64], int]:
    alpha, penalty, free_ranks, weight = options
    rule = score_rule(method, alpha=alpha, penalty=penalty, free_ranks=free_ranks, weight=weight)  # type: ignore[arg-type]
    rows = _checks.probabilities(probabilities)
    scores = rule.label_scores(rows, labels)
    return rule, scores, _checks.labels(labels, rows.shape[1], rows.shape[0]), rows.shape[1]


def _quantiles(
    scores: NDArray[np.float64], classes: NDArray[np.int64], groups: NDArray[np.int64], alpha: float
) -> NDArray[np.float64]:
    """Return the quantile of each class: of the images of its group, of all images where it has none (-1)."""
    of_rows = groups[classes]
    found = np.full(groups.size, upper_quantile(scores, alpha))
    for group in np.unique(groups[groups >= 0]).tolist():
        found[groups == group] = upper_quantile(scores[of_rows == group], alpha)
    return found


def _k_means(
    points: NDArray[np.float64], mass: NDArray[np.float64], k: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the cluster of each weighted point: the best of several k-means++ starts."""
    best, least = np.zeros(len(points), np.int64), np.inf
    for _ in range(_STARTS):
        centers = points[rng.choice(len(points), 1, p=mass / mass.sum())]
        while len(centers) < k:
            away = mass * ((points[:, None] - centers) ** 2).sum(axis=2).min(axis=1)
            if not away.any():
                break
            centers = np.concatenate([centers, points[rng.choice(len(points), 1, p=away / away.sum())]])
        for _ in range(_ROUNDS):
            distance = ((points[:, None] - centers) ** 2).sum(axis=2)
            nearest = distance.argmin(axis=1)
            moved = centers.copy()
            for c in np.unique(nearest):
                own = nearest == c
                moved[c] = np.average(points[own], axis=0, weights=mass[own])
            if np.array_equal(moved, centers):
                break
            centers = moved
        spread = float((mass * distance.min(axis=1)).sum())
        if spread < least:
            best, least = nearest, spread
    return best
