"""Conformal sets, fitted on the fit half of the ID set: what they cover and how large they are, there and
elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze import metrics
from analyze.annotations.clips import clips_of
from analyze.fits.conformal import ALL_METHODS, label_scores
from analyze.fits.conformal import METHODS as ORDER
from analyze.fits.registry import FITS
from analyze.intervals import normal_reach
from analyze.intervals.means import clustered_standard_error
from analyze.predictions.summaries import Summary
from analyze.suites.accuracy import of_rows
from analyze.suites.base import Case, Number, without, without_interval

METRICS = ("conformal_coverage", "conformal_size")
GROUPED = ("conformal_class_gap", "conformal_worst_class", "conformal_size_violation")
"""Metrics that ``[conformal] groups`` asks for."""


CALIBRATORS: Mapping[str, str] = {"all": "conformal", "class": "conformal-class", "clustered": "conformal-clustered"}
"""Word of ``[conformal] quantiles`` -> fit, and the column ``calibrator`` of its rows."""
OWN_OPTIONS: Mapping[str, tuple[str, ...]] = {"raps": ("raps_penalty", "raps_k"), "saps": ("saps_weight",)}


def run(case: Case) -> Iterator[Number]:
    """Yield coverage and mean size by kind of quantile and method; on the ID set of the held-out rows."""
    options = case.settings["conformal"]
    for kind in options["quantiles"]:
        for method in options["methods"]:
            own = OWN_OPTIONS.get(method)
            variant: dict[str, Any] = {
                "score": method,
                "calibrator": CALIBRATORS[kind],
                "id_dataset": case.calibrated_on,
                "options": {"alpha": options["alpha"], **case.settings.changed("split")}
                | (case.settings.changed("conformal", *own) if own else {}),
            }
            if reason := _why_not(case, kind, method):
                yield from without(METRICS, reason, **variant)
            else:
                yield from _one(case, kind, method, variant)


def _why_not(case: Case, kind: str, method: str) -> str:
    """Return why there are no sets; empty where there are some."""
    name = CALIBRATORS[kind]
    fitted = case.summary.facts.get(FITS[name].fact)
    held = fitted and method in (fitted["quantiles"] if kind == "all" else fitted["always_in"])
    return "" if held else case.unfitted or case.summary.reason(name) or FITS[name].absent


def _sets(case: Case, kind: str, method: str, rows: Summary) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Return whether the set of each row holds the label, and its size, (n,) each."""
    if kind != "all":
        prefix, column = FITS[CALIBRATORS[kind]].gives[0], ALL_METHODS.index(method)
        return rows[f"{prefix}inside"][:, column] == 1, rows[f"{prefix}sizes"][:, column]
    fitted = case.summary.facts["conformal"]
    largest = float(fitted["quantiles"][method])
    if method == "saps":
        return rows["saps_score"] <= largest, rows["saps_size"]
    scores = label_scores(
        method,
        rows["label_log_probability"],
        rows["label_mass"],
        rows["label_count"],
        penalty=fitted["penalty"],
        free_ranks=fitted["free_ranks"],
    )
    return scores <= largest, rows["set_sizes"][:, ORDER.index(method)]


def _one(case: Case, kind: str, method: str, variant: dict[str, Any]) -> Iterator[Number]:
    rows = case.summary.rows(case.summary.labelled & case.held_out)
    try:
        covered, sizes = _sets(case, kind, method, rows)
    except ValueError as error:
        yield from without(METRICS, str(error), **variant)
        return
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
