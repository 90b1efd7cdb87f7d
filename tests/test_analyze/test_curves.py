"""Curves from a cache are what the metrics give on the same rows; the commands draw and report from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import cache_schema
from analyze import metrics
from analyze.cli import main
from analyze.curves import KINDS, curves
from analyze.evaluate import evaluate
from analyze.results import read_results
from analyze.results.quantities import values
from analyze.suites.made_with import settings_of


@pytest.fixture
def cache(toy_store, tmp_path: Path):
    folder = tmp_path / "cache"
    for number, model in enumerate(("first", "second")):
        for seed, (dataset, role) in enumerate((("val", "id"), ("moved", "shift"), ("far", "ood"))):
            toy_store(
                model=model, dataset=dataset, role=role, seed=10 * number + seed, n=400, skill=3 - number, cache=folder
            )
    return cache_schema.open_cache(folder)


def test_curves_agree_with_the_result_table(cache) -> None:
    table, problems = curves(cache)
    assert problems == {}
    assert set(table["curve"]) == set(KINDS)
    results = evaluate(cache).table
    for model in ("first", "second"):
        own = table.filter(pl.col("model") == model)
        for dataset, subset in (("val", "[subset=held-out]"), ("moved", "")):
            bins = own.filter(pl.col("curve") == "reliability", pl.col("dataset") == dataset)
            for series, quantity in (
                ("before", f"ece@{dataset}{subset}"),
                ("after temperature scaling", f"ece@{dataset}[calibrator=temperature]"),
            ):
                part = bins.filter(pl.col("series") == series)
                assert part["weight"].sum() == pytest.approx(1)
                held = part.drop_nulls("y")
                ece = (held["weight"] * (held["x"] - held["y"]).abs()).sum()
                wanted = dict(values(results, quantity).select("model", "value").rows())
                assert ece == pytest.approx(wanted[model], abs=1e-6)
        roc = own.filter(pl.col("curve") == "roc", pl.col("dataset") == "far").sort("x", "y")
        area = np.trapezoid(roc["y"], roc["x"])
        wanted = dict(values(results, "auroc@far[score=msp]").select("model", "value").rows())
        assert area == pytest.approx(wanted[model], abs=0.01)
        risk = own.filter(pl.col("curve") == "risk_coverage", pl.col("dataset") == "moved").sort("x")
        top1 = dict(values(results, "top1@moved").select("model", "value").rows())
        assert risk["x"][-1] == 1
        assert risk["y"][-1] == pytest.approx(1 - top1[model])
        for name in ("val", "far"):
            bars = own.filter(pl.col("curve") == "score_histogram", pl.col("series") == name)
            assert ((bars["x_high"] - bars["x_low"]) * bars["y"]).sum() == pytest.approx(1)


def test_error_consistency_is_the_metrics(cache) -> None:
    table, _ = curves(cache, kinds=["error_consistency"])
    right = [np.argmax(cache.store(m, "val").logits(), 1) == cache.store(m, "val").labels for m in ("first", "second")]
    found = table.filter(pl.col("model") == "first", pl.col("series") == "second")["y"][0]
    assert found == pytest.approx(metrics.error_consistency(*right))


def test_models_and_sets_can_be_chosen(cache) -> None:
    table, _ = curves(cache, models=["first"], datasets=["moved"], kinds=["reliability"])
    assert set(table["model"]) == {"first"}
    assert set(table["dataset"]) == {"moved"}


def test_figures_and_report_from_a_cache(
    cache, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "figures",
        str(cache.path),
        "-o",
        str(tmp_path / "f"),
        "--format",
        "png",
        "--only",
        "reliability,roc",
        "--width",
        "4",
    ]
    assert main(words) == 0
    assert "most accurate model" not in capsys.readouterr().err  # there are few: all are drawn
    assert {p.name for p in (tmp_path / "f").iterdir()} == {"reliability.png", "reliability.csv", "roc.png", "roc.csv"}
    numbers = pl.read_csv(tmp_path / "f" / "reliability.csv", infer_schema_length=None)
    assert set(numbers["model"]) == {"first", "second"}
    monkeypatch.setattr("analyze.commands.figures.FEW", 1)
    assert main(words) == 0
    assert "most accurate model of each group: first" in " ".join(capsys.readouterr().err.split())
    numbers = pl.read_csv(tmp_path / "f" / "reliability.csv", infer_schema_length=None)
    assert set(numbers["model"]) == {"first"}
    assert main(["report", str(cache.path), "-o", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    assert '"reliability":{"dataset":"val"' in page
    assert main(["figures", str(cache.path), "--only", "ood"]) == 2
    assert "a result table" in capsys.readouterr().err


def _ten_bins(folder: Path) -> Path:
    path = folder / "ten.toml"
    path.write_text("[calibration]\nbins = 10\n[split]\nseed = 3\n")
    return path


def test_curves_are_drawn_with_the_settings_of_their_table(
    cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, table, out = _ten_bins(tmp_path), tmp_path / "r.parquet", tmp_path / "f"
    words = ["metrics", str(cache.path), "-o", str(table), "--only", "ece,top1,temperature"]
    assert main([*words, "--config", str(config)]) == 0
    draw = ["figures", str(table), "--cache", str(cache.path), "-o", str(out), "--only", "reliability", "--format=png"]
    for more in ([], ["--config", str(config)]):
        assert main([*draw, *more]) == 0
        bins = pl.read_csv(out / "reliability.csv", infer_schema_length=None)
        assert (bins.group_by("model", "panel", "series").len()["len"] == 10).all()
    made = settings_of(read_results(table))
    assert (made["calibration"]["bins"], made["split"]["seed"]) == (10, 3)
    assert main(["report", str(table), "--cache", str(cache.path), "-o", str(tmp_path / "r.html")]) == 0
    assert '"bins":10' in (tmp_path / "r.html").read_text()
    config.write_text("[calibration]\nbins = 12\n")
    for command in (draw, ["report", str(table), "--cache", str(cache.path), "-o", str(tmp_path / "r.html")]):
        assert main([*command, "--config", str(config)]) == 2
        assert "made with [calibration] bins = 10, the settings file has 12" in capsys.readouterr().err


def test_a_table_of_several_settings_gets_no_figure(cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = []
    for config in ([], ["--config", str(_ten_bins(tmp_path))]):
        path = tmp_path / "part.parquet"
        assert main(["metrics", str(cache.path), "-o", str(path), "--only", "ece", *config]) == 0
        tables.append(pl.read_parquet(path))
    pl.concat(tables).write_parquet(tmp_path / "both.parquet")
    for words in (["figures", "-o", str(tmp_path / "f")], ["report", "-o", str(tmp_path / "r.html")]):
        assert main([words[0], str(tmp_path / "both.parquet"), *words[1:]]) == 2
        assert "[calibration] bins = 15 and with bins = 10" in " ".join(capsys.readouterr().err.split())
