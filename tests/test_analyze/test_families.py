"""Families of models: what makes them, how many independent models they are worth, tests and intervals over them."""

from __future__ import annotations

import itertools

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analyze.trends.correlations import correlation
from analyze.trends.dependence import FEWEST_FOR_TEST, flip_p_value, signs
from analyze.trends.families import (
    Families,
    effective_models,
    families_of,
    intraclass_correlation,
    with_families,
)
from analyze.trends.fits import fit_line
from analyze.trends.line_tests import same_line
from analyze.trends.medians import median
from closerlook_common.errors import UserError

SIZES = np.maximum(1, np.round(70 / np.arange(1, 20) / 3.55)).astype(int)
"""Sizes of 19 families: one of twenty models, many of one."""


def dependent(rng: np.random.Generator, *, alike: float = 0.8) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return two numbers that have nothing to do with one another, alike within families, and the families."""
    codes = np.repeat(np.arange(len(SIZES)), SIZES)
    shared, own = rng.normal(size=(2, len(SIZES)))[:, codes], rng.normal(size=(2, len(codes)))
    x, y = np.sqrt(alike) * shared + np.sqrt(1 - alike) * own
    return x, y, codes


# ---- what makes a family


def test_levels_columns_and_none() -> None:
    frame = pl.DataFrame(
        {
            "model": ["a", "b", "c", "d", "e"],
            "lineage": ["vit:wit/r1/c1", "vit:wit/r1/c2", "vit:wit/r2/c3", "", ""],
            "group": ["g", "g", "h", "h", "h"],
        }
    )
    counts = {by: families_of(frame, by).count for by in ("backbone", "run", "checkpoint", "group", "none")}
    assert counts == {"backbone": 3, "run": 4, "checkpoint": 5, "group": 2, "none": 5}
    assert families_of(frame, "backbone").codes[0] == families_of(frame, "backbone").codes[2]
    with pytest.raises(UserError, match="backbone"):
        families_of(frame, "backbones")


def test_a_users_own_families_replace_lineages(tmp_path, results: pl.DataFrame) -> None:
    models = results["model"].unique().sort().to_list()
    path = tmp_path / "families.csv"
    path.write_text("model,family\n" + "".join(f"{m},{'one' if i < 5 else 'two'}\n" for i, m in enumerate(models[:9])))
    changed = with_families(results, path).unique("model").sort("model")
    assert changed["lineage"].to_list()[:9] == ["one"] * 5 + ["two"] * 4
    assert families_of(changed, "run").count == 2 + len(models) - 9
    for text, problem in (
        ("model,kind\na,b\n", "needs the columns model and family"),
        ("model,family\nnobody,x\n", "none of the result table's models"),
        (f"model,family\n{models[0]},x\n{models[0]},y\n", "two families"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=problem):
            with_families(results, path)
    with pytest.raises((UserError, FileNotFoundError)):
        with_families(results, tmp_path / "absent.csv")


@given(st.lists(st.integers(0, 6), min_size=2, max_size=40))
def test_models_are_worth_as_many_as_there_are_families_at_least_and_n_at_most(labels: list[int]) -> None:
    families = Families.of(labels)
    n, sizes = len(labels), np.bincount(np.unique(labels, return_inverse=True)[1])
    assert 1 <= families.effective_count <= families.count + 1e-9
    rng = np.random.default_rng(0)
    worth = effective_models(families, rng.normal(size=n), rng.normal(size=n))
    assert n**2 / (sizes**2).sum() - 1e-9 <= worth <= n + 1e-9
    assert effective_models(Families.independent(n), rng.normal(size=n)) == pytest.approx(n)


def test_copies_are_worth_their_families_and_strangers_themselves() -> None:
    values = np.random.default_rng(0).normal(size=10)
    copies = np.repeat(values, 4) + 1e-9 * np.random.default_rng(1).normal(size=40)
    families = Families.of(np.repeat(np.arange(10), 4))
    assert intraclass_correlation(copies, families) == pytest.approx(1)
    assert effective_models(families, copies, copies) == pytest.approx(10)
    strangers = np.random.default_rng(2).normal(size=4000)
    many = Families.of(np.repeat(np.arange(1000), 4))
    assert intraclass_correlation(strangers, many) < 0.05


def test_the_intraclass_correlation_is_that_of_the_analysis_of_variance_by_hand() -> None:
    rng = np.random.default_rng(4)
    x, _, codes = dependent(rng)
    parts = [x[codes == c] for c in np.unique(codes)]
    n, k = len(x), len(parts)
    between = sum(len(p) * (p.mean() - x.mean()) ** 2 for p in parts) / (k - 1)
    within = sum(((p - p.mean()) ** 2).sum() for p in parts) / (n - k)
    typical = (n - sum(len(p) ** 2 for p in parts) / n) / (k - 1)
    expected = (between - within) / (between + (typical - 1) * within)
    assert intraclass_correlation(x, Families.of(codes)) == pytest.approx(expected)


# ---- tests over families


def slow_flips(design: np.ndarray, y: np.ndarray, codes: np.ndarray, tested: list[int]) -> float:
    """Fit every flip by itself with errors by family, statsmodels for the observed one."""
    others = [c for c in range(design.shape[1]) if c not in tested]
    null = design[:, others] @ np.linalg.lstsq(design[:, others], y, rcond=None)[0]

    def wald(v: np.ndarray) -> float:
        fit = sm.OLS(v, design).fit()
        inverse = np.linalg.inv(design.T @ design)
        scores = np.array([(design * fit.resid[:, None])[codes == c].sum(0) for c in np.unique(codes)])
        covariance = inverse @ (scores.T @ scores) @ inverse
        b = fit.params[tested]
        return float(b @ np.linalg.solve(covariance[np.ix_(tested, tested)], b))

    observed = wald(y)
    reach = 0
    flips = list(itertools.product((1.0, -1.0), repeat=len(np.unique(codes))))
    for flip in flips:
        moved = null + np.array(flip)[codes] * (y - null)
        reach += wald(moved) >= observed * (1 - 1e-9)
    return reach / len(flips)


@pytest.mark.parametrize("tested", [[1], [2], [1, 2]])
def test_flips_equal_fitting_every_one_of_them(tested: list[int]) -> None:
    rng = np.random.default_rng(8)
    codes = np.repeat(np.arange(7), [5, 1, 3, 2, 4, 2, 2])
    design = np.column_stack([np.ones(len(codes)), rng.normal(size=(len(codes), 2))])
    y = 0.5 * design[:, 1] + rng.normal(size=7)[codes] + rng.normal(size=len(codes))
    families = Families.of(codes)
    assert len(signs(7, 1999, 0)) == 1 + 2**7
    assert flip_p_value(design, y, families, tested) == pytest.approx(slow_flips(design, y, codes, tested))


def test_unrelated_numbers_of_families_are_found_related_as_often_as_promised() -> None:
    """Ordinary p-values reject in four of ten draws; over families in one of twenty."""
    rng = np.random.default_rng(1)
    over: dict[str, list[bool]] = {"families": [], "ordinary": [], "kendall": [], "lines": []}
    for draw in range(200):
        x, y, codes = dependent(rng)
        over["families"].append(correlation(x, y, families=codes, seed=draw, flips=399).p_value < 0.05)
        over["kendall"].append(correlation(x, y, method="kendall", families=codes, seed=draw, flips=399).p_value < 0.05)
        over["ordinary"].append(correlation(x, y).p_value < 0.05)
        group = (codes % 2).astype(str)
        scales = {"x_scale": "linear", "y_scale": "linear"}
        tested = same_line(x, 0.3 * x + y, group, families=codes, seed=draw, flips=399, **scales)
        over["lines"].append(tested.p_value < 0.05)
    share = {name: float(np.mean(found)) for name, found in over.items()}
    assert share["ordinary"] > 0.3
    # 0.05 and three standard errors of 200 draws
    assert all(share[name] < 0.05 + 3 * 0.0155 for name in ("families", "kendall", "lines")), share


def test_few_families_have_neither_p_value_nor_interval_and_the_reason_is_given() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 40))
    five = correlation(x, y, families=np.arange(40) % (FEWEST_FOR_TEST - 1))
    assert np.isnan(five.p_value)
    assert np.isfinite(five.low)
    four = correlation(x, y, families=np.arange(40) % 4)
    assert np.isnan(four.low)
    assert four.interval == "none: 4 families of models, an interval needs 5"
    line = fit_line(x, y, x_scale="linear", y_scale="linear", families=np.arange(40) % 4)
    assert np.isnan(line.interval()[0]).all()
    assert line.uncertainty == four.interval
    lines = same_line(x, y, np.arange(40) % 2, x_scale="linear", y_scale="linear", families=np.arange(40) % 4)
    assert np.isnan(lines.p_value)
    assert lines.test == f"none: 4 families, {FEWEST_FOR_TEST} are needed"
    assert "no p-value" in repr(lines)
    alone = np.arange(40) < 3  # three models of two families, of four or of twenty
    lines = same_line(x, y, alone, x_scale="linear", y_scale="linear", families=np.arange(40) % 4)
    assert lines.test == f"none: 4 families, {FEWEST_FOR_TEST} are needed"
    lines = same_line(x, y, alone, x_scale="linear", y_scale="linear", families=np.arange(40) // 2)
    assert lines.test == "none: True has fewer than 3 families"


def test_independent_models_have_ordinary_p_values_and_say_so() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 30))
    for method, peer in (("pearson", stats.pearsonr), ("spearman", stats.spearmanr), ("kendall", stats.kendalltau)):
        found = correlation(x, y, method=method)
        assert found.p_value == pytest.approx(peer(x, y).pvalue)
        assert "taken as independent" in found.interval
    tested = same_line(x, y, np.arange(30) % 2, x_scale="linear", y_scale="linear")
    half = (np.arange(30) % 2).astype(float)
    free = sm.OLS(y, np.column_stack([np.ones(30), x, half, half * x])).fit()
    pooled = sm.OLS(y, sm.add_constant(x)).fit()
    f, p_value, _ = free.compare_f_test(pooled)
    assert (tested.f, tested.p_value) == pytest.approx((f, p_value))
    assert "independent" in tested.test


@given(st.integers(0, 500))
def test_order_of_models_and_names_of_families_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y, codes = dependent(rng)
    order = rng.permutation(len(x))
    one = correlation(x, y, families=codes, flips=99)
    other = correlation(x[order], y[order], families=[f"f{c}" for c in codes[order]], flips=99)
    assert (one.low, one.high) == pytest.approx((other.low, other.high))


# ---- lines and medians


@pytest.mark.parametrize("method", ["ols", "huber"])
def test_the_covariance_of_a_line_is_that_of_leaving_out_families_by_hand(method: str) -> None:
    rng = np.random.default_rng(2)
    x, y, codes = dependent(rng)
    scales = {"x_scale": "linear", "y_scale": "linear", "method": method}
    line = fit_line(x, y, families=codes, **scales)
    others = [fit_line(x[codes != c], y[codes != c], errors=False, **scales) for c in np.unique(codes)]
    off = np.array([[o.slope - line.slope, o.intercept - line.intercept] for o in others])
    k = len(others)
    assert line.covariance == pytest.approx((k - 1) / k * off.T @ off, rel=1e-5)
    low, high = line.band([0.3, 1.0])
    reach = stats.t.ppf(0.975, len(x) ** 2 / (SIZES**2).sum() - 2)
    error = np.sqrt([np.array([v, 1]) @ line.covariance @ np.array([v, 1]) for v in (0.3, 1.0)])
    assert (high - low) / 2 == pytest.approx(reach * error)


def test_resampled_theil_sen_lines_equal_those_of_repeated_models() -> None:
    from analyze.trends.fits import _estimates

    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(2, 15))
    counts = rng.multinomial(15, np.full(15, 1 / 15), size=20).astype(float)
    slopes, intercepts = _estimates(x, y, counts, "theil-sen")
    for row, slope, intercept in zip(counts.astype(int), slopes, intercepts, strict=True):
        a, b = np.repeat(x, row), np.repeat(y, row)
        run, rise = a[:, None] - a, b[:, None] - b
        expected = np.median((rise / np.where(run == 0, np.nan, run))[run > 0])
        assert slope == pytest.approx(expected)
        assert intercept == pytest.approx(np.median(b - slope * a))


def test_a_medians_interval_covers_for_dependent_and_independent_models() -> None:
    rng = np.random.default_rng(3)
    covered: dict[str, list[bool]] = {"families": [], "ignored": [], "independent": []}
    for _ in range(300):
        x, _, codes = dependent(rng)
        own = median(x, codes)
        covered["families"].append(own.low <= 0 <= own.high)
        ignored = median(x)
        covered["ignored"].append(ignored.low <= 0 <= ignored.high)
        alone = median(rng.normal(size=20))
        covered["independent"].append(alone.low <= 0 <= alone.high)
    assert np.mean(covered["families"]) > 0.9
    assert np.mean(covered["independent"]) > 0.93
    assert np.mean(covered["ignored"]) < 0.75


def test_a_median_is_the_median_and_few_models_have_no_interval() -> None:
    found = median([1.0, 4.0, 2.0, 8.0])
    assert (found.value, found.n) == (3.0, 4)
    assert np.isnan(found.low)
    assert found.interval == "none: 4 models, an interval needs 5"
    assert "too few for the interval of a median" in median(np.arange(5.0)).interval
    assert np.isnan(median([]).value)
