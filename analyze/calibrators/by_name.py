"""Calibrators by name: what each is fitted to, its formula, its source and its oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import ArrayLike

from analyze.calibrators.confidence_maps import ConfidenceMap, fit_beta, fit_histogram, fit_isotonic
from analyze.calibrators.matrix_scaling import fit_dirichlet, fit_matrix_scaling
from analyze.calibrators.platt import fit_platt
from analyze.calibrators.temperature import fit_temperature
from analyze.calibrators.top_label import fit_top_label
from analyze.calibrators.vector_scaling import fit_vector_scaling
from analyze.calibrators.venn_abers import fit_venn_abers
from analyze.metrics import _checks
from analyze.metrics.spec import Evidence
from closerlook_common.errors import UserError, nearest

LOGITS = ("logits", "labels")
CONFIDENCES = ("confidences", "correct")


@dataclass(frozen=True)
class CalibratorRow:
    """One calibrator.

    Attributes
    ----------
    name
        In ``[calibrators] methods``, and in the column ``calibrator`` of the result table.
    function
        Fits it to arrays; its keyword arguments are the options.
    columns
        What ``function`` takes, in this order: ``logits`` (n, C) and ``labels`` (n,), or ``confidences`` (n,) and
        ``correct`` (n,), and ``predictions`` (n,).
    evidence
        Formula, source and oracle.
    """

    name: str
    function: Callable[..., Any]
    columns: tuple[str, ...]
    evidence: Evidence


_ROWS = (
    CalibratorRow(
        "temperature", fit_temperature, LOGITS,
        Evidence(
            "softmax(z / T), T = argmin NLL", "Guo et al., ICML 2017",
            "a scalar search by scipy; scikit-learn's temperature scaling",
            "test_calibrators.py::test_temperature_equals_a_scalar_search_in_float64",
        ),
    ),
    CalibratorRow(
        "vector", fit_vector_scaling, LOGITS,
        Evidence(
            "softmax(w_c z_c + b_c), w and b = argmin NLL", "Guo et al., ICML 2017",
            "a search by finite differences with scipy", "test_vector_scaling.py::test_equals_a_search_by_differences",
        ),
    ),
    CalibratorRow(
        "matrix", fit_matrix_scaling, LOGITS,
        Evidence(
            "softmax(W z + b), argmin NLL + penalties on b and off the diagonal of W",
            "Guo et al., ICML 2017; penalties: Kull et al., NeurIPS 2019",
            "a minimiser of scipy on the written-out loss",
            "test_more_calibrators.py::test_the_linear_map_minimises_its_loss",
        ),
    ),
    CalibratorRow(
        "dirichlet", fit_dirichlet, LOGITS,
        Evidence(
            "softmax(W log p + b), argmin NLL + penalties on b and off the diagonal of W", "Kull et al., NeurIPS 2019",
            "scikit-learn's multinomial logistic regression, without a penalty",
            "test_more_calibrators.py::test_scikit_learns_multinomial_model_is_the_dirichlet_map_without_a_penalty",
        ),
    ),
    CalibratorRow(
        "histogram", fit_histogram, CONFIDENCES,
        Evidence(
            "c -> share right in its bin, bins of equal width", "Zadrozny and Elkan, ICML 2001",
            "the share, bin by bin", "test_calibrators.py::test_histogram_binning_is_the_share_by_bin",
        ),
    ),
    CalibratorRow(
        "isotonic", fit_isotonic, CONFIDENCES,
        Evidence(
            "c -> the least-squares rising step function of correct", "Zadrozny and Elkan, KDD 2002",
            "scikit-learn's IsotonicRegression", "test_calibrators.py::test_isotonic_equals_scikit_learn",
        ),
    ),
    CalibratorRow(
        "beta", fit_beta, CONFIDENCES,
        Evidence(
            "c -> sigmoid(a ln c - b ln(1 - c) + m), a and b >= 0", "Kull, Silva Filho and Flach, AISTATS 2017",
            "scikit-learn's logistic regression on ln c and -ln(1 - c)",
            "test_calibrators.py::test_beta_equals_logistic_regression_on_its_two_features",
        ),
    ),
    CalibratorRow(
        "platt", fit_platt, CONFIDENCES,
        Evidence(
            "c -> sigmoid(a logit(c) + b)", "Platt 1999; on log odds: Guo et al., ICML 2017",
            "scikit-learn's logistic regression", "test_more_calibrators.py::test_platt_as_scikit_learn_has_it",
        ),
    ),
    CalibratorRow(
        "venn-abers", fit_venn_abers, CONFIDENCES,
        Evidence(
            "c -> p1 / (1 - p0 + p1), p0 and p1 isotonic fits with the row added as wrong and as right",
            "Vovk and Petej, UAI 2014; Vovk, Petej and Fedorova, NIPS 2015",
            "two isotonic fits of scikit-learn for each confidence",
            "test_more_calibrators.py::test_venn_abers_by_two_isotonic_fits_a_confidence",
        ),
    ),
    CalibratorRow(
        "top-label", fit_top_label, (*CONFIDENCES, "predictions"),
        Evidence(
            "(c, predicted class) -> share right in its bin of that class, bins of equal count",
            "Gupta and Ramdas, ICLR 2022", "the share, class by class and bin by bin",
            "test_more_calibrators.py::test_the_top_label_histogram_by_class",
        ),
    ),
)  # fmt: skip

CALIBRATORS: Mapping[str, CalibratorRow] = {row.name: row for row in _ROWS}

CONFIDENCE_MAPS: Mapping[str, Callable[[ArrayLike, ArrayLike], ConfidenceMap]] = {
    row.name: row.function for row in _ROWS if row.columns == CONFIDENCES
}
"""Name in ``[calibrators] methods`` -> the function that fits it to confidences and right or wrong."""


def fit_confidence_map(method: str, confidences: ArrayLike, correct: ArrayLike, *, n_bins: int = 15) -> ConfidenceMap:
    """Fit the named calibrator of the confidence, one of ``CONFIDENCE_MAPS``; ``n_bins`` is of ``histogram``."""
    if not isinstance(method, str) or method not in CONFIDENCE_MAPS:
        known = ", ".join(CONFIDENCE_MAPS)
        raise UserError(f"method: no calibrator {method!r}{nearest(str(method), CONFIDENCE_MAPS)}; there are {known}")
    n_bins = _checks.bins(n_bins)
    if method == "histogram":
        return fit_histogram(confidences, correct, n_bins=n_bins)
    return CONFIDENCE_MAPS[method](confidences, correct)
