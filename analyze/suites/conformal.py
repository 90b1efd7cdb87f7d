"""Conformal sets, fitted on the fit half of the ID set: what they cover and how large they are, there and
elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from analyze.predictions.conformal_sets import METHODS as ORDER
from analyze.predictions.conformal_sets import label_scores
from analyze.suites.accuracy import proportion
from analyze.suites.base import Case, Number, without

METRICS = ("conformal_coverage", "conformal_size")


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
            reason = case.no_calibrator or str(case.summary.facts.get("no_conformal") or "")
            yield from without(METRICS, reason or "needs the big stores: no sets in this summary", **variant)
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
    covered = int((scores <= float(fitted["quantiles"][method])).sum())
    yield replace(proportion(case, "conformal_coverage", covered, len(rows)), **variant)
    mean = float(sizes.mean(dtype=np.float64))
    spread = float(sizes.std(dtype=np.float64)) / np.sqrt(len(rows))
    yield Number(
        metric="conformal_size",
        value=mean,
        low=max(0.0, mean - 1.96 * spread),
        high=mean + 1.96 * spread,
        n=len(rows),
        **variant,
    )
