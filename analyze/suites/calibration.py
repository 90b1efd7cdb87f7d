"""Calibration of the prediction's confidence and proper scores, before and after the calibrators."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyze import metrics
from analyze.annotations.clips import has_clips
from analyze.annotations.label_sets import NO_LIKELIHOOD
from analyze.fits.base import Fit, Reason
from analyze.fits.registry import FITS
from analyze.intervals import normal_reach
from analyze.intervals.calibration_intervals import ece_interval
from analyze.intervals.means import mean_interval
from analyze.intervals.ranking import Ranking
from analyze.metrics.proportions import Interval
from analyze.predictions.summaries import Summary
from analyze.suites.accuracy import of_rows
from analyze.suites.base import Case, Number, attempt, confidences_of, independent, without, without_interval

CONFIDENCE_METRICS = (
    "ece",
    "ece_mass",
    "ece_mass100",
    "ece_debiased",
    "ece_l2_debiased",
    "ece_if_calibrated",
    "ece_p",
    "mce",
    "calibration_gap",
    "ks_error",
    "ks_p",
    "kuiper_error",
    "kuiper_p",
    "spiegelhalter_z",
    "spiegelhalter_p",
    "smece",
)
NO_ERROR_INTERVAL = "biased upward near calibration, where no interval of it covers"
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
    if case.is_tested_in_part:
        # The same rows as the calibrated numbers, so that before and after can be compared.
        yield from _plain(case, held_out, "held-out", "classwise_held_out")
    for method in case.settings["calibrators"]["methods"]:
        if case.unfitted:
            yield from without(("ece", "nll"), case.unfitted, calibrator=method, id_dataset=case.calibrated_on)
        else:
            yield from _calibrated(case, held_out, FITS[method])


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
    given = variant.pop("options", {})
    width = int(options["bins"])
    eces: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {"ece": (bins, {"n_bins": width})}
    for n_bins in options["mass_bins"]:
        eces["ece_mass" if n_bins == 15 else f"ece_mass{n_bins}"] = ({}, {"n_bins": n_bins, "binning": "mass"})
    eces["ece_l2_debiased"] = (bins, {"n_bins": width, "binning": "mass", "norm": "l2", "debias": True})
    eces["mce"] = (bins, {"n_bins": width, "norm": "max"})
    ranked = functools.cache(ranking or (lambda: Ranking(confidences, correct)))
    level = case.settings["bootstrap"]["confidence_level"]

    def number(metric: str, compute: Callable[[], float], changed: Mapping[str, Any] | None = None) -> Number:
        return attempt(metric, compute, n=confidences.size, options={**given, **(changed or {})}, **variant)

    for metric, (changed, ask) in eces.items():
        found = number(metric, partial(_ece, ranked, ask), changed)
        if metric in ("ece", "ece_mass"):
            yield independent(found, case, partial(_ece_interval, ranked, ask, level))
        else:
            yield without_interval(found, NO_ERROR_INTERVAL)
    gap = number("calibration_gap", lambda: ranked().signed_calibration_gap())
    yield independent(
        gap, case, lambda: mean_interval(ranked().gaps, bounded=True, level=level), lambda: confidences - correct
    )
    yield without_interval(number("ks_error", lambda: ranked().ks_calibration_error()), NO_ERROR_INTERVAL)
    yield without_interval(number("kuiper_error", lambda: ranked().kuiper_calibration_error()), NO_ERROR_INTERVAL)
    debiased = number("ece_debiased", lambda: ranked().debiased_calibration_error(n_bins=width), bins)
    yield independent(debiased, case, partial(_ece_interval, ranked, {"n_bins": width}, level))
    if_calibrated = functools.cache(lambda: ranked().calibrated_error(n_bins=width))
    for metric, compute, changed in (
        ("ece_if_calibrated", lambda: if_calibrated().expected, bins),
        ("ece_p", lambda: if_calibrated().p_value, bins),
        ("ks_p", lambda: ranked().ks_p_value(), {}),
        ("kuiper_p", lambda: ranked().kuiper_p_value(), {}),
        ("spiegelhalter_z", lambda: ranked().spiegelhalter_z(), {}),
        ("spiegelhalter_p", lambda: ranked().spiegelhalter_p_value(), {}),
    ):
        if metric.endswith("_p") and has_clips(case.summary.metadata):
            reason = "the test takes images for independent; frames of one clip are not"
            yield Number(metric=metric, reason=reason, options={**given, **changed}, **variant)
        else:
            yield without_interval(number(metric, compute, changed), "a test, and what it compares with")
    kernel = options["smece_kernel"]
    smooth = attempt(
        "smece",
        lambda: metrics.smooth_calibration_error(confidences, correct, kernel=kernel),
        n=confidences.size,
        options={**given, **case.settings.changed("calibration", "smece_kernel")},
        **variant,
    )
    yield without_interval(smooth, NO_ERROR_INTERVAL)


def _ece(ranked: Callable[[], Ranking], ask: Mapping[str, Any]) -> float:
    return ranked().expected_calibration_error(**ask)


def _ece_interval(ranked: Callable[[], Ranking], ask: Mapping[str, Any], level: float) -> Interval:
    return ece_interval(ranked(), **ask, level=level)


def _plain(case: Case, rows: Summary, subset: str, aggregate: str) -> Iterator[Number]:
    options = case.settings.changed("split") if subset else {}
    yield from _probabilities(case, rows, "", aggregate, subset=subset, options=options)


def _probabilities(case: Case, rows: Summary, prefix: str, aggregate: str, **variant: Any) -> Iterator[Number]:
    """Yield calibration and proper scores of the probabilities whose columns have a prefix."""
    own_rank = f"{prefix}label_rank"
    correct = rows[own_rank if rows.has(own_rank) else "label_rank"] == 0
    n = len(rows)
    try:
        confidences = confidences_of(rows[f"{prefix}confidence"])
    except ValueError as error:
        yield from without(OF_PROBABILITIES, str(error), **variant)
        return
    # The selective suite looks at the same rows in the same order.
    known = case.ranking if rows is case.labelled() and not prefix else None
    yield from of_confidences(case, confidences, correct, known, **dict(variant))
    level = case.settings["bootstrap"]["confidence_level"]

    def own(name: str) -> NDArray[Any]:
        return rows[prefix + name]

    def losses() -> NDArray[np.float64]:
        return -own("label_log_probability").astype(np.float64)

    def squares() -> NDArray[np.float64]:
        return brier_each(own("sum_squares"), own("label_log_probability"))

    loss = attempt("nll", lambda: nll(own("label_log_probability")), n=n, **variant)
    yield independent(loss, case, lambda: mean_interval(losses(), bounded=False, level=level), losses)
    score = attempt("brier", lambda: brier(own("sum_squares"), own("label_log_probability")), n=n, **variant)
    yield independent(score, case, lambda: mean_interval(squares(), bounded=True, level=level), squares)
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
    return Number(
        metric="classwise_ece",
        value=float(found["classwise_ece"]),
        interval=f"none: {NO_ERROR_INTERVAL}",
        n=int(found["n"]),
        options=options,
        **variant,
    )


def _calibrated(case: Case, rows: Summary, fit: Fit) -> Iterator[Number]:
    """Yield the numbers of the held-out rows after a calibrator."""
    variant: dict[str, Any] = {
        "calibrator": fit.name,
        "id_dataset": case.calibrated_on,
        "options": fit.options(case.settings, case.calibrated_on),
    }
    if fit.needs == "confidences":
        yield from _mapped(case, rows, fit, variant)
        return
    own = PARAMETERS.get(fit.name)
    if reason := case.summary.reason(fit.name):
        names = ((own.metric,) if own else ()) + (("top1",) if fit.moves else ())
        yield from without((*names, "ece", "nll"), reason, **variant)
        return
    if own is not None and case.is_fit_set:
        yield own.number(case, variant)
    prefix = fit.gives[0]
    if fit.moves:
        yield replace(of_rows(case, "top1", rows[f"{prefix}label_rank"] == 0, rows), **variant)
    aggregate = fit.aggregates[0] if fit.aggregates else ""
    yield from _probabilities(case, rows, prefix, aggregate, **variant)


def _temperature(case: Case, variant: Mapping[str, Any]) -> Number:
    """Return the temperature with its interval."""
    temperature = float(case.summary.facts["temperature"])
    split = case.summary.facts.get("split", {})
    level = case.settings["accuracy"]["confidence_level"]
    options = {**case.settings["split"], **case.settings.changed("calibrators", "bounds")}
    options |= case.settings.changed("accuracy", "confidence_level")
    # On the scale of log T, where the interval of a positive number stays positive.
    spread = normal_reach(level) * float(split.get("standard_error", np.nan)) / temperature
    known = np.isfinite(spread)
    low, high = (float(temperature * np.exp(side * spread)) if known else None for side in (-1, 1))
    interval = f"wald of log T {100 * level:g} %" if known else "none: no standard error in the summary"
    how = {**variant, "options": options, "interval": interval}
    return Number(metric="temperature", value=temperature, low=low, high=high, n=split.get("n"), **how)


def _vector_scale(case: Case, variant: Mapping[str, Any]) -> Number:
    """Return the mean scale as a summary of the 2 C parameters; the digest names them all."""
    fit = case.summary.facts["vector"]
    options = {**case.settings["split"], **{name: fit[name] for name in ("digest", "nll_before", "nll_after")}}
    options |= {f"{name}_range": [fit[name][0], fit[name][-1]] for name in ("scale", "bias")}
    return Number(metric="vector_scale", value=fit["scale"][1], n=fit["n"], **{**variant, "options": options})


class _Parameter(NamedTuple):
    """The number that summarizes a calibrator's parameters."""

    metric: str
    number: Callable[[Case, Mapping[str, Any]], Number]


PARAMETERS: Mapping[str, _Parameter] = {
    "temperature": _Parameter("temperature", _temperature),
    "vector": _Parameter("vector_scale", _vector_scale),
}
"""Calibrator -> its number in the result table."""


def _mapped(case: Case, rows: Summary, fit: Fit, variant: dict[str, Any]) -> Iterator[Number]:
    """Yield the numbers after a calibrator of the confidence alone."""
    fitted = case.maps.get(fit.name, Reason(fit.absent))
    if isinstance(fitted, Reason):
        yield from without(CONFIDENCE_METRICS, fitted.text, **variant)
        return
    try:
        given = {"confidence": rows["confidence"], "prediction": rows.prediction}
        calibrated = fitted.columns(given)[f"{fit.name}_confidence"]
    except ValueError as error:
        yield from without(CONFIDENCE_METRICS, str(error), **variant)
        return
    yield from of_confidences(case, calibrated, rows["label_rank"] == 0, **variant)
