"""Builders of attacks on stores: what is changed in, a change for each backend that has such a thing out."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import store_changes as attack
from google_crc32c import value as crc32c

from cache_schema.backends.zarr_v3 import FILES
from cache_schema.format.schema import FORMAT, MAX_DECODED_BYTES

BLOSC2 = hdf5plugin.Blosc2(cname="zstd", clevel=3, filters=hdf5plugin.Blosc2.BITSHUFFLE)
Change = Callable[[Path], None]


def header(change: Callable[[dict[str, Any]], None]) -> dict[str, Change]:
    """Return the change of a header for both backends."""

    def in_zarr(path: Path) -> None:
        document = attack.zarr_document(path)
        change(document["attributes"][FORMAT])
        attack.seal_zarr(path, document)

    def in_hdf5(path: Path) -> None:
        document = json.loads(attack.hdf5_parts(path)[1])
        change(document)
        attack.change_hdf5(path, lambda file: None, attack.dumps(document))

    return {"zarr": in_zarr, "hdf5": in_hdf5}


def put(*places: Any) -> dict[str, Change]:
    """Return the change that sets one value, the last of ``places``, below the keys before it."""

    def change(document: dict[str, Any]) -> None:
        node: Any = document
        for key in places[:-2]:
            node = node[key]
        node[places[-2]] = places[-1]

    return header(change)


def metadata(change: Callable[[dict[str, Any]], None], name: str = "labels") -> dict[str, Change]:
    """Return the change of one array's ``zarr.json``."""

    def in_zarr(path: Path) -> None:
        file = path / name / "zarr.json"
        document = json.loads(file.read_bytes())
        change(document)
        file.write_text(json.dumps(document))
        attack.seal_zarr(path, attack.zarr_document(path))

    return {"zarr": in_zarr}


def raw_metadata(raw: bytes) -> dict[str, Change]:
    def in_zarr(path: Path) -> None:
        (path / "labels" / "zarr.json").write_bytes(raw)
        attack.seal_zarr(path, attack.zarr_document(path))

    return {"zarr": in_zarr}


def inner(document: dict[str, Any]) -> dict[str, Any]:
    configuration: dict[str, Any] = document["codecs"][0]["configuration"]
    return configuration


def in_both(shape: list[int], dtype: str = "int32") -> dict[str, Change]:
    """Return the change that gives the labels another shape or type, in metadata and seal alike."""

    def in_zarr(path: Path) -> None:
        file = path / "labels" / "zarr.json"
        document = json.loads(file.read_bytes())
        document |= {"shape": shape, "data_type": dtype}
        file.write_text(json.dumps(document))
        root = attack.zarr_document(path)
        root["attributes"][FORMAT]["seal"]["arrays"]["labels"] |= {"shape": shape, "dtype": dtype}
        attack.seal_zarr(path, root)

    def in_hdf5(path: Path) -> None:
        def change(file: h5py.File) -> None:
            del file["labels"]
            chunks = tuple(min(n, 1000) for n in shape)
            file.create_dataset("labels", shape=shape, dtype=dtype, chunks=chunks, fletcher32=True, **BLOSC2)

        document = json.loads(attack.hdf5_parts(path)[1])
        document["seal"]["arrays"]["labels"] |= {"shape": shape, "dtype": dtype}
        attack.change_hdf5(path, change, attack.dumps(document))

    return {"zarr": in_zarr, "hdf5": in_hdf5}


def block(change: Callable[[bytearray], None]) -> dict[str, Change]:
    """Return the change of the first compressed block of the labels, checksums recomputed."""

    def in_zarr(path: Path) -> None:
        file = path / "labels" / "c" / "0"
        raw = file.read_bytes()
        offset, size = struct.unpack("<2Q", raw[-20:-4])
        part = bytearray(raw[offset : offset + size - 4])
        change(part)
        index = struct.pack("<2Q", 0, len(part) + 4)
        whole = bytes(part) + crc32c(bytes(part)).to_bytes(4, "little")
        file.write_bytes(whole + index + crc32c(index).to_bytes(4, "little"))
        attack.seal_zarr(path, attack.zarr_document(path))

    def in_hdf5(path: Path) -> None:
        data, text = attack.hdf5_parts(path)
        with h5py.File(path, "r") as file:
            chunk = file["labels"].id.get_chunk_info(0)
        at, size = chunk.byte_offset, chunk.size
        frame = bytearray(data[at : at + size - 4])
        part = frame[97:]  # behind the frame's own header
        change(part)
        frame = frame[:97] + part[: len(frame) - 97]
        attack.seal_hdf5(path, data[:at] + bytes(frame) + attack.fletcher32(bytes(frame)) + data[at + size :], text)

    return {"zarr": in_zarr, "hdf5": in_hdf5}


def number(at: int, value: int) -> Callable[[bytearray], None]:
    def change(part: bytearray) -> None:
        part[at : at + 4] = struct.pack("<I", value)

    return change


def in_file(change: Callable[[h5py.File, Path], Any]) -> dict[str, Change]:
    """Return the change of the HDF5 data, the labels taken away before."""

    def in_hdf5(path: Path) -> None:
        def without(file: h5py.File) -> None:
            del file["labels"]
            change(file, path.parent)

        attack.change_hdf5(path, without)

    return {"hdf5": in_hdf5}


def virtual(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout(shape=(70,), dtype="i4")
    layout[:] = h5py.VirtualSource(str(folder / "pipe"), "x", shape=(70,))
    file.create_virtual_dataset("labels", layout)


def packed(dtype: Any = "i4", **filters: Any) -> dict[str, Change]:
    return array(data=np.zeros(70, dtype), chunks=(70,), **filters)


def external(name: str) -> dict[str, Change]:
    def change(file: h5py.File, folder: Path) -> None:
        file.create_dataset("labels", (70,), "i4", external=[(str(folder / name), 0, 280)])

    return in_file(change)


def array(**options: Any) -> dict[str, Change]:
    """Return the change that makes another array of the labels."""
    return in_file(lambda file, _: file.create_dataset("labels", **options))


def with_attribute(file: h5py.File, _: Path) -> None:
    made = file.create_dataset("labels", data=np.zeros(70, "i4"), chunks=(70,), fletcher32=True, **BLOSC2)
    made.attrs["x"] = np.zeros(7000)


def huge_chunks(document: dict[str, Any]) -> None:
    inner(document)["chunk_shape"] = document["chunk_grid"]["configuration"]["chunk_shape"] = [10**9]


def with_end(path: Path, end: int) -> None:
    data, text = attack.hdf5_parts(path)
    attack.seal_hdf5(path, data[:28] + struct.pack("<Q", end) + data[36:], text)


def with_length(path: Path, digits: bytes) -> None:
    raw = path.read_bytes()
    at = len(raw) - 64 - len(attack.MAGIC) - 16
    path.write_bytes(raw[:at] + digits + raw[at + 16 :])


def replaced(name: str, by: Callable[[Path], None]) -> dict[str, Change]:
    """Return the change that puts something else in the place of a file or folder of a Zarr store."""

    def in_zarr(path: Path) -> None:
        (path / name).rename(path.parent / "aside")
        by(path / name)
        attack.seal_zarr(path, attack.zarr_document(path))

    return {"zarr": in_zarr}


def listed(change: Callable[[dict[str, Any]], None]) -> dict[str, Change]:
    def in_zarr(path: Path) -> None:
        document = attack.zarr_document(path)
        change(document["attributes"][FILES]["files"])
        attack.seal_zarr(path, document, rehash=False)

    return {"zarr": in_zarr}


def bomb(path: Path) -> None:
    """Make a store of a few kilobytes whose labels are 2 GB."""
    root = attack.zarr_document(path)
    root["attributes"][FORMAT]["seal"]["n"] = n = 2 * MAX_DECODED_BYTES // 4
    for entry in root["attributes"][FORMAT]["seal"]["arrays"].values():
        entry["shape"][0] = n + (entry["shape"][0] == 71)
    attack.seal_zarr(path, root)


def pipe(path: Path) -> None:
    path.unlink() if path.is_file() else None
    os.mkfifo(path)
