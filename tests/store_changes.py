"""Changes of sealed stores, one thing each, with every checksum and seal recomputed."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from google_crc32c import value as crc32c

from cache_schema.backends.hdf5 import MAGIC
from cache_schema.backends.zarr_v3 import FILES, ROOT
from cache_schema.format.schema import FORMAT

DEEP = "\0deep\0"
PACKINGS: tuple[Any, ...] = (
    {}, {"compression": "gzip"}, {"compression": "lzf"}, hdf5plugin.LZ4(), hdf5plugin.Zstd(), hdf5plugin.BZip2(),
    hdf5plugin.Blosc(), hdf5plugin.SZ3(absolute=0.1),
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, 150, 2**31, 2**40, 2**63, 10**30, 0.5, -1e308, 1e308, float("nan"), float("inf"),
    "", "x", "float16", "int32", "text", "../../secret", "/etc/passwd", "\0", "a" * 300, "\udc80", "a\nb", [], {}, [[]],
    [0], [1, 2], ["x"], [None], [-1], [10**12], [7, 7, 7, 7], {"a": 1}, {"name": "gzip"}, {"name": "lzma"}, DEEP,
)  # fmt: skip


def dumps(document: Any) -> str:
    """Serialise anything, NaN, halves of surrogate pairs and endless depth among it."""
    text = json.dumps(document, separators=(",", ":"))
    return text.replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000)


def change_json(value: Any, rng: np.random.Generator) -> Any:
    """Change one place of a JSON value: other type, other number, missing, surplus or renamed key."""
    value = copy.deepcopy(value)
    node, places = value, []
    while isinstance(node, dict | list) and node and (not places or rng.random() < 0.85):
        key = choose(rng, list(node) if isinstance(node, dict) else range(len(node)))
        places.append((node, key))
        node = node[key]
    if not places:
        return choose(rng, VALUES)
    parent, key = places[-1]
    kind = rng.integers(6)
    old = parent[key]
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(old, int | float) and not isinstance(old, bool):
        parent[key] = choose(rng, (old + 1, old - 1, old * 2, -old, old * 10**9, float(old), str(old)))
    elif kind == 2 and isinstance(parent, dict):
        parent[choose(rng, ("x", "", "../x", key + "x", "a" * 300))] = parent.pop(key)
    elif kind == 3 and isinstance(old, list):
        parent[key] = choose(rng, (old + old, old[:-1], old[::-1], [*old, 0], [*old, -1], [old]))
    elif kind == 4 and isinstance(old, str):
        parent[key] = choose(rng, (old + "x", old[1:], old.upper(), "summary", "head", "float64", "bool", "uint16"))
    else:
        parent[key] = choose(rng, VALUES)
    return value


def choose(rng: np.random.Generator, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


def change_bytes(raw: bytes, rng: np.random.Generator, begin: int = 0, end: int | None = None) -> bytes:
    """Change some bytes, or cut or repeat a piece."""
    out = bytearray(raw)
    end = len(raw) if end is None else min(end, len(raw))
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(begin, max(begin + 1, end)))
        out[at : at + 1] = bytes([choose(rng, (0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))))])
        if rng.random() < 0.3:
            width = choose(rng, (2, 4, 8))
            number = choose(rng, (0, 1, 2**32 - 1, 2**31 - 1, 2**63, 2**16, len(raw)))
            out[at : at + width] = (number % 256**width).to_bytes(width, "little")
    return bytes(out)


# ---- Zarr


def zarr_document(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((path / ROOT).read_bytes())
    return document


def seal_zarr(path: Path, document: dict[str, Any], *, rehash: bool = True) -> None:
    """Write a root that vouches for what lies in the folder now."""
    attributes = document.get("attributes")
    listed = attributes.get(FILES) if isinstance(attributes, dict) else None
    if isinstance(listed, dict):
        if rehash and isinstance(listed.get("files"), dict):
            for name in listed["files"]:
                try:
                    if not (path / name).is_file():  # a pipe or a device
                        continue
                    raw = (path / name).read_bytes()
                    listed["files"][name] = [len(raw), hashlib.sha256(raw).hexdigest()]
                except (OSError, ValueError):
                    pass
        listed.pop("file_digest", None)
        attributes[FILES] = listed
        listed["file_digest"] = "0" * 64
        attributes[FORMAT] = attributes.pop(FORMAT, None)
    text = dumps(document).encode()
    lead = b'"file_digest":"'
    at = text.rfind(lead) + len(lead)
    blank = text[:at] + b"0" * 64 + text[at + 64 :]
    digest = hashlib.sha256(blank).hexdigest().encode()
    (path / ROOT).write_bytes(blank[:at] + digest + blank[at + 64 :])


def zarr_header(path: Path, rng: np.random.Generator) -> None:
    document = zarr_document(path)
    document["attributes"][FORMAT] = change_json(document["attributes"][FORMAT], rng)
    seal_zarr(path, document)


def zarr_listing(path: Path, rng: np.random.Generator) -> None:
    document = zarr_document(path)
    document["attributes"][FILES] = change_json(document["attributes"][FILES], rng)
    seal_zarr(path, document, rehash=False)


def zarr_root(path: Path, rng: np.random.Generator) -> None:
    if rng.random() < 0.5:
        seal_zarr(path, {**zarr_document(path), "attributes": change_json(zarr_document(path)["attributes"], rng)})
    else:
        (path / ROOT).write_bytes(change_bytes((path / ROOT).read_bytes(), rng))


def zarr_metadata(path: Path, rng: np.random.Generator) -> None:
    file = choose(rng, sorted(path.glob("*/zarr.json")))
    if rng.random() < 0.15:
        file.write_bytes(
            choose(rng, (b"", b"[" * 100_000, b"no JSON", b"\xff\xfe", b"null", b"[]", b"{}", b" " * 70_000))
        )
    else:
        file.write_text(dumps(change_json(json.loads(file.read_bytes()), rng)))
    seal_zarr(path, zarr_document(path))


def zarr_metadata_and_seal(path: Path, rng: np.random.Generator) -> None:
    """Give an array another shape in its metadata and in the seal alike."""
    document = zarr_document(path)
    arrays = document["attributes"][FORMAT]["seal"]["arrays"]
    name = choose(rng, sorted(arrays))
    shape = [choose(rng, (0, 1, 150, 3000, 10**12, 2**62)) if rng.random() < 0.6 else n for n in arrays[name]["shape"]]
    arrays[name]["shape"] = choose(rng, (shape, [*shape, 1], shape[:1]))
    inner = json.loads((path / name / ROOT).read_bytes())
    inner["shape"] = arrays[name]["shape"]
    (path / name / ROOT).write_text(dumps(inner))
    seal_zarr(path, document)


def zarr_block(path: Path, rng: np.random.Generator) -> None:
    """Change a compressed block, most often its header, and all checksums with it."""
    file = choose(rng, sorted(item for item in path.glob("*/c/**/0") if item.is_file()))
    inner = json.loads((path / file.relative_to(path).parts[0] / ROOT).read_bytes())
    raw = file.read_bytes()
    rows = inner["codecs"][0]["configuration"]["chunk_shape"][0]
    n = inner["chunk_grid"]["configuration"]["chunk_shape"][0] // rows
    index = list(struct.unpack(f"<{2 * n}Q", raw[-16 * n - 4 : -4]))
    if rng.random() < 0.25:
        at = int(rng.integers(2 * n))
        index[at] = choose(rng, (0, 1, len(raw), 2**32, 2**63, 2**64 - 1, index[at] + 1))
        body = raw[: -16 * n - 4]
    else:
        block = raw[index[0] : index[0] + index[1] - 4]
        block = change_bytes(block, rng, 0, choose(rng, (16, 24, 48, None)))
        rest = raw[index[0] + index[1] : -16 * n - 4]
        body = block + crc32c(block).to_bytes(4, "little") + rest
    packed = struct.pack(f"<{2 * n}Q", *index)
    file.write_bytes(body + packed + crc32c(packed).to_bytes(4, "little"))
    seal_zarr(path, zarr_document(path))


def zarr_links(path: Path, rng: np.random.Generator) -> None:
    """Put a link, a pipe, a device or a folder in the place of a file or folder."""
    target = choose(rng, [item for item in sorted(path.rglob("*")) if item != path / ROOT])
    outside = path.parent / "secret"
    kind = rng.integers(5)
    kept = target.with_name("kept")
    target.rename(kept)
    if kind == 0:
        target.symlink_to(outside if not kept.is_dir() else outside.parent / "folder")
    elif kind == 1:
        os.mkfifo(target)
    elif kind == 2:
        target.symlink_to("/dev/zero")
    elif kind == 3:
        target.mkdir()
    else:
        target.symlink_to(kept.name)
    seal_zarr(path, zarr_document(path))


# ---- HDF5


def hdf5_parts(path: Path) -> tuple[bytes, str]:
    """Return the HDF5 data and the header of a store."""
    raw = path.read_bytes()
    (end,) = struct.unpack_from("<Q", raw, 28)
    at = len(raw) - 64 - len(MAGIC) - 16
    length = int(raw[at : at + 16], 16)
    return raw[:end], raw[at - 64 - length : at - 64].decode()


def seal_hdf5(path: Path, data: bytes, header: str) -> None:
    """Write data and what vouches for them."""
    body = header.encode("utf-8", "surrogatepass")
    raw = data + body + hashlib.sha256(body).hexdigest().encode() + f"{len(body):016x}".encode() + MAGIC
    path.write_bytes(raw + hashlib.sha256(raw).hexdigest().encode())


def change_hdf5(path: Path, change: Callable[[h5py.File], None], header: str | None = None) -> None:
    """Change the data through the library, and seal them again."""
    data, old = hdf5_parts(path)
    path.write_bytes(data)
    try:
        with h5py.File(path, "r+", libver=("v110", "v110"), locking=False) as file:
            change(file)
            if header is not None:
                del file.attrs[FORMAT]
                file.attrs[FORMAT] = header
    finally:
        seal_hdf5(path, path.read_bytes(), old if header is None else header)


def hdf5_header(path: Path, rng: np.random.Generator) -> None:
    _, header = hdf5_parts(path)
    changed = dumps(change_json(json.loads(header), rng))
    change_hdf5(path, lambda file: None, changed)


def hdf5_data(path: Path, rng: np.random.Generator) -> None:
    """Change bytes of the library's own bookkeeping."""
    data, header = hdf5_parts(path)
    place = choose(rng, [at for at in range(0, len(data) - 4) if data[at : at + 4] in _SIGNATURES] + [0, 0])
    changed = change_bytes(data, rng, place, place + choose(rng, (48, 150, 600)))
    seal_hdf5(path, changed[: len(data)], header)


_SIGNATURES = (b"OHDR", b"OCHK", b"FRHP", b"FHDB", b"BTHD", b"BTLF", b"GCOL", b"FAHD", b"FADB")


def hdf5_frame(path: Path, rng: np.random.Generator) -> None:
    """Change a compressed chunk, and its checksum with it."""
    data, header = hdf5_parts(path)
    with h5py.File(path, "r") as file:
        chunked = [item for item in file.values() if item.chunks is not None]
        chunk = choose(rng, chunked).id.get_chunk_info(0)
    at, size = chunk.byte_offset, chunk.size
    frame = data[at : at + size - 4]
    frame = change_bytes(frame, rng, choose(rng, (0, 97, 165, len(frame) - 40)), choose(rng, (97, 140, 220, None)))
    frame = frame[: size - 4].ljust(size - 4, b"\0")
    seal_hdf5(path, data[:at] + frame + fletcher32(frame) + data[at + size :], header)


def fletcher32(raw: bytes) -> bytes:
    """Return the checksum of the library's filter."""
    words = np.frombuffer(raw + b"\0" * (len(raw) % 2), ">u2").astype(np.uint64)
    first = second = 0
    for word in words.tolist():
        first = (first + word) % 65535
        second = (second + first) % 65535
    return struct.pack("<I", (second or 65535) << 16 | (first or 65535))


def hdf5_objects(path: Path, rng: np.random.Generator) -> None:
    """Put something else in an array's place: links, other files, other types, filters and shapes."""
    outside = path.parent / "secret"
    names: list[str] = []
    with h5py.File(path, "r") as file:
        names = sorted(file)
    name = choose(rng, names)

    def change(file: h5py.File) -> None:
        old = file[name]
        shape, dtype, values = old.shape, old.dtype, old[()]
        chunks = old.chunks
        kind = int(rng.integers(14))
        if kind != 12:
            del file[name]
        blosc = hdf5plugin.Blosc2(cname="zstd", clevel=3, filters=hdf5plugin.Blosc2.BITSHUFFLE)
        if kind == 0:
            file[name] = h5py.SoftLink("/" + choose(rng, names))
        elif kind == 1:
            file[name] = h5py.ExternalLink(str(choose(rng, (outside, path, path.parent / "pipe"))), "/x")
        elif kind == 2:
            space = [(str(choose(rng, (outside, "/dev/zero", path.parent / "pipe"))), 0, h5py.h5f.UNLIMITED)]
            file.create_dataset(name, shape=shape, dtype=dtype, external=space)
        elif kind == 3:
            layout = h5py.VirtualLayout(shape=shape, dtype=dtype)
            layout[:] = h5py.VirtualSource(str(path.parent / "pipe"), "x", shape=shape)
            file.create_virtual_dataset(name, layout)
        elif kind == 4:
            file.create_group(name)
        elif kind == 5:
            other = np.dtype(choose(rng, ("f8", "i8", "u2", "S3", [("a", "i4"), ("b", "f4")], ">i4")))
            file.create_dataset(name, data=np.zeros(shape, other), chunks=chunks, fletcher32=True, **blosc)
        elif kind == 6:
            packing = choose(rng, PACKINGS)
            usable = np.zeros(shape, "f4") if isinstance(packing, hdf5plugin.SZ3) else values
            file.create_dataset(name, data=usable, chunks=chunks, fletcher32=True, **packing)
        elif kind == 7:
            larger = tuple(choose(rng, (n, n + 1, 2 * n, 10**12)) for n in shape)
            file.create_dataset(name, shape=larger, dtype=dtype, chunks=chunks, fletcher32=True, **blosc)
        elif kind == 8:
            file.create_dataset(name, data=values, chunks=chunks, maxshape=(None, *shape[1:]), fletcher32=True, **blosc)
        elif kind == 9:
            file.create_dataset(
                name, shape=shape, dtype=dtype, chunks=chunks, fletcher32=True, **blosc
            )  # never written
        elif kind == 10:
            file.create_dataset(name, shape=shape, dtype=h5py.string_dtype())
        elif kind == 11:
            file[name] = file[choose(rng, [other for other in names if other != name])]
        elif kind == 12:
            file["more"] = np.zeros(choose(rng, (1, 10**6)))
        else:
            made = file.create_dataset(name, data=values, chunks=chunks, fletcher32=True, **blosc)
            made.attrs["x"] = np.zeros(7000)

    change_hdf5(path, change)


def hdf5_file(path: Path, rng: np.random.Generator) -> None:
    """Change any byte of the file, or put something else in its place."""
    raw = path.read_bytes()
    kind = rng.integers(6)
    if kind == 0:
        path.unlink()
        os.mkfifo(path)
    elif kind == 1:
        path.write_bytes(raw[: int(rng.integers(len(raw)))])
    elif kind == 2:
        path.write_bytes(change_bytes(raw, rng, len(raw) - 170))
    else:
        changed = change_bytes(raw, rng)[: len(raw) - 64]
        path.write_bytes(changed + hashlib.sha256(changed).hexdigest().encode())


CHANGES: dict[str, tuple[Callable[[Path, np.random.Generator], None], ...]] = {
    "zarr": (zarr_header, zarr_header, zarr_header, zarr_listing, zarr_root, zarr_metadata, zarr_metadata,
             zarr_metadata_and_seal, zarr_block, zarr_block, zarr_links),
    "hdf5": (hdf5_header, hdf5_header, hdf5_header, hdf5_data, hdf5_data, hdf5_frame, hdf5_frame, hdf5_objects,
             hdf5_objects, hdf5_file),
}  # fmt: skip
