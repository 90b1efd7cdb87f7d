"""Intervals without a bootstrap: against brute force, and how often they cover (see benchmarks/coverage.py)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyze import metrics
from analyze.intervals.calibration_intervals import ece_interval
from analyze.intervals.detection_intervals import (
    LEAST_ROWS,
    aupr_interval,
    auroc_interval,
    auroc_variance,
    fpr_interval,
)
from analyze.intervals.detection_pairs import SortedScores
from analyze.intervals.ranking import Ranking
from closerlook_common.errors import UserError


def scores(seed, n=140, m=120, digits=1):
    rng = np.random.default_rng(seed)
    return np.round(rng.normal(1, 1, n), digits), np.round(rng.normal(0, 1.3, m), digits)


def pair(seed, **how):
    inside, outside = scores(seed, **how)
    return SortedScores.of(inside), SortedScores.of(outside)


@given(st.integers(0, 10_000), st.integers(0, 6))
def test_delong_equals_its_pairs(seed, digits):
    inside, outside = scores(seed, n=30, m=20, digits=digits)
    wins = (inside[:, None] > outside) + 0.5 * (inside[:, None] == outside)
    value, variance = auroc_variance(SortedScores.of(inside), SortedScores.of(outside))
    assert value == pytest.approx(metrics.auroc(inside, outside), abs=1e-12)
    wanted = wins.mean(axis=1).var(ddof=1) / 30 + wins.mean(axis=0).var(ddof=1) / 20
    assert variance == pytest.approx(wanted, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("positive", ["id", "ood"])
def test_the_jackknife_of_the_precision_is_its_derivative_by_weight(positive):
    """The variance equals that of numerical derivatives by the weight of each row."""
    inside, outside = scores(3, n=110, m=130, digits=1)

    def precision(weights_in, weights_out):
        a, b = (inside, outside) if positive == "id" else (-outside, -inside)
        wa, wb = (weights_in, weights_out) if positive == "id" else (weights_out, weights_in)
        hits = (wa[None, :] * (a[None, :] >= a[:, None])).sum(axis=1) / wa.sum() * a.size
        alarms = (wb[None, :] * (b[None, :] >= a[:, None])).sum(axis=1) / wb.sum() * b.size
        return float((wa * hits / (hits + alarms)).sum() / wa.sum())

    n, m = inside.size, outside.size
    ones_in, ones_out, step = np.ones(n), np.ones(m), 1e-4
    assert precision(ones_in, ones_out) == pytest.approx(metrics.aupr(inside, outside, positive=positive), abs=1e-12)

    def derivative(i, count, side):
        moved = np.ones(count)
        moved[i] += step
        more = precision(moved, ones_out) if side == "id" else precision(ones_in, moved)
        moved[i] -= 2 * step
        less = precision(moved, ones_out) if side == "id" else precision(ones_in, moved)
        return (more - less) / (2 * step)

    variance = sum(
        np.square([derivative(i, count, side) * count for i in range(count)]).sum() / (count - 1) / count
        for count, side in ((n, "id"), (m, "ood"))
    )
    interval = aupr_interval(SortedScores.of(inside), SortedScores.of(outside), positive=positive)
    value = metrics.aupr(inside, outside, positive=positive)
    width = np.log(interval.high / (1 - interval.high)) - np.log(interval.low / (1 - interval.low))
    wanted = 2 * 1.96 * np.sqrt(variance) / (value * (1 - value))
    assert wanted <= width <= 1.15 * wanted  # Student's quantile in place of the normal one


def test_the_intervals_hold_their_value_and_shrink_with_the_rows():
    for make in (
        auroc_interval,
        fpr_interval,
        lambda a, b, **how: fpr_interval(a, b, positive="ood", **how),
        aupr_interval,
        lambda a, b, **how: aupr_interval(a, b, positive="ood", **how),
    ):
        small, large = make(*pair(1)), make(*pair(1, n=8000, m=8000))
        assert 0 <= small.low < small.high <= 1
        assert large.high - large.low < 0.3 * (small.high - small.low)
        wider = make(*pair(1), level=0.99)
        assert wider.low < small.low
        assert wider.high > small.high


def test_the_sides_of_a_pair_are_exchanged_with_the_sign():
    inside, outside = pair(5)
    turned = SortedScores.of(-outside.values), SortedScores.of(-inside.values)
    for one, other in (
        (auroc_interval(inside, outside), auroc_interval(*turned)),
        (fpr_interval(inside, outside, positive="ood"), fpr_interval(*turned, positive="id")),
        (aupr_interval(inside, outside, positive="ood"), aupr_interval(*turned, positive="id")),
    ):
        assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-12)


def test_small_and_separate_sets_get_no_interval():
    with pytest.raises(UserError, match=f"no interval: 30 rows on one side, at least {LEAST_ROWS} are needed"):
        auroc_interval(*pair(0, n=30))
    rng = np.random.default_rng(0)
    apart = SortedScores.of(rng.normal(9, 1, 500)), SortedScores.of(rng.normal(0, 1, 500))
    for make in (auroc_interval, fpr_interval, aupr_interval):
        with pytest.raises(UserError, match="almost separated"):
            make(*apart)


def coverage(offered):
    """Return the share of intervals that cover, and the share of draws that have one."""
    found = [hit for hit in offered if hit is not None]
    return float(np.mean(found)) if found else float("nan"), len(found) / len(offered)


def test_detection_intervals_cover():
    rng = np.random.default_rng(0)
    many = rng.normal(1, 1, 200_000), rng.normal(0, 1, 200_000)
    truth = {
        "auroc": metrics.auroc(*many),
        "id": metrics.fpr_at_tpr(*many, positive="id"),
        "ood": metrics.fpr_at_tpr(*many, positive="ood"),
    }
    hits = {name: [] for name in truth}
    for _ in range(600):
        sides = SortedScores.of(rng.normal(1, 1, 400)), SortedScores.of(rng.normal(0, 1, 200))
        found = {
            "auroc": auroc_interval(*sides),
            "id": fpr_interval(*sides, positive="id"),
            "ood": fpr_interval(*sides, positive="ood"),
        }
        for name, interval in found.items():
            hits[name].append(interval.low <= truth[name] <= interval.high)
    for name, found in hits.items():
        # 95 % +- three standard errors of 600 draws, and 2 % of discreteness
        assert 0.92 <= np.mean(found) <= 0.985, (name, np.mean(found))


def sharpened(rng, n, power=1.8):
    """Confidences that are too high: right with a chance nearer to a half."""
    confidence = rng.beta(8, 2, n)
    odds = (confidence / (1 - confidence)) ** (1 / power)
    return confidence, rng.random(n) < odds / (1 + odds)


def test_the_interval_of_the_ece_covers_where_it_is_offered():
    rng = np.random.default_rng(1)
    confidence, right = sharpened(rng, 1_000_000)
    truth = metrics.expected_calibration_error(confidence, right)
    offered = []
    for _ in range(600):
        try:
            interval = ece_interval(Ranking(*sharpened(rng, 2000)))
        except UserError:
            offered.append(None)
        else:
            offered.append(interval.low <= truth <= interval.high)
    share, often = coverage(offered)
    assert often > 0.95
    assert 0.925 <= share <= 0.975


def test_a_calibrated_model_gets_no_interval_and_a_fair_p_value():
    rng = np.random.default_rng(2)
    offered, p_values, expected, observed = [], [], [], []
    for _ in range(500):
        confidence = rng.beta(8, 2, 300)
        right = rng.random(300) < confidence
        try:
            ece_interval(Ranking(confidence, right))
            offered.append(True)
        except UserError:
            offered.append(False)
        found = metrics.calibrated_error(confidence, right)
        p_values.append(
            (found.p_value, metrics.spiegelhalter_p_value(confidence, right), metrics.ks_p_value(confidence, right))
        )
        expected.append(found.expected)
        observed.append(found.observed)
    assert np.mean(offered) < 0.02
    rejected = (np.array(p_values) < 0.05).mean(axis=0)
    assert (rejected[:2] > 0.02).all()
    assert (rejected < 0.08).all()  # the KS test is conservative in small sets
    assert np.mean(observed) == pytest.approx(np.mean(expected), rel=0.03)
