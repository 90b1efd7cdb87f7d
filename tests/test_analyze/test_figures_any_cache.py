"""Every figure of caches that people have: one model, one set, two in-distribution sets, sets without labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import cache_schema
from analyze.curves import HISTOGRAM_BINS, curves
from analyze.evaluate import evaluate
from analyze.figures import FIGURES
from analyze.figures.frames import distinct_titles
from analyze.figures.pages import compose, prepare
from analyze.results import ResultRow, conform, to_frame
from analyze.results.titles import dataset_title
from closerlook_common.errors import UserError

ID, OOD, SHIFT = "id", "ood", "shift"
CACHES: dict[str, tuple[int, dict[str, str]]] = {
    "two in-distribution sets": (3, {"val": ID, "Val": ID, "moved": SHIFT, "far": OOD, "FAR": OOD}),
    "one model": (1, {"val": ID, "moved": SHIFT, "far": OOD}),
    "one model on one set": (1, {"val": ID}),
    "unlabelled sets alone": (2, {"far": OOD}),
}
"""Number of models, and the role of each dataset."""


def factor_rows(results: pl.DataFrame) -> list[ResultRow]:
    """Return accuracies by factor and a shape bias for the models of a result table, on its labelled sets."""
    rows = results.filter(pl.col("metric") == "top1", pl.col("subset") == "", pl.col("value").is_not_null())
    made = []
    for model, dataset, role, value in rows.select("model", "dataset", "role", "value").rows():
        card = {"model": model, "dataset": dataset, "role": role, "group": "supervised-in1k"}
        made += [ResultRow(**card, metric="factor_accuracy", factor=f, value=value) for f in ("pose", "Pose", "a: b")]
        if role == ID:
            made.append(ResultRow(**card, metric="shape_bias", value=value))
        for kind in ("fog", "Fog"):
            for level in range(1, 6):
                name = f"{dataset}-c-{kind}-{level}"
                made.append(ResultRow(**{**card, "dataset": name, "role": SHIFT}, metric="top1", value=value / level))
    return made


@pytest.fixture(params=list(CACHES))
def tables(request: pytest.FixtureRequest, toy_store: Callable[..., Any], tmp_path: Path) -> dict[str, pl.DataFrame]:
    n_models, sets = CACHES[request.param]
    for number in range(n_models):
        for seed, (dataset, role) in enumerate(sets.items()):
            more = {"model": f"m{number}", "dataset": dataset, "role": role, "n": 120, "seed": 9 * number + seed}
            toy_store(**more, skill=3 - number, cache=tmp_path / "c")
    cache = cache_schema.open_cache(tmp_path / "c")
    results = evaluate(cache).table
    drawn, problems = curves(cache)
    assert problems == {}
    return {"results": conform(pl.concat([results, to_frame(factor_rows(results))])), "curves": drawn}


def test_every_figure_is_drawn_with_each_number_once(tables: dict[str, pl.DataFrame]) -> None:
    n_models, n_sets = (tables["results"][column].n_unique() for column in ("model", "dataset"))
    drawn = set()
    for name, spec in FIGURES.items():
        try:
            data = prepare(name, tables[spec.needs])
        except UserError:
            continue
        drawn.add(name)
        keys = {
            "point": ["panel", "model", "x"],
            "cell": ["panel", "series", "label"],
            "bar": ["panel", "series", "x_low"],
        }
        for kind, key in keys.items():
            found = data.filter(pl.col("kind") == kind, pl.col(key[-1]).is_not_null())
            twice = found.filter(pl.struct(key).is_duplicated())
            assert twice.is_empty(), name
        for panel, line in data.filter(pl.col("kind") == "line").group_by("panel", "series"):
            assert line["x"].is_sorted(), (name, panel)
        page = compose(name, data)
        for ax in page.axes:
            for axis in "xy" if ax.axison and ax.get_title() else "":
                low, high = sorted(getattr(ax, f"get_{axis}lim")())
                assert high - low > 1e-4 * max(abs(low), abs(high)), (name, axis)
    if n_models > 1 and n_sets > 2:
        assert drawn == set(FIGURES) - {"prompts"}
    if n_models == 1:
        assert not drawn & {"correlation_matrix", "error_consistency", "ranks"}


def test_two_in_distribution_sets_are_two_lines_and_two_histograms(
    toy_store: Callable[..., Any], tmp_path: Path
) -> None:
    for seed, (dataset, role) in enumerate({"val": ID, "other": ID, "far": OOD}.items()):
        toy_store(dataset=dataset, role=role, n=150, seed=seed, cache=tmp_path / "c")
    table, _ = curves(cache_schema.open_cache(tmp_path / "c"))
    roc = prepare("roc", table)
    assert set(roc["series"]) == {"m · MSP · ID: Val", "m · MSP · ID: Other"}
    page = compose("roc", roc)
    assert sum(str(line.get_gid()).startswith("line:") for line in page.axes[0].lines) == 2
    bars = prepare("score_histograms", table)
    assert set(bars["panel"]) == {"m · MSP · ID: Val", "m · MSP · ID: Other"}
    assert set(bars.group_by("panel", "series").len()["len"]) == {HISTOGRAM_BINS}
    filled = bars.filter(pl.col("kind") == "filled")
    assert filled.filter(~pl.col("panel").str.ends_with(": " + pl.col("series"))).is_empty()
    assert filled["series"].n_unique() == 2


def test_names_that_share_a_title_keep_their_own() -> None:
    assert distinct_titles(["sun", "SUN", "places"], dataset_title) == {"sun": "sun", "SUN": "SUN", "places": "Places"}


def test_prompt_sets_of_one_size_are_points_of_their_own(results: pl.DataFrame) -> None:
    added = results.filter(pl.col("head") == "openai-80")
    added = added.with_columns(pl.lit("mine-80").alias("head"), pl.col("value") / 2)
    data = prepare("prompts", pl.concat([results, added]))
    data = data.filter(pl.col("panel") == "Top-1 accuracy", pl.col("x") == 80)
    model = added["model"][0]
    points = data.filter(pl.col("kind") == "point", pl.col("model") == model)["y"].to_list()
    (line,) = data.filter(pl.col("kind") == "line", pl.col("model") == model)["y"]
    assert len(points) == 2
    assert line == pytest.approx(sum(points) / 2)
    assert max(points) == pytest.approx(2 * min(points))


def test_the_detectors_of_analyze_ood_do_not_hide_the_prompts(results: pl.DataFrame) -> None:
    again = results.filter(pl.col("metric") == "auroc", pl.col("score") == "mcm")
    assert not again.is_empty()
    again = again.with_columns(pl.lit("ood").alias("command"), pl.lit('{"tau":1.0}').alias("options"))
    assert prepare("prompts", pl.concat([results, again])).equals(prepare("prompts", results))


def test_corruptions_of_two_sets_and_two_prompt_sets_stay_apart() -> None:
    rows = []
    for model, kinds in {"whole": ("fog", "snow"), "partial": ("fog",)}.items():
        for stem in ("imagenet-c", "imagenet-3dcc"):
            for kind in kinds:
                for head, value in {"openai-80": 0.8, "photo-1": 0.2}.items():
                    name = f"{stem}-{kind}-3"
                    rows.append(ResultRow(model=model, dataset=name, role=SHIFT, metric="top1", head=head, value=value))
    data = prepare("corruptions", to_frame(rows)).filter(pl.col("kind") == "point")
    assert set(data["y"]) == {0.8}
    means = data.filter(pl.col("panel").str.starts_with("Mean"))
    assert set(means["panel"]) == {f"Mean of all corruptions ({name})" for name in ("ImageNet-C", "ImageNet-3dcc")}
    assert set(means["model"]) == {"whole"}
    assert len(set(data["panel"])) == 6
