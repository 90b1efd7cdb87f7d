"""Two models on the same images: the p-value is of equal means, whatever the shape of the differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.inter_rater import cohens_kappa

from analyze import metrics
from analyze.intervals import paired_difference
from closerlook_common.errors import UserError


def compare(gaps, seed=0, **how):
    gaps = np.asarray(gaps, np.float64)
    return paired_difference(gaps, np.zeros(gaps.size), rng=np.random.default_rng(seed), **how)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 200))
def test_right_and_wrong_are_compared_by_mcnemar(wins, losses, ties):
    gaps = np.repeat([1.0, -1.0, 0.0], [wins, losses, ties])
    found = compare(gaps)
    assert found.difference == pytest.approx(gaps.mean())
    if not wins + losses:
        assert (found.method, found.p_value, found.low, found.high) == ("equal", 1.0, 0.0, 0.0)
        return
    exact = mcnemar([[0, wins], [losses, 0]], exact=True).pvalue
    at = stats.binom.pmf(min(wins, losses), wins + losses, 0.5)
    # The mid-p value takes half of the observed table's probability, on either side.
    wanted = 1 - at / 2 if wins == losses else exact - at
    assert found.p_value == pytest.approx(wanted, abs=1e-9)
    assert found.low <= (wins - losses) / (gaps.size + 2) <= found.high


def skewed(rng, n):
    return rng.lognormal(0, 1, n) - math.exp(0.5)


def uneven(rng, n):
    """Differences of log-likelihoods: mostly small, now and then large, of mean 0."""
    return np.where(rng.random(n) < 0.05, rng.exponential(6, n), rng.normal(0, 0.2, n)) - 0.3


@pytest.mark.parametrize("draw", [skewed, uneven])
@pytest.mark.parametrize(("n", "draws"), [(200, 600), (2000, 600)])
def test_equal_means_are_rejected_as_often_as_promised_and_intervals_cover(draw, n, draws):
    rng = np.random.default_rng(3)
    found = [compare(draw(rng, n), seed=i, replicates=500) for i in range(draws)]
    rejected = np.mean([one.p_value < 0.05 for one in found])
    covered = np.mean([one.low <= 0 <= one.high for one in found])
    assert 0.02 <= rejected <= 0.08, rejected
    assert 0.92 <= covered <= 0.98, covered


def test_sign_flips_would_reject_skewed_differences_of_equal_means():
    """What the p-value was before, and why it is not that any more."""
    rng = np.random.default_rng(0)
    rejected = 0
    for _ in range(300):
        gaps = np.where(rng.random(200) < 0.03, rng.exponential(8, 200), 0.0) - 0.24 + rng.normal(0, 0.1, 200)
        signs = rng.integers(0, 2, (399, gaps.size)) * 2 - 1
        flipped = np.abs((signs * gaps).mean(axis=1))
        rejected += (np.count_nonzero(flipped >= abs(gaps.mean())) + 1) / 400 < 0.05
    assert rejected / 300 > 0.1


def test_the_p_value_and_the_interval_agree():
    rng = np.random.default_rng(5)
    for n in (250, 3000):
        for shift in (0.0, 0.08, 0.2):
            gaps = rng.gamma(2, 1, n) - 2 + shift
            found = compare(gaps, replicates=4000)
            assert (found.p_value < 0.05) == (not found.low <= 0 <= found.high)
    assert found.method == "hall"


def test_hall_and_student_agree_without_skewness():
    rng = np.random.default_rng(6)
    half = rng.normal(0.02, 1, 2000)
    gaps = np.concatenate([half, 0.04 - half])  # symmetric about its mean
    found, plain = compare(gaps), stats.ttest_1samp(gaps, 0)
    assert found.p_value == pytest.approx(plain.pvalue, rel=0.01)
    low, high = plain.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-5)


def test_few_images_give_no_p_value_and_no_interval():
    found = compare(np.random.default_rng(0).normal(size=199))
    assert (found.method, found.n) == ("too few", 199)
    assert math.isnan(found.p_value)
    assert math.isnan(found.low)


def test_bad_columns_are_named():
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="second: row 1 is nan"):
        paired_difference([0.0, 1.0], [0.0, np.nan], rng=rng)
    with pytest.raises(UserError, match="level"):
        paired_difference([0.0, 1.0], [0.0, 0.5], rng=rng, level=1.0)


@given(st.integers(0, 10_000), st.integers(60, 400))
def test_the_interval_of_kappa_is_that_of_statsmodels(seed, n):
    rng = np.random.default_rng(seed)
    first = rng.random(n) < 0.7
    second = np.where(rng.random(n) < 0.6, first, rng.random(n) < 0.5)
    counts = np.array([[np.sum((first == i) & (second == j)) for j in (False, True)] for i in (False, True)])
    theirs = cohens_kappa(counts)
    try:
        found = metrics.error_consistency_interval(first, second)
    except UserError:
        assert min(counts[0, 0], counts[1, 1], counts[0, 1] + counts[1, 0]) < 5
        return
    assert found.low == pytest.approx(max(-1, theirs.kappa_low), abs=1e-9)
    assert found.high == pytest.approx(min(1, theirs.kappa_upp), abs=1e-9)


def test_the_interval_of_kappa_covers():
    rng = np.random.default_rng(2)
    table = np.array([0.15, 0.1, 0.15, 0.6])  # both wrong, second right, first right, both right
    both, chance = 0.75, 0.25 * 0.3 + 0.75 * 0.7
    truth = (both - chance) / (1 - chance)
    hits = []
    for _ in range(600):
        cell = rng.choice(4, 300, p=table)
        found = metrics.error_consistency_interval(cell >= 2, cell % 2 == 1)
        hits.append(found.low <= truth <= found.high)
    assert 0.925 <= np.mean(hits) <= 0.975
