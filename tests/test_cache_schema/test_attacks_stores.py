"""One row per attack on a store, seals recomputed as who hands out a cache can; each is refused in one line."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
import store_mutations as attack
from store_attacks import (
    BLOSC2,
    Change,
    array,
    block,
    bomb,
    external,
    huge_chunks,
    in_both,
    in_file,
    inner,
    listed,
    metadata,
    number,
    packed,
    pipe,
    put,
    raw_metadata,
    replaced,
    virtual,
    with_attribute,
    with_end,
    with_length,
)
from store_changes import DEEP, change_hdf5

import cache_schema
from cache_schema.cli import main
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.writing.validate import problems
from closerlook_common.errors import CacheError, UserError

ATTACKS: dict[str, tuple[dict[str, Change], str]] = {
    # the header and the seal
    "seal.n of other rows": (put("seal", "n", 7), r"n is 7, but \w+ has 70 rows"),
    "seal.n a text": (put("seal", "n", "70"), r"seal.n is not a number of rows"),
    "no arrays": (put("seal", "arrays", {}), r"needs logits, features or both"),
    "an array's shape is a text": (put("seal", "arrays", "labels", "shape", "70"), r"shape is not"),
    "an array of an unknown type": (put("seal", "arrays", "labels", "dtype", "object"), r"dtype is not a known type"),
    "an array with a path for a name": (put("seal", "arrays", "../x", {}), r"cannot be an array"),
    "logits of one axis": (put("seal", "arrays", "logits", "shape", [70]), r"logits: shape \(70,\)"),
    "a model that is a list": (put("model", []), r"model is not an object"),
    "a model without id": (put("model", "id", None), r"model.id is not a text"),
    "a model of an unknown group": (put("model", "group", "x"), r"group of model"),
    "a scale that is a text": (put("model", "logit_scale", "100"), r"model.logit_scale is not a number"),
    "no dataset": (put("dataset", None), r"dataset is not an object"),
    "a mask out of range": (put("dataset", "class_mask", [0, 10**6]), r"class_mask holds class 1000000"),
    "a mask below zero": (put("dataset", "class_mask", [-1]), r"class_mask holds class -1"),
    "a mask of texts": (put("dataset", "class_mask", ["a"]), r"class_mask is not a list"),
    "a mask that keeps nothing": (put("dataset", "class_mask", []), r"class_mask keeps no class"),
    "a map out of range": (put("dataset", "class_map", [[0], [10]]), r"class_map holds class 10"),
    "a map with an empty class": (put("dataset", "class_map", [[0], []]), r"super-class without members"),
    "a map that repeats a class": (put("dataset", "class_map", [[0], [0]]), r"holds a class twice"),
    "metadata that is not there": (
        put("details", "metadata", [{"name": "x", "array": "metadata.x", "type": "text"}]),
        r"not an array of the store",
    ),
    "metadata of labels": (
        put("details", "metadata", [{"name": "x", "array": "labels", "type": "int32"}]),
        r"not an array of the store",
    ),
    "more valid rows than rows": (put("details", "n_valid", 71), r"n_valid is not between"),
    "other valid rows": (put("details", "n_valid", 12), r"69 rows are valid, but its header says 12"),
    "a record that is a text": (put("record", "x"), r"record is not an object"),
    "deep JSON": (put("record", "x", DEEP), r"nested too deeply"),
    "NaN in the header": (put("record", "x", float("nan")), r"NaN, which is not JSON"),
    "half of a surrogate pair": (put("model", "id", "\udc80"), r"surrogate"),
    "schema version 0": (put("schema_version", 0), r"schema version 0"),
    "a kind that is a list": (put("kind", []), r"kind \[\]"),
    # arrays that are not what schema and seal say, though both agree with each other or with the file
    "labels of 150 rows": (in_both([150]), r"axis n is|of n is|n is 70"),
    "labels of 3,000 rows": (in_both([3000]), r"axis n is|n is 70"),
    "labels of 1e12 rows": (in_both([10**12]), r"axis n is|n is 70|would decompress"),
    "labels of two axes": (in_both([70, 2]), r"labels: shape \(70, 2\)"),
    "labels of another type": (in_both([70], "float64"), r"dtype float64"),
    "a store that unpacks to gigabytes": ({"zarr": bomb}, r"would decompress to"),
    # the metadata of a Zarr array
    "metadata that are no JSON": (raw_metadata(b"\xff no JSON"), r"does not fit"),
    "deep metadata": (raw_metadata(b"[" * 50_000), r"nested too deeply"),
    "huge metadata": (raw_metadata(b" " * (1 << 20)), r"has 1048576 bytes"),
    "empty metadata": (raw_metadata(b""), r"does not fit"),
    "chunks of 0": (metadata(lambda d: inner(d).update(chunk_shape=[0])), r"chunks of 0 rows"),
    "shards of 0": (
        metadata(lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[0])),
        r"do not divide its shards",
    ),
    "chunks of 1e9": (metadata(huge_chunks), r"too large for 70 rows"),
    "shards of 1e9": (
        metadata(lambda d: d["chunk_grid"]["configuration"].update(chunk_shape=[70 * 10**8])),
        r"too large for 70 rows",
    ),
    "lzma": (metadata(lambda d: inner(d)["codecs"].insert(1, {"name": "numcodecs.lzma"})), r"codecs|sharded"),
    "gzip for blosc": (metadata(lambda d: inner(d)["codecs"][1].update(name="gzip")), r"another codecs"),
    "no checksum": (metadata(lambda d: inner(d)["codecs"].pop()), r"another codecs"),
    "lz4 in blosc": (metadata(lambda d: inner(d)["codecs"][1]["configuration"].update(cname="lz4")), r"another codecs"),
    "another shape": (metadata(lambda d: d.update(shape=[150])), r"another shape"),
    "another type": (metadata(lambda d: d.update(data_type="int64")), r"another data_type"),
    "storage transformers": (metadata(lambda d: d.update(storage_transformers=[{"name": "x"}])), r"storage_transf"),
    # the files of a Zarr store
    "a shard that is a link": (
        replaced("labels/c/0", lambda at: at.symlink_to(at.parents[3] / "secret")),
        r"is a link",
    ),
    "a folder that is a link": (
        replaced("labels/c", lambda at: at.symlink_to(at.parents[2] / "folder")),
        r"behind a link",
    ),
    "an array that is a link": (
        replaced("labels", lambda at: at.symlink_to(at.parents[1] / "aside")),
        r"behind a link",
    ),
    "a shard that is a pipe": (replaced("labels/c/0", pipe), r"not a plain file"),
    "a shard that is a device": (replaced("labels/c/0", lambda at: at.symlink_to("/dev/zero")), r"is a link"),
    "a root that is a pipe": ({"zarr": lambda path: pipe(path / "zarr.json")}, r"not a plain file"),
    "a listed file outside": (listed(lambda files: files.update({"../secret": [5, "0" * 64]})), r"not a file of"),
    "a listed file too many": (listed(lambda files: files.update({"labels/c/1": [5, "0" * 64]})), r"belongs to no"),
    "a listed file too few": (listed(lambda files: files.pop("labels/c/0")), r"missing from the list"),
    "a size that is a text": (listed(lambda files: files["labels/c/0"].__setitem__(0, "9")), r"size and digest"),
    # compressed blocks
    "a block that says 4 GB": (block(number(4, 2**32 - 1)), r"says 4294967295 bytes"),
    "a block that says 0 bytes": (block(number(4, 0)), r"says 0 bytes"),
    "a block of pieces of 0 bytes": (block(number(8, 0)), r"pieces of 0 bytes|does not fit"),
    "a block of pieces of 2 GB": (block(number(8, 2**31)), r"pieces of|does not fit"),
    "a block longer than its place": (block(number(12, 2**31)), r"claims 2147483648|does not fit"),
    "a block of another compressor": (block(lambda part: part.__setitem__(2, part[2] & 0x1F)), r"not of Blosc"),
    "a block of elements of 3 bytes": (block(lambda part: part.__setitem__(3, 3)), r"elements of 3 bytes"),
    "a block with a piece outside": (
        {"zarr": block(number(16, 2**30))["zarr"], "hdf5": block(number(32, 2**30))["hdf5"]},
        r"lies outside",
    ),
    "a block of two bytes": ({"zarr": block(lambda part: part.__delitem__(slice(2, None)))["zarr"]}, r"too short"),
    # the objects of an HDF5 file
    "a soft link": (in_file(lambda file, _: file.__setitem__("labels", h5py.SoftLink("/valid"))), r"out of the file"),
    "an external link": (
        in_file(lambda file, folder: file.__setitem__("labels", h5py.ExternalLink(str(folder / "pipe"), "/x"))),
        r"out of the file",
    ),
    "external storage": (external("secret"), r"other files"),
    "external storage in a pipe": (external("pipe"), r"other files"),
    "external storage in a device": (external("../../../../../../dev/zero"), r"other files"),
    "a virtual dataset": (in_file(virtual), r"not kept in chunks"),
    "a group in an array's place": (in_file(lambda file, _: file.create_group("labels")), r"labels: it"),
    "a compound type": (packed([("a", "i4"), ("b", "f4")], fletcher32=True, **BLOSC2), r"type is not"),
    "texts for numbers": (packed("S4", fletcher32=True, **BLOSC2), r"type is not"),
    "big-endian numbers": (packed(">i4", fletcher32=True, **BLOSC2), r"type is not"),
    "gzip": (packed(compression="gzip", fletcher32=True), r"not those of a store"),
    "SZ": (packed("f4", fletcher32=True, **hdf5plugin.SZ(absolute=0.1)), r"not those of a store|type|sealed"),
    "Blosc for Blosc2": (packed(fletcher32=True, **hdf5plugin.Blosc()), r"not those of a store"),
    "no checksum of the chunk": (packed(**BLOSC2), r"not those of a store"),
    "an array that can grow": (packed(maxshape=(None,), fletcher32=True, **BLOSC2), r"can grow"),
    "an array never written": (
        array(shape=(70,), dtype="i4", chunks=(9,), fletcher32=True, **BLOSC2),
        r"points outside the file",
    ),
    "an array without chunks": (array(data=np.zeros(70, "i4")), r"not kept in chunks"),
    "a huge attribute": (in_file(with_attribute), r"message of type 12"),
    "a surplus array": (
        {"hdf5": lambda path: change_hdf5(path, lambda file: file.__setitem__("more", np.zeros(1)))},
        r"'more' is in the file, but not sealed",
    ),
    "a store that is a pipe": ({"hdf5": pipe}, r"not a plain file"),
    "data that end behind the file": ({"hdf5": lambda path: with_end(path, 10**15)}, r"data claim"),
    "a header of 2**60 bytes": ({"hdf5": lambda path: with_length(path, b"1000000000000000")}, r"last bytes were"),
    "a header of -1 bytes": ({"hdf5": lambda path: with_length(path, b"-000000000000001")}, r"last bytes were"),
}  # fmt: skip


ROWS = [(name, backend) for name, (changes, _) in ATTACKS.items() for backend in changes]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write one prediction store of 70 images a backend; row 5 is not valid."""
    folder, rng = tmp_path_factory.mktemp("originals"), np.random.default_rng(1)
    valid = np.arange(70) != 5
    return {
        backend: cache_schema.write_store(
            folder / backend, model=ModelCard(id="m"), dataset=DatasetCard(id="d", class_space="ten"), backend=backend,
            logits=rng.normal(0, 4, (70, 10)), features=rng.normal(0, 1, (70, 6)), labels=np.arange(70) % 10,
            image_ids=[f"{i}.jpg" for i in range(70)], metadata={"size": np.arange(70)}, valid=valid,
        ).path
        for backend in attack.BACKENDS
    }  # fmt: skip


@pytest.mark.parametrize(("name", "backend"), ROWS, ids=[f"{backend}: {name}" for name, backend in ROWS])
def test_attack_is_refused_in_one_line(name: str, backend: str, originals: dict[str, Path], tmp_path: Path) -> None:
    changes, pattern = ATTACKS[name]
    path = tmp_path / "cache" / "m" / originals[backend].name
    shutil.copytree(originals[backend], path) if backend == "zarr" else None
    if backend == "hdf5":
        path.parent.mkdir(parents=True)
        shutil.copy(originals[backend], path)
    (path.parent / "secret").write_bytes(attack.SECRET * 100)
    (path.parent / "folder").mkdir()
    (path.parent / "folder" / "0").write_bytes(attack.SECRET * 100)
    os.mkfifo(path.parent / "pipe")
    changes[backend](path)
    start = time.monotonic()
    with pytest.raises(CacheError, match=pattern) as caught:
        attack.read_all(path)
    assert "\n" not in str(caught.value)
    assert problems(path)
    assert time.monotonic() - start < 10
    cache = cache_schema.open_cache(tmp_path / "cache")
    assert len(cache.stores()) + len(cache.refused()) == 1


def test_mutated_stores_give_a_refusal_or_their_content(tmp_path: Path) -> None:
    """A thousand changed stores of each format; ``make fuzz`` changes as many as one likes."""
    counted = {}
    for backend in attack.BACKENDS:
        attack.write_stores(tmp_path / backend, backend)
        found: list[str] = []
        counted[backend] = attack.run(20, 1000, backend, tmp_path, found.append)
        assert found == []
        assert counted[backend].total() == 1000
        assert set(counted[backend]) <= {"refused", "read"}
    assert min(counts["refused"] for counts in counted.values()) > 500


def test_nothing_is_sealed_that_would_be_refused(tmp_path: Path) -> None:
    card = DatasetCard(id="d", class_space="x", class_mask=(0, 0))
    with pytest.raises(UserError, match=r"cannot be sealed: dataset.class_mask holds a class twice"):
        cache_schema.write_store(
            tmp_path, model=ModelCard(id="m"), dataset=card, logits=np.eye(3), image_ids=list("abc")
        )
    assert not list(tmp_path.rglob("*.zarr"))


@pytest.mark.parametrize("backend", attack.BACKENDS)
def test_a_header_too_large_to_be_read_is_not_sealed(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache_schema.format.seal.MAX_HEADER_BYTES", 20_000)
    card = DatasetCard(id="d", class_space="x", class_names=("c" * 300,) * 100)
    with pytest.raises(UserError, match=r"cannot be sealed: its header .* at most are read"):
        cache_schema.write_store(
            tmp_path, model=ModelCard(id="m"), dataset=card, logits=np.eye(3), image_ids=list("abc"), backend=backend
        )
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".zarr", ".h5")]


def test_files_of_the_desktop_are_no_part_of_a_cache(
    originals: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that was looked at on a Mac or under Windows: every command passes over what that leaves."""
    cache = tmp_path / "cache"
    for backend in attack.BACKENDS:
        at = cache / "m" / originals[backend].name
        shutil.copytree(originals[backend], at) if backend == "zarr" else shutil.copy(originals[backend], at)
    cache_schema.record_failure(cache, "m", "e", "why")
    folders = [cache, *(path for path in cache.rglob("*") if path.is_dir())]
    for folder in folders:
        for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._x", "._x.json", "._d-00000000.h5"):
            (folder / name).write_bytes(b"\0\5\x16\7 of the desktop")
    digest = cache_schema.open_cache(cache).stores()[0].digest
    assert main(["check", str(cache)]) == 0
    assert "2 stores checked, 0 problems" in capsys.readouterr().out
    assert cache_schema.open_cache(cache).refused() == []
    assert [failure.reason for failure in cache_schema.open_cache(cache).failures()] == ["why"]
    assert main(["push", str(cache), f"file://{tmp_path}/there"]) == 0
    assert "2 stores pushed" in capsys.readouterr().out
    assert not [path for path in (tmp_path / "there").rglob("*") if path.name in ("Thumbs.db", ".DS_Store")]
    assert main(["convert", str(cache), str(tmp_path / "made"), "--to", "hdf5"]) in (0, 1)
    (made,) = cache_schema.open_cache(tmp_path / "made").stores()
    assert made.digest == digest
