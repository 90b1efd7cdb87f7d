"""Small arrays read directly against zarr's own reading of the same files."""

from __future__ import annotations

import json

import numpy as np
import pytest
import zarr

from cache_schema.backends.zarr_columns import columns_of
from cache_schema.backends.zarr_v3 import ZarrFiles


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((200_000,), "int16"), ((70_001, 5), "int16"), ((1,), "float32"), ((5000, 3), "float64"), ((9,), "bool")],
)
def test_every_stretch_of_rows_is_what_zarr_reads(tmp_path, shape, dtype):
    rng = np.random.default_rng(0)
    values = (rng.normal(size=shape) * 50).astype(dtype)
    files = ZarrFiles(tmp_path / "store.zarr")
    files.begin({})
    rows = files.create("column.x", shape, np.dtype(dtype))
    for start in range(0, shape[0], rows):
        files.write("column.x", start, values[start : start + rows])
    folder = tmp_path / "store.zarr" / "column.x"
    columns = columns_of((folder / "zarr.json").read_bytes())
    assert columns is not None
    theirs = zarr.open_array(folder, mode="r")
    n = shape[0]
    for start, stop in ((0, n), (0, 0), (n - 1, n), (n // 3, n // 2), (max(0, n - 70_000), n)):
        got = columns.read(folder, start, stop)
        np.testing.assert_array_equal(got, theirs[start:stop])
        assert got.dtype == values.dtype


def test_another_layout_is_left_to_zarr(tmp_path):
    zarr.create_array(str(tmp_path / "plain"), shape=(10,), chunks=(5,), dtype="float32")
    assert columns_of((tmp_path / "plain" / "zarr.json").read_bytes()) is None
    assert columns_of(json.dumps({"codecs": []}).encode()) is None


@pytest.mark.parametrize("place", [3, -3, -30])
def test_a_changed_byte_is_found(tmp_path, place):
    files = ZarrFiles(tmp_path / "store.zarr")
    files.begin({})
    files.create("column.x", (1000,), np.dtype("float32"))
    files.write("column.x", 0, np.arange(1000, dtype=np.float32))
    folder = tmp_path / "store.zarr" / "column.x"
    columns = columns_of((folder / "zarr.json").read_bytes())
    shard = folder / "c" / "0"
    raw = bytearray(shard.read_bytes())
    raw[place] ^= 1
    shard.write_bytes(bytes(raw))
    with pytest.raises(ValueError, match=r"checksum|never written"):
        columns.read(folder, 0, 1000)
