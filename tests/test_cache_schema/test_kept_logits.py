"""Logits that are kept between passes: read once, the same, and gone when nobody needs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache_schema
from cache_schema import DatasetCard, ModelCard


@pytest.fixture(params=["zarr", "hdf5"])
def counted(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store of 100 x 7 logits, and the list of what was read of them."""
    rng = np.random.default_rng(0)
    store = cache_schema.write_store(
        tmp_path, model=ModelCard(id="m"), dataset=DatasetCard(id="d", role="id", n_classes=7),
        logits=rng.normal(size=(100, 7)).astype(np.float32), labels=rng.integers(0, 7, 100),
        image_ids=[str(i) for i in range(100)], backend=request.param,
    )  # fmt: skip
    reads: list[tuple[int, int | None]] = []
    read = store.read

    def counting(name: str, start: int = 0, stop: int | None = None) -> Any:
        if name == "logits":
            reads.append((start, stop))
        return read(name, start, stop)

    monkeypatch.setattr(store, "read", counting)
    return store, reads


def test_read_once_and_the_same(counted: Any) -> None:
    store, reads = counted
    fresh = [store.centred_logits(start, start + 40).copy() for start in (0, 40, 80)]
    assert store.keep_logits(100 * 7 * 2) == 100 * 7 * 2
    reads.clear()
    for _ in range(3):
        for start, block in zip((0, 40, 80), fresh, strict=True):
            np.testing.assert_array_equal(store.centred_logits(start, start + 40), block)
    assert len(reads) == 3
    store.centred_logits(80, 100)  # the same rows as 80 to 120
    assert len(reads) == 3
    store.keep_logits(0)
    store.centred_logits(0, 40)
    assert len(reads) == 4


def test_too_large_or_released_is_read_again(counted: Any) -> None:
    store, reads = counted
    assert store.keep_logits(100 * 7 * 2 - 1) == 0
    for _ in range(2):
        store.centred_logits()
    assert len(reads) == 2
    store.keep_logits(1 << 20)
    store.centred_logits()
    store.release()
    store.centred_logits()
    assert len(reads) == 4
