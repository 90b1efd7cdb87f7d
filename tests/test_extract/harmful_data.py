"""Writers of datasets that are made to do harm, and of images: each returns the keys of the dataset's spec."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from dataset_files import folder, png, write_tar
from PIL import Image
from pyarrow import parquet

Build = Callable[[Path], dict[str, Any]]


def member(name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **keys: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), kind
    for key, value in keys.items():
        setattr(info, key, value)
    return info, data


def tar_of(*members: tuple[tarfile.TarInfo, bytes], kind: int = tarfile.PAX_FORMAT) -> Build:
    """Return a builder of one shard with these members behind a sample that is well."""

    def build(root: Path) -> dict[str, Any]:
        with tarfile.open(root / "val.tar", "w", format=kind) as tar:
            for info, data in (member("good.png", png()), member("good.cls", b"0"), *members):
                tar.addfile(info, io.BytesIO(data))
        return {"reader": "webdataset", "classes": ("a", "b")}

    return build


def raw_tar(*headers: tuple[bytes, bytes]) -> Build:
    """Return a builder of a shard whose headers are (type, size field), each with valid checksum."""

    def build(root: Path) -> dict[str, Any]:
        data = b""
        for kind, size in headers:
            block = bytearray(512)
            block[:5], block[124 : 124 + len(size)], block[156:157] = b"a.png", size, kind
            block[257:265], block[148:156] = b"ustar\x0000", b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
            data += bytes(block)
        (root / "val.tar").write_bytes(data + bytes(10240))
        return {"reader": "webdataset", "classes": ("a", "b")}

    return build


def sparse(root: Path) -> dict[str, Any]:
    info, _ = member("x.png")
    info.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.size": str(1 << 40),
        "GNU.sparse.map": "0,0",
    }
    return tar_of((info, b""))(root)


def fifo_named(name: str, **keys: Any) -> Build:
    def build(root: Path) -> dict[str, Any]:
        os.mkfifo(root / name)
        return keys

    return build


def table(root: Path, *, n: int = 3, **columns: Any) -> Path:
    images = pa.array([{"bytes": png(v % 250), "path": None} for v in range(n)])
    parquet.write_table(pa.table({"image": images, **columns}), root / "test.parquet")
    return root / "test.parquet"


def billion_rows(root: Path) -> dict[str, Any]:
    writer = parquet.ParquetWriter(root / "test.parquet", pa.schema([("image", pa.binary()), ("label", pa.int64())]))
    part = pa.table({"image": pa.nulls(1_000_000, pa.binary()), "label": pa.nulls(1_000_000, pa.int64())})
    for _ in range(4):
        writer.write_table(part)
    writer.close()
    return {"reader": "huggingface", "classes": ("a",)}


def long_texts(root: Path) -> dict[str, Any]:
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(600, np.int32)), pa.array(["x" * (1 << 20)]))
    table(root, n=600, note=text, label=pa.array(np.zeros(600, np.int64)))
    return {"reader": "huggingface", "classes": ("a",)}


def torn(suffix: str, at: float, patch: bytes = b"\xff" * 64) -> Build:
    def build(root: Path) -> dict[str, Any]:
        path = table(root, label=pa.array([0, 1, 0])) if suffix == "parquet" else arrow(root)
        data = bytearray(path.read_bytes())
        place = int(at * len(data))
        data[place : place + len(patch)] = patch
        path.write_bytes(data[: len(data)])
        return {"reader": "huggingface", "classes": ("a", "b")}

    return build


def arrow(root: Path, schema: pa.Schema | None = None, **options: Any) -> Path:
    batch = pa.record_batch({"image": pa.array([png(1), png(2)]), "label": pa.array([0, 1])}, schema=schema)
    with pa.ipc.new_stream(root / "data.arrow", batch.schema, options=pa.ipc.IpcWriteOptions(**options)) as out:
        out.write_batch(batch)
    return root / "data.arrow"


def compressed_arrow(root: Path) -> dict[str, Any]:
    arrow(root, compression="zstd")
    return {"reader": "huggingface", "classes": ("a", "b")}


def wild_offsets(root: Path) -> dict[str, Any]:
    path = arrow(root)
    offsets = np.array([0, len(png(1)), len(png(1)) + len(png(2))], "<i4").tobytes()
    data = path.read_bytes()
    assert data.count(offsets) == 1
    path.write_bytes(data.replace(offsets, np.array([0, 1 << 30, 1 << 30], "<i4").tobytes()))
    return {"reader": "huggingface", "classes": ("a", "b")}


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("executed",))


def pickled_type(root: Path) -> dict[str, Any]:
    marks = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(Bomb())}
    arrow(root, pa.schema([("image", pa.binary()), pa.field("label", pa.int64(), metadata=marks)]))
    return {"reader": "huggingface", "classes": ("a", "b")}


def text_file(name: str, text: str | bytes, inner: Build | None = None, **keys: Any) -> Build:
    def build(root: Path) -> dict[str, Any]:
        spec = inner(root) if inner is not None else {}
        (root / name).write_bytes(text.encode() if isinstance(text, str) else text)
        return spec | {key: root / value if key == "manifest" else value for key, value in keys.items()}

    return build


def manifest(name: str, text: str | bytes) -> Build:
    return text_file(name, text, one_image, manifest=name)


def one_image(root: Path) -> dict[str, Any]:
    folder(root, "a.png")
    return {}


def small_shard(root: Path) -> dict[str, Any]:
    write_tar(root / "val.tar", {"a.png": png(), "a.cls": b"0"})
    return {"reader": "webdataset", "classes": ("a",)}


def small_table(root: Path) -> dict[str, Any]:
    table(root, label=pa.array([0, 0, 0]))
    return {"reader": "huggingface", "classes": ("a",)}


def linked_manifest(target: str) -> Build:
    def build(root: Path) -> dict[str, Any]:
        folder(root, "a.png")
        (root / "b.png").symlink_to(target)
        (root / "m.csv").write_text("path\na.png\nb.png\n")
        return {"manifest": root / "m.csv"}

    return build


def many_links(root: Path) -> dict[str, Any]:
    folder(root, *(f"{i}/a.png" for i in range(12)))
    for i in range(12):
        for j in range(12):
            (root / str(i) / f"to{j}").symlink_to(root / str(j))
    return {"labels": "none"}


def deep_folders(root: Path) -> dict[str, Any]:
    folder(root, "a.png")
    place = os.open(root, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=place)
        inner = os.open("d", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)
    return {"labels": "none"}


ALIASES = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 8)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
DEEP = "[" * 100_000
PAX_CHAIN = raw_tar(*[(b"x", b"00000000000\0")] * 3000)


def png_of(width: int, height: int, *chunks: tuple[bytes, bytes], data: bytes = b"") -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = data or zlib.compress((b"\0" + bytes(width * 3)) * min(height, 64))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(chunk(*c) for c in chunks)
        + chunk(b"IDAT", pixels)
        + chunk(b"IEND", b"")
    )


def jpeg(**options: Any) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 10, 10)).save(out, "JPEG", **options)
    return out.getvalue()


def moving(n: int) -> bytes:
    out = io.BytesIO()
    frames = [Image.new("P", (4, 4), i % 250) for i in range(n)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return out.getvalue()
