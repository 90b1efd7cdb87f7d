"""Two scores on the same images, and means over sets that share images: against brute force, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from analyze import metrics
from analyze.intervals import BootstrapWeights
from analyze.intervals.detection_intervals import auroc_variance, detection_interval
from analyze.intervals.detection_pairs import NAMES, SortedScores, detection_numbers
from analyze.intervals.influences import auroc_influence, check_comparable, detection_influence, paired_detection
from analyze.intervals.set_means import SetMeans, part_of
from closerlook_common.errors import UserError

sort = SortedScores.of


def placements(inside, outside):
    """DeLong's structural components, from all pairs in float64."""
    wins = (inside[:, None] > outside) + 0.5 * (inside[:, None] == outside)
    return wins.mean(), wins.mean(axis=1), wins.mean(axis=0)


def scores(seed, n=160, m=130, digits=1, shared=0.5):
    """Two scores that agree in part, of ID and of OOD images, with ties."""
    rng = np.random.default_rng(seed)
    columns = []
    for size, middle in ((n, 1.0), (m, 0.0)):
        common = rng.normal(0, 1, size)
        own = rng.normal(0, 1, (2, size))
        columns.append(np.round(middle + math.sqrt(shared) * common + math.sqrt(1 - shared) * own, digits))
    return columns


@given(st.integers(0, 10_000), st.integers(0, 3))
def test_the_paired_test_of_two_areas_is_delongs(seed, digits):
    inside, outside = scores(seed, digits=digits)
    (a, a_in, a_out), (b, b_in, b_out) = (placements(inside[k], outside[k]) for k in (0, 1))
    contrast = np.array([1.0, -1.0])
    covariance = np.cov([a_in, b_in]) / a_in.size + np.cov([a_out, b_out]) / a_out.size
    variance = contrast @ covariance @ contrast
    found = paired_detection(*(auroc_influence(sort(inside[k]), sort(outside[k])) for k in (0, 1)))
    assert found.difference == pytest.approx(a - b, abs=1e-12)
    error = (found.high - found.low) / 2
    wanted = 1.959964 * math.sqrt(variance)
    assert wanted * 0.999 <= error <= wanted * 1.1  # Student's quantile in place of the normal one
    p_value = 2 * norm.sf(abs(a - b) / math.sqrt(variance))
    assert p_value - 1e-9 <= found.p_value <= p_value + 0.03
    assert (found.p_value < 0.05) == (found.low > 0 or found.high < 0)


@given(st.integers(0, 10_000), st.sampled_from(NAMES))
def test_a_score_is_the_same_as_its_own_monotone_map_and_the_sign_turns_with_the_order(seed, metric):
    inside, outside = scores(seed, n=260, m=240)
    first = detection_influence(metric, sort(inside[0]), sort(outside[0]))
    mapped = detection_influence(metric, sort(np.exp(inside[0])), sort(np.exp(outside[0])))
    same = paired_detection(first, mapped)
    assert (same.difference, same.p_value, same.method) == (0.0, 1.0, "equal")
    second = detection_influence(metric, sort(inside[1]), sort(outside[1]))
    one, other = paired_detection(first, second), paired_detection(second, first)
    assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low), abs=1e-12)
    assert one.p_value == pytest.approx(other.p_value, abs=1e-12)
    shuffled = np.random.default_rng(seed).permutation(260)
    moved = detection_influence(metric, sort(inside[0][shuffled]), sort(outside[0]))
    np.testing.assert_allclose(moved.inside, first.inside[shuffled], atol=1e-12)


@pytest.mark.parametrize("metric", NAMES)
def test_values_are_those_of_the_metrics_and_influences_have_mean_zero(metric):
    inside, outside = scores(3, n=400, m=300)
    found = detection_influence(metric, sort(inside[0]), sort(outside[0]))
    assert found.value == pytest.approx(metrics.METRICS[metric].function(inside[0], outside[0]), abs=1e-12)
    assert abs(found.inside.mean()) < 1e-12
    assert abs(found.outside.mean()) < 1e-12


def test_variances_are_those_of_the_intervals_of_one_score():
    inside, outside = (sort(column[0]) for column in scores(5, n=400, m=300))
    found = auroc_influence(inside, outside)
    variance = found.inside.var(ddof=1) / 400 + found.outside.var(ddof=1) / 300
    assert variance == pytest.approx(auroc_variance(inside, outside)[1], rel=1e-12)


@pytest.mark.parametrize("metric", NAMES)
def test_the_mean_over_one_set_has_the_interval_of_the_set(metric):
    inside, outside = (sort(column[0]) for column in scores(5, n=400, m=300))
    one, alone = detection_interval(metric, inside, outside, level=0.9), mean_over(metric, inside, outside, level=0.9)
    assert (alone.low, alone.high, alone.level) == pytest.approx((one.low, one.high, 0.9), abs=1e-12)


def mean_over(metric, inside, *sets, level=0.95):
    means = SetMeans()
    for place, outside in enumerate(sets):
        means.add(metric, "near", str(place), part_of(metric, inside, outside, level=level))
    return means.interval(metric, "near")


def replicates_of(inside, outside, id_weights, ood_weights):
    """Return every detection number on each resample of both sides, (R,) each."""
    drawn: dict[str, list[float]] = {name: [] for name in NAMES}
    for own, other in zip(id_weights.T, ood_weights.T, strict=True):
        # Sorted scores drawn w times stay sorted; a row's weight belongs to the row.
        sides = [
            SortedScores(np.repeat(s.values, w[s.rows]), np.arange(int(w.sum()), dtype=np.int32))
            for s, w in ((inside, own), (outside, other))
        ]
        for name, value in detection_numbers(*sides).items():
            drawn[name].append(value)
    return {name: np.array(values) for name, values in drawn.items()}


@pytest.mark.parametrize("metric", NAMES)
def test_errors_are_those_of_a_paired_bootstrap(metric):
    """The error of a difference and of a mean equals that over resamples which both numbers share."""
    rng = np.random.default_rng(8)
    inside, outside = scores(11, n=2000, m=1500, digits=6)
    weights = [BootstrapWeights(size, replicates=1000, seed=seed).all() for size, seed in ((2000, 1), (1500, 2))]
    other = sort(rng.normal(0.3, 1.2, 1500))
    other_weights = BootstrapWeights(1500, replicates=1000, seed=3).all()
    first, second = ((sort(inside[k]), sort(outside[k])) for k in (0, 1))
    drawn = [replicates_of(*sides, *weights)[metric] for sides in (first, second)]
    found = paired_detection(*(detection_influence(metric, *sides) for sides in (first, second)))
    assert (found.high - found.low) / 2 / 1.96 == pytest.approx((drawn[0] - drawn[1]).std(), rel=0.12)
    interval = mean_over(metric, first[0], first[1], other)
    replicates = (drawn[0] + replicates_of(first[0], other, weights[0], other_weights)[metric]) / 2
    error = (interval.high - interval.low) / 2 / 1.96
    assert error == pytest.approx(replicates.std(), rel=0.12)


def test_the_mean_over_sets_has_the_covariance_of_its_areas():
    rng = np.random.default_rng(2)
    inside = np.round(rng.normal(1, 1, 150), 1)
    sets = [np.round(rng.normal(middle, 1.2, 120), 1) for middle in (0.0, 0.4, -0.5)]
    parts = [placements(inside, outside) for outside in sets]
    shared = np.cov([part[1] for part in parts]).sum() / 9 / 150
    variance = shared + sum(part[2].var(ddof=1) / 120 for part in parts) / 9
    means = SetMeans()
    for name, distance, outside in zip("abc", ("near", "far", "far"), sets, strict=True):
        means.add("auroc", distance, name, part_of("auroc", sort(inside), sort(outside)))
    interval = means.interval("auroc", "all")
    reach = 1.959964 * math.sqrt(variance)
    assert reach * 0.98 <= (interval.high - interval.low) / 2 <= reach * 1.05
    independent = sum(p[1].var(ddof=1) / 150 + p[2].var(ddof=1) / 120 for p in parts) / 9
    assert variance > 1.3 * independent  # what the sets' common images add
    far = means.interval("auroc", "far")
    assert far.high - far.low != pytest.approx(interval.high - interval.low, rel=0.01)


def test_what_has_no_interval_says_why():
    inside, outside = scores(0, n=150)
    with pytest.raises(UserError, match="no test: only 7 rows on one side of the threshold"):
        check_comparable("fpr95_id", sort(inside[0]), sort(outside[0]))
    with pytest.raises(UserError, match="30 rows on one side"):
        check_comparable("auroc", sort(inside[0]), sort(outside[0][:30]))
    means = SetMeans()
    means.add("auroc", "near", "sun", part_of("auroc", sort(inside[0]), sort(outside[0])))
    means.add("auroc", "far", "small", part_of("auroc", sort(inside[0]), sort(outside[0][:30])))
    assert means.interval("auroc", "near").method == "shared-id-mover"
    for subset in ("far", "all"):
        with pytest.raises(UserError, match="no interval: small: 30 rows on one side, at least 100 are needed"):
            means.interval("auroc", subset)
    means.add("auroc", "near", "masked", part_of("auroc", sort(inside[0][:140]), sort(outside[0])))
    with pytest.raises(UserError, match="different ID rows"):
        means.interval("auroc", "near")
    with pytest.raises(UserError, match="different numbers of images"):
        paired_detection(
            auroc_influence(sort(inside[0]), sort(outside[0])), auroc_influence(sort(inside[1][:9]), sort(outside[1]))
        )


def drawn(rng, n, m, gap=0.0):
    """Two scores that agree in part; the second's OOD images lie ``gap`` lower."""
    sides = []
    for size, middle in ((n, 1.2), (m, 0.0)):
        common, own = rng.normal(0, 0.7, size), rng.normal(0, 0.7, (2, size))
        sides.append((middle + common + own[0], middle + common + own[1] - (gap if middle == 0 else 0.0)))
    return sides


def test_tests_have_their_size_and_intervals_cover():
    rng = np.random.default_rng(4)
    large = drawn(rng, 400_000, 400_000, gap=0.15)
    truths = [detection_numbers(sort(large[0][k]), sort(large[1][k])) for k in (0, 1)]
    names = ("auroc", "fpr95_id", "fpr95_ood")
    below, covers = {name: [] for name in names}, {name: [] for name in names}
    for _ in range(600):
        for gap, kept in ((0.0, below), (0.15, covers)):
            inside, outside = drawn(rng, 500, 300, gap)
            for name in names:
                pair = [detection_influence(name, sort(inside[k]), sort(outside[k])) for k in (0, 1)]
                found = paired_detection(*pair)
                truth = truths[0][name] - truths[1][name]
                kept[name].append(found.p_value < 0.05 if gap == 0 else found.low <= truth <= found.high)
    for name in names:
        # three standard errors of 600 draws
        assert 0.02 <= np.mean(below[name]) <= 0.078, (name, np.mean(below[name]))
        assert 0.922 <= np.mean(covers[name]) <= 0.98, (name, np.mean(covers[name]))


def test_means_over_sets_cover():
    rng = np.random.default_rng(6)
    middles = (-0.4, 0.0, 0.3)
    large = sort(rng.normal(1, 1, 500_000))
    numbers = [detection_numbers(large, sort(rng.normal(middle, 1.2, 500_000))) for middle in middles]
    names = ("auroc", "fpr95_id", "fpr95_ood")
    hits = {name: [] for name in names}
    for _ in range(600):
        inside = sort(rng.normal(1, 1, 800))
        sets = [sort(rng.normal(middle, 1.2, 400)) for middle in middles]
        for name in names:
            interval = mean_over(name, inside, *sets)
            hits[name].append(interval.low <= np.mean([number[name] for number in numbers]) <= interval.high)
    for name in names:
        assert 0.922 <= np.mean(hits[name]) <= 0.98, (name, np.mean(hits[name]))
