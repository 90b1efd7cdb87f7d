"""Calibration errors from confidences and right or wrong: how far confidence is from accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _calibration_compat as compat_errors
from analyze.metrics import _checks
from analyze.metrics._rows import checked_weights
from analyze.metrics.binning import BinSums, bin_sums, edges_of
from analyze.metrics.proportions import wilson_interval
from analyze.metrics.spec import TOP_LABEL, Evidence, Metric
from closerlook_common.errors import UserError

Binning = Literal["width", "mass"]
Norm = Literal["l1", "l2", "max"]
CalibrationCompat = Literal["torchmetrics", "netcal", "guo"]


def expected_calibration_error(
    confidences: ArrayLike,
    correct: ArrayLike,
    *,
    n_bins: int = 15,
    binning: Binning = "width",
    norm: Norm = "l1",
    debias: bool = False,
    compat: CalibrationCompat | None = None,
    weights: ArrayLike | None = None,
) -> float:
    """Return the expected calibration error (ECE) of top-1 confidences. Lower is better.

    With bins B_b of n_b rows, mean confidence c_b and accuracy a_b: L1 is sum_b n_b/n abs(c_b - a_b), L2 is
    sqrt(sum_b n_b/n (c_b - a_b)^2), max is max_b abs(c_b - a_b) over bins that hold rows.

    Parameters
    ----------
    confidences
        (n,) probability of the predicted class, in [0, 1].
    correct
        (n,) whether the prediction was right: booleans or zeros and ones.
    n_bins
        Number of bins; 15 as in Guo et al. (2017), 100 of equal mass in Minderer et al. (2021).
    binning
        ``width``: equal-width bins (lo, hi], 0 in the first, so that 1.0 is in the last. ``mass``: bins of
        nearly equal count whose edges never part equal confidences (there may be fewer than ``n_bins``).
    norm
        ``l1`` (ECE), ``l2`` (root mean square) or ``max`` (MCE).
    debias
        For ``l2`` only: take a_b (1 - a_b) / (n_b - 1) off each squared gap; bins of one row count zero,
        and a negative total is zero (Kumar, Liang and Ma 2019, "Verified uncertainty calibration").
    compat
        Reproduce another program in place of the above. ``torchmetrics``: bins [lo, hi), confidence 1.0 in
        a bin of its own, float32 sums. ``netcal``: confidences clipped to [eps, 1 - eps], bins [lo, hi).
        ``guo``: the loop published with Guo et al., float32 edges, confidence 0 dropped.
    weights
        (n,) sample weights of at least 0; each row weighs the same when None. For bins of equal width, without
        ``debias`` and ``compat``.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    UserError
        For NaN, inf or a confidence outside [0, 1] (the row is named), no rows, lengths that differ, or
        options that do not go together.

    References
    ----------
    Guo et al., "On calibration of modern neural networks", ICML 2017.

    Examples
    --------
    >>> round(expected_calibration_error([0.9, 0.9, 0.6, 0.6], [1, 1, 1, 0]), 6)
    0.1
    """
    confidence = _checks.confidences(confidences)
    right = _checks.correct(correct, confidence.size)
    n_bins = _checks.bins(n_bins)
    _checks.choice("binning", binning, ("width", "mass"))
    _checks.choice("norm", norm, ("l1", "l2", "max"))
    debias = _checks.switch("debias", debias)
    if debias and norm != "l2":
        raise UserError(f"debias is defined for norm='l2' only, not for {norm!r}")
    if weights is not None:
        if compat is not None or debias or binning != "width":
            raise UserError("weights need binning='width', without debias and compat")
        mass = checked_weights(weights, confidence.size)
        return error_of_bins(bin_sums(confidence, right, edges_of(confidence, n_bins, binning), mass), norm, debias)
    if compat is not None:
        return _as_peer(confidence, right, n_bins, binning, norm, debias, compat)
    sums = bin_sums(confidence, right, edges_of(confidence, n_bins, binning))
    return error_of_bins(sums, norm, debias)


def error_of_bins(sums: BinSums, norm: str, debias: bool) -> float:
    """Return the calibration error of binned rows; options as for :func:`expected_calibration_error`."""
    held = sums.counts > 0
    counts = sums.counts[held]
    surplus = sums.confidence[held] - sums.correct[held]
    n = counts.sum()
    if norm == "l1":
        return float(np.abs(surplus).sum() / n)
    gaps = np.abs(surplus) / counts
    if norm == "max":
        return float(gaps.max())
    squares = gaps**2
    if debias:
        accuracy = sums.correct[held] / counts
        variance = accuracy * (1 - accuracy) / np.maximum(counts - 1, 1)
        squares = np.where(counts > 1, squares - variance, 0.0)
    return float(np.sqrt(max((squares * counts).sum() / n, 0.0)))


def _as_peer(
    confidence: _checks.Floats,
    right: _checks.Bools,
    n_bins: int,
    binning: str,
    norm: str,
    debias: bool,
    compat: str,
) -> float:
    _checks.choice("compat", compat, ("torchmetrics", "netcal", "guo"))
    if debias:
        raise UserError(f"compat={compat!r} does not support debias")
    if compat == "netcal":
        return compat_errors.netcal_error(confidence, right, n_bins, binning, norm)
    if binning != "width":
        raise UserError(f"compat={compat!r} supports only equal-width bins")
    if compat == "torchmetrics":
        return compat_errors.torchmetrics_error(confidence, right, n_bins, norm)
    if norm != "l1":
        raise UserError("compat='guo' supports only norm='l1'")
    return compat_errors.guo_error(confidence, right, n_bins)


def maximum_calibration_error(
    confidences: ArrayLike, correct: ArrayLike, *, n_bins: int = 15, binning: Binning = "width"
) -> float:
    """Return the largest gap of any bin that holds rows (MCE), in [0, 1]. Lower is better.

    One row in a bin decides it: on small sets prefer :func:`expected_calibration_error`. Options and errors as there.
    Source: Naeini, Cooper and Hauskrecht, AAAI 2015.
    """
    return expected_calibration_error(confidences, correct, n_bins=n_bins, binning=binning, norm="max")


def signed_calibration_gap(confidences: ArrayLike, correct: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Return mean confidence minus accuracy, in [-1, 1]: above zero is over-confident, below under-confident.

    No side is better, zero is best. Errors as for :func:`expected_calibration_error`; after Guo et al., ICML 2017.
    Its size never exceeds the L1 ECE of any binning, and equals it where the gaps of all bins share one sign.
    ``weights``, (n,), are sample weights of at least 0.
    """
    confidence = _checks.confidences(confidences)
    right = _checks.correct(correct, confidence.size)
    if weights is not None:
        return float(np.average(confidence - right.astype(np.float64), weights=checked_weights(weights, right.size)))
    return float((confidence.sum(dtype=np.float64) - np.count_nonzero(right)) / confidence.size)


def ks_calibration_error(confidences: ArrayLike, correct: ArrayLike) -> float:
    """Return the Kolmogorov-Smirnov calibration error, in [0, 1]. Lower is better; there are no bins.

    The largest size, over thresholds t, of the mean over all rows of (confidence - correct) with confidence
    <= t. Equal confidences enter together, so that the order of rows does not matter. Source: Gupta et al.,
    "Calibration of neural networks using splines", ICLR 2021. Errors as for :func:`expected_calibration_error`.
    """
    confidence = _checks.confidences(confidences)
    right = _checks.correct(correct, confidence.size)
    order = np.argsort(confidence, kind="stable")
    ordered = confidence[order].astype(np.float64)
    ends = np.append(ordered[1:] != ordered[:-1], True)
    totals = np.cumsum(ordered - right[order])[ends]
    return float(np.abs(totals).max() / confidence.size)


@dataclass(frozen=True)
class ReliabilityDiagram:
    """What a reliability diagram draws, one number a bin.

    Attributes
    ----------
    edges
        (B + 1,) bin edges; bins are (lo, hi], the first holds 0 too.
    counts
        (B,) rows, int64.
    mean_confidence, accuracy
        (B,) means; NaN where a bin is empty.
    low, high
        (B,) Wilson interval of the accuracy; NaN where a bin is empty.
    level
        Coverage of that interval.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    mean_confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    level: float


def reliability_diagram(
    confidences: ArrayLike,
    correct: ArrayLike,
    *,
    n_bins: int = 15,
    binning: Binning = "width",
    level: float = 0.95,
) -> ReliabilityDiagram:
    """Return the data of a reliability diagram; options as for :func:`expected_calibration_error`."""
    confidence = _checks.confidences(confidences)
    right = _checks.correct(correct, confidence.size)
    n_bins, level = _checks.bins(n_bins), _checks.fraction("level", level, open_ends=True)
    _checks.choice("binning", binning, ("width", "mass"))
    sums = bin_sums(confidence, right, edges_of(confidence, n_bins, binning))
    means, accuracy, low, high = (np.full(sums.counts.size, np.nan) for _ in range(4))
    held = sums.counts > 0
    means[held] = sums.confidence[held] / sums.counts[held]
    accuracy[held] = sums.correct[held] / sums.counts[held]
    for b in np.flatnonzero(held):
        interval = wilson_interval(int(sums.correct[b]), int(sums.counts[b]), level=level)
        low[b], high[b] = interval.low, interval.high
    return ReliabilityDiagram(sums.edges, sums.counts.astype(np.int64), means, accuracy, low, high, level)


_ece = expected_calibration_error

ROWS = (
    Metric(
        "ece", "ECE", "lower", "fraction", columns=TOP_LABEL, function=_ece, headline=3, version=6,
        evidence=Evidence(
            "sum_b n_b/n |c_b - a_b|, 15 bins of equal width (lo, hi]",
            "Naeini et al., AAAI 2015; Guo et al., ICML 2017",
            "the definition, bin by bin; torchmetrics and netcal with compat",
        ),
    ),
    Metric(
        "ece_mass", "ECE (equal mass)", "lower", "fraction", columns=TOP_LABEL,
        function=partial(_ece, binning="mass"), version=6,
        evidence=Evidence(
            "sum_b n_b/n |c_b - a_b|, 15 bins of equal count", "Nixon et al., 2019; Minderer et al., NeurIPS 2021",
            "the definition, bin by bin; netcal with compat",
        ),
    ),
    Metric(
        "ece_mass100", "ECE (100 equal-mass bins)", "lower", "fraction", columns=TOP_LABEL,
        function=partial(_ece, binning="mass", n_bins=100), version=6,
        evidence=Evidence(
            "sum_b n_b/n |c_b - a_b|, 100 bins of equal count", "Minderer et al., NeurIPS 2021",
            "the definition, bin by bin",
        ),
    ),
    Metric(
        "ece_mass{}", "ECE ({} equal-mass bins)", "lower", "fraction", version=6,
        evidence=Evidence(
            "sum_b n_b/n |c_b - a_b|, N bins of equal count", "Minderer et al., NeurIPS 2021",
            "the definition, bin by bin", "test_metrics_calibration.py::test_binned_errors_equal_the_loop",
        ),
    ),
    Metric(
        "ece_l2", "ECE (L2)", "lower", "fraction", columns=TOP_LABEL, function=partial(_ece, norm="l2"),
        evidence=Evidence(
            "sqrt(sum_b n_b/n (c_b - a_b)^2), 15 bins of equal width", "Kumar, Liang and Ma, NeurIPS 2019",
            "the definition, bin by bin; torchmetrics with compat",
        ),
    ),
    Metric(
        "ece_l2_debiased", "ECE (debiased L2)", "lower", "fraction", columns=TOP_LABEL,
        function=partial(_ece, norm="l2", binning="mass", debias=True), version=6,
        evidence=Evidence(
            "sqrt(max(0, sum_b n_b/n ((c_b - a_b)^2 - a_b (1 - a_b)/(n_b - 1)))), equal count",
            "Kumar, Liang and Ma, NeurIPS 2019",
            "the definition, bin by bin; the authors' package uncertainty-calibration",
        ),
    ),
    Metric(
        "mce", "MCE", "lower", "fraction", columns=TOP_LABEL, function=maximum_calibration_error, version=6,
        evidence=Evidence(
            "max_b |c_b - a_b| over 15 bins of equal width that hold rows", "Naeini et al., AAAI 2015",
            "the definition, bin by bin; torchmetrics with compat",
        ),
    ),
    Metric(
        "calibration_gap", "Confidence minus accuracy", "none", "fraction", low=-1.0, columns=TOP_LABEL,
        function=signed_calibration_gap, version=6,
        evidence=Evidence("mean_i c_i - mean_i y_i", "Murphy 1973 (bias)", "numpy"),
    ),
    Metric(
        "ks_error", "KS error", "lower", "fraction", columns=TOP_LABEL, function=ks_calibration_error, version=6,
        evidence=Evidence(
            "max_t |1/n sum_{c_i <= t} (c_i - y_i)|", "Gupta et al., ICLR 2021",
            "the definition, threshold by threshold",
        ),
    ),
)  # fmt: skip
