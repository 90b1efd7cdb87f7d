"""Intervals against scipy and by their coverage; replicates against the metric on the drawn rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import binomtest

from analyze.intervals import (
    BootstrapWeights,
    bootstrap_interval,
    clopper_pearson_interval,
    proportion_interval,
    quantiles,
    wilson_interval,
)
from analyze.intervals.ranking import weighted_means
from closerlook_common.errors import UserError


@settings(max_examples=100)
@given(st.integers(1, 400), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.995]))
def test_proportions_equal_scipy(n: int, rate: float, level: float) -> None:
    k = round(rate * n)
    for ours, method in ((wilson_interval, "wilson"), (clopper_pearson_interval, "exact")):
        theirs = binomtest(k, n).proportion_ci(level, method=method)
        got = ours(k, n, level=level)
        assert (got.low, got.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_proportion_by_name_and_bad_input() -> None:
    assert proportion_interval(3, 9, method="clopper-pearson") == clopper_pearson_interval(3, 9)
    for bad in ((1, 0), (5, 4), (-1, 4)):
        with pytest.raises(UserError):
            wilson_interval(*bad)
    with pytest.raises(UserError, match="level"):
        wilson_interval(1, 2, level=95)


def test_weights_are_multinomial_and_do_not_depend_on_blocks() -> None:
    weights = BootstrapWeights(300, replicates=500, seed=3)
    whole = weights.all()
    assert (whole.sum(axis=0) == 300).all()
    np.testing.assert_array_equal(np.concatenate(list(weights.blocks(64)), axis=1), whole)
    np.testing.assert_array_equal(BootstrapWeights(300, replicates=100, seed=3).all(), whole[:, :100])
    assert not np.array_equal(BootstrapWeights(300, replicates=500, seed=4).all(), whole)
    # Binomial(300, 1/300): mean 1, variance 1 - 1/300, within five standard errors of 150,000 counts.
    assert whole.var() == pytest.approx(1 - 1 / 300, abs=5 * np.sqrt(3 / whole.size))
    assert (whole == 0).mean() == pytest.approx((1 - 1 / 300) ** 300, abs=0.007)


def test_bootstrap_interval_of_a_mean_covers() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(120):
        values = rng.exponential(size=200)
        drawn = weighted_means(values, BootstrapWeights(200, replicates=200, seed=seed).all())
        interval = bootstrap_interval(values.mean(), drawn)
        inside += interval.low <= 1 <= interval.high
    # Nominal 0.95, about 0.93 for a skewed column of 200; 120 trials have a standard error of 0.023.
    assert 0.86 <= inside / 120 <= 0.99


def test_bootstrap_intervals_by_method() -> None:
    drawn = np.linspace(0, 1, 1001)
    assert (bootstrap_interval(0.4, drawn).low, bootstrap_interval(0.4, drawn).high) == pytest.approx((0.025, 0.975))
    basic = bootstrap_interval(0.4, np.append(drawn, np.nan), method="basic")
    assert (basic.low, basic.high) == pytest.approx((0.8 - 0.975, 0.8 - 0.025))
    with pytest.raises(UserError, match="undefined on every"):
        bootstrap_interval(0.4, [np.nan])


@given(arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e6, 1e6)), st.lists(st.floats(0, 1), min_size=1))
def test_quantiles_are_those_of_numpy(values: NDArray[np.float64], shares: list[float]) -> None:
    np.testing.assert_allclose(quantiles(values, *shares), np.quantile(values, shares), rtol=1e-12, atol=1e-9)


# --- replicates
# ------------------------------------------------------------------------------------------------------


def _column(kind: str) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    rng = np.random.default_rng(5)
    confidence = rng.beta(5, 1, 500)
    right = rng.random(500) < confidence**2
    if kind == "tied":
        confidence = np.round(confidence, 1)
    if kind == "saturated":
        confidence = np.where(confidence > 0.9, 1.0, confidence).astype(np.float32)
    if kind == "few errors":
        right = np.arange(500) != 7
    if kind == "calibrated":
        right = rng.random(500) < confidence
    if kind == "tiny":
        confidence, right = confidence[:3], np.array([True, False, True])
    return confidence, right


KINDS = ["random", "tied", "saturated", "few errors", "calibrated", "tiny"]


@pytest.mark.parametrize("kind", KINDS)
def test_replicates_equal_the_metric_on_drawn_rows(kind: str) -> None:
    confidence, right = _column(kind)
    n = len(right)
    weights = BootstrapWeights(n, replicates=24, seed=11).all()
    means = weighted_means(np.stack([confidence, right], axis=1), weights)
    for r in range(24):
        rows = np.repeat(np.arange(n), weights[:, r])
        drawn = (confidence[rows], right[rows])
        assert means[:, r] == pytest.approx((drawn[0].mean(), drawn[1].mean()), abs=1e-6)


def test_weights_of_another_set_are_refused() -> None:
    confidence, _ = _column("random")
    with pytest.raises(UserError, match="n = 500"):
        weighted_means(confidence, BootstrapWeights(499, replicates=2).all())
