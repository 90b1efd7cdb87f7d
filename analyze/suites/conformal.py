"""Conformal sets, fitted on the fit half of the ID set: what they cover and how large they are, there and
elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze import metrics
from analyze.annotations.clips import clips_of
from analyze.fits.conformal import METHODS as ORDER
from analyze.fits.conformal import label_scores
from analyze.fits.registry import FITS
from analyze.intervals import normal_reach
from analyze.intervals.means import clustered_standard_error
from analyze.suites.accuracy import of_rows
from analyze.suites.base import Case, Number, without, without_interval

METRICS = ("conformal_coverage", "conformal_size")
GROUPED = ("conformal_class_gap", "conformal_worst_class", "conformal_size_violation")
"""Metrics that ``[conformal] groups`` asks for."""


def run(case: Case) -> Iterator[Number]:
    """Yield coverage and mean size by method; on the ID set of the held-out rows."""
    options = case.settings["conformal"]
    fitted = case.summary.facts.get("conformal")
    for method in options["methods"]:
        variant: dict[str, Any] = {
            "score": method,
            "calibrator": "conformal",
            "id_dataset": case.calibrated_on,
            "options": {"alpha": options["alpha"], **case.settings.changed("split")}
            | (case.settings.changed("conformal", "raps_penalty", "raps_k") if method == "raps" else {}),
        }
        if not fitted or method not in fitted.get("quantiles", {}):
            reason = case.unfitted or case.summary.reason("conformal") or FITS["conformal"].absent
            yield from without(METRICS, reason, **variant)
            continue
        yield from _one(case, method, fitted, variant)


def _one(case: Case, method: str, fitted: dict[str, Any], variant: dict[str, Any]) -> Iterator[Number]:
    rows = case.summary.rows(case.summary.labelled & case.held_out)
    try:
        scores = label_scores(
            method,
            rows["label_log_probability"],
            rows["label_mass"],
            rows["label_count"],
            penalty=fitted["penalty"],
            free_ranks=fitted["free_ranks"],
        )
        sizes = rows["set_sizes"][:, ORDER.index(method)]
    except ValueError as error:
        yield from without(METRICS, str(error), **variant)
        return
    covered = scores <= float(fitted["quantiles"][method])
    yield replace(of_rows(case, "conformal_coverage", covered, rows), **variant)
    mean = float(sizes.mean(dtype=np.float64))
    number = Number(metric="conformal_size", value=mean, n=len(rows), **variant)
    spread = clustered_standard_error(sizes.astype(np.float64), clips_of(rows.metadata))
    level = case.settings["accuracy"]["confidence_level"]
    if np.isfinite(spread):
        reach = normal_reach(level) * spread
        yield replace(number, low=max(0.0, mean - reach), high=mean + reach, interval=f"wald {100 * level:g} %")
    else:
        yield without_interval(number, "all images are frames of one clip")
    if case.settings["conformal"]["groups"]:
        yield from _grouped(case, covered, rows["label"].astype(np.int64), sizes, **variant)


def _grouped(
    case: Case, covered: NDArray[np.bool_], labels: NDArray[np.int64], sizes: NDArray[Any], **variant: Any
) -> Iterator[Number]:
    """Yield how far the coverage of single classes, and of sets of like size, is from the promise."""
    alpha = case.settings["conformal"]["alpha"]
    by_class = metrics.grouped_coverage(covered, labels)
    by_size = metrics.grouped_coverage(covered, metrics.size_groups(sizes))
    for metric, value, reason in (
        ("conformal_class_gap", by_class.gap(alpha), "biased upward where classes have few images"),
        ("conformal_worst_class", by_class.worst, "its class is chosen by the images that it is measured on"),
        ("conformal_size_violation", by_size.largest_violation(alpha), "its size is chosen by the same images"),
    ):
        yield without_interval(Number(metric=metric, value=value, n=covered.size, **variant), reason)
