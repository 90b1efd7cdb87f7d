"""Each way to bring a model has an example that runs: exported networks, folders of transformers, Python objects."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

import cache_schema

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_an_exported_network_gives_its_logits_and_features(tmp_path: Path) -> None:
    results = runpy.run_path(str(EXAMPLES / "own_exported.py"), run_name="own_exported")["main"](tmp_path)
    store = cache_schema.open_cache(tmp_path / "cache").store("net", "stripes")
    net = torch.jit.load(tmp_path / "net.pt")
    features, head = torch.from_numpy(np.asarray(store.features(), np.float32)), net.head
    expected = (features @ head.weight.T + head.bias).detach().numpy()
    np.testing.assert_allclose(np.asarray(store.logits(), np.float64), expected, atol=2e-3)
    (top1,) = results.values("top1@stripes")["value"]
    assert top1 == pytest.approx((store.logits().argmax(axis=1) == store.labels).mean())


def test_a_classifier_of_transformers_runs_over_a_python_object(tmp_path: Path) -> None:
    space = runpy.run_path(str(EXAMPLES / "own_transformers.py"))
    results = space["main"](tmp_path)
    store = cache_schema.open_cache(tmp_path / "cache").store("my-vit", "noise")
    assert store.dataset.class_names == space["CLASSES"]
    assert store.labels.tolist() == [index % 3 for index in range(24)]
    assert list(results.models) == ["my-vit"]
