"""Planted lines with known parameters and outliers come back; bootstraps equal resampling by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import ndtr, ndtri

import cache_schema
from analyze import trends
from analyze.cli import main
from analyze.quantities import Quantity, joined, values
from analyze.results import ResultRow, read_results, to_frame, write_results
from analyze.trends import ranks, robustness
from analyze.trends.agreement_lines import agreement_lines, lines_table
from analyze.trends.correlations import METHODS, correlation
from analyze.trends.fits import fit_line, fit_piecewise
from analyze.trends.scales import CLIP, transform, untransform
from cache_schema.errors import UserError


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
    line = fit_line(x, y, method=method, x_scale=scale, y_scale=scale, n_boot=20)
    assert (line.slope, line.intercept, line.r2) == pytest.approx((0.8, -0.1, 1.0), abs=1e-9)
    assert line.predict(x) == pytest.approx(y)
    low, high = line.band([0.5, 0.7])
    assert low == pytest.approx(high, abs=1e-6)


def test_outliers_move_least_squares_and_not_the_robust_fits() -> None:
    x, y = planted(0.9, -0.4, noise=0.02)
    order = np.argsort(x)
    y[order[-10:]] = 0.05
    robust = {m: fit_line(x, y, method=m, n_boot=0).slope for m in ("huber", "theil-sen")}
    assert abs(fit_line(x, y, method="ols", n_boot=0).slope - 0.9) > 0.5
    assert abs(robust["theil-sen"] - 0.9) < 0.3
    y2 = planted(0.9, -0.4, noise=0.02)[1]
    y2[order[25:30]] = 0.05
    assert fit_line(x, y2, method="huber", n_boot=0).slope == pytest.approx(0.9, abs=0.1)
    assert fit_line(x, y2, method="huber", n_boot=0).intercept == pytest.approx(-0.4, abs=0.05)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(5, 60))
def test_huber_equals_statsmodels(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=n), rng.standard_t(2, size=n)
    line = fit_line(x, y, method="huber", x_scale="linear", y_scale="linear", n_boot=0)
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
    line = fit_line(x, y, method="theil-sen", x_scale="linear", y_scale="linear", n_boot=0)
    assert line.slope == pytest.approx(
        np.median([(y[j] - y[i]) / (x[j] - x[i]) for i in range(len(x)) for j in range(i)])
    )


def test_the_band_covers_the_planted_line() -> None:
    inside = []
    for seed in range(40):
        x, y = planted(1.1, -0.3, n=40, noise=0.1, seed=seed)
        low, high = fit_line(x, y, method="ols", n_boot=300, seed=seed).band([0.65])
        inside.append(low[0] <= ndtr(1.1 * ndtri(0.65) - 0.3) <= high[0])
    assert 34 <= sum(inside) <= 40


def test_pieces_meet_the_two_planted_lines() -> None:
    x = np.linspace(0.3, 0.9, 60)
    y = np.where(x <= 0.6, 0.5 * x, 1.5 * x - 0.7)
    found = fit_piecewise(x, y, split=0.6, method="ols", x_scale="linear", y_scale="linear", n_boot=10)
    assert (found.below.slope, found.above.slope) == pytest.approx((0.5, 1.5))
    assert found.predict(x) == pytest.approx(y)
    with pytest.raises(UserError, match="three models on each side"):
        fit_piecewise(x, y, split=0.31, method="ols", x_scale="linear", y_scale="linear")


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        ([0.5, 0.6], [0.5, 0.6], "three models"),
        ([0.5] * 4, [0.1, 0.2, 0.3, 0.4], "differ"),
        ([0.5, 0.6, 0.7], [0.5, 0.6], "equal length"),
    ],
)
def test_what_no_line_goes_through_is_refused(x: list[float], y: list[float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        fit_line(x, y)


# ---- correlations


@pytest.mark.parametrize("method", METHODS)
def test_bootstrap_equals_resampling_by_hand(method: str) -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(0, 15, 20).astype(float)
    y = x + rng.integers(-6, 6, 20)
    found = correlation(x, y, method=method, n_boot=200, seed=7)
    counts = np.random.default_rng(7).multinomial(20, np.full(20, 1 / 20), size=200)
    alone = {
        "pearson": stats.pearsonr,
        "spearman": stats.spearmanr,
        "kendall": stats.kendalltau,
        "weighted_kendall": stats.weightedtau,
        "r2": stats.pearsonr,
    }[method]
    drawn = []
    for times in counts:
        value = alone(np.repeat(x, times), np.repeat(y, times)).statistic
        drawn.append(value**2 if method == "r2" else value)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=1e-9)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=3, max_size=25))
def test_correlations_are_symmetric_bounded_and_turn_with_the_sign(points: list[tuple[int, int]]) -> None:
    x, y = np.array(points, dtype=float).T
    for method in METHODS:
        there, back = (correlation(a, b, method=method, n_boot=0) for a, b in ((x, y), (y, x)))
        turned = correlation(x, -y, method=method, n_boot=0)
        if np.isnan(there.value):
            assert np.ptp(x) == 0 or np.ptp(y) == 0
            continue
        assert -1 - 1e-9 <= there.value <= 1 + 1e-9
        assert there.value == pytest.approx(back.value)
        if method in ("pearson", "spearman", "kendall"):
            assert turned.value == pytest.approx(-there.value)


def test_rank_correlations_ignore_the_axis_and_pearson_does_not() -> None:
    x, y = planted(1.0, -1.0, noise=0.1)
    rank = [
        correlation(x, y, method="spearman", x_scale=s, y_scale=s, n_boot=0).value
        for s in ("linear", "probit")
    ]
    line = [
        correlation(x, y, method="pearson", x_scale=s, y_scale=s, n_boot=0).value
        for s in ("linear", "probit")
    ]
    assert rank[0] == rank[1]
    assert line[0] != line[1]


def test_too_few_models_give_no_number() -> None:
    found = correlation([0.1, 0.2], [0.3, 0.4])
    assert np.isnan(found.value)
    assert found.n == 2


# ---- robustness


def shifted(lift: float = 0.3) -> pl.DataFrame:
    rng = np.random.default_rng(5)
    rows = []
    for i in range(40):
        clip = i % 2 == 0
        x = rng.uniform(0.5, 0.85)
        y = ndtr(1.2 * ndtri(x) - 0.8 + (lift if clip else 0))
        card = {"model": f"m{i:02d}", "group": "clip-zero-shot" if clip else "supervised-in1k"}
        rows += [
            ResultRow(dataset="val", role="id", metric="top1", value=x, **card),
            ResultRow(dataset="a", role="shift", metric="top1", value=float(y), **card),
            ResultRow(
                dataset="val", role="id", metric="factor_accuracy", factor="pose", value=float(y), **card
            ),
        ]
    return to_frame(rows)


@pytest.mark.parametrize("method", ["ols", "huber", "theil-sen"])
def test_effective_robustness_is_the_planted_lift(method: str) -> None:
    found = robustness.effective_robustness(shifted(), "top1@a", scale="probit", method=method, n_boot=50)
    for x, y, expected, value, group in found.table.select("x", "y", "expected", "value", "group").rows():
        assert expected == pytest.approx(ndtr(1.2 * ndtri(x) - 0.8), abs=1e-9)
        assert value == pytest.approx(y - expected)
        assert value == pytest.approx(0, abs=1e-9) or group == "clip-zero-shot"
    rows = found.to_results()
    assert set(rows["metric"]) == {"effective_robustness"}
    assert rows["options"].str.json_path_match("$.against").unique().to_list() == ["top1@val"]


def test_effective_robustness_in_two_pieces_and_by_factor() -> None:
    frame = shifted(0.0)
    found = robustness.effective_robustness(frame, "top1@a", split=0.7, n_boot=20)
    assert found.table["value"].abs().max() < 0.02
    rows = robustness.factor_effective_robustness(frame, scale="probit", n_boot=20)
    assert rows["factor"].unique().to_list() == ["pose"]
    assert rows["value"].abs().max() < 1e-6


def test_a_baseline_of_two_models_is_refused() -> None:
    frame = shifted().filter((pl.col("group") == "clip-zero-shot") | pl.col("model").is_in(["m01", "m03"]))
    with pytest.raises(UserError, match=r"three baseline models.* has 2"):
        robustness.effective_robustness(frame, "top1@a")


def test_relative_robustness_is_a_difference() -> None:
    frame = shifted()
    number = dict(values(frame, "top1@a").select("model", "value").rows())
    found = robustness.relative_robustness(frame, "top1@a", {"m00": "m01"})
    assert found["value"].to_list() == [number["m00"] - number["m01"]]


def test_two_lines_are_told_apart_and_one_is_not() -> None:
    rng = np.random.default_rng(11)
    x = rng.uniform(0.4, 0.9, 80)
    group = np.repeat(["a", "b"], 40)
    noise = 0.05 * rng.normal(size=80)
    same = robustness.same_line(x, ndtr(ndtri(x) - 0.5 + noise), group)
    offset = robustness.same_line(x, ndtr(ndtri(x) - 0.5 + noise + 0.3 * (group == "b")), group)
    slope = robustness.same_line(x, ndtr(ndtri(x) * np.where(group == "b", 1.6, 1.0) - 0.5 + noise), group)
    assert same.p_value > 0.05
    assert offset.offset_p_value < 1e-6 < 0.01 < offset.slope_p_value
    assert slope.slope_p_value < 1e-6
    with pytest.raises(UserError, match="at least three models"):
        robustness.same_line(x[:42], x[:42], group[:42])


def test_the_f_test_has_its_level() -> None:
    rng = np.random.default_rng(2)
    x = rng.uniform(0.4, 0.9, 30)
    p = [
        robustness.same_line(
            x, x + 0.1 * rng.normal(size=30), np.arange(30) % 2, x_scale="linear", y_scale="linear"
        ).p_value
        for _ in range(200)
    ]
    assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_agreement_predicts_shifted_accuracy() -> None:
    x, y = planted(0.8, -0.5, n=20)
    a, b = planted(0.8, -0.5, n=50, seed=4)
    found = robustness.agreement_on_the_line(
        pl.DataFrame({"model": [str(i) for i in range(20)], "id": x, "shifted": y}),
        pl.DataFrame({"id": a, "shifted": b}),
    )
    assert found.mean_absolute_error < 1e-9
    assert found.accuracy_line is not None
    assert found.accuracy_line.slope == pytest.approx(found.agreement_line.slope)


@pytest.fixture
def five_models(toy_store, tmp_path):
    """A cache of five models of rising skill, on a set and on a shift of it that is harder for all."""
    for number, skill in enumerate((0.5, 1.0, 1.6, 2.4, 3.2)):
        for seed, (dataset, role, harder) in enumerate((("val", "id", 1.0), ("moved", "shift", 0.7))):
            # What all models see alike in an image makes them err together, as real ones do.
            shared = np.random.default_rng(seed).normal(0, 1, (600, 10))
            own = np.random.default_rng(100 * number + seed).normal(0, 0.5, (600, 10))
            labels = np.random.default_rng(77).integers(0, 10, 600)
            logits = shared + own
            logits[np.arange(600), labels] += harder * skill
            toy_store(
                model=f"m{number}", dataset=dataset, role=role, n=600, labels=labels, logits=logits,
                cache=tmp_path / "cache",
            )  # fmt: skip
    return tmp_path / "cache"


def test_agreement_of_a_cache_equals_counting_by_hand(five_models) -> None:
    cache = cache_schema.open_cache(five_models)
    found, problems = agreement_lines(cache)
    assert problems == {}
    top = {(s.model.id, s.dataset.id): s.logits().argmax(1) for s in cache.stores("predictions")}
    labels = cache.store("m0", "val").labels
    names = [f"m{i}" for i in range(5)]
    pairs = {
        dataset: [
            np.mean([top[a, dataset][i] == top[b, dataset][i] for i in range(600)])
            for at, a in enumerate(names)
            for b in names[at + 1 :]
        ]
        for dataset in ("val", "moved")
    }
    slope, intercept = np.polyfit(ndtri(pairs["val"]), ndtri(pairs["moved"]), 1)
    line = found["moved"].agreement_line
    assert (line.slope, line.intercept, line.n) == (pytest.approx(slope), pytest.approx(intercept), 10)
    accuracy = {d: np.array([np.mean(top[name, d] == labels) for name in names]) for d in ("val", "moved")}
    table = found["moved"].predicted
    assert table["model"].to_list() == names
    assert table["shifted"].to_numpy() == pytest.approx(accuracy["moved"])
    assert table["predicted"].to_numpy() == pytest.approx(ndtr(slope * ndtri(accuracy["val"]) + intercept))
    (row,) = lines_table(found).rows(named=True)
    own = np.polyfit(ndtri(accuracy["val"]), ndtri(accuracy["moved"]), 1)
    assert (row["accuracy_slope"], row["accuracy_intercept"]) == (pytest.approx(own[0]), pytest.approx(own[1]))
    assert row["mean_absolute_error"] == pytest.approx(np.abs(table["predicted"] - table["shifted"]).mean())
    with pytest.raises(UserError, match="three models"):
        agreement_lines(cache, models=["m0", "m1"])


def test_command_tells_agreement_and_what_interventions_gain(
    five_models, tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(tmp_path / "r.parquet")
    assert main(["metrics", str(five_models), "-o", source, "--only", "top1"]) == 0
    words = ["trends", source, "--y", "top1@moved", "--by", "", "--bootstrap", "20", "-o", str(tmp_path / "out")]
    assert main([*words, "--cache", str(five_models), "--pair", "m4=m0"]) == 0
    said = capsys.readouterr().out
    assert "agreement on the line" in said
    assert "relative robustness" in said
    top1 = dict(values(read_results(source), "top1@moved").select("model", "value").rows())
    gained = pl.read_csv(tmp_path / "out" / "relative_robustness.csv")
    assert gained["value"].to_list() == [pytest.approx(top1["m4"] - top1["m0"])]
    assert len(pl.read_csv(tmp_path / "out" / "agreement_predictions.csv")) == 5
    stable = pl.read_csv(tmp_path / "out" / "rank_stability.csv")
    assert stable.select("x", "y", "n").rows() == [("top1@val", "top1@moved", 5)]
    assert main([*words, "--pair", "m4"]) == 2
    assert "CHANGED=STANDARD" in capsys.readouterr().err
    assert main([*words, "--pair", "m4=m9"]) == 2
    assert "m9" in capsys.readouterr().err


# ---- ranks


def test_ranks_follow_directions_and_the_friedman_test(results: pl.DataFrame) -> None:
    keys = ["top1@imagenet-val", "brier@imagenet-val"]
    table = ranks.rank_stability(results, keys, n_boot=50)
    assert table["kendall"].to_list() == [1.0]
    assert table["top_overlap"].to_list() == [1.0]
    sets = ["top1@imagenet-v2-a", "top1@imagenet-r", "top1@imagenet-a", "top1@imagenet-sketch"]
    found = ranks.rank_test(results, sets)
    assert found.table["rank"].is_sorted()
    assert found.table["rank"].mean() == pytest.approx((36 + 1) / 2)
    # Demsar's table: q(0.05, 5 models) = 2.728
    few = results.filter(pl.col("model").is_in(results["model"].unique().sort()[:5].implode()))
    assert ranks.rank_test(few, sets).critical_difference == pytest.approx(
        2.728 * np.sqrt(5 * 6 / (6 * 4)), abs=2e-3
    )


# ---- tables and the command


def test_tables_hold_every_pair_and_group(results: pl.DataFrame) -> None:
    pairs = trends.default_pairs(results)
    assert (Quantity("top1", "imagenet-val"), Quantity("top1", "imagenet-a")) in pairs
    assert len({y for _, y in pairs}) == len(pairs)
    chosen = pairs[:3]
    table = trends.correlation_table(results, chosen, n_boot=50, by="source")
    assert set(table["y"]) == {str(y) for _, y in chosen}
    assert set(table["method"]) == set(METHODS)
    for x, y in chosen:
        frame = joined(results, [x, y])
        value = table.filter(pl.col("y") == str(y), pl.col("among") == "all", pl.col("method") == "spearman")[
            "value"
        ][0]
        assert value == pytest.approx(stats.spearmanr(frame["0"], frame["1"]).statistic)


def test_matrix_is_symmetric_with_a_diagonal_of_ones(results: pl.DataFrame) -> None:
    keys = ["top1@imagenet-val", "ece@imagenet-a", "auroc@sun"]
    wide = trends.correlation_matrix(results, keys).pivot("y", index="x", values="value")
    matrix = wide.drop("x").to_numpy()
    assert matrix == pytest.approx(matrix.T)
    assert np.diag(matrix) == pytest.approx(1)


def test_command_prints_and_writes(
    results: pl.DataFrame, tmp_path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_results(results, tmp_path / "r.parquet")
    words = [
        "trends",
        str(source),
        "--y",
        "top1@imagenet-a",
        "--y",
        "ece@imagenet-r[calibrator=temperature]",
        "--bootstrap",
        "50",
        "-o",
        str(tmp_path / "out"),
    ]
    assert main(words) == 0
    assert "top1@imagenet-a" in capsys.readouterr().out
    fits = pl.read_csv(tmp_path / "out" / "fits.csv")
    assert set(fits["among"]) == {"all", *results["group"].unique()}
    robust = pl.read_csv(tmp_path / "out" / "effective_robustness.csv")
    lifted = robust.group_by("group").agg(pl.col("value").median()).rows()
    assert (
        dict(lifted)["clip-zero-shot"] > 0.08 > abs(dict(lifted)["supervised-in1k"])
    )  # planted: +0.4 probit
    assert main(["trends", str(source), "--y", "top1@imagenet-aa"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_robustness_rows_join_the_result_table(results: pl.DataFrame, tmp_path) -> None:
    found = robustness.effective_robustness(results, "top1@imagenet-a", n_boot=20).to_results()
    path = write_results(pl.concat([results, found]), tmp_path / "r.parquet")
    assert len(values(read_results(path), "effective_robustness@imagenet-a")) == 36


def test_the_command_takes_a_whole_table_as_it_is(tmp_path, capsys) -> None:
    """Conformal sets have three numbers a model, by method; quantities in plenty are printed by strength."""
    rng = np.random.default_rng(5)
    rows = []
    for i in range(12):
        top1 = 0.4 + 0.04 * i
        card = {"model": f"m{i}", "role": "id", "group": "supervised-in1k"}
        rows.append(ResultRow(dataset="imagenet-val", metric="top1", value=top1, **card))
        for method in ("lac", "aps", "raps"):
            size = {"metric": "conformal_size", "calibrator": "conformal", "score": method, "direction": "lower"}
            rows.append(ResultRow(dataset="imagenet-val", value=9 * (1 - top1), **size, **card))
        noise = rng.normal(size=30).tolist()
        rows += [ResultRow(dataset="imagenet-val", metric=f"noise{j}", value=v, **card) for j, v in enumerate(noise)]
    path = tmp_path / "results.parquet"
    write_results(to_frame(rows), path)
    assert main(["trends", str(path), "--bootstrap", "20", "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert said.count("conformal_size@imagenet-val") == 3
    assert "9 weaker ones" in said
    whole = pl.read_csv(tmp_path / "out" / "correlations.csv", infer_schema_length=None)
    assert whole.filter(pl.col("among") == "all")["y"].n_unique() == 33
