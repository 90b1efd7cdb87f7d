"""Changed, missing and surplus bytes: ``check`` finds every one, reading those that the codec detects."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

import cache_schema
from cache_schema.backends.hdf5 import GUESS
from cache_schema.format.schema import SCHEMA_VERSION
from cache_schema.format.seal import dump_with_digest
from cache_schema.writing.validate import problems
from closerlook_common.errors import CacheError, CorruptStoreError, NewerSchemaError, UnsealedStoreError

Write = Callable[..., cache_schema.PredictionStore]
BACKENDS = ("zarr", "hdf5")


def flip(path: Path, position: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(position)
        old = file.read(1)[0]
        file.seek(position)
        file.write(bytes([old ^ (1 << bit)]))


def files_of(store: Path) -> list[Path]:
    return [store] if store.is_file() else sorted(path for path in store.rglob("*") if path.is_file())


@pytest.mark.parametrize("backend", BACKENDS)
def test_check_finds_every_flipped_bit(write: Write, backend: str) -> None:
    path = write(backend=backend).path
    files = files_of(path)
    sizes = np.array([file.stat().st_size for file in files])
    bounds = np.cumsum(sizes)
    rng = np.random.default_rng(11)
    missed = []
    for position, bit in zip(rng.integers(0, bounds[-1], 500), rng.integers(0, 8, 500), strict=True):
        which = int(np.searchsorted(bounds, position, side="right"))
        within = int(position - (bounds[which] - sizes[which]))
        flip(files[which], within, int(bit))
        if not problems(path, bytes_only=True):
            missed.append((files[which], within, int(bit)))
        flip(files[which], within, int(bit))
    assert missed == []
    assert problems(path) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_byte_of_the_vouching_parts_matters(write: Write, backend: str) -> None:
    """The seal itself, the digest of the file and the magic: no byte of them may change unseen."""
    path = write(backend=backend).path
    file = path if backend == "hdf5" else path / "zarr.json"
    size = file.stat().st_size
    for position in range(size - 400, size) if backend == "hdf5" else range(0, size, 7):
        flip(file, position, position % 8)
        assert problems(path, bytes_only=True), position
        flip(file, position, position % 8)


@pytest.mark.parametrize("backend", BACKENDS)
def test_reading_finds_a_flipped_bit_in_the_rows(write: Write, backend: str) -> None:
    path = write(backend=backend).path
    if backend == "zarr":
        file, start, size = path / "logits/c/0/0", 0, (path / "logits/c/0/0").stat().st_size
    else:
        with h5py.File(path, "r") as opened:
            chunk = opened["logits"].id.get_chunk_info(0)
        file, start, size = path, chunk.byte_offset, chunk.size
    rng = np.random.default_rng(5)
    for position, bit in zip(rng.integers(start, start + size, 40), rng.integers(0, 8, 40), strict=True):
        flip(file, int(position), int(bit))
        store = cache_schema.open_store(path)
        with pytest.raises(CorruptStoreError, match="logits"):
            store.read("logits")
        flip(file, int(position), int(bit))
    assert cache_schema.open_store(path).read("logits").shape == (70, 10)


def test_a_missing_shard_is_no_fill_value(write: Write) -> None:
    path = write().path
    (path / "features/c/0/0").unlink()
    store = cache_schema.open_store(path)
    with pytest.raises(CorruptStoreError, match=r"features/c/0/0 is missing"):
        store.read("features")
    assert store.read("logits").shape == (70, 10)
    assert problems(path) == ["features/c/0/0: missing"]


def test_a_surplus_file_is_found(write: Write) -> None:
    path = write().path
    (path / "notes.txt").write_text("mine")
    assert problems(path) == ["notes.txt: not among the files that were sealed"]


@pytest.mark.parametrize("cut", [1, 64, 200, 5000])
def test_a_truncated_file_is_refused(write: Write, cut: int) -> None:
    path = write(backend="hdf5").path
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(CacheError, match=r"never sealed|changed|not the one"):
        cache_schema.open_store(path)
    assert problems(path)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_unsealed_store_is_refused_in_one_sentence(write: Write, backend: str, tmp_path: Path) -> None:
    path = write(backend=backend).path
    if backend == "zarr":
        document = json.loads((path / "zarr.json").read_bytes())
        del document["attributes"]["closerlook"]["seal"]
        (path / "zarr.json").write_text(json.dumps(document))
    else:
        with h5py.File(path, "r") as file, h5py.File(tmp_path / "x.h5", "w") as copy:
            for name in file:
                file.copy(name, copy)
        shutil.move(tmp_path / "x.h5", path)
    with pytest.raises(UnsealedStoreError, match="was never sealed") as caught:
        cache_schema.open_store(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_future_version_is_refused_in_one_sentence(
    write: Write, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache_schema.writing.builder.version_of", lambda kind, arrays: SCHEMA_VERSION + 1)
    monkeypatch.setattr("cache_schema.format.seal.SCHEMA_VERSION", SCHEMA_VERSION + 1)
    path = write(backend=backend).path
    monkeypatch.undo()
    with pytest.raises(NewerSchemaError) as caught:
        cache_schema.open_store(path)
    message = str(caught.value)
    assert f"schema version {SCHEMA_VERSION + 1}" in message
    assert f"reads up to {SCHEMA_VERSION}; install a newer closerlook" in message
    assert "\n" not in message
    cache = cache_schema.open_cache(path.parents[1])
    assert cache.stores() == []
    assert [bad.path for bad in cache.refused()] == [path]


def test_a_long_header_is_read_whole(write: Write) -> None:
    note = "x" * (2 * GUESS)
    store = cache_schema.open_store(write(backend="hdf5", record={"note": note}).path)
    assert store.record["note"] == note
    assert problems(store.path) == []


def test_a_writer_that_seals_nonsense_is_found(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bytes are as sealed; the rules on values are broken."""

    def off_by_one(logits: np.ndarray, members: object = None, *, first_row: int = 0) -> object:
        from cache_schema.format.centred import Centred, encode

        right = encode(logits, first_row=first_row)
        return Centred(right.logits - np.float16(1), right.centers)

    monkeypatch.setattr("cache_schema.writing.writer.encode", off_by_one)
    path = write().path
    assert problems(path, bytes_only=True) == []
    assert problems(path) == ["logits: a valid row's top over the kept classes is not 0"]


def test_a_moved_store_is_found(write: Write, tmp_path: Path) -> None:
    path = write().path
    moved = tmp_path / "cache" / "another" / "imagenet-00000000.zarr"
    moved.parent.mkdir()
    path.rename(moved)
    found = problems(moved)
    assert any("is named" in what for what in found)
    assert any("lies in another" in what for what in found)


def test_a_document_vouches_for_itself_wherever_its_digest_stands() -> None:
    with pytest.raises(ValueError, match="no 'file_digest'"):
        dump_with_digest({"a": 1})
    for document in ({"file_digest": None}, {"note": '"file_digest":null', "file_digest": None, "z": "ä"}):
        raw = dump_with_digest(document)
        cache_schema.format.seal.verify_digest(raw, "it")  # type: ignore[attr-defined]
        for position in range(len(raw)):
            with pytest.raises(CorruptStoreError):
                cache_schema.format.seal.verify_digest(raw[:position] + b"#" + raw[position + 1 :], "it")  # type: ignore[attr-defined]
