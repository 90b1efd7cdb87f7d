"""Rows of the result table that are not a function of columns: parameters of fits, and fits over models."""

from __future__ import annotations

from analyze.metrics.spec import INFINITY, Evidence, Metric

ROWS = (
    Metric(
        "temperature", "Temperature", "none", high=INFINITY, version=6,
        evidence=Evidence(
            "argmin_T NLL(z / T) on the fitted part of the ID set", "Guo et al., ICML 2017",
            "scikit-learn's temperature scaling; a scalar search by scipy",
            "test_calibrators.py::test_temperature_equals_scikit_learn",
        ),
    ),
    Metric(
        "vector_scale", "Mean scale of vector scaling", "none", high=INFINITY, version=6,
        evidence=Evidence(
            "mean_c w_c of the fitted z_c -> w_c z_c + b_c", "Guo et al., ICML 2017",
            "a search by finite differences with scipy",
            "test_vector_scaling.py::test_equals_a_search_by_differences",
        ),
    ),
    Metric(
        "effective_robustness", "Effective robustness", "higher", "fraction", low=-1.0, version=2,
        evidence=Evidence(
            "accuracy under shift - the baseline's fit at the ID accuracy",
            "Taori et al., NeurIPS 2020; Miller et al., ICML 2021", "made-up models with a known lift",
            "test_trends.py::test_effective_robustness_is_the_planted_lift",
        ),
    ),
    Metric(
        "relative_robustness", "Relative robustness", "higher", "fraction", low=-1.0, version=2,
        evidence=Evidence(
            "accuracy under shift - that of the reference model", "Taori et al., NeurIPS 2020",
            "differences by hand", "test_trends.py::test_relative_robustness_is_a_difference",
        ),
    ),
)  # fmt: skip
