"""Retrieval recall against a brute force that sorts every similarity, ties shuffled many times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cache_schema
from analyze.cli import main
from analyze.metrics import retrieval
from analyze.metrics.retrieval import retrieval_recall
from cache_schema.format.records import DatasetCard, ModelCard
from closerlook_common.errors import UserError


def brute_force(images, texts, index, k, *, shuffles=1, seed=0):
    """Sort every query's answers; random order among ties."""
    rng = np.random.default_rng(seed)
    similarity = images.astype(np.float64) @ texts.astype(np.float64).T
    similarity /= np.linalg.norm(images, axis=1)[:, None] * np.linalg.norm(texts, axis=1)[None, :]
    similarity = similarity.round(9)
    into_text, into_image = [], []
    for _ in range(shuffles):
        for i in np.unique(index):
            order = np.lexsort((rng.random(len(texts)), -similarity[i]))[:k]
            into_text.append((index[order] == i).any())
        for t in range(len(texts)):
            order = np.lexsort((rng.random(len(images)), -similarity[:, t]))[:k]
            into_image.append(index[t] in order)
    return np.mean(into_text), np.mean(into_image)


@settings(max_examples=30)
@given(n=st.integers(1, 30), per_image=st.integers(1, 4), width=st.integers(2, 9), seed=st.integers(0, 10**6))
def test_equals_brute_force(n: int, per_image: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(n, width)).astype(np.float32)
    index = rng.permutation(np.repeat(np.arange(n), per_image))
    texts = (images[index] + rng.normal(size=(len(index), width))).astype(np.float32)
    found = retrieval_recall(images, texts, index, ks=(1, 3))
    for k in (1, 3):
        want = brute_force(images, texts, index, k)
        assert (found.image_to_text[k], found.text_to_image[k]) == pytest.approx(want, abs=1e-12)
    assert found.image_to_text[1] <= found.image_to_text[3] <= 1


def sorted_ranks(images: Any, texts: Any, index: Any, shuffles: int) -> tuple[Any, Any]:
    """Place of the first right answer among all answers in order, by sorting, ties shuffled."""
    rng = np.random.default_rng(0)
    unit = [x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (images, texts)]
    similarity = np.round(unit[0] @ unit[1].T, 6)
    into_text, into_image = np.zeros(len(images)), np.zeros(len(texts))
    for _ in range(shuffles):
        for i in range(len(images)):
            order = np.lexsort((rng.random(len(texts)), -similarity[i]))
            into_text[i] += 1 + np.argmax(index[order] == i)
        for t in range(len(texts)):
            order = np.lexsort((rng.random(len(images)), -similarity[:, t]))
            into_image[t] += 1 + np.argmax(order == index[t])
    return into_text / shuffles, into_image / shuffles


@settings(max_examples=30)
@given(n=st.integers(1, 20), per_image=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_ranks_equal_those_of_sorting(n: int, per_image: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(n, 5)).astype(np.float32)
    index = rng.permutation(np.repeat(np.arange(n), per_image))
    texts = (images[index] + rng.normal(size=(len(index), 5))).astype(np.float32)
    found = retrieval_recall(images, texts, index, ks=(1, 3))
    into_text, into_image = sorted_ranks(images, texts, index, 1)
    np.testing.assert_allclose(found.image_ranks, into_text)
    np.testing.assert_allclose(found.text_ranks, into_image)
    assert found.mean_ranks == pytest.approx((into_text.mean(), into_image.mean()))
    assert found.median_ranks == (np.median(into_text), np.median(into_image))
    # Recall at k is the share of ranks up to k.
    assert found.image_to_text[3] == pytest.approx((found.image_ranks <= 3).mean())


def test_ranks_of_equal_captions_are_means_over_orders() -> None:
    rng = np.random.default_rng(0)
    few, index = rng.normal(size=(3, 5)).astype(np.float32), rng.integers(0, 6, 20)
    texts, images = few[rng.integers(0, 3, 20)], rng.normal(size=(6, 5)).astype(np.float32)
    found = retrieval_recall(images, texts, index, ks=(5,))
    into_text, into_image = sorted_ranks(images, texts, index, 3000)
    np.testing.assert_allclose(found.image_ranks, into_text[np.unique(index)], atol=0.3)
    np.testing.assert_allclose(found.text_ranks, into_image, atol=0.3)


def test_equal_captions_share_their_places() -> None:
    images = np.eye(4, dtype=np.float32)
    texts = np.tile(np.ones(4, np.float32), (4, 1))
    found = retrieval_recall(images, texts, np.arange(4), ks=(1, 2, 4))
    assert found.image_to_text == pytest.approx({1: 0.25, 2: 0.5, 4: 1.0})
    assert found.text_to_image == pytest.approx({1: 0.25, 2: 0.5, 4: 1.0})
    rng = np.random.default_rng(0)
    few = rng.normal(size=(3, 5)).astype(np.float32)
    index = rng.integers(0, 12, 40)
    texts = few[rng.integers(0, 3, 40)]
    images = rng.normal(size=(12, 5)).astype(np.float32)
    found = retrieval_recall(images, texts, index, ks=(5,))
    want = brute_force(images, texts, index, 5, shuffles=800)
    assert (found.image_to_text[5], found.text_to_image[5]) == pytest.approx(want, abs=0.01)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    images, index = rng.normal(size=(50, 8)).astype(np.float32), np.repeat(np.arange(50), 3)
    texts = (images[index] + rng.normal(size=(150, 8))).astype(np.float32)
    whole = retrieval_recall(images, texts, index)
    monkeypatch.setattr(retrieval, "BLOCK_BYTES", 4 * 150 * 7)
    again = retrieval_recall(images, texts, index)
    assert again == whole
    np.testing.assert_array_equal(again.image_ranks, whole.image_ranks)
    np.testing.assert_array_equal(again.text_ranks, whole.text_ranks)


@pytest.mark.parametrize(
    ("texts", "index", "says"),
    [
        (np.ones((2, 3)), np.array([0, 1]), "wide"),
        (np.ones((2, 4)), np.array([0, 9]), "between 0 and 2"),
        (np.ones((2, 4)), np.array([0.0, 1.0]), "integers"),
        (np.array([[1, 2, 3, np.nan]]), np.array([0]), "row 0"),
    ],
)
def test_bad_input_is_named(texts: np.ndarray, index: np.ndarray, says: str) -> None:
    with pytest.raises(UserError, match=says):
        retrieval_recall(np.ones((3, 4)), texts, index)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(2)
    images, index = rng.normal(size=(20, 6)).astype(np.float32), np.repeat(np.arange(20), 2)
    texts = images[index] + 0.3 * rng.normal(size=(40, 6)).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    model = ModelCard(id="clip", head_kind="zero-shot", logit_scale=100.0)
    pairs = DatasetCard(id="pairs", role="pairs")
    cache_schema.write_store(tmp_path / "cache", model=model, dataset=pairs, features=images)
    cache_schema.write_texts(
        tmp_path / "cache", model=model, dataset=pairs, embeddings=texts, text=[str(i) for i in range(40)],
        image_index=index.astype(np.int32),
    )  # fmt: skip
    assert main(["retrieval", str(tmp_path / "cache"), "-o", str(tmp_path / "r.parquet"), "--k", "1,5"]) == 0
    rows = pl.read_parquet(tmp_path / "r.parquet")
    stored = cache_schema.open_cache(tmp_path / "cache").store("clip", "pairs").features()
    want = retrieval_recall(stored, texts, index, ks=(1, 5))
    numbers = dict(zip(rows["metric"], rows["value"], strict=True))
    assert numbers["image_to_text_recall@1"] == want.image_to_text[1]
    assert numbers["text_to_image_recall@5"] == want.text_to_image[5]
    assert numbers["image_to_text_mean_rank"] == want.image_ranks.mean()
    assert numbers["text_to_image_median_rank"] == np.median(want.text_ranks)
    has = rows["low"].is_not_null()
    assert rows.filter(has)["interval"].str.contains(" 95 %").all()
    assert set(rows.filter(~has)["interval"]) == {"none: a few lost queries decide a mean rank: see the median"}
    assert set(rows.filter(~has)["metric"]) == {"image_to_text_mean_rank", "text_to_image_mean_rank"}
    ways = dict(zip(rows["metric"], rows["direction"], strict=True))
    assert ways["text_to_image_mean_rank"] == "lower"
    assert ways["text_to_image_recall@1"] == "higher"
    assert "clip" in capsys.readouterr().out
    assert main(["retrieval", str(tmp_path / "cache"), "--k", "one"]) == 2
