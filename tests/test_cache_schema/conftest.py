"""Small stores with known content, for every test of the cache."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache_schema
from cache_schema.format.records import DatasetCard, ModelCard

ROOT = Path(__file__).parents[2]


@pytest.fixture
def model() -> ModelCard:
    return ModelCard(id="ViT-B-32/openai", library="open_clip", name="ViT-B-32", tag="openai", logit_scale=100.0)


@pytest.fixture
def dataset() -> DatasetCard:
    return DatasetCard(id="imagenet", class_space="imagenet-1k", digest="d" * 64)


@pytest.fixture
def outputs() -> dict[str, Any]:
    """Return logits, features, labels ... of 70 images, 10 classes, 6 features; row 5 is invalid."""
    rng = np.random.default_rng(7)
    logits = rng.normal(0, 5, (70, 10)).astype(np.float32)
    logits[3, 4] = -np.inf
    valid = np.ones(70, bool)
    valid[5] = False
    return {
        "logits": logits,
        "features": rng.normal(0, 2, (70, 6)).astype(np.float32),
        "labels": rng.integers(-1, 10, 70),
        "image_ids": [f"n{i:03d}/ä image {i}.JPEG" for i in range(70)],
        "valid": valid,
        "metadata": {
            "pose": ["top", "side", ""] * 23 + ["ünder"],
            "Size (px)": np.arange(70),
            "area": np.linspace(0, 1, 70),
            "is_grey": np.arange(70) % 2 == 0,
        },
    }


@pytest.fixture
def write(
    tmp_path: Path, model: ModelCard, dataset: DatasetCard, outputs: dict[str, Any]
) -> Callable[..., cache_schema.PredictionStore]:
    """Return a function that writes the standard store; keyword arguments replace its parts."""

    def make(**changes: Any) -> cache_schema.PredictionStore:
        arguments = {"model": model, "dataset": dataset, **outputs, **changes}
        return cache_schema.write_store(arguments.pop("cache", tmp_path / "cache"), **arguments)

    return make


@pytest.fixture
def stores(
    write: Callable[..., cache_schema.PredictionStore], model: ModelCard, dataset: DatasetCard, tmp_path: Path
) -> list[Any]:
    """Write a Zarr and an HDF5 store and a summary; Zarr in shards of 32 rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cache_schema.format.schema.ROWS_A_CHUNK", 4)
        zarr = write()
    hdf5 = write(dataset=cache_schema.DatasetCard(id="other"), backend="hdf5")
    summary = cache_schema.write_summary(
        tmp_path / "cache", model=model, dataset=dataset, columns={"confidence": np.linspace(0, 1, 70)}
    )
    return [zarr, hdf5, summary]


@pytest.fixture
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Return a function that runs a script in another process, with the project importable."""

    def run(script: str, *words: object) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, "-c", script, *map(str, words)],
            env=env,
            text=True,
            capture_output=True,
            timeout=120,
            check=False,
        )

    return run
