"""Planted lines with known parameters and outliers come back; bootstraps equal resampling by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from scipy import stats
from scipy.special import ndtr, ndtri

import cache_schema
from analyze import trends
from analyze.cli import main
from analyze.intervals import wilson_interval
from analyze.results import ResultRow, read_results, to_frame, write_results
from analyze.results.quantities import Quantity, joined, values
from analyze.trends import ranks, robustness
from analyze.trends.agreement import agreement_on_the_line
from analyze.trends.agreement_lines import agreement_lines, lines_table
from analyze.trends.correlations import METHODS
from analyze.trends.line_tests import same_line
from analyze.trends.pairs import Choices
from closerlook_common.errors import UserError


def planted(
    slope: float, intercept: float, *, n: int = 60, noise: float = 0.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(0.4, 0.9, n)
    return x, ndtr(slope * ndtri(x) + intercept + noise * rng.normal(size=n))


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
            ResultRow(dataset="val", role="id", metric="factor_accuracy", factor="pose", value=float(y), **card),
        ]
    return to_frame(rows)


def test_the_interval_of_an_effective_robustness_covers() -> None:
    """Accuracies are of drawn images, the baseline's models of a population about its line."""
    rng = np.random.default_rng(0)
    n_val, n_shift, covered, of_line_alone = 10_000, 3_000, [], []
    for draw in range(250):
        rows, true = [], {}
        for i in range(40):
            x = rng.uniform(0.55, 0.85)
            # The baseline scatters about its line; the model in question lies 0.2 above it.
            y = float(ndtr(1.2 * ndtri(x) - 0.8 + (0.2 if i == 0 else 0.06 * rng.normal())))
            true[f"m{i:02d}"] = y - float(ndtr(1.2 * ndtri(x) - 0.8))
            card = {"model": f"m{i:02d}", "group": "clip-zero-shot" if i == 0 else "supervised-in1k"}
            for name, role, share, n in (("val", "id", x, n_val), ("a", "shift", y, n_shift)):
                found = wilson_interval(int(rng.binomial(n, share)), n)
                middle = (found.low + found.high) / 2
                ends = {"value": middle, "low": found.low, "high": found.high, "n": n}
                rows.append(ResultRow(dataset=name, role=role, metric="top1", **ends, **card))
        found = robustness.effective_robustness(
            to_frame(rows), "top1@a", scale="probit", choices=Choices(seed=draw, dependence="none")
        )
        row = found.table.filter(pl.col("model") == "m00").row(0, named=True)
        covered.append(row["low"] <= true["m00"] <= row["high"])
        low, high = found.line.band(row["x"])
        of_line_alone.append(row["y"] - high[0] <= true["m00"] <= row["y"] - low[0])
        assert row["n"] == n_shift
    assert 0.91 <= np.mean(covered) <= 0.985, np.mean(covered)
    assert np.mean(of_line_alone) < 0.8


def test_without_intervals_of_the_accuracies_there_is_none_and_the_row_says_so() -> None:
    rows = robustness.effective_robustness(shifted(), "top1@a", scale="probit").to_results()
    assert rows["low"].is_null().all()
    assert set(rows["interval"]) == {"none: an accuracy, or the line, has no interval"}


@pytest.mark.parametrize("method", ["ols", "huber", "theil-sen"])
def test_effective_robustness_is_the_planted_lift(method: str) -> None:
    found = robustness.effective_robustness(shifted(), "top1@a", scale="probit", method=method)
    for x, y, expected, value, group in found.table.select("x", "y", "expected", "value", "group").rows():
        assert expected == pytest.approx(ndtr(1.2 * ndtri(x) - 0.8), abs=1e-9)
        assert value == pytest.approx(y - expected)
        assert value == pytest.approx(0, abs=1e-9) or group == "clip-zero-shot"
    rows = found.to_results()
    assert set(rows["metric"]) == {"effective_robustness"}
    assert rows["options"].str.json_path_match("$.against").unique().to_list() == ["top1@val"]


def test_effective_robustness_in_two_pieces_and_by_factor() -> None:
    frame = shifted(0.0)
    found = robustness.effective_robustness(frame, "top1@a", split=0.7)
    assert found.table["value"].abs().max() < 0.02
    rows = robustness.factor_effective_robustness(frame, scale="probit")
    assert rows["factor"].unique().to_list() == ["pose"]
    assert rows["value"].abs().max() < 1e-6


def test_a_baseline_of_two_models_is_refused() -> None:
    frame = shifted().filter((pl.col("group") == "clip-zero-shot") | pl.col("model").is_in(["m01", "m03"]))
    with pytest.raises(UserError, match=r"three baseline models.* has 2"):
        robustness.effective_robustness(frame, "top1@a")


def test_models_without_a_group_are_stated_what_a_baseline_could_be() -> None:
    frame = shifted().with_columns(group=pl.lit("unknown"))
    with pytest.raises(UserError, match=r"has 0: name three models as `baseline` \(model=A,B,C\), or give models"):
        robustness.effective_robustness(frame, "top1@a")
    named = frame.with_columns(family=pl.lit("vit"))
    with pytest.raises(UserError, match=r"has 0: name another `baseline` \(family=vit\), or give models a group="):
        robustness.effective_robustness(named, "top1@a")
    assert len(robustness.effective_robustness(named, "top1@a", baseline={"family": ["vit"]}).table) == 40


def test_relative_robustness_is_a_difference() -> None:
    frame = shifted()
    number = dict(values(frame, "top1@a").select("model", "value").rows())
    found = robustness.relative_robustness(frame, "top1@a", {"m00": "m01"})
    assert found["value"].to_list() == [number["m00"] - number["m01"]]


def test_two_lines_are_stated_apart_and_one_is_not() -> None:
    rng = np.random.default_rng(11)
    x = rng.uniform(0.4, 0.9, 80)
    group = np.repeat(["a", "b"], 40)
    noise = 0.05 * rng.normal(size=80)
    same = same_line(x, ndtr(ndtri(x) - 0.5 + noise), group)
    offset = same_line(x, ndtr(ndtri(x) - 0.5 + noise + 0.3 * (group == "b")), group)
    slope = same_line(x, ndtr(ndtri(x) * np.where(group == "b", 1.6, 1.0) - 0.5 + noise), group)
    assert same.p_value > 0.05
    assert offset.offset_p_value < 1e-6 < 0.01 < offset.slope_p_value
    assert slope.slope_p_value < 1e-6
    with pytest.raises(UserError, match="at least three models"):
        same_line(x[:42], x[:42], group[:42])


@pytest.mark.parametrize("seed", range(5))
def test_the_f_tests_are_those_of_statsmodels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, group = rng.uniform(0, 1, 40), np.repeat(["a", "b", "c", "d"], 10)
    y = 0.7 * x + 0.1 * rng.normal(size=40) + 0.05 * (group == "b")
    found = same_line(x, y, group, x_scale="linear", y_scale="linear")
    offsets = (group[:, None] == np.array(["b", "c", "d"])).astype(float)
    designs = [[x], [x, *offsets.T], [x, *offsets.T, *(offsets * x[:, None]).T]]
    pooled, parallel, free = (sm.OLS(y, sm.add_constant(np.column_stack(one))).fit() for one in designs)
    f, p, _ = free.compare_f_test(pooled)
    np.testing.assert_allclose(
        [found.f, found.p_value, found.slope_p_value, found.offset_p_value],
        [f, p, free.compare_f_test(parallel)[1], parallel.compare_f_test(pooled)[1]],
        rtol=1e-8,
    )


def test_the_f_test_has_its_level() -> None:
    rng = np.random.default_rng(2)
    x = rng.uniform(0.4, 0.9, 30)
    p = [
        same_line(x, x + 0.1 * rng.normal(size=30), np.arange(30) % 2, x_scale="linear", y_scale="linear").p_value
        for _ in range(200)
    ]
    assert stats.kstest(p, "uniform").pvalue > 1e-3


def test_agreement_predicts_shifted_accuracy() -> None:
    x, y = planted(0.8, -0.5, n=20)
    a, b = planted(0.8, -0.5, n=50, seed=4)
    found = agreement_on_the_line(
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
    words = [
        "trends",
        source,
        "--keep-chance",
        "--y",
        "top1@moved",
        "--by",
        "",
        "--bootstrap",
        "20",
        "-o",
        str(tmp_path / "out"),
    ]
    assert main([*words, "--cache", str(five_models), "--pair", "m4=m0"]) == 0
    text = capsys.readouterr().out
    assert "agreement on the line" in text
    assert "relative robustness" in text
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
    table = ranks.rank_stability(results, keys)
    assert table["kendall"].to_list() == [1.0]
    assert table["top_overlap"].to_list() == [1.0]
    sets = ["top1@imagenet-v2-a", "top1@imagenet-r", "top1@imagenet-a", "top1@imagenet-sketch"]
    found = ranks.rank_test(results, sets)
    assert found.table["rank"].is_sorted()
    assert found.table["rank"].mean() == pytest.approx((36 + 1) / 2)
    # Demsar's table: q(0.05, 5 models) = 2.728
    few = results.filter(pl.col("model").is_in(results["model"].unique().sort()[:5].implode()))
    assert ranks.rank_test(few, sets).critical_difference == pytest.approx(2.728 * np.sqrt(5 * 6 / (6 * 4)), abs=2e-3)


# ---- tables and the command


def test_tables_hold_every_pair_and_group(results: pl.DataFrame) -> None:
    pairs = trends.default_pairs(results)
    assert (Quantity("top1", "imagenet-val"), Quantity("top1", "imagenet-a")) in pairs
    assert len({y for _, y in pairs}) == len(pairs)
    chosen = pairs[:3]
    table = trends.correlation_table(results, chosen, by="source")
    assert set(table["y"]) == {str(y) for _, y in chosen}
    assert set(table["method"]) == set(METHODS)
    for x, y in chosen:
        frame = joined(results, [x, y])
        value = table.filter(pl.col("y") == str(y), pl.col("among") == "all", pl.col("method") == "spearman")["value"][
            0
        ]
        assert value == pytest.approx(stats.spearmanr(frame["0"], frame["1"]).statistic)


def test_matrix_is_symmetric_with_a_diagonal_of_ones(results: pl.DataFrame) -> None:
    keys = ["top1@imagenet-val", "ece@imagenet-a", "auroc@sun"]
    wide = trends.correlation_matrix(results, keys).pivot("y", index="x", values="value")
    matrix = wide.drop("x").to_numpy()
    assert matrix == pytest.approx(matrix.T)
    assert np.diag(matrix) == pytest.approx(1)


def test_command_prints_and_writes(results: pl.DataFrame, tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert dict(lifted)["clip-zero-shot"] > 0.08 > abs(dict(lifted)["supervised-in1k"])  # planted: +0.4 probit
    assert main(["trends", str(source), "--y", "top1@imagenet-aa"]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_robustness_rows_join_the_result_table(results: pl.DataFrame, tmp_path) -> None:
    found = robustness.effective_robustness(results, "top1@imagenet-a").to_results()
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
    text = capsys.readouterr().out
    assert text.count("conformal_size@imagenet-val") == 3
    assert "9 weaker or tied ones" in text
    whole = pl.read_csv(tmp_path / "out" / "correlations.csv", infer_schema_length=None)
    assert whole.filter(pl.col("among") == "all")["y"].n_unique() == 33


def test_a_line_through_every_model_is_no_sign_of_two() -> None:
    x = np.linspace(0.3, 0.8, 6)
    found = same_line(x, 0.5 * x + 0.2, list("aaabbb"), x_scale="linear", y_scale="linear")
    assert (found.f, found.p_value) == (0.0, 1.0)
    y = 0.5 * x + np.repeat([0.0, 0.2], 3)
    apart = same_line(x, y, list("aaabbb"), x_scale="linear", y_scale="linear")
    assert apart.p_value < 1e-6
