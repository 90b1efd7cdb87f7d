"""Errors under corruptions in units of AlexNet's: ImageNet-C's corruption error, and its mean."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from analyze.metrics import _checks
from analyze.metrics.spec import INFINITY, Evidence, Metric
from closerlook_common.errors import UserError

ALEXNET_ERRORS: Mapping[str, float] = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""Corruption -> AlexNet's top-1 error, averaged over the five severities, as ImageNet-C's authors publish it. These are
the 15 corruptions of the benchmark; its four others (speckle noise, Gaussian blur, spatter, saturate) are for
validation, and are not in the mean."""

N_SEVERITIES = 5


def corruption_error(errors: ArrayLike, baseline_error: float) -> float:
    """Return the error under one corruption, summed over its severities, divided by the baseline's.

    Parameters
    ----------
    errors : array of shape (5,)
        Top-1 errors, fractions, at severities 1 to 5.
    baseline_error
        The baseline's mean error over the same severities.

    Returns
    -------
    float
        0 at best; 1 as the baseline (AlexNet); above 1 worse than it.

    Raises
    ------
    UserError
        Not five errors, one outside [0, 1], or a baseline without errors.

    References
    ----------
    Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
    ICLR 2019.

    Examples
    --------
    >>> corruption_error([0.1, 0.2, 0.3, 0.4, 0.5], 0.6)
    0.5
    """
    found = _checks.vector("errors", errors)
    if found.shape != (N_SEVERITIES,):
        raise UserError(f"a corruption has errors at {N_SEVERITIES} severities, not an array of shape {found.shape}")
    if not ((found >= 0) & (found <= 1)).all():
        raise UserError("errors are fractions from 0 to 1")
    return float(found.mean(dtype=np.float64) / _checks.number("baseline_error", baseline_error, above=0))


def mean_corruption_error(errors: Mapping[str, ArrayLike], baseline: Mapping[str, float] = ALEXNET_ERRORS) -> float:
    """Return the mean corruption error (mCE) over the baseline's corruptions.

    Parameters
    ----------
    errors
        Corruption -> (5,) top-1 errors at severities 1 to 5. Corruptions that the baseline has not are left out.
    baseline
        Corruption -> mean error over the severities; AlexNet's on the 15 corruptions of ImageNet-C by default.

    Returns
    -------
    float
        0 at best, 1 as AlexNet; often published times 100.

    Raises
    ------
    UserError
        A corruption of the baseline is missing, or see `corruption_error`.
    """
    if not isinstance(errors, Mapping) or not isinstance(baseline, Mapping) or not baseline:
        raise UserError("errors and baseline must map corruptions to errors")
    missing = [name for name in baseline if name not in errors]
    if missing:
        raise UserError(f"the mean is over {len(baseline)} corruptions; missing: {', '.join(missing)}")
    return float(np.mean([corruption_error(errors[name], given) for name, given in baseline.items()]))


ROWS = (
    Metric(
        "corruption_error", "Corruption error (AlexNet: 1)", "lower", high=INFINITY, version=2,
        evidence=Evidence(
            "sum_s error_s / sum_s error of AlexNet, s the five severities", "Hendrycks and Dietterich, ICLR 2019",
            "the definition, severity by severity",
            "test_corruption.py::test_mean_equals_a_loop_and_order_does_not_count",
        ),
    ),
    Metric(
        "mean_corruption_error", "mCE (AlexNet: 1)", "lower", high=INFINITY, version=2,
        evidence=Evidence(
            "mean over the 15 corruptions of the corruption error", "Hendrycks and Dietterich, ICLR 2019",
            "the definition, severity by severity",
            "test_corruption.py::test_mean_equals_a_loop_and_order_does_not_count",
        ),
    ),
)  # fmt: skip
