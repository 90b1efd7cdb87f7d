"""Arrays written and read directly, against zarr's own writing and reading of the same files."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import BloscCodec, Crc32cCodec

from cache_schema.backends import zarr_columns, zarr_v3
from cache_schema.backends.zarr_columns import columns_of
from cache_schema.backends.zarr_v3 import ZarrFiles
from cache_schema.format.schema import Layout, layout


def written_by_zarr(folder: Path, values: np.ndarray, cut: Layout) -> None:
    rest = tuple(max(1, length) for length in values.shape[1:])
    array = zarr.create_array(
        str(folder),
        shape=values.shape,
        dtype=values.dtype,
        chunks=(cut.chunk_rows, *rest),
        shards=(cut.shard_rows, *rest),
        compressors=[
            BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle", typesize=values.dtype.itemsize),
            Crc32cCodec(),
        ],
        fill_value=np.nan if values.dtype.kind == "f" else 0,
        config={"write_empty_chunks": True},
    )
    array[:] = values


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@given(
    shape=st.one_of(
        st.tuples(st.integers(0, 40)), st.tuples(st.integers(0, 40), st.integers(0, 5)),
        st.tuples(st.integers(1, 20), st.integers(1, 3), st.integers(1, 3)),
    ),
    dtype=st.sampled_from(["bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64"]),
    rows=st.sampled_from([1, 2, 3, 7]),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_every_file_is_what_zarr_writes(shape, dtype, rows, seed):
    values = (np.random.default_rng(seed).normal(size=shape) * 40).astype(dtype)
    if seed == 0:
        values[...] = 0  # what zarr might leave out
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        # Shards of a few rows, so that arrays have several and a last one that is short.
        n = max(1, shape[0])
        cut = Layout(min(rows, n), min(rows, n) * min(3, -(-n // min(rows, n))))
        patch.setattr(zarr_v3, "layout", lambda *_: cut)
        files = ZarrFiles(Path(root, "ours"))
        files.begin({})
        files.create("x", shape, values.dtype)
        for start in range(0, shape[0], cut.shard_rows):
            files.write("x", start, values[start : start + cut.shard_rows])
        written_by_zarr(Path(root, "zarr"), values, cut)
        assert files_of(Path(root, "ours", "x")) == files_of(Path(root, "zarr"))


@pytest.mark.parametrize(("shape", "dtype"), [((20_000, 300), "float16"), ((70_000,), "float32"), ((600_000,), "bool")])
def test_whole_layouts_are_what_zarr_writes(tmp_path, shape, dtype):
    values = (np.random.default_rng(0).normal(size=shape) * 10).astype(dtype)
    values[-1] = np.nan if values.dtype.kind == "f" else 0
    files = ZarrFiles(tmp_path / "ours")
    files.begin({})
    files.create("x", shape, values.dtype)
    files.write("x", 0, values)
    written_by_zarr(tmp_path / "zarr", values, layout(shape, values.dtype.itemsize))
    ours = files_of(tmp_path / "ours" / "x")
    assert ours == files_of(tmp_path / "zarr")
    assert len(ours) >= 2


@pytest.mark.parametrize("serial", [-1, zarr_columns.SERIAL_BYTES])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((200_000,), "int16"), ((70_001, 5), "int16"), ((1,), "float32"), ((5000, 3), "float64"), ((9,), "bool")],
)
def test_every_stretch_of_rows_is_what_zarr_reads(tmp_path, monkeypatch, shape, dtype, serial):
    monkeypatch.setattr(zarr_columns, "SERIAL_BYTES", serial)
    rng = np.random.default_rng(0)
    values = (rng.normal(size=shape) * 50).astype(dtype)
    files = ZarrFiles(tmp_path / "store.zarr")
    files.begin({})
    rows = files.create("column.x", shape, np.dtype(dtype))
    for start in range(0, shape[0], rows):
        files.write("column.x", start, values[start : start + rows])
    folder = tmp_path / "store.zarr" / "column.x"
    columns = columns_of((folder / "zarr.json").read_bytes(), shape, dtype)
    theirs = zarr.open_array(folder, mode="r")
    n = shape[0]
    for start, stop in ((0, n), (0, 0), (n - 1, n), (n // 3, n // 2), (max(0, n - 70_000), n)):
        got = columns.read(folder, start, stop)
        np.testing.assert_array_equal(got, theirs[start:stop])
        assert got.dtype == values.dtype


def test_another_layout_is_refused(tmp_path):
    zarr.create_array(str(tmp_path / "plain"), shape=(10,), chunks=(5,), dtype="float32")
    for metadata in ((tmp_path / "plain" / "zarr.json").read_bytes(), json.dumps({"codecs": []}).encode(), b"[", b"[]"):
        with pytest.raises(ValueError, match=r"zarr.json|Expecting"):
            columns_of(metadata, (10,), "float32")


def test_other_lengths_of_chunks_are_read(tmp_path):
    """The format leaves them to the writer."""
    values = np.arange(50, dtype=np.float32)
    written_by_zarr(tmp_path / "x", values, Layout(7, 21))
    columns = columns_of((tmp_path / "x" / "zarr.json").read_bytes(), (50,), "float32")
    assert (columns.chunks, columns.shards) == ((7,), (21,))
    np.testing.assert_array_equal(columns.read(tmp_path / "x", 5, 49), values[5:49])


@pytest.mark.parametrize("place", [3, -3, -30])
def test_a_changed_byte_is_found(tmp_path, place):
    files = ZarrFiles(tmp_path / "store.zarr")
    files.begin({})
    files.create("column.x", (1000,), np.dtype("float32"))
    files.write("column.x", 0, np.arange(1000, dtype=np.float32))
    folder = tmp_path / "store.zarr" / "column.x"
    columns = columns_of((folder / "zarr.json").read_bytes(), (1000,), "float32")
    shard = folder / "c" / "0"
    raw = bytearray(shard.read_bytes())
    raw[place] ^= 1
    shard.write_bytes(bytes(raw))
    with pytest.raises(ValueError, match=r"checksum|never written"):
        columns.read(folder, 0, 1000)
