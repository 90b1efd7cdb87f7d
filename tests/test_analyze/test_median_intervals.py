"""The interval of a median: its order statistics by counting, and its coverage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analyze.intervals.medians import median_interval
from closerlook_common.errors import UserError


@given(n=st.integers(6, 400), level=st.sampled_from([0.8, 0.95, 0.99]), seed=st.integers(0, 2**32 - 1))
def test_the_ends_are_the_narrowest_order_statistics_that_cover(n: int, level: float, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=n)
    try:
        found = median_interval(values, level=level)
    except UserError:
        assert 2 * 0.5**n > 1 - level
        return
    ordered = np.sort(values)
    k = int(np.flatnonzero(ordered == found.low)[0])
    assert found.high == ordered[n - 1 - k]
    assert 2 * stats.binom.cdf(k, n, 0.5) <= 1 - level + 1e-12
    assert 2 * stats.binom.cdf(k + 1, n, 0.5) > 1 - level or k + 1 > (n - 1) / 2
    assert found.low <= np.median(values) <= found.high
    moved = median_interval(np.exp(values), level=level)
    assert (moved.low, moved.high) == pytest.approx((np.exp(found.low), np.exp(found.high)))


@pytest.mark.parametrize("n", [10, 50, 301])
def test_it_covers_as_often_as_it_promises(n: int) -> None:
    rng = np.random.default_rng(n)
    held = 0
    for _ in range(1000):
        found = median_interval(rng.exponential(size=n))
        held += found.low <= np.log(2) <= found.high
    # 1,000 draws have a standard error of 0.007; order statistics of few rows cover more than promised.
    assert 0.93 <= held / 1000 <= (0.99 if n < 40 else 0.975)


def test_too_few_rows_have_none() -> None:
    with pytest.raises(UserError, match="no interval: 5 rows, too few"):
        median_interval(np.arange(5.0))
    assert median_interval(np.arange(6.0)).low == 0
    with pytest.raises(UserError, match="a row is infinite"):
        median_interval(np.array([1.0, np.inf] * 10))
