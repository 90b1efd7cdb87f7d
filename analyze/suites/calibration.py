"""Calibration of the prediction's confidence and proper scores, before and after the calibrators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze import metrics
from analyze.confidence_maps import fit_confidence_map
from analyze.suites.base import Case, Number, attempt, without
from analyze.summaries import Summary

CONFIDENCE_METRICS = ("ece", "ece_mass", "ece_l2", "mce", "calibration_gap", "ks_error", "smece")
METRICS = (*CONFIDENCE_METRICS, "nll", "brier", "classwise_ece", "temperature")


def run(case: Case) -> Iterator[Number]:
    """Yield calibration of all rows, of the held-out rows, and of these after each calibrator."""
    rows = case.labelled()
    if not len(rows):
        yield from without(
            METRICS[:-1], f"dataset {case.summary.dataset.id} has no labelled image that could be read"
        )
        return
    yield from _plain(case, rows, "", "classwise")
    held_out = case.summary.rows(case.summary.labelled & case.held_out)
    if case.is_fit_set:
        # The same rows as the calibrated numbers, so that before and after can be compared.
        yield from _plain(case, held_out, "held-out", "classwise_held_out")
    for method in case.settings["calibrators"]["methods"]:
        if case.no_calibrator:
            yield from without(
                ("ece", "nll"), case.no_calibrator, calibrator=method, id_dataset=case.calibrated_on
            )
        elif method == "temperature":
            yield from _temperature(case, held_out)
        else:
            yield from _confidence_map(case, held_out, method)


def of_confidences(
    case: Case, confidences: NDArray[Any], correct: NDArray[np.bool_], **variant: Any
) -> Iterator[Number]:
    """Yield every calibration number of confidences and correctness."""
    options = case.settings["calibration"]
    bins = case.settings.changed("calibration", "bins")
    told = variant.pop("options", {})

    def number(metric: str, compute: Callable[[], float], options: dict[str, Any]) -> Number:
        return attempt(metric, compute, n=confidences.size, options={**told, **options}, **variant)

    def ece(**how: Any) -> Callable[[], float]:
        return lambda: metrics.expected_calibration_error(confidences, correct, **how)

    width = int(options["bins"])
    yield number("ece", ece(n_bins=width), bins)
    for k, n_bins in enumerate(options["mass_bins"]):
        yield number(
            "ece_mass",
            ece(n_bins=n_bins, binning="mass"),
            {} if k == 0 and n_bins == 15 else {"n_bins": n_bins},
        )
    yield number("ece_l2", ece(n_bins=width, norm="l2", debias=True), bins)
    yield number("mce", lambda: metrics.maximum_calibration_error(confidences, correct, n_bins=width), bins)
    yield number("calibration_gap", lambda: metrics.signed_calibration_gap(confidences, correct), {})
    yield number("ks_error", lambda: metrics.ks_calibration_error(confidences, correct), {})
    kernel = options["smece_kernel"]
    yield number(
        "smece",
        lambda: metrics.smooth_calibration_error(confidences, correct, kernel=kernel),
        case.settings.changed("calibration", "smece_kernel"),
    )


@dataclass(frozen=True)
class _Columns:
    """Which columns hold the probabilities of a variant."""

    prefix: str = ""

    def of(self, rows: Summary, name: str) -> NDArray[Any]:
        return rows[self.prefix + name]


def _plain(case: Case, rows: Summary, subset: str, aggregate: str) -> Iterator[Number]:
    yield from _probabilities(case, rows, _Columns(), aggregate, subset=subset)


def _probabilities(
    case: Case, rows: Summary, columns: _Columns, aggregate: str, **variant: Any
) -> Iterator[Number]:
    correct = rows["label_rank"] == 0
    n = len(rows)
    try:
        confidences = np.minimum(columns.of(rows, "confidence").astype(np.float64), 1.0)
    except ValueError as error:
        yield from without(METRICS[:-1], str(error), **variant)
        return
    yield from of_confidences(case, confidences, correct, **dict(variant))
    yield attempt("nll", lambda: nll(columns.of(rows, "label_log_probability")), n=n, **variant)
    yield attempt(
        "brier",
        lambda: brier(columns.of(rows, "sum_squares"), columns.of(rows, "label_log_probability")),
        n=n,
        **variant,
    )
    yield _classwise(case, aggregate, **variant)


def nll(label_log_probability: NDArray[Any]) -> float:
    """Return the mean negative log-likelihood in nats; inf where a label had probability 0."""
    return -float(label_log_probability.mean(dtype=np.float64))


def brier(sum_squares: NDArray[Any], label_log_probability: NDArray[Any]) -> float:
    """Return the mean over rows of the squared distance to the one-hot label, in [0, 2]."""
    p = np.exp(label_log_probability.astype(np.float64))
    return float((sum_squares - 2.0 * p + 1.0).mean(dtype=np.float64))


def _classwise(case: Case, aggregate: str, **variant: Any) -> Number:
    found = case.summary.facts.get("aggregates", {}).get(aggregate)
    options = {**variant.pop("options", {}), **case.settings.changed("calibration", "classwise_bins")}
    if found is None:
        bins = case.settings["calibration"]["classwise_bins"]
        reason = (
            "left out: classwise_bins = 0"
            if not bins
            else "needs all probabilities: compute it from the big store"
        )
        return Number(metric="classwise_ece", reason=reason, options=options, **variant)
    return Number(
        metric="classwise_ece",
        value=float(found["classwise_ece"]),
        n=int(found["n"]),
        options=options,
        **variant,
    )


def _split_options(case: Case) -> dict[str, Any]:
    return case.settings.changed("split")


def _temperature(case: Case, rows: Summary) -> Iterator[Number]:
    variant: dict[str, Any] = {
        "calibrator": "temperature",
        "id_dataset": case.calibrated_on,
        "options": _split_options(case),
    }
    temperature = case.summary.facts.get("temperature")
    if temperature is None:
        yield from without(
            ("temperature", "ece", "nll"), case.no_temperature or "no temperature was fitted", **variant
        )
        return
    if case.is_fit_set:
        split = case.summary.facts.get("split", {})
        told = variant | {
            "options": {**case.settings["split"], **case.settings.changed("calibrators", "bounds")}
        }
        yield Number(metric="temperature", value=float(temperature), n=split.get("n"), **told)
    yield from _probabilities(case, rows, _Columns("scaled_"), "classwise_scaled", **variant)


def _confidence_map(case: Case, rows: Summary, method: str) -> Iterator[Number]:
    variant: dict[str, Any] = {
        "calibrator": method,
        "id_dataset": case.calibrated_on,
        "options": _split_options(case),
    }
    fit = case.fit_columns
    if fit is None:
        yield from without(CONFIDENCE_METRICS, "the rows it would be fitted on are not at hand", **variant)
        return
    try:
        mapping = fit_confidence_map(method, *fit, n_bins=case.settings["calibrators"]["histogram_bins"])
    except ValueError as error:
        yield from without(CONFIDENCE_METRICS, str(error), **variant)
        return
    calibrated = mapping.apply(rows["confidence"].astype(np.float64))
    yield from of_confidences(case, calibrated, rows["label_rank"] == 0, **variant)
