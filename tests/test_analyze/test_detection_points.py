"""Intervals of the equal error rate and of the partial AUROC: against DeLong's, resamples, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from analyze import metrics
from analyze.intervals.detection_pairs import SortedScores
from analyze.intervals.detection_points import (
    POINTS,
    eer_influence,
    eer_interval,
    partial_auroc_influence,
    partial_auroc_interval,
    point_interval,
    point_part,
)
from analyze.intervals.influences import auroc_influence, variance_of
from analyze.intervals.set_means import SetMean
from closerlook_common.errors import UserError

sort = SortedScores.of


def draw(seed: int, n: int, m: int, distance: float = 1.5, digits: int = 9) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.round(rng.normal(distance, 1, n), digits), np.round(rng.normal(0, 1.3, m), digits)


@given(st.integers(0, 10_000), st.integers(0, 3))
def test_up_to_every_false_positive_it_is_delongs(seed: int, digits: int) -> None:
    inside, outside = draw(seed, 90, 70, digits=digits)
    found = partial_auroc_influence(sort(inside), sort(outside), max_fpr=1.0)
    whole = auroc_influence(sort(inside), sort(outside))
    assert found.value == pytest.approx(whole.value, abs=1e-12)
    np.testing.assert_allclose(found.outside, whole.outside, atol=1e-12)
    if digits == 3:  # an ID row that ties with an OOD row counts half of it
        np.testing.assert_allclose(found.inside, whole.inside, atol=0.5 / 70 * 2)


@pytest.mark.parametrize("name", POINTS)
def test_their_error_is_that_of_resamples(name: str) -> None:
    inside, outside = draw(1, 1500, 1200)
    function = metrics.METRICS[name].function
    assert function is not None
    rng = np.random.default_rng(2)
    values = [function(rng.choice(inside, 1500), rng.choice(outside, 1200)) for _ in range(600)]
    found = point_interval(name, sort(inside), sort(outside))
    assert found.low < function(inside, outside) < found.high
    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(np.std(values), rel=0.12)
    make = {"eer": eer_influence, "partial_auroc10": partial_auroc_influence}[name]
    influence = make(sort(inside), sort(outside))
    assert influence.value == pytest.approx(function(inside, outside), abs=1e-12)
    error = math.sqrt(sum(variance_of(side)[0] for side in influence[1:]))
    assert error == pytest.approx(np.std(values), rel=0.12)


def test_they_cover_the_true_value() -> None:
    threshold = brentq(lambda t: norm.cdf(t - 1.5) - norm.sf(t / 1.3), -3, 3)
    grid = np.linspace(0, 0.1, 20_001)
    area = np.trapezoid(norm.sf(norm.isf(grid) * 1.3 - 1.5), grid)
    truth = {"eer": norm.cdf(threshold - 1.5), "partial_auroc10": (1 + (area - 0.005) / 0.095) / 2}
    hits: dict[str, list[bool]] = {name: [] for name in POINTS}
    for seed in range(500):
        sides = [sort(side) for side in draw(seed, 400, 600)]
        for name in POINTS:
            found = point_interval(name, *sides)
            hits[name].append(bool(found.low <= truth[name] <= found.high))
    for name, own in hits.items():
        assert 0.93 <= np.mean(own) <= 0.97, name


@pytest.mark.parametrize("name", POINTS)
def test_a_mean_over_one_set_has_the_set_s_interval_and_few_rows_have_none(name: str) -> None:
    inside, outside = (sort(side) for side in draw(3, 500, 700))
    part = point_part(name, inside, outside)
    assert not isinstance(part, str)
    mean = SetMean()
    mean.add(part)
    whole, own = mean.interval(), point_interval(name, inside, outside)
    assert (whole.low, whole.high) == pytest.approx((own.low, own.high), abs=1e-12)
    wider = point_interval(name, inside, outside, level=0.99)
    assert wider.low < own.low < own.high < wider.high
    few = [sort(side) for side in draw(3, 99, 700)]
    assert point_part(name, *few) == "99 rows on one side, at least 100 are needed"
    with pytest.raises(UserError, match="almost separated"):
        point_interval(name, *(sort(side) for side in draw(3, 500, 700, distance=20)))


def test_the_partial_area_needs_rows_within_its_rate() -> None:
    sides = [sort(side) for side in draw(3, 500, 499)]
    assert eer_interval(*sides).low > 0
    with pytest.raises(UserError, match="49 OOD rows within 10 % FPR, at least 50 are needed"):
        partial_auroc_interval(*sides)
