"""From images to numbers on the miniature study, by the commands that the README shows."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.metrics import log_loss, roc_auc_score

import cache_schema
from analyze.calibrators import fit_rows, fit_temperature
from analyze.cli import main as analyze
from cache_schema.cli import main as cache_command
from extract.cli import main as extract

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(miniature_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("results") / "results.parquet"
    assert analyze(["metrics", str(miniature_cache), "-o", str(path)]) == 0
    return path


def plain(results: Path, metric: str, **where: str) -> dict[tuple[str, str], float]:
    """Return (model, dataset) -> value of a metric without any variant but those named."""
    frame = pl.read_parquet(results).filter(pl.col("metric") == metric, pl.col("subset") == "", pl.col("factor") == "")
    for name in ("score", "calibrator", "id_dataset"):
        frame = frame.filter(pl.col(name) == where.get(name, ""))
    return {(row["model"], row["dataset"]): row["value"] for row in frame.iter_rows(named=True)}


def probabilities(store: cache_schema.PredictionStore) -> np.ndarray:
    logits = store.logits().astype(np.float64)
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def test_numbers_agree_with_scikit_learn(miniature_cache: Path, results: Path) -> None:
    cache = cache_schema.open_cache(miniature_cache)
    top1, nll = plain(results, "top1"), plain(results, "nll")
    for model in ("resnet", "vit"):
        for dataset in ("mini-val", "mini-v2", "mini-sketch"):
            store = cache.store(model, dataset)
            p = probabilities(store)
            assert top1[model, dataset] == pytest.approx((p.argmax(1) == store.labels).mean())
            assert nll[model, dataset] == pytest.approx(log_loss(store.labels, p, labels=np.arange(10)), rel=1e-4)
    auroc = plain(results, "auroc", score="msp", id_dataset="mini-val")
    for dataset in ("mini-ood-shapes", "mini-noise"):
        inside, outside = (probabilities(cache.store("resnet", d)).max(1) for d in ("mini-val", dataset))
        is_id = np.r_[np.ones(len(inside)), np.zeros(len(outside))]
        want = roc_auc_score(is_id, np.r_[inside, outside])
        assert auroc["resnet", dataset] == pytest.approx(want, abs=1e-6)


def test_accuracies_spread_and_subsets_are_applied(miniature_cache: Path, results: Path) -> None:
    top1 = plain(results, "top1")
    on_id = sorted(value for (_, dataset), value in top1.items() if dataset == "mini-val")
    assert 0.4 <= on_id[0] < on_id[-1] <= 0.99
    assert on_id[-1] - on_id[0] > 0.15
    store = cache_schema.open_cache(miniature_cache).store("vit", "mini-hard")
    mask = list(store.dataset.class_mask)
    kept = store.logits()[:, mask].argmax(1)
    assert top1["vit", "mini-hard"] == pytest.approx((np.array(mask)[kept] == store.labels).mean())


def test_every_model_of_the_zoo_is_good_enough(miniature: Path, tmp_path: Path) -> None:
    """All of them, on the in-distribution set alone: accuracies spread between 40 % and 99 %."""
    table = (miniature / "datasets.toml").read_text().split("\n[")[1]
    (tmp_path / "val.toml").write_text(f"[{table}".replace('"datasets/', f'"{miniature}/datasets/'))
    words = ["--model-list", miniature / "models.txt", "--datasets", tmp_path / "val.toml", "--cache", tmp_path / "c"]
    assert extract([str(word) for word in words]) == 0
    found = {}
    for store in cache_schema.open_cache(tmp_path / "c").stores("predictions"):
        assert store.dataset.id == "mini-val"
        found[store.model.id] = float((store.logits().argmax(1) == store.labels).mean())
    assert len(found) == sum(line[:1] not in ("#", "") for line in (miniature / "models.txt").read_text().splitlines())
    assert 0.40 <= min(found.values()) < max(found.values()) <= 0.99, found
    assert max(found.values()) - min(found.values()) > 0.3


def test_temperature_lowers_nll_where_it_was_fitted(miniature_cache: Path) -> None:
    for store in cache_schema.open_cache(miniature_cache).stores("predictions"):
        if store.dataset.id == "mini-val":
            rows = fit_rows(store.labels, fraction=0.5, seed=0)
            fit = fit_temperature(store.logits()[rows], store.labels[rows])
            assert fit.nll_after <= fit.nll_before
            p = np.exp(store.logits()[rows].astype(np.float64) / fit.temperature)
            p /= p.sum(1, keepdims=True)
            assert fit.nll_after == pytest.approx(log_loss(store.labels[rows], p, labels=np.arange(10)), rel=1e-5)


def test_every_store_checks(miniature_cache: Path) -> None:
    assert cache_command(["check", str(miniature_cache)]) == 0


def test_prompts_and_retrieval(miniature_cache: Path, results: Path) -> None:
    out = results.with_name("prompts.parquet")
    assert analyze(["prompts", str(miniature_cache), "-o", str(out), "--only", "top1"]) == 0
    frame = pl.read_parquet(out).filter(pl.col("dataset") == "mini-val")
    assert set(frame["head"]) == {"openai-80", "photo-1"}
    # The stored logits are of openai-80, computed by the model's own text tower and float32 embeddings.
    stored = plain(results, "top1")
    for row in frame.filter(pl.col("head") == "openai-80", pl.col("subset") == "").iter_rows(named=True):
        assert row["value"] == pytest.approx(stored[row["model"], "mini-val"], abs=0.003)
    assert analyze(["retrieval", str(miniature_cache), "-o", str(results)]) == 0
    recall = pl.read_parquet(results).filter(pl.col("metric") == "image_to_text_recall@10")
    assert recall.height == 3
    assert (recall["value"] > 0.02).all()


def test_corrupted_pictures_end_in_severity_curves(miniature: Path, tmp_path: Path) -> None:
    """A corruption set as its owners lay it out: folders of classes, a folder a severity."""
    rng = np.random.default_rng(0)
    folders = sorted((miniature / "datasets/val").iterdir())
    sources = [path for folder in folders if folder.is_dir() for path in sorted(folder.glob("*"))[:6]]
    names = sorted({path.parent.name for path in sources})
    tables = [f'[mini-val]\npath = "{miniature}/datasets/val"\nmanifest = "{miniature}/datasets/val/manifest.csv"']
    for severity, kind in itertools.product(range(1, 6), ("gaussian_noise", "contrast")):
        folder = tmp_path / kind / str(severity)
        for path in sources:
            pixels = np.asarray(Image.open(path).convert("RGB"), dtype=np.float64)
            spoilt = 128 + (pixels - 128) * (1 - 0.19 * severity)
            if kind == "gaussian_noise":
                spoilt = pixels + rng.normal(0, 25 * severity, pixels.shape)
            target = folder / path.parent.name / f"{path.stem}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(spoilt, 0, 255).astype(np.uint8)).save(target)
        tables.append(f'[mini-c-{kind}-{severity}]\npath = "{folder}"\nrole = "shift"\nshift_of = "mini-val"')
    common = f'classes = {names}\nclass_space = "miniature-10"\n'
    (tmp_path / "sets.toml").write_text("\n".join(f"{table}\n{common}" for table in tables))
    lines = (miniature / "models.txt").read_text().splitlines()
    chosen = miniature / "models-of-corruptions.txt"
    chosen.write_text("\n".join(line for line in lines if " id=resnet " in line or " id=wit-cnn-10k " in line))
    words = ["--model-list", chosen, "--datasets", tmp_path / "sets.toml", "--cache", tmp_path / "cache"]
    assert extract([*map(str, words), "--workers", "0"]) == 0
    out = tmp_path / "results.parquet"
    assert analyze(["metrics", str(tmp_path / "cache"), "-o", str(out), "--only", "top1"]) == 0
    words = ["figures", str(out), "-o", str(tmp_path / "figures"), "--only", "corruptions", "--format", "png"]
    assert analyze(words) == 0
    drawn = pl.read_csv(tmp_path / "figures" / "corruptions.csv").filter(pl.col("kind") == "point")
    assert drawn.group_by("panel").len().sort("panel").rows() == [
        ("Contrast", 10), ("Gaussian Noise", 10), ("Mean of all corruptions", 10)
    ]  # fmt: skip
    top1 = plain(out, "top1")
    for row in drawn.filter(pl.col("panel") == "Contrast").iter_rows(named=True):
        assert row["y"] == top1[row["model"], f"mini-c-contrast-{row['x']:.0f}"]
    mean = drawn.filter(pl.col("panel") == "Mean of all corruptions")
    assert mean.filter(pl.col("x") == 5)["y"].mean() < mean.filter(pl.col("x") == 1)["y"].mean() - 0.1
    assert (tmp_path / "figures" / "corruptions.png").stat().st_size > 10_000


def test_the_report_opens_in_a_browser(results: Path, miniature_cache: Path, browser: Any, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    assert analyze(["report", str(results), "--cache", str(miniature_cache), "-o", str(page)]) == 0
    browser.get(page.as_uri())
    end = time.monotonic() + 20
    while browser.execute_script("return document.documentElement.dataset.ready") != "true":
        assert time.monotonic() < end, browser.get_log("browser")
        time.sleep(0.05)
    models = len({model for model, _ in plain(results, "top1")})
    assert len(browser.find_elements("css selector", "#plot .point")) == models
    for tab in ("leaderboard", "model", "factors", "provenance"):
        browser.find_element("id", f"tab-{tab}").click()
        assert browser.find_element("id", tab).is_displayed()
    assert len(browser.find_elements("css selector", "#board tbody tr")) == models
    assert len(browser.find_elements("css selector", "#heat tbody tr")) == models
    assert browser.find_elements("css selector", "#card .bin")
    assert browser.get_log("browser") == []


def test_laptop_numbers_from_summaries_equal_those_from_stores(
    miniature_cache: Path, results: Path, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    assert analyze(["summarize", str(miniature_cache), "--to", str(small)]) == 0
    out = tmp_path / "small.parquet"
    assert analyze(["metrics", str(small), "-o", str(out)]) == 0
    for metric in ("top1", "ece", "nll", "brier", "aurc"):
        assert plain(out, metric) == pytest.approx(plain(results, metric), nan_ok=True)
