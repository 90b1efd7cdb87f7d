"""Heads with the embeddings of every template: what is read, what is refused, and that others stay as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cache_schema
from cache_schema.format.records import ModelCard
from cache_schema.format.schema import layout
from cache_schema.writing.validate import problems
from closerlook_common.errors import UserError

T, C, D = 5, 3, 4
MODEL = ModelCard(id="clip", head_kind="zero-shot", logit_scale=100.0)
TEXTS = np.random.default_rng(0).normal(size=(T, C, D))
TEXTS /= np.linalg.norm(TEXTS, axis=2, keepdims=True)


def write(cache: Path, **changes: Any) -> cache_schema.HeadStore:
    total = TEXTS.sum(0)
    given = {
        "model": MODEL, "class_space": "three", "class_names": ["a", "b", "c"], "prompt_set": "five",
        "templates": [f"{i} {{}}" for i in range(T)], "logit_scale": 100.0, "normalize_features": True,
        "weight": total / np.linalg.norm(total, axis=1, keepdims=True), "text_sum": total,
    }  # fmt: skip
    return cache_schema.write_head(cache, **{**given, **changes})


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_templates_are_read_as_they_were_given(tmp_path: Path, backend: str, dtype: Any) -> None:
    head = write(tmp_path, backend=backend, text_embeddings=TEXTS.astype(dtype))
    assert head.header["schema_version"] == 2
    assert problems(head.path) == []
    assert head.text_embeddings().dtype == dtype
    np.testing.assert_array_equal(head.text_embeddings(), TEXTS.astype(dtype))
    for numbers in ([3], [0, 1, 4], [4, 0, 1, 1], []):
        np.testing.assert_array_equal(head.text_embeddings(numbers), TEXTS.astype(dtype)[numbers])
    with pytest.raises(UserError, match="has templates 0 to 4, no 5"):
        head.text_embeddings([0, 5])


@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_only_chunks_of_the_templates_asked_for_are_decoded(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert layout((80, 1000, 512), 2).chunk_rows == 4  # templates decoded together, of 80 on ImageNet
    monkeypatch.setattr("cache_schema.format.schema.BYTES_A_CHUNK", C * D * 2)
    head = write(tmp_path, backend=backend, text_embeddings=TEXTS.astype(np.float16))
    asked: list[tuple[int, int]] = []
    read = head._reader.read

    def counting(name: str, start: int, stop: int) -> Any:
        asked.append((start, stop))
        return read(name, start, stop)

    monkeypatch.setattr(head._reader, "read", counting)
    np.testing.assert_array_equal(head.text_embeddings([1, 2, 4]), TEXTS.astype(np.float16)[[1, 2, 4]])
    assert asked == [(1, 3), (4, 5)]


def test_heads_without_them_stay_as_they_were(tmp_path: Path) -> None:
    plain, richer = write(tmp_path / "plain"), write(tmp_path / "richer", text_embeddings=TEXTS)
    assert plain.header["schema_version"] == 1
    assert "text_embeddings" not in plain.array_names
    for name, entry in plain.header["seal"]["arrays"].items():
        assert richer.header["seal"]["arrays"][name] == entry
    with pytest.raises(UserError, match="'extract --arrays texts' stores them"):
        plain.text_embeddings()


def test_a_head_is_read_in_place_of_the_one_that_it_extends(tmp_path: Path) -> None:
    plain = write(tmp_path, identity="a" * 64)
    write(tmp_path, identity="b" * 64, text_embeddings=TEXTS, record={"extends": plain.identity})
    other = write(tmp_path, identity="c" * 64, prompt_set="other")
    cache = cache_schema.open_cache(tmp_path)
    assert cache.head("clip", "three", "five").identity == "b" * 64
    with pytest.raises(UserError, match="several heads for three: prompt sets 'five', 'other'"):
        cache.head("clip", "three")
    cache_schema.write_store(
        tmp_path, model=MODEL, dataset=cache_schema.DatasetCard(id="d"), logits=np.eye(3), labels=np.arange(3),
        record={"head_identity": plain.identity},
    )  # fmt: skip
    assert cache_schema.open_cache(tmp_path).head("clip", "three").identity == "b" * 64
    assert cache.head("clip", "three", "other").identity == other.identity


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"text_embeddings": TEXTS * 2}, "the embedding of class 0 in template 0 has norm 2; it must be 1, or 0"),
        ({"text_embeddings": TEXTS[:4]}, "n_templates says 5 templates, text_embeddings has 4"),
        ({"text_embeddings": TEXTS[:, :2]}, "axis C is"),
        ({"text_embeddings": TEXTS[..., :2] / np.linalg.norm(TEXTS[..., :2], axis=2, keepdims=True)}, "axis D is"),
        ({"text_embeddings": TEXTS, "templates": ["{}"], "n_templates": T}, "templates says 1 templates"),
        ({"text_embeddings": np.where(TEXTS > 0.9, np.nan, TEXTS)}, "text_embeddings holds NaN or infinity"),
        ({"text_embeddings": TEXTS[0]}, "has 2 axes, not 3"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        write(tmp_path, **changes)
    assert not list(tmp_path.rglob("*.zarr"))


def test_texts_by_class_have_rows_of_zeros_where_a_class_has_fewer(tmp_path: Path) -> None:
    ragged = TEXTS.copy()
    ragged[3:, 1] = 0
    head = write(tmp_path, text_embeddings=ragged, templates=[], n_templates=T, text_sum=ragged.sum(0))
    np.testing.assert_allclose(head.text_embeddings().sum(0), head.text_sum, rtol=1e-6)


@settings(max_examples=30)
@given(st.lists(st.integers(0, T - 1), max_size=8))
def test_any_numbers_in_any_order(tmp_path_factory: pytest.TempPathFactory, numbers: list[int]) -> None:
    head = write(tmp_path_factory.mktemp("cache"), text_embeddings=TEXTS)
    np.testing.assert_array_equal(head.text_embeddings(numbers), TEXTS.astype(np.float32)[numbers])
