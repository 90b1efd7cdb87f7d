"""Calibration of the prediction's confidence and proper scores, before and after the calibrators."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze import metrics
from analyze.annotations.label_sets import NO_LIKELIHOOD
from analyze.calibrators.confidence_maps import fit_confidence_map
from analyze.intervals.ranking import Binning, CalibrationReplicates, Ranking
from analyze.intervals.replicates import mean_replicates, smooth_replicates
from analyze.predictions.summaries import Summary
from analyze.suites.accuracy import proportion
from analyze.suites.base import Case, Number, attempt, bounded, confidences_of, without

CONFIDENCE_METRICS = (
    "ece",
    "ece_mass",
    "ece_mass100",
    "ece_l2_debiased",
    "mce",
    "calibration_gap",
    "ks_error",
    "smece",
)
OF_PROBABILITIES = (*CONFIDENCE_METRICS, "nll", "brier", "classwise_ece")
METRICS = (*OF_PROBABILITIES, "temperature", "vector_scale")


def run(case: Case) -> Iterator[Number]:
    """Yield calibration of all rows, of the held-out rows, and of these after each calibrator."""
    rows = case.labelled()
    if not len(rows):
        reason = f"dataset {case.summary.dataset.id} has no labelled image that could be read"
        yield from without(OF_PROBABILITIES, reason)
        return
    yield from _plain(case, rows, "", "classwise")
    held_out = case.summary.rows(case.summary.labelled & case.held_out)
    if case.is_fit_set:
        # The same rows as the calibrated numbers, so that before and after can be compared.
        yield from _plain(case, held_out, "held-out", "classwise_held_out")
    for method in case.settings["calibrators"]["methods"]:
        if case.no_calibrator:
            yield from without(("ece", "nll"), case.no_calibrator, calibrator=method, id_dataset=case.calibrated_on)
        elif method == "temperature":
            yield from _temperature(case, held_out)
        elif method == "vector":
            yield from _vector(case, held_out)
        else:
            yield from _confidence_map(case, held_out, method)


def of_confidences(
    case: Case,
    confidences: NDArray[Any],
    correct: NDArray[np.bool_],
    ranking: Callable[[], Ranking] | None = None,
    **variant: Any,
) -> Iterator[Number]:
    """Yield every calibration number of confidences and correctness; ``ranking`` where they are sorted already."""
    options = case.settings["calibration"]
    bins = case.settings.changed("calibration", "bins")
    told = variant.pop("options", {})
    width = int(options["bins"])
    eces: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {"ece": (bins, {"n_bins": width})}
    for n_bins in options["mass_bins"]:
        eces["ece_mass" if n_bins == 15 else f"ece_mass{n_bins}"] = ({}, {"n_bins": n_bins, "binning": "mass"})
    eces["ece_l2_debiased"] = (bins, {"n_bins": width, "binning": "mass", "norm": "l2", "debias": True})
    eces["mce"] = (bins, {"n_bins": width, "norm": "max"})
    ranked = functools.cache(ranking or (lambda: Ranking(confidences, correct)))
    binnings = [Binning(how["n_bins"], how.get("binning", "width")) for _, how in eces.values()]
    found: dict[str, CalibrationReplicates] = {}

    def walked(weights: Any) -> CalibrationReplicates:
        # One walk for all of them.
        if "all" not in found:
            found["all"] = ranked().calibration_replicates(weights, binnings)
        return found["all"]

    def number(metric: str, name: str, changed: dict[str, Any], ask: dict[str, Any], **how: Any) -> Number:
        def compute() -> float:
            return float(getattr(ranked(), name)(**ask))

        def replicates(weights: Any) -> NDArray[np.float64]:
            drawn: NDArray[np.float64] = getattr(walked(weights), name)(**ask)
            return drawn

        plain = attempt(metric, compute, n=confidences.size, options={**told, **changed}, **variant)
        return bounded(plain, case, replicates, confidences.size, **{"low": 0.0, "high": 1.0, **how})

    for metric, (changed, ask) in eces.items():
        yield number(metric, "expected_calibration_error", changed, ask, basic=True)
    yield number("calibration_gap", "signed_calibration_gap", {}, {}, low=-1.0)
    yield number("ks_error", "ks_calibration_error", {}, {}, basic=True)
    kernel = options["smece_kernel"]
    smooth = attempt(
        "smece",
        lambda: metrics.smooth_calibration_error(confidences, correct, kernel=kernel),
        n=confidences.size,
        options={**told, **case.settings.changed("calibration", "smece_kernel")},
        **variant,
    )
    if kernel == "reflected" and case.settings["bootstrap"]["smece"]:
        drawn = lambda weights: smooth_replicates(confidences, correct, weights)  # noqa: E731
        smooth = bounded(smooth, case, drawn, confidences.size, low=0.0, high=1.0, basic=True)
    yield smooth


@dataclass(frozen=True)
class _Columns:
    """Which columns hold the probabilities of a variant."""

    prefix: str = ""

    def of(self, rows: Summary, name: str) -> NDArray[Any]:
        return rows[self.prefix + name]


def _plain(case: Case, rows: Summary, subset: str, aggregate: str) -> Iterator[Number]:
    yield from _probabilities(case, rows, _Columns(), aggregate, subset=subset)


def _probabilities(case: Case, rows: Summary, columns: _Columns, aggregate: str, **variant: Any) -> Iterator[Number]:
    own_rank = f"{columns.prefix}label_rank"
    correct = rows[own_rank if rows.has(own_rank) else "label_rank"] == 0
    n = len(rows)
    try:
        confidences = confidences_of(columns.of(rows, "confidence"))
    except ValueError as error:
        yield from without(OF_PROBABILITIES, str(error), **variant)
        return
    # The selective suite looks at the same rows in the same order.
    known = case.ranking if rows is case.labelled() and not columns.prefix else None
    yield from of_confidences(case, confidences, correct, known, **dict(variant))
    loss = attempt("nll", lambda: nll(columns.of(rows, "label_log_probability")), n=n, **variant)
    finite = loss.value is not None and np.isfinite(loss.value)
    if finite:
        own = columns.of(rows, "label_log_probability")
        loss = bounded(loss, case, lambda weights: -mean_replicates(own, weights), n, low=0.0)
    yield loss
    score = attempt(
        "brier",
        lambda: brier(columns.of(rows, "sum_squares"), columns.of(rows, "label_log_probability")),
        n=n,
        **variant,
    )
    if score.value is not None:
        each = brier_each(columns.of(rows, "sum_squares"), columns.of(rows, "label_log_probability"))
        score = bounded(score, case, lambda weights: mean_replicates(each, weights), n, low=0.0, high=2.0)
    yield score
    yield _classwise(case, aggregate, **variant)


def nll(label_log_probability: NDArray[Any]) -> float:
    """Return the mean negative log-likelihood in nats; inf where a label had probability 0."""
    return -float(label_log_probability.mean(dtype=np.float64))


def brier_each(sum_squares: NDArray[Any], label_log_probability: NDArray[Any]) -> NDArray[np.float64]:
    """Return the squared distance of each row's probabilities to the one-hot label, (n,) in [0, 2]."""
    p = np.exp(label_log_probability.astype(np.float64))
    distance: NDArray[np.float64] = sum_squares - 2.0 * p + 1.0
    return distance


def brier(sum_squares: NDArray[Any], label_log_probability: NDArray[Any]) -> float:
    """Return the Brier score: the mean over rows of ``brier_each``."""
    return float(brier_each(sum_squares, label_log_probability).mean(dtype=np.float64))


def _classwise(case: Case, aggregate: str, **variant: Any) -> Number:
    found = case.summary.facts.get("aggregates", {}).get(aggregate)
    options = {**variant.pop("options", {}), **case.settings.changed("calibration", "classwise_bins")}
    if found is None:
        bins = case.settings["calibration"]["classwise_bins"]
        reason = "needs all probabilities: compute it from the big store"
        if not bins:
            reason = "left out: classwise_bins = 0"
        elif case.summary.facts.get("several_labels"):
            reason = NO_LIKELIHOOD
        return Number(metric="classwise_ece", reason=reason, options=options, **variant)
    low, high = _interval(case, found)
    return Number(
        metric="classwise_ece",
        value=float(found["classwise_ece"]),
        low=low,
        high=high,
        n=int(found["n"]),
        options=options,
        **variant,
    )


def _interval(case: Case, found: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """Return the interval that was made beside the error, if it is of the bootstrap that is asked for."""
    same = case.resampling is not None and found.get("bootstrap") == case.resampling.options
    return (found["low"], found["high"]) if same else (None, None)


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
        yield from without(("temperature", "ece", "nll"), case.no_temperature or "no temperature was fitted", **variant)
        return
    if case.is_fit_set:
        split = case.summary.facts.get("split", {})
        told = variant | {"options": {**case.settings["split"], **case.settings.changed("calibrators", "bounds")}}
        spread = 1.96 * float(split.get("standard_error", np.nan))
        low, high = (float(temperature) - spread, float(temperature) + spread) if spread == spread else (None, None)
        yield Number(metric="temperature", value=float(temperature), low=low, high=high, n=split.get("n"), **told)
    yield from _probabilities(case, rows, _Columns("scaled_"), "classwise_scaled", **variant)


def _vector(case: Case, rows: Summary) -> Iterator[Number]:
    """Numbers after vector scaling; the top-1 accuracy too, for it can change predictions."""
    variant: dict[str, Any] = {
        "calibrator": "vector",
        "id_dataset": case.calibrated_on,
        "options": _split_options(case),
    }
    fit = case.summary.facts.get("vector")
    if fit is None:
        reason = case.no_vector or "no vector scaling was fitted"
        yield from without(("vector_scale", "top1", "ece", "nll"), reason, **variant)
        return
    if case.is_fit_set:
        # The mean scale stands for the 2 C parameters; the digest names them all.
        told = {name: fit[name] for name in ("digest", "nll_before", "nll_after")}
        told |= {f"{name}_range": [fit[name][0], fit[name][-1]] for name in ("scale", "bias")}
        options = {**case.settings["split"], **told}
        yield Number(metric="vector_scale", value=fit["scale"][1], n=fit["n"], **variant | {"options": options})
    hits = int((rows["vector_label_rank"] == 0).sum())
    yield replace(proportion(case, "top1", hits, len(rows)), **variant)
    yield from _probabilities(case, rows, _Columns("vector_"), "classwise_vector", **variant)


def _confidence_map(case: Case, rows: Summary, method: str) -> Iterator[Number]:
    variant: dict[str, Any] = {
        "calibrator": method,
        "id_dataset": case.calibrated_on,
        "options": {
            **_split_options(case),
            **(case.settings.changed("calibrators", "histogram_bins") if method == "histogram" else {}),
        },
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
