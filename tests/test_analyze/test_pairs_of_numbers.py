"""Which images x is of, which models are left out of a fit, which are marked: what a trend is computed from."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats
from scipy.special import ndtr, ndtri

from analyze.cli import main
from analyze.figures.pages import compose, prepare
from analyze.intervals import wilson_interval
from analyze.results import ResultRow, to_frame, write_results
from analyze.results.quantities import Quantity
from analyze.trends.chance import models_at_chance
from analyze.trends.marks import AGAINST, BEYOND, CHANCE, DISTILLED, FINE_TUNED, mark_of
from analyze.trends.pairs import ALL_CLASSES, OTHER_IMAGES, SAME_CLASSES, SHARED_IMAGES, Choices, pair_of
from analyze.trends.ranks import rank_test
from analyze.trends.robustness import effective_robustness
from closerlook_common.errors import UserError

N, N_A, N_POSE = 50_000, 7_500, 9_000
VAL, A = Quantity("top1", "imagenet-val"), Quantity("top1", "imagenet-a")
POSE = Quantity("factor_accuracy", "imagenet-val", (("factor", "pose"),))


def row(model: str, dataset: str, metric: str, hits: int, n: int, **more: object) -> ResultRow:
    found = wilson_interval(hits, n)
    printed = {"role": "id" if dataset == "imagenet-val" else "shift", "low": found.low, "high": found.high} | more
    return ResultRow(model=model, dataset=dataset, metric=metric, value=hits / n, n=n, **printed)  # type: ignore[arg-type]


def study(*, matched: bool = True) -> pl.DataFrame:
    """Return 14 models, of which one is at chance, one was used to build ImageNet-A, and one reaches beyond them."""
    rng = np.random.default_rng(0)
    rows = []
    names = [f"m{i:02d}" for i in range(11)] + ["broken", "resnet50.tv_in1k", "far"]
    for place, model in enumerate(names):
        x = {"broken": 0.0011, "far": 0.93}.get(model, 0.6 + 0.015 * place)
        group = "clip-ft-in1k" if model == "m03" else "supervised-in1k"
        card = {"group": group, "lineage": f"b{place // 2}:imagenet-1k/{model}/{model}", "classes": 1000}
        y = 0.0 if model.startswith("resnet50") else float(ndtr(ndtri(x) - 1 + 0.05 * rng.normal()))
        same = float(ndtr(ndtri(x) + 0.3))
        pose = float(ndtr(ndtri(x) + 0.2))
        rows.append(row(model, "imagenet-val", "top1", round(x * N), N, **card))
        rows.append(row(model, "imagenet-a", "top1", round(y * N_A), N_A, **{**card, "classes": 200}))
        rows.append(row(model, "imagenet-val", "factor_accuracy", round(pose * N_POSE), N_POSE, factor="pose", **card))
        if matched:
            subset = {"subset": "classes:imagenet-a", **card, "classes": 200}
            rows.append(row(model, "imagenet-val", "top1", round(same * 10_000), 10_000, **subset))
    return to_frame(rows)


# ---- models at chance


@pytest.mark.parametrize(("hits", "n", "classes", "expected"), [
    (50, 50_000, 1000, True), (62, 50_000, 1000, True), (72, 50_000, 1000, False), (0, 10, 10, True),
    (9, 10, 10, False),
])  # fmt: skip
def test_chance_is_what_the_exact_binomial_test_says(hits: int, n: int, classes: int, expected: bool) -> None:
    frame = to_frame([row("m", "imagenet-val", "top1", hits, n, classes=classes)])
    found = models_at_chance(frame, level=0.01)
    by_peer = stats.binomtest(hits, n, 1 / classes, alternative="greater").pvalue > 0.01
    assert (set(found) == {"m"}) == expected == by_peer
    if expected:
        assert f"not above 1/{classes} (exact binomial test, level 0.01)" in found["m"]


def test_the_number_of_classes_comes_from_the_table_the_set_or_the_user() -> None:
    frame = to_frame([row("m", "imagenet-val", "top1", 50, 50_000), row("m", "mine", "top1", 10, 100, role="id")])
    assert set(models_at_chance(frame.filter(pl.col("dataset") == "imagenet-val"))) == {"m"}
    own = frame.filter(pl.col("dataset") == "mine")
    assert models_at_chance(own) == {}
    assert set(models_at_chance(own, classes={"mine": 10})) == {"m"}
    assert models_at_chance(own.with_columns(role=pl.lit("shift"))) == {}


def test_a_model_at_chance_is_left_out_of_fits_unless_it_is_kept() -> None:
    results = study()
    pair = pair_of(results, VAL, A)
    assert {"broken", "resnet50.tv_in1k"} == set(pair.left_out)
    assert set(pair.everyone["model"]) - set(pair.fitted["model"]) == set(pair.left_out)
    marks = dict(pair.everyone.select("model", "mark").rows())
    assert marks["broken"] == CHANCE
    assert marks["resnet50.tv_in1k"] == AGAINST
    assert marks["m03"] == FINE_TUNED
    kept = pair_of(results, VAL, A, Choices(keep_chance=True, keep_built_against=True))
    assert len(kept.fitted) == 14
    assert kept.left_out == {}
    with_all = effective_robustness(results, A, choices=Choices(keep_chance=True, keep_built_against=True))
    assert effective_robustness(results, A).line.n == 12 - 1  # but the fine-tuned one, of another group
    assert with_all.line.n == 14 - 1


# ---- axes


def test_a_set_of_fewer_classes_stands_against_the_same_classes() -> None:
    results = study()
    pair = pair_of(results, VAL, A)
    assert pair.axis == SAME_CLASSES
    assert str(pair.x) == "top1@imagenet-val[subset=classes:imagenet-a]"
    whole = pair_of(results, VAL, A, Choices(same_classes=False))
    assert (whole.axis, whole.x) == (ALL_CLASSES, VAL)
    assert (pair.fitted["0"] > whole.fitted["0"]).all()
    found = effective_robustness(results, A)
    options = found.to_results()["options"].str.json_decode(pl.Struct({"axis": pl.String, "against": pl.String}))
    assert set(options.struct.field("axis")) == {SAME_CLASSES}
    assert set(options.struct.field("against")) == {str(pair.x)}
    assert pair_of(study(matched=False), VAL, A).axis == ALL_CLASSES


def test_models_without_the_same_classes_are_left_out_or_all_classes_are_taken() -> None:
    results = study()
    one_less = results.filter(~((pl.col("model") == "m00") & (pl.col("subset") != "")))
    pair = pair_of(one_less, VAL, A)
    assert pair.axis == SAME_CLASSES
    assert pair.left_out["m00"] == "no top1@imagenet-val[subset=classes:imagenet-a]"
    few = results.filter((pl.col("subset") == "") | pl.col("model").is_in(["m00", "m01"]))
    assert pair_of(few, VAL, A).axis == ALL_CLASSES


def test_a_factor_stands_against_the_images_without_it() -> None:
    results = study()
    pair = pair_of(results, VAL, POSE)
    assert pair.axis == OTHER_IMAGES
    whole = pair_of(results, VAL, POSE, Choices(other_images=False))
    assert whole.axis == SHARED_IMAGES
    for model, rest in pair.everyone.select("model", "0").rows():
        ((x, y),) = whole.everyone.filter(pl.col("model") == model).select("0", "1").rows()
        hits = round(N * x) - round(N_POSE * y)
        if 0 <= hits <= N - N_POSE:
            assert rest == pytest.approx(hits / (N - N_POSE))
            ends = wilson_interval(hits, N - N_POSE)
            found = pair.everyone.filter(pl.col("model") == model).select("0_low", "0_high").row(0)
            assert found == pytest.approx((ends.low, ends.high))
    without_n = results.with_columns(n=pl.lit(None, dtype=pl.Int64))
    assert pair_of(without_n, VAL, POSE).axis == SHARED_IMAGES


def test_points_beyond_the_baselines_range_are_marked() -> None:
    results = study().with_columns(group=pl.when(pl.col("model") == "far").then(pl.lit("more-data")).otherwise("group"))
    found = effective_robustness(results, A)
    marks = dict(found.table.select("model", "mark").rows())
    assert marks["far"] == BEYOND
    assert marks["m05"] == ""
    assert set(found.table["n"]) == {N_A}


@pytest.mark.parametrize(
    ("model", "lineage", "group", "dataset", "expected"),
    [
        ("x", "resnet:imagenet-1k/resnet50.tv/resnet50.tv_in1k", "supervised-in1k", "imagenet-a", AGAINST),
        ("x", "resnet:imagenet-1k/resnet50.tv/resnet50.tv_in1k", "supervised-in1k", "imagenet-r", ""),
        ("resnet50.a1_in1k", "", "supervised-in1k", "imagenet-a", ""),
        ("my-clip", "", "clip-ft-in12k", "imagenet-r", FINE_TUNED),
        ("eva02_large_patch14_448.mim_m38m_ft_in1k", "", "more-data", "imagenet-r", DISTILLED),
        ("beitv2_base_patch16_224.in1k_ft_in1k", "", "self-supervised", "imagenet-r", DISTILLED),
        ("vit_base_patch16_224.augreg_in21k_ft_in1k", "", "more-data", "imagenet-r", ""),
        ("EVA02-L-14/merged2b_s4b_b131k", "", "clip-zero-shot", "imagenet-r", ""),
    ],
)
def test_marks(model: str, lineage: str, group: str, dataset: str, expected: str) -> None:
    assert mark_of(model, lineage, group, dataset) == expected


# ---- medians and ranks


def test_group_medians_carry_n_families_and_an_interval_that_holds_the_line() -> None:
    results = study()
    found = effective_robustness(results, A, choices=Choices(dependence="checkpoint"))
    table = found.medians()
    (own,) = table.filter(pl.col("group") == "supervised-in1k").rows(named=True)
    kept = found.table.filter(~pl.col("mark").is_in([CHANCE, AGAINST]), pl.col("group") == "supervised-in1k")
    assert own["value"] == pytest.approx(kept["value"].median())
    assert (own["n"], own["families"], own["axis"]) == (11, 11, SAME_CLASSES)
    assert own["low"] < own["value"] < own["high"]
    (single,) = table.filter(pl.col("group") == "clip-ft-in1k").rows(named=True)
    assert single["low"] is None
    assert single["interval"].startswith("none: 1 family of models,")


def test_rank_intervals_hold_the_true_ranks() -> None:
    rng = np.random.default_rng(0)
    true = np.linspace(0.5, 0.9, 12)
    n, inside, width = 2000, [], []
    for _ in range(60):
        rows = [
            row(f"m{i:02d}", name, "top1", int(rng.binomial(n, p)), n, role=role)
            for i, p in enumerate(true)
            for name, role in (("v", "id"), ("a", "shift"), ("b", "shift"))
        ]
        table = rank_test(to_frame(rows), ["top1@v", "top1@a", "top1@b"]).table.sort("model")
        held = (table["rank_low"] <= np.arange(12, 0, -1)) & (table["rank_high"] >= np.arange(12, 0, -1))
        inside.append(held.mean())
        width.append((table["rank_high"] - table["rank_low"]).mean())
    assert np.mean(inside) >= 0.95
    assert np.mean(width) < 4  # of eleven


def test_ranks_without_intervals_have_none() -> None:
    frame = study().with_columns(low=pl.lit(None, dtype=pl.Float64))
    assert rank_test(frame, [VAL, A]).table["rank_low"].is_nan().all()


# ---- figures and the command


def test_figures_name_the_axis_cross_out_who_is_left_out_and_draw_rank_intervals() -> None:
    data = prepare("factor_accuracy", study())
    assert set(data["x_title"]) == {"ImageNet accuracy, others"}
    assert data.filter(pl.col("mark") != "")["model"].to_list() == ["broken"]
    assert data.filter(pl.col("mark") != "")["mark"].to_list() == [CHANCE]
    line = data.filter(pl.col("kind") == "line")
    assert line["x"].min() > 0.5  # type: ignore[operator]
    page = compose("factor_accuracy", data)
    gids = {str(artist.get_gid()) for artist in page.findobj()}
    assert "marked" in gids
    ranks = prepare("ranks", study())
    assert "broken" not in set(ranks["model"])
    points = ranks.filter(pl.col("kind") == "point")
    assert (points["x_low"] <= points["x"]).all()
    assert (points["x_high"] >= points["x"]).all()
    assert "rank-interval" in {str(artist.get_gid()) for artist in compose("ranks", ranks).findobj()}


def test_the_command_reports_who_is_left_out_and_how_many_tests_were_made(
    tmp_path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    path = write_results(study(), tmp_path / "r.parquet")
    out = tmp_path / "out"
    words = ["trends", str(path), "--bootstrap", "99", "-o", str(out)]
    assert main(words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "left out of fits: broken (top1@imagenet-a" in shown
    assert "accuracy 0.0011 on imagenet-val is not above 1/1000 (exact binomial test, level 0.01)" in shown
    assert "left out of fits: resnet50.tv_in1k (top1@imagenet-a): the set was built against it" in shown
    assert "*: x is the accuracy on the same classes." in shown
    tests = pl.read_csv(out / "correlations.csv")["tests"][0]
    assert f"{tests} tests were made" in shown
    marked = pl.read_csv(out / "marked_models.csv")
    assert set(marked.filter(pl.col("fits") == "left out")["model"]) == {"broken", "resnet50.tv_in1k"}
    robust = pl.read_csv(out / "effective_robustness.csv")
    assert set(robust.filter(pl.col("model") == "broken")["mark"]) == {CHANCE}
    assert main([*words, "--dependence", "none", "--keep-chance", "--all-classes"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "broken" not in shown
    table = pl.read_csv(out / "correlations.csv")
    assert set(table["families"]) == set(table["n"])
    assert "jackknife 95 %: models taken as independent" in set(table["interval"])
    assert main([*words, "--dependence", "backbon"]) == 2
    assert "backbone" in capsys.readouterr().err


def test_the_commands_own_families(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    results = study()
    path = write_results(results, tmp_path / "r.parquet")
    families = tmp_path / "f.csv"
    models = results["model"].unique().sort()
    families.write_text("model,family\n" + "".join(f"{m},f{i % 3}\n" for i, m in enumerate(models)))
    out = tmp_path / "out"
    assert main(["trends", str(path), "--y", str(POSE), "--families", str(families), "-o", str(out), "--by", ""]) == 0
    table = pl.read_csv(out / "correlations.csv")
    assert set(table["families"]) == {3}
    assert set(table["interval"]) == {"none: 3 families of models, an interval needs 5"}
    capsys.readouterr()
    assert main(["trends", str(path), "--families", str(tmp_path / "no.csv")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_too_few_fitted_models_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="three baseline models"):
        effective_robustness(study(), A, baseline={"group": "clip-ft-in1k"})
