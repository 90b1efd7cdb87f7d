"""Plug-ins: each example of ``examples/`` is used like ours, in commands, calls and worker processes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from plugin_commands import KINDS, example, run, write_cache

import cache_schema


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return write_cache(tmp_path / "cache")


@pytest.mark.parametrize("kind", KINDS)
def test_examples_are_short_and_import_the_public_face_alone(kind: str) -> None:
    text = example(kind).read_text()
    body = [line for line in text.partition('"""\n\n')[2].splitlines() if line.strip()]
    code = [line for line in body if not line.lstrip().startswith(('"""', "#", "from ", "import "))]
    assert len(code) <= 20, len(code)
    assert not [line for line in body if "from analyze" in line or "from extract" in line]


# ---- the analysis


def test_a_metric_is_computed_like_ours(cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.parquet"
    printed = run("analyze", "metrics", cache, "--plugins", example("metrics"), "--bootstrap", 200, "-o", out).stderr
    assert "plug-in" not in printed
    table = pl.read_parquet(out)
    rows = table.filter(pl.col("metric") == "confidence_when_wrong")
    assert rows["model"].to_list() == [f"m{i}" for i in range(5)]
    assert set(rows["direction"]) == {"lower"}
    store = cache_schema.open_cache(cache).store("m2", "val")
    logits = store.logits().astype(np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    wrong = shares.argmax(axis=1) != store.labels
    row = rows.filter(pl.col("model") == "m2").row(0, named=True)
    assert row["value"] == pytest.approx(shares.max(axis=1)[wrong].mean(), abs=1e-4)
    assert row["low"] < row["value"] < row["high"]
    assert row["interval"].startswith("bootstrap")
    only = run(
        "analyze",
        "metrics",
        cache,
        "--plugins",
        example("metrics"),
        "--only",
        KINDS["metrics"],
        "-o",
        tmp_path / "o.parquet",
    )
    assert "5 cells computed" in only.stderr
    shown = run("analyze", "table", out, "--plugins", example("metrics"), "--where", "metric=confidence_when_wrong")
    assert "confidence_when_wrong ↓" in shown.stdout
    run("analyze", "report", out, "--plugins", example("metrics"), "-o", tmp_path / "report.html")
    assert "Confidence when wrong" in (tmp_path / "report.html").read_text()


def test_without_the_plug_in_its_rows_are_still_read(cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.parquet"
    run("analyze", "metrics", cache, "--plugins", example("metrics"), "--only", KINDS["metrics"], "-o", out)
    assert "confidence" in run("analyze", "table", out, "--where", "metric=confidence_when_wrong").stdout.lower()
    assert (
        "no metric or suite" in run("analyze", "metrics", cache, "--only", KINDS["metrics"], "-o", out, code=2).stderr
    )


def test_a_changed_file_is_computed_again(cache: Path, tmp_path: Path) -> None:
    own, out = tmp_path / "mine.py", tmp_path / "r.parquet"
    shutil.copy(example("metrics"), own)
    words = ("analyze", "metrics", cache, "--plugins", own, "--only", KINDS["metrics"], "-o", out)
    assert "5 cells computed, 0 unchanged" in run(*words).stderr
    assert "0 cells computed, 5 unchanged" in run(*words).stderr
    before = pl.read_parquet(out).filter(pl.col("metric") == KINDS["metrics"])["value"]
    own.write_text(own.read_text().replace("confidences[~correct].mean()", "confidences[~correct].mean() / 2"))
    assert "5 cells computed, 0 unchanged" in run(*words).stderr
    after = pl.read_parquet(out).filter(pl.col("metric") == KINDS["metrics"])["value"]
    assert (after * 2).to_list() == pytest.approx(before.to_list())


def test_what_a_function_raises_is_a_reason(cache: Path, tmp_path: Path) -> None:
    own, out = tmp_path / "mine.py", tmp_path / "r.parquet"
    text = "from closerlook.plugins import Metric\n"
    for name, body in (("zero", "1 / 0"), ("nan", "float('nan')"), ("big", "1.5")):
        text += f"def {name}(correct):\n    return {body}\n"
    rows = [
        f'Metric("my_{name}", "t", "lower", columns=("correct",), function={name})' for name in ("zero", "nan", "big")
    ]
    own.write_text(f"{text}METRICS = ({', '.join(rows)})\n")
    run(
        "analyze",
        "metrics",
        cache,
        "--plugins",
        own,
        "--only",
        "my_zero,my_nan,my_big,top1",
        "--models",
        "m0",
        "-o",
        out,
    )
    reasons = dict(pl.read_parquet(out).select("metric", "reason").rows())
    assert reasons["my_zero"] == "my_zero fails (ZeroDivisionError: division by zero)"
    assert reasons["my_nan"] == "my_nan gives nan, which is not a number to keep"
    assert reasons["my_big"] == "my_big gives 1.5, outside its range from 0 to 1"
    assert reasons["top1"] == ""


def test_a_detector_is_scored_like_ours(cache: Path, tmp_path: Path) -> None:
    own, out = tmp_path / "mine.py", tmp_path / "r.parquet"
    shutil.copy(example("detectors"), own)
    words = ("analyze", "ood", cache, "--plugins", own, "--detectors", "top-two,msp", "-o", out)
    printed = run(*words)
    assert "top-two" in printed.stdout
    table = pl.read_parquet(out).filter(pl.col("score") == "top-two", pl.col("dataset") == "far")
    store, far = (cache_schema.open_cache(cache).store("m3", name) for name in ("val", "far"))
    first, second = (
        (lambda z: z[:, -1] - z[:, -2])(np.sort(s.logits().astype(np.float64), axis=1)) for s in (store, far)
    )
    value = table.filter(pl.col("model") == "m3", pl.col("metric") == "auroc")["value"][0]
    assert value == pytest.approx((first[:, None] > second).mean(), abs=1e-3)
    assert "plugin" in json.loads(table["options"][0])
    assert "5 of 5 models unchanged" in run(*words).stderr
    own.write_text(own.read_text().replace("weight: float = 1.0", "weight: float = 0.5"))
    printed = run(*words).stderr
    assert "unchanged" not in printed
    again = pl.read_parquet(out).filter(pl.col("score") == "top-two", pl.col("dataset") == "far")
    assert len(again) == len(table), "rows of the code before are gone"
    assert set(again["options"]).isdisjoint(set(table["options"]))
    assert "top-two" in run("analyze", "ood", "--list", "--plugins", own).stdout
    shown = run(
        "analyze", "table", out, "--plugins", own, "--rows", "score", "--columns", "dataset", "--where", "metric=auroc"
    )
    assert "top-two" in shown.stdout
    assert "plugin" not in shown.stdout


def test_a_calibrator_is_fitted_and_applied_like_ours(cache: Path, tmp_path: Path) -> None:
    own, out, config = tmp_path / "mine.py", tmp_path / "r.parquet", tmp_path / "c.toml"
    shutil.copy(example("calibrators"), own)
    words = ("analyze", "metrics", cache, "--plugins", own, "--only", "calibration_gap", "-o", out)
    run(*words)
    table = pl.read_parquet(out).filter(pl.col("dataset") == "val", pl.col("model") == "m2")
    gaps = dict(table.select("calibrator", "value").filter(pl.col("calibrator") != "").rows())
    assert set(gaps) == {"temperature", "shift"}
    # The mean confidence of the fitted half is its accuracy; the other half differs by chance alone.
    store = cache_schema.open_cache(cache).store("m2", "val")
    assert abs(gaps["shift"]) < 3 * np.sqrt(0.25 / (len(store) / 2))
    n_computed = int(run(*words).stderr.partition(" cells computed")[0].rpartition(" ")[2])
    assert n_computed == 0
    own.write_text(own.read_text().replace("correct.mean()", "0.99 * correct.mean()"))
    run(*words)
    again = pl.read_parquet(out).filter(pl.col("dataset") == "val", pl.col("model") == "m2")
    again = again.filter(pl.col("calibrator") == "shift")
    assert again["value"][0] < gaps["shift"], "the key holds the digest of the calibrator"
    config.write_text('[calibrators]\nmethods = ["shift"]\n')
    run(*words, "--config", config)
    assert set(pl.read_parquet(out)["calibrator"]) == {"", "shift"}
    printed = run("analyze", "metrics", cache, "--config", config, "-o", out, code=2).stderr
    assert "no 'shift'" in printed


def test_a_figure_is_drawn_like_ours(cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.parquet"
    run("analyze", "metrics", cache, "--only", "ece,nll,top1", "-o", out)
    words = ("analyze", "figures", out, "--plugins", example("figures"), "--format", "png", "-o", tmp_path / "f")
    assert "ece_by_nll: ece_by_nll.csv, ece_by_nll.png" in run(*words, "--only", "ece_by_nll").stdout
    points = pl.read_csv(tmp_path / "f" / "ece_by_nll.csv").filter(pl.col("kind") == "point")
    assert len(points) == 5
    assert "ece_by_nll" in run("analyze", "figures", "--list", "--plugins", example("figures")).stdout
    assert (tmp_path / "f" / "ece_by_nll.png").stat().st_size > 5000


# ---- the extraction


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "fox"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(4):
            Image.fromarray(rng.integers(0, 256, (80, 80, 3), np.uint8)).save(tmp_path / "pets" / name / f"{index}.png")
    shutil.copytree(tmp_path / "pets" / "cat", tmp_path / "holiday" / "images")
    (tmp_path / "models.txt").write_text("edges:small\nedges:large id=wide\n")
    (tmp_path / "datasets.toml").write_text(
        f'[pets]\npath = "{tmp_path}/pets"\n[holiday]\npath = "{tmp_path}/holiday"\n'
    )
    return tmp_path


def test_a_library_and_a_dataset_are_run_like_ours(photos: Path) -> None:
    own = photos / "library.py"
    shutil.copy(example("libraries"), own)
    words: tuple[Any, ...] = ("extract", "--model-list", photos / "models.txt", "--datasets", photos / "datasets.toml")
    words += ("--cache", photos / "cache", "--plugins", own, "--plugins", example("datasets"), "--workers", 1)
    printed = run(*words).stderr
    assert "4 done, 0 sealed before, 0 skipped, 0 failed" in printed
    cache = cache_schema.open_cache(photos / "cache")
    store = cache.store("wide", "holiday")
    assert (store.dataset.role, store.dataset.distance, store.model.library) == ("ood", "far", "edges")
    assert store.dataset.extra["recipe"] == "holiday"
    assert store.dataset.extra["plugin"].startswith("own_dataset.py ")
    assert len(store) == 4
    assert "0 done, 4 sealed before" in run(*words).stderr
    own.write_text(own.read_text() + "\n# another version of the code\n")
    assert "4 done, 0 sealed before" in run(*words).stderr, "the code of a library is part of a store's identity"
    assert "holiday" in run("extract", "datasets", "--plugins", example("datasets"), "--root", photos, code=0).stdout


def test_worker_processes_load_the_same_plug_ins(photos: Path) -> None:
    words = ("extract", "--model-list", photos / "models.txt", "--datasets", photos / "datasets.toml")
    words += ("--plugins", example("libraries"), "--plugins", example("datasets"), "--devices", "cpu,cpu")
    printed = run(*words, "--cache", photos / "cache", "--workers", 1).stderr
    assert "4 done, 0 sealed before, 0 skipped, 0 failed" in printed


def test_ray_tasks_load_the_same_plug_ins(cache: Path, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    here = tmp_path / "one.parquet", tmp_path / "ray.parquet"
    words = ("analyze", "metrics", cache, "--plugins", example("metrics"), "--only", KINDS["metrics"], "-o")
    run(*words, here[0])
    run(*words, here[1], "--engine", "ray")
    one, spread = (pl.read_parquet(path) for path in here)
    assert one.equals(spread, null_equal=True)
    assert one["value"].null_count() == 0
