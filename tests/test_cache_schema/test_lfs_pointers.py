"""A repository cloned without Git LFS holds pointers: every kind of file that may be one is named as such."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cache_schema
from cache_schema.cli import main
from cache_schema.writing.validate import problems
from closerlook_common.errors import CorruptStoreError

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_a_store(backend: str, write: Callable[..., Any]) -> None:
    path = write(backend=backend).path
    root = path / "zarr.json" if backend == "zarr" else path
    root.write_bytes(POINTER)
    with pytest.raises(CorruptStoreError, match=r"is a Git LFS pointer, .*'git lfs pull'"):
        cache_schema.open_store(path)


def test_a_chunk_of_a_store(write: Callable[..., Any]) -> None:
    path = write(backend="zarr").path
    (path / "labels" / "c" / "0").write_bytes(POINTER)
    with pytest.raises(CorruptStoreError, match=r"labels/c/0 is a Git LFS pointer, .*'git lfs pull'"):
        print(cache_schema.open_store(path).labels)
    assert any("labels/c/0 is a Git LFS pointer" in problem for problem in problems(path))


@pytest.mark.parametrize("name", ["p.npz", "p.csv", "p.parquet"])
def test_a_file_of_outputs(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_bytes(POINTER)
    words = ["import", str(tmp_path / name), "--cache", str(tmp_path / "cache"), "--model", "m", "--dataset", "d"]
    assert main(words) == 2
    assert "is a Git LFS pointer" in capsys.readouterr().err
