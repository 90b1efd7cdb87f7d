"""Is a model calibrated, given this many images? Tests with p-values, and what a calibrated model's ECE would be."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.kernels.counts import success_counts
from analyze.metrics import _checks
from analyze.metrics.binning import BinSums, bin_sums, edges_of
from analyze.metrics.calibration import Binning, error_of_bins
from analyze.metrics.spec import TOP_LABEL, Evidence, Metric
from closerlook_common.errors import UserError

EXACT_VARIANCE = 50.0
"""A bin whose number of right rows has at most this variance is taken as it is; a larger one is taken as normal."""
GRID = 8192
"""Points of the grid on which the distribution of the ECE is made."""
NORMAL_REACH = 10.0
"""Standard deviations beyond which a normal has no mass: less than 2e-23."""


@dataclass(frozen=True)
class CalibratedError:
    """What the ECE of a calibrated model is at these confidences and bins.

    Attributes
    ----------
    expected
        Its mean.
    p_value
        Probability that it is at least the observed one.
    observed
        The observed ECE.
    """

    expected: float
    p_value: float
    observed: float


def _columns(confidences: ArrayLike, correct: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    confidence = _checks.confidences(confidences)
    return confidence.astype(np.float64, copy=False), _checks.correct(correct, confidence.size)


def calibrated_error(
    confidences: ArrayLike, correct: ArrayLike, *, n_bins: int = 15, binning: Binning = "width"
) -> CalibratedError:
    """Compare the ECE with that of a calibrated model of the same confidences.

    A calibrated model's prediction of confidence c is right with probability c. Its ECE is not 0: each bin's accuracy
    scatters about its confidence. The scatter of a bin's sum is exact in small bins (`EXACT_VARIANCE`), normal in
    larger ones; mean and distribution of the ECE follow from it without a simulation. Consistency resampling draws
    what is computed here.

    Parameters
    ----------
    confidences
        (n,) probability of the predicted class, in [0, 1].
    correct
        (n,) whether the prediction was right.
    n_bins, binning
        As for `expected_calibration_error`.

    Raises
    ------
    UserError
        As for `expected_calibration_error`.

    References
    ----------
    Bröcker and Smith, Increasing the reliability of reliability diagrams, Weather and Forecasting 22, 2007.
    Vaicenavicius et al., Evaluating model calibration in classification, AISTATS 2019.
    """
    confidence, right = _columns(confidences, correct)
    n_bins = _checks.bins(n_bins)
    _checks.choice("binning", binning, ("width", "mass"))
    ordered = np.sort(confidence)
    edges = edges_of(confidence, n_bins, binning)
    cuts = np.concatenate([[0], np.searchsorted(ordered, edges[1:-1], side="right"), [ordered.size]])
    sums = bin_sums(confidence, right, edges)
    return calibrated_error_of_bins(ordered, cuts, error_of_bins(sums, "l1", debias=False))


def calibrated_error_of_bins(
    ordered: NDArray[np.float64], cuts: NDArray[np.integer[Any]], observed: float
) -> CalibratedError:
    """Return `calibrated_error` of rising confidences, (n,), whose bins begin at ``cuts``, (B + 1,) with the end."""
    parts = [ordered[start:stop] for start, stop in itertools.pairwise(cuts) if stop > start]
    variances = [float((part * (1 - part)).sum()) for part in parts]
    normal = np.sqrt([variance for variance in variances if variance > EXACT_VARIANCE])
    pairs = zip(parts, variances, strict=True)
    exact = [_sizes(part, variance) for part, variance in pairs if variance <= EXACT_VARIANCE]
    expected = float(normal.sum()) * math.sqrt(2 / math.pi)
    expected += sum(float(probabilities @ sizes) for probabilities, sizes in exact)
    tail = _tail(normal, exact, observed * ordered.size)
    return CalibratedError(expected / ordered.size, tail, observed)


def _sizes(rates: NDArray[np.float64], variance: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distribution of the size of (successes - their mean): probabilities and sizes, (k,) each."""
    if 2 * rates.sum() > rates.size:  # of failures: the size is the same and the counts are smaller
        rates = 1 - rates
    mean = float(rates.sum())
    counts = np.empty(min(rates.size, math.ceil(mean + 12 * math.sqrt(variance) + 20)) + 1)
    success_counts(rates, counts)
    return counts, np.abs(np.arange(counts.size) - mean)


def _tail(
    normal: NDArray[np.float64], exact: list[tuple[NDArray[np.float64], NDArray[np.float64]]], total: float
) -> float:
    """Return P(sum of folded normals of these deviations and of the exact sizes >= total)."""
    from scipy.special import ndtr

    reach = 9.0 * float(normal.sum()) + sum(float(sizes.max()) for _, sizes in exact)
    if total <= 0 or reach <= 0:
        return 1.0
    if total > reach:
        return 0.0
    step = reach / (GRID - 1)
    grid = np.arange(GRID + 1) * step
    spectrum = np.ones(GRID + 1, np.complex128)
    for deviation in normal[normal > 0]:
        # Mass is split between neighbouring points so that the mean is kept: second differences of the CDF's integral.
        own = grid[: min(math.ceil(NORMAL_REACH * deviation / step), GRID) + 1]
        z = own / deviation
        integral = own * (2 * ndtr(z) - 1) + 2 * deviation * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        mass = np.diff(integral, prepend=integral[0])
        spectrum *= np.fft.rfft(np.diff(mass, append=mass[-1])[:GRID] / step, 2 * GRID)
    for probabilities, sizes in exact:
        place = sizes / step
        low = np.minimum(place.astype(np.int64), GRID - 2)
        share = place - low
        mass = np.bincount(low, probabilities * (1 - share), GRID) + np.bincount(low + 1, probabilities * share, GRID)
        spectrum *= np.fft.rfft(mass, 2 * GRID)
    density = np.fft.irfft(spectrum, 2 * GRID)
    # An ECE equal to the observed one counts, and splitting moved its mass by up to one point a bin.
    first = max(math.floor(total / step) - len(exact), 0)
    return min(max(float(density[first:].sum()), 0.0), 1.0)


def expected_error_if_calibrated(
    confidences: ArrayLike, correct: ArrayLike, *, n_bins: int = 15, binning: Binning = "width"
) -> float:
    """Return the mean ECE of a calibrated model with these confidences, in [0, 1]. Neither side is better.

    An ECE near it says nothing against calibration. Options and errors as for `calibrated_error`; after Bröcker and
    Smith, 2007.
    """
    return calibrated_error(confidences, correct, n_bins=n_bins, binning=binning).expected


def calibration_p_value(
    confidences: ArrayLike, correct: ArrayLike, *, n_bins: int = 15, binning: Binning = "width"
) -> float:
    """Return the probability that a calibrated model's ECE is at least the observed one.

    In [0, 1]; neither side is better. Options and errors as for `calibrated_error`; after Bröcker and Smith, 2007.
    """
    return calibrated_error(confidences, correct, n_bins=n_bins, binning=binning).p_value


def debiased_calibration_error(
    confidences: ArrayLike, correct: ArrayLike, *, n_bins: int = 15, binning: Binning = "width"
) -> float:
    """Return the L1 ECE less its estimated bias, in [0, 1]. Lower is better.

    Each bin's accuracy is taken as normal about the observed one; what that adds to the size of its gap, the mean of a
    folded normal less the gap, is taken off (Kumar, Liang and Ma, "Verified uncertainty calibration", NeurIPS 2019, who
    draw it where this is its mean). A negative total is 0: the errors of small sets can be compared with those of large
    ones only after this correction, and near calibration not even then. Options and errors as for
    `expected_calibration_error`.
    """
    confidence, right = _columns(confidences, correct)
    n_bins = _checks.bins(n_bins)
    _checks.choice("binning", binning, ("width", "mass"))
    sums = bin_sums(confidence, right, edges_of(confidence, n_bins, binning))
    return max(error_of_bins(sums, "l1", debias=False) - error_bias(sums), 0.0)


def error_bias(sums: BinSums) -> float:
    """Return the estimated bias of the L1 ECE of binned rows: the sum over bins of the folded normal's excess."""
    from scipy.special import ndtr

    held = sums.counts > 0
    counts = sums.counts[held]
    accuracy = sums.correct[held] / counts
    gap = np.abs(sums.confidence[held] / counts - accuracy)
    scale = np.sqrt(accuracy * (1 - accuracy) / counts)
    moving = scale > 0
    ratio = gap[moving] / scale[moving]
    folded = scale[moving] * math.sqrt(2 / math.pi) * np.exp(-(ratio**2) / 2) + gap[moving] * (1 - 2 * ndtr(-ratio))
    return float((counts[moving] * (folded - gap[moving])).sum() / counts.sum())


def spiegelhalter_z(confidences: ArrayLike, correct: ArrayLike) -> float:
    """Return Spiegelhalter's z of the Brier score of confidences; standard normal under calibration.

    In any range; neither side is better. Positive: more right predictions at low confidence and more wrong ones at high
    confidence than a calibrated model has.

    Raises
    ------
    UserError
        As for `expected_calibration_error`; where every confidence is 0, 0.5 or 1, of which the statistic is silent.

    References
    ----------
    Spiegelhalter, Probabilistic prediction in patient management and clinical trials, Statistics in Medicine 5, 1986.
    """
    return z_of(*_columns(confidences, correct))


def spiegelhalter_p_value(confidences: ArrayLike, correct: ArrayLike) -> float:
    """Return the two-sided p-value of `spiegelhalter_z`, in [0, 1]. Neither side is better.

    Errors as there; Spiegelhalter, 1986.
    """
    return two_sided(spiegelhalter_z(confidences, correct))


def z_of(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Return Spiegelhalter's z of columns that are checked already."""
    lean = 1 - 2 * confidence
    variance = float((lean**2 * confidence * (1 - confidence)).sum())
    if variance <= 0:
        raise UserError("Spiegelhalter's z needs a confidence other than 0, 0.5 and 1")
    return float(((right - confidence) * lean).sum() / math.sqrt(variance))


def two_sided(z: float) -> float:
    """Return the two-sided p-value of a standard normal."""
    from scipy.special import ndtr

    return float(2 * ndtr(-abs(z)))


def _walk(confidences: ArrayLike, correct: ArrayLike) -> tuple[NDArray[np.float64], float]:
    """Return the running sums of correct - confidence after each distinct confidence, and their final deviation."""
    confidence, right = _columns(confidences, correct)
    order = np.argsort(confidence, kind="stable")
    ordered = confidence[order]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # equal confidences enter together
    sums: NDArray[np.float64] = np.cumsum(right[order] - ordered)[last]
    return sums, math.sqrt(float((confidence * (1 - confidence)).sum()))


def ks_p_value(confidences: ArrayLike, correct: ArrayLike) -> float:
    """Return the p-value of the Kolmogorov-Smirnov test of calibration, in [0, 1]. Neither side is better.

    Of the largest size of the running sum of correct - confidence, rows in the order of confidence, against that of a
    Brownian motion. It may be conservative where many confidences are equal.

    Raises
    ------
    UserError
        As for `expected_calibration_error`; where every confidence is 0 or 1.

    References
    ----------
    Arrieta-Ibarra et al., Metrics of calibration for probabilistic predictions, JMLR 23, 2022.
    """
    return size_p_value(*_walk(confidences, correct))


def size_p_value(sums: NDArray[np.float64], deviation: float) -> float:
    """Return the p-value of the largest size of running sums; ``deviation`` is that of the last under calibration."""
    return brownian_size_tail(float(np.abs(sums).max()) / _positive(deviation))


def kuiper_calibration_error(confidences: ArrayLike, correct: ArrayLike) -> float:
    """Return Kuiper's calibration error, in [0, 1]. Lower is better; there are no bins.

    The largest size, over intervals of confidence, of the mean over all rows of (correct - confidence) inside. Equal
    confidences enter together. Errors as for `expected_calibration_error`; Arrieta-Ibarra et al., JMLR 2022.
    """
    confidence = _checks.confidences(confidences)
    return span(_walk(confidence, correct)[0]) / confidence.size


def kuiper_p_value(confidences: ArrayLike, correct: ArrayLike) -> float:
    """Return the p-value of Kuiper's test of calibration, in [0, 1]. Neither side is better.

    Of the range of the running sum, against that of a Brownian motion. Errors as for `ks_p_value`; Arrieta-Ibarra et
    al., JMLR 2022.
    """
    return range_p_value(*_walk(confidences, correct))


def range_p_value(sums: NDArray[np.float64], deviation: float) -> float:
    """Return the p-value of the range of running sums; ``deviation`` is that of the last under calibration."""
    return brownian_range_tail(span(sums) / _positive(deviation))


def span(sums: NDArray[np.float64]) -> float:
    """Return the range of running sums that begin at 0."""
    return float(max(sums.max(), 0.0) - min(sums.min(), 0.0))


def _positive(deviation: float) -> float:
    if deviation <= 0:
        raise UserError("every confidence is 0 or 1: a calibration test needs one between")
    return deviation


def brownian_size_tail(size: float) -> float:
    """Return P(max abs(B) >= size) of a Brownian motion on [0, 1]: by reflections, or by sines where those cancel."""
    from scipy.special import ndtr

    if size <= 0:
        return 1.0
    odd = 2 * np.arange(32) + 1
    signs = np.where(odd % 4 == 1, 1.0, -1.0)
    if size > 1:
        return float(4 * (signs * ndtr(-odd * size)).sum())
    below = 4 / math.pi * float((signs / odd * np.exp(-(odd**2) * math.pi**2 / (8 * size**2))).sum())
    return 1 - below


def brownian_range_tail(size: float) -> float:
    """Return P(max B - min B >= size) of a Brownian motion on [0, 1] (Feller 1951)."""
    from scipy.special import ndtr

    if size < 0.4:
        return 1.0  # less than 1e-9 below 1; the series converges slowly there
    k = np.arange(1, 200)
    terms = (-1.0) ** (k - 1) * k * ndtr(-k * size)
    return min(max(8 * float(terms.sum()), 0.0), 1.0)


ROWS = (
    Metric(
        "ece_debiased", "ECE (debiased)", "lower", "fraction", columns=TOP_LABEL,
        function=debiased_calibration_error, version=6,
        evidence=Evidence(
            "ECE - sum_b n_b/n (E|N(c_b - a_b, a_b (1 - a_b)/n_b)| - |c_b - a_b|), at least 0",
            "Kumar, Liang and Ma, NeurIPS 2019", "scipy's folded normal, bin by bin",
        ),
    ),
    Metric(
        "ece_if_calibrated", "ECE of a calibrated model", "none", "fraction", columns=TOP_LABEL,
        function=expected_error_if_calibrated, version=6,
        evidence=Evidence(
            "E[ECE] with y_i drawn from Bernoulli(c_i)", "Bröcker and Smith, Weather and Forecasting 22, 2007",
            "scipy's exact Poisson-binomial distribution of each bin",
        ),
    ),
    Metric(
        "ece_p", "p of ECE under calibration", "none", columns=TOP_LABEL, function=calibration_p_value, version=7,
        evidence=Evidence(
            "P(ECE' >= ECE) with y'_i drawn from Bernoulli(c_i)",
            "Bröcker and Smith, 2007; Vaicenavicius et al., AISTATS 2019", "20,000 draws of the labels",
        ),
    ),
    Metric(
        "spiegelhalter_z", "Spiegelhalter's z", "none", low=-math.inf, high=math.inf, columns=TOP_LABEL,
        function=spiegelhalter_z, version=6,
        evidence=Evidence(
            "sum_i (y_i - c_i)(1 - 2 c_i) / sqrt(sum_i (1 - 2 c_i)^2 c_i (1 - c_i))",
            "Spiegelhalter, Statistics in Medicine 5, 1986", "the definition, image by image",
        ),
    ),
    Metric(
        "spiegelhalter_p", "p of Spiegelhalter's z", "none", columns=TOP_LABEL, function=spiegelhalter_p_value,
        version=6,
        evidence=Evidence(
            "2 P(N(0, 1) >= |z|)", "Spiegelhalter, Statistics in Medicine 5, 1986", "scipy's normal distribution",
        ),
    ),
    Metric(
        "ks_p", "p of the KS test of calibration", "none", columns=TOP_LABEL, function=ks_p_value, version=6,
        evidence=Evidence(
            "P(max |B| >= max_t |S_t| / sqrt(sum_i c_i (1 - c_i))), B a Brownian motion",
            "Arrieta-Ibarra et al., JMLR 23, 2022", "the series by reflections",
        ),
    ),
    Metric(
        "kuiper_error", "Kuiper error", "lower", "fraction", columns=TOP_LABEL, function=kuiper_calibration_error,
        version=6,
        evidence=Evidence(
            "max_{s < t} |1/n sum_{s < c_i <= t} (y_i - c_i)|", "Arrieta-Ibarra et al., JMLR 23, 2022",
            "the definition, interval by interval",
        ),
    ),
    Metric(
        "kuiper_p", "p of Kuiper's test of calibration", "none", columns=TOP_LABEL, function=kuiper_p_value,
        version=6,
        evidence=Evidence(
            "P(range of B >= range of S / sqrt(sum_i c_i (1 - c_i))), B a Brownian motion",
            "Arrieta-Ibarra et al., JMLR 23, 2022; Feller 1951", "numerical integration of the density",
        ),
    ),
)  # fmt: skip
