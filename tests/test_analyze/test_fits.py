"""Lines and correlations: planted parameters come back, bootstraps equal resampling by hand."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtr, ndtri

from analyze.trends.correlations import METHODS, correlation
from analyze.trends.fits import fit_line, fit_piecewise
from analyze.trends.scales import CLIP, transform, untransform
from closerlook_common.errors import UserError


def planted(
    slope: float, intercept: float, *, n: int = 60, noise: float = 0.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.4, 0.9, n)
    return x, ndtr(slope * ndtri(x) + intercept + noise * rng.normal(size=n))


# ---- scales


@given(st.floats(CLIP, 1 - CLIP), st.sampled_from(["linear", "logit", "probit", "log"]))
def test_scales_go_there_and_back(value: float, scale: str) -> None:
    assert untransform(transform([value], scale), scale)[0] == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize(("value", "scale"), [(1.2, "probit"), (-0.1, "logit"), (0.0, "log"), (0.5, "sqrt")])
def test_values_outside_an_axis_are_refused(value: float, scale: str) -> None:
    with pytest.raises(UserError, match=scale):
        transform([value], scale)


def test_certain_accuracies_stay_finite() -> None:
    assert np.isfinite(transform([0.0, 1.0], "probit")).all()


# ---- fits


@pytest.mark.parametrize("method", ["ols", "huber", "theil-sen"])
@pytest.mark.parametrize("scale", ["linear", "logit", "probit"])
def test_an_exact_line_is_found_on_every_scale(method: str, scale: str) -> None:
    x = np.random.default_rng(1).uniform(0.3, 0.9, 40)
    y = untransform(0.8 * transform(x, scale) - 0.1, scale)
    line = fit_line(x, y, method=method, x_scale=scale, y_scale=scale)
    assert (line.slope, line.intercept, line.r2) == pytest.approx((0.8, -0.1, 1.0), abs=1e-9)
    assert line.predict(x) == pytest.approx(y)
    low, high = line.band([0.5, 0.7])
    assert low == pytest.approx(high, abs=1e-6)


def test_outliers_move_least_squares_and_not_the_robust_fits() -> None:
    x, y = planted(0.9, -0.4, noise=0.02)
    order = np.argsort(x)
    y[order[-10:]] = 0.05
    robust = {m: fit_line(x, y, method=m, errors=False).slope for m in ("huber", "theil-sen")}
    assert abs(fit_line(x, y, method="ols", errors=False).slope - 0.9) > 0.5
    assert abs(robust["theil-sen"] - 0.9) < 0.3
    y2 = planted(0.9, -0.4, noise=0.02)[1]
    y2[order[25:30]] = 0.05
    assert fit_line(x, y2, method="huber", errors=False).slope == pytest.approx(0.9, abs=0.1)
    assert fit_line(x, y2, method="huber", errors=False).intercept == pytest.approx(-0.4, abs=0.05)


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(5, 60))
def test_huber_equals_statsmodels(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=n), rng.standard_t(2, size=n)
    line = fit_line(x, y, method="huber", x_scale="linear", y_scale="linear", errors=False)
    peer = sm.RLM(y, sm.add_constant(x), M=sm.robust.norms.HuberT()).fit(maxiter=500, tol=1e-12, conv="coefs")
    assert (line.intercept, line.slope) == pytest.approx(tuple(peer.params), abs=1e-6)


@given(
    st.lists(
        st.tuples(st.integers(-50, 50), st.integers(-50, 50)),
        min_size=4,
        max_size=30,
        unique_by=lambda p: p[0],
    )
)
def test_theil_sen_equals_scipy(points: list[tuple[int, int]]) -> None:
    x, y = np.array(points, dtype=float).T
    line = fit_line(x, y, method="theil-sen", x_scale="linear", y_scale="linear", errors=False)
    assert line.slope == pytest.approx(
        np.median([(y[j] - y[i]) / (x[j] - x[i]) for i in range(len(x)) for j in range(i)])
    )


def test_the_band_covers_the_planted_line() -> None:
    inside = []
    for seed in range(40):
        x, y = planted(1.1, -0.3, n=40, noise=0.1, seed=seed)
        low, high = fit_line(x, y, method="ols", seed=seed).band([0.65])
        inside.append(low[0] <= ndtr(1.1 * ndtri(0.65) - 0.3) <= high[0])
    assert 34 <= sum(inside) <= 40


def test_pieces_meet_the_two_planted_lines() -> None:
    x = np.linspace(0.3, 0.9, 60)
    y = np.where(x <= 0.6, 0.5 * x, 1.5 * x - 0.7)
    found = fit_piecewise(x, y, split=0.6, method="ols", x_scale="linear", y_scale="linear")
    assert (found.below.slope, found.above.slope) == pytest.approx((0.5, 1.5))
    assert found.predict(x) == pytest.approx(y)
    with pytest.raises(UserError, match="three models on each side"):
        fit_piecewise(x, y, split=0.31, method="ols", x_scale="linear", y_scale="linear")


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [
        ([0.5, 0.6], [0.5, 0.6], "three models"),
        ([0.5] * 4, [0.1, 0.2, 0.3, 0.4], "differ"),
        ([0.5, 0.6, 0.7], [0.5, 0.6], "equal length"),
    ],
)
def test_what_no_line_goes_through_is_refused(x: list[float], y: list[float], text: str) -> None:
    with pytest.raises(UserError, match=text):
        fit_line(x, y)


# ---- correlations


@pytest.mark.parametrize("method", METHODS)
def test_the_interval_is_that_of_leaving_out_a_family_at_a_time_by_hand(method: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(0, 15, 20).astype(float)
    y = x + rng.integers(-6, 6, 20)
    families = rng.integers(0, 8, 20)
    found = correlation(x, y, method=method, families=families)
    alone = {
        "pearson": stats.pearsonr,
        "spearman": stats.spearmanr,
        "kendall": stats.kendalltau,
        "weighted_kendall": stats.weightedtau,
        "r2": stats.pearsonr,
    }[method]
    names = np.unique(families)
    z = np.arctanh(alone(x, y).statistic)
    others = [np.arctanh(alone(x[families != f], y[families != f]).statistic) for f in names]
    error = np.sqrt((len(names) - 1) / len(names) * np.sum((np.array(others) - z) ** 2))
    sizes = np.array([(families == f).sum() for f in names])
    reach = stats.t.ppf(0.975, 20**2 / (sizes**2).sum() - 1) * error
    ends = np.tanh([z - reach, z + reach])
    ends = ends**2 if method == "r2" else ends
    assert (found.low, found.high) == pytest.approx(tuple(ends), abs=1e-9)
    assert found.families == len(names)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=3, max_size=25))
def test_correlations_are_symmetric_bounded_and_turn_with_the_sign(points: list[tuple[int, int]]) -> None:
    x, y = np.array(points, dtype=float).T
    for method in METHODS:
        there, back = (correlation(a, b, method=method, flips=0) for a, b in ((x, y), (y, x)))
        turned = correlation(x, -y, method=method, flips=0)
        if np.isnan(there.value):
            assert np.ptp(x) == 0 or np.ptp(y) == 0
            continue
        assert -1 - 1e-9 <= there.value <= 1 + 1e-9
        assert there.value == pytest.approx(back.value)
        if method in ("pearson", "spearman", "kendall"):
            assert turned.value == pytest.approx(-there.value)


def test_rank_correlations_ignore_the_axis_and_pearson_does_not() -> None:
    x, y = planted(1.0, -1.0, noise=0.1)
    rank = [correlation(x, y, method="spearman", x_scale=s, y_scale=s, flips=0).value for s in ("linear", "probit")]
    line = [correlation(x, y, method="pearson", x_scale=s, y_scale=s, flips=0).value for s in ("linear", "probit")]
    assert rank[0] == rank[1]
    assert line[0] != line[1]


def test_too_few_models_give_no_number() -> None:
    found = correlation([0.1, 0.2], [0.3, 0.4])
    assert np.isnan(found.value)
    assert found.n == 2
