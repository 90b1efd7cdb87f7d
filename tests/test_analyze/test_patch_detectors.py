"""L-MCM and GL-MCM over a cache: which stores they can be scored on, and why not on the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

import cache_schema
from analyze.cli import main
from analyze.detectors import get
from analyze.metrics import auroc
from analyze.results import read_results
from cache_schema.format.records import DatasetCard, ModelCard
from closerlook_common.errors import UserError

N, C, D, P = 40, 5, 8, 4
RNG = np.random.default_rng(0)
TEXTS = RNG.normal(size=(C, D)).astype(np.float32)
TEXTS /= np.linalg.norm(TEXTS, axis=1, keepdims=True)
PARTS = {"patches": {"tokens": "values of the last block", "temperature": 1.0}}


def sure(rows: Any) -> Any:
    unit = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return softmax(unit @ TEXTS.T, axis=-1).max(axis=-1)


def card(name: str) -> DatasetCard:
    role = "id" if name == "val" else "ood"
    return DatasetCard(id=name, role=role, class_space="five", digest=name.ljust(64, "0"))


def write(cache: Path, name: str, *, patches: bool = True, prompts: str = "a") -> tuple[Any, Any]:
    """Write a store; return the scores of images and of patches."""
    features = RNG.normal(size=(N, D)).astype(np.float32)
    grid = RNG.normal(size=(N, P, D)).astype(np.float32) + (name == "val") * TEXTS[0]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    scores = sure(grid)
    index = scores.argmax(axis=1)
    more: dict[str, Any] = {}
    if patches:
        arrays = {"patch_features": grid[np.arange(N), index], "patch_score": scores.max(axis=1), "patch_index": index}
        more = {"parts": PARTS, "arrays": arrays}
    cache_schema.write_store(
        cache, model=ModelCard(id="clip", logit_scale=100.0, head_kind="zero-shot"), dataset=card(name), labels=[0] * N,
        logits=100 * unit @ TEXTS.T, features=features, image_ids=[f"{name}/{i}" for i in range(N)],
        record={"prompt_set": prompts, "head_identity": prompts * 64}, **more,
    )  # fmt: skip
    return sure(features), scores.max(axis=1)


def head(cache: Path, prompts: str = "a") -> None:
    cache_schema.write_head(
        cache, model=ModelCard(id="clip", logit_scale=100.0, head_kind="zero-shot"), class_space="five",
        class_names=list("vwxyz"), weight=TEXTS, bias=np.zeros(C, np.float32), prompt_set=prompts, logit_scale=100.0,
        normalize_features=True, identity=prompts * 64,
    )  # fmt: skip


def scored(cache: Path, *words: str) -> dict[tuple[str, str], tuple[float | None, str]]:
    out = cache.parent / "r.parquet"
    assert main(["ood", str(cache), "--detectors", "l-mcm,gl-mcm,mcm", "-o", str(out), *words]) in (0, 1)
    table = read_results(out).filter((pl.col("metric") == "auroc") & (pl.col("dataset") != ""))
    rows = table.select("dataset", "score", "value", "reason").iter_rows()
    return {(dataset, score): (value, reason) for dataset, score, value, reason in rows}


@settings(max_examples=25)
@given(seed=st.integers(0, 99), patches=st.integers(1, 6), classes=st.integers(1, 7), weight=st.floats(0.1, 3))
def test_scores_are_those_of_all_patches(seed: int, patches: int, classes: int, weight: float) -> None:
    rng = np.random.default_rng(seed)
    texts = rng.normal(size=(classes, 5))
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    rows, grid = rng.normal(size=(8, 5)), rng.normal(size=(8, patches, 5))
    local, whole = np.zeros(8), np.zeros(8)
    for i in range(8):
        whole[i] = softmax(rows[i] / np.linalg.norm(rows[i]) @ texts.T).max()
        for patch in grid[i]:
            for probability in softmax(patch / np.linalg.norm(patch) @ texts.T):
                local[i] = max(local[i], probability)
    z = (100 * rows / np.linalg.norm(rows, axis=1, keepdims=True) @ texts.T).astype(np.float32)
    given = {"logits": z, "patch_scores": local.astype(np.float32)}
    np.testing.assert_allclose(get("l-mcm").fit().score(**given), local, rtol=1e-6)
    np.testing.assert_allclose(get("l-mcm").fit().score(patch_scores=local), local, rtol=1e-6)
    got = get("gl-mcm", weight=weight, scale=100).fit().score(**given)
    np.testing.assert_allclose(got, whole + weight * local, rtol=1e-5)


def test_numbers_are_those_of_the_definition(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    head(cache)
    (inside, local), (outside, other) = (write(cache, name) for name in ("val", "ood"))
    found = scored(cache)
    assert found["ood", "l-mcm"][0] == pytest.approx(auroc(local, other), abs=1e-6)
    assert found["ood", "gl-mcm"][0] == pytest.approx(auroc(inside + local, outside + other), abs=2e-3)
    assert found["ood", "mcm"][0] == pytest.approx(auroc(inside, outside), abs=2e-3)


def test_what_cannot_be_scored_has_its_reason(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    head(cache)
    head(cache, "b")
    write(cache, "val")
    write(cache, "bare", patches=False)
    write(cache, "other", prompts="b")
    found = scored(cache, "--prompts", "a")
    for name in ("l-mcm", "gl-mcm"):
        assert found["bare", name][0] is None
        assert "'extract --arrays patches' stores it" in found["bare", name][1]
        assert "best patches of other are for the prompts 'b', not 'a'" in found["other", name][1]
    assert found["bare", "mcm"][0] is not None
    found = scored(cache, "--prompts", "b")
    for dataset in ("bare", "other"):
        assert "needs best patches for the prompts 'b': those of the store are for 'a'" in found[dataset, "l-mcm"][1]


def test_a_store_without_patches_names_what_makes_them(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    head(cache)
    write(cache, "val", patches=False)
    write(cache, "ood")
    reason = scored(cache)["ood", "gl-mcm"][1]
    assert reason == "gl-mcm needs the best patch of each image: 'extract --arrays patches' stores it"


def test_other_numbers_of_rows_are_refused() -> None:
    with pytest.raises(UserError, match="2 rows of logits but 3 of patch_scores"):
        get("gl-mcm").fit().score(logits=np.zeros((2, 3)), patch_scores=np.zeros(3))
