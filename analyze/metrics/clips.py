"""Accuracy on frames of videos: over anchor frames with their neighbours, with intervals over clips."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from analyze.metrics.proportions import Interval, clopper_pearson_interval, proportion_interval, wilson_interval
from analyze.metrics.spec import Evidence, Metric


def anchors_right(correct: ArrayLike, anchors: ArrayLike) -> NDArray[np.bool_]:
    """Return for each anchor, in the order of their sorted names, whether all of its frames are right.

    Parameters
    ----------
    correct
        (n,) whether the prediction of each frame was right.
    anchors
        (n,) name of the anchor frame that a frame belongs to; an anchor belongs to itself.

    Raises
    ------
    UserError
        For entries other than right and wrong, no rows, and lengths that differ.
    """
    right = _checks.correct(correct)
    names = _checks.names("anchors", anchors, right.size, "correct")
    _, group = np.unique(names.astype(str), return_inverse=True)
    wrong = np.bincount(group[~right], minlength=int(group.max()) + 1)
    whole: NDArray[np.bool_] = wrong == 0
    return whole


def anchor_accuracy(correct: ArrayLike, anchors: ArrayLike) -> float:
    """Return the share of anchor frames that are right together with all their neighbours. Higher is better; in [0, 1].

    The pm-k accuracy of Shankar et al., Do Image Classifiers Generalize Across Time?, ICCV 2021: the worst frame of a
    neighbourhood counts. Parameters and errors as of ``anchors_right``.

    Examples
    --------
    >>> anchor_accuracy([True, True, True, False], ["a", "a", "b", "b"])
    0.5
    """
    return float(anchors_right(correct, anchors).mean())


def clustered_proportion_interval(
    right: ArrayLike,
    clusters: ArrayLike,
    *,
    level: float = 0.95,
    method: Literal["wilson", "clopper-pearson"] = "wilson",
) -> Interval:
    """Return the interval of a share whose rows come in clusters, such as frames of a clip.

    The interval of ``proportion_interval`` at the number of independent rows that would be as sure: the variance of the
    share is estimated from the clusters (the sandwich estimator with its G / (G - 1) correction), and never taken for
    less than that of independent rows (Korn and Graubard, Survey Methodology 24, 1998).

    Parameters
    ----------
    right
        (n,) whether each row is right.
    clusters
        (n,) the cluster of each row.
    level, method
        See ``proportion_interval``.

    Raises
    ------
    UserError
        For entries other than right and wrong, no rows, and lengths that differ.
    """
    _checks.choice("method", method, ("wilson", "clopper-pearson"))
    hits = _checks.correct(right)
    names = _checks.names("clusters", clusters, hits.size, "right")
    _, group = np.unique(names, return_inverse=True)
    n, n_clusters = hits.size, int(group.max()) + 1
    successes = int(np.count_nonzero(hits))
    if n_clusters == n:
        return proportion_interval(successes, n, level=level, method=method)
    share = successes / n
    if share in (0.0, 1.0) or n_clusters == 1:
        independent = float(n_clusters)
    else:
        sums = np.bincount(group, weights=hits - share)
        variance = float((sums**2).sum()) / n**2 * n_clusters / (n_clusters - 1)
        independent = min(float(n), share * (1 - share) / variance) if variance > 0 else float(n)
    made = wilson_interval if method == "wilson" else clopper_pearson_interval
    return made(share * independent, independent, level=level)


ROWS = (
    Metric(
        "anchor_accuracy", "Accuracy of anchors with all neighbours", "higher", "share",
        columns=("correct", "anchors"), function=anchor_accuracy, version=6,
        evidence=Evidence(
            "mean over anchors of [all frames of the anchor are right]", "Shankar et al., ICCV 2021",
            "the definition, anchor by anchor", "test_clips.py::test_an_anchor_is_right_with_all_of_its_frames",
        ),
    ),
)  # fmt: skip
