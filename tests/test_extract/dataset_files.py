"""Small datasets on disk for tests: images, folders, archives and their specs."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from PIL import Image

from extract.datasets import DatasetSpec


def png(value: int = 0, size: tuple[int, int] = (3, 2)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def folder(root: Path, *names: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for value, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(value))
    return root


def spec(path: Path, **keys: object) -> DatasetSpec:
    return DatasetSpec(name="mine", path=path, **keys)  # type: ignore[arg-type]


def write_tar(path: Path, members: dict[str, bytes], *, end: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        size = tar.offset
    path.write_bytes(buffer.getvalue() if end else buffer.getvalue()[:size])
    return path
