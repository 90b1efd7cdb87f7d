"""Stores that are replaced: by several writers at once, beside readers and cleaners, and by one that dies or fails."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache_schema
from cache_schema.writing import staging
from cache_schema.writing.staging import Stage, clean_stale, publish, stages
from cache_schema.writing.validate import problems

BACKENDS = ("zarr", "hdf5")


def replaced(cache: Path, value: float, backend: str = "zarr") -> cache_schema.SummaryStore:
    return cache_schema.write_summary(
        cache, model=cache_schema.ModelCard(id="m"), dataset=cache_schema.DatasetCard(id="d"),
        columns={"confidence": np.full(5, value)}, backend=backend, overwrite=True,
    )  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
def test_writers_may_replace_each_others_store(tmp_path: Path, backend: str) -> None:
    """Two analyses of one cache at once; whoever reads or cleans meanwhile finds a whole store, or none."""
    replaced(tmp_path, -1.0, backend)
    wrong: list[str] = []
    done = threading.Event()

    def write(number: int) -> None:
        try:
            for _ in range(40):
                replaced(tmp_path, float(number), backend)
        except Exception as error:  # noqa: BLE001  # a thread's is not reported
            wrong.append(repr(error))

    def read() -> None:
        cache = cache_schema.open_cache(tmp_path)
        while not done.is_set():
            try:
                clean_stale(tmp_path)
                cache.stores()
                wrong.extend(str(refused) for refused in cache.refused())
            except Exception as error:  # noqa: BLE001
                wrong.append(repr(error))

    writers = [threading.Thread(target=write, args=(i,)) for i in range(3)]
    readers = [threading.Thread(target=read) for _ in range(2)]
    for thread in (*writers, *readers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert wrong == []
    (store,) = cache_schema.open_cache(tmp_path).stores()
    assert problems(store.path) == []
    assert stages(tmp_path) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_was_replaced_comes_back_if_publishing_fails(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = replaced(tmp_path, 1.0, backend).digest

    def broken(staged: Path, target: Path) -> None:
        monkeypatch.undo()
        raise OSError(5, "Input/output error", str(target))

    monkeypatch.setattr(staging, "publish", broken)
    with pytest.raises(OSError, match="Input/output error"):
        replaced(tmp_path, 2.0, backend)
    (store,) = cache_schema.open_cache(tmp_path).stores()
    assert (store.digest, problems(store.path)) == (old, [])


def test_a_half_deleted_store_is_not_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One writer deletes what it has replaced, another has just moved its store away, and a third cleans."""
    published = replaced(tmp_path, 1.0).path
    rmtree, cleaned = shutil.rmtree, []

    def slowly(folder: Path, **rest: Any) -> None:
        if not cleaned:
            cleaned.append(folder)
            (header,) = Path(folder).glob("*/*.zarr/zarr.json")
            header.unlink()
            published.rename(tmp_path / "moved away")
            clean_stale(tmp_path)
            assert not published.exists()
            (tmp_path / "moved away").rename(published)
        rmtree(folder, **rest)

    monkeypatch.setattr(shutil, "rmtree", slowly)
    replaced(tmp_path, 2.0)
    assert len(cleaned) == 1
    (store,) = cache_schema.open_cache(tmp_path).stores()
    assert store.read("column.confidence")[0] == 2.0


@pytest.fixture
def dead_writer(tmp_path: Path) -> Stage:
    """A writer that died after it had moved the old store away."""
    target = tmp_path / "m" / "d-12345678.h5"
    target.parent.mkdir()
    target.write_text("old")
    stage = Stage(target)
    (stage.folder / "replaced").mkdir()
    target.rename(stage.folder / "replaced" / target.name)
    os.close(stage._lock)  # as the kernel does when the writer is killed
    return stage


def test_a_replaced_store_comes_back_if_its_writer_died(tmp_path: Path, dead_writer: Stage) -> None:
    assert len(clean_stale(tmp_path)) == 1
    assert dead_writer.target.read_text() == "old"


@pytest.mark.parametrize("others", [1, 2])
def test_a_replaced_store_is_put_back_once(
    tmp_path: Path, dead_writer: Stage, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """Two runs that begin find the same dead writer."""

    def late(old: Path, new: Path) -> None:
        publish(old, new)  # the other's
        if others == 2:
            shutil.copy(new, old)
        publish(old, new)

    monkeypatch.setattr(staging, "publish", late)
    assert clean_stale(tmp_path) == [dead_writer.folder]
    assert dead_writer.target.read_text() == "old"
