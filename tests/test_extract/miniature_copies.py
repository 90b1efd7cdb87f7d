"""Folders that are laid out as published datasets are, with next to nothing in them."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from extract.datasets import DatasetSpec, resolve
from extract.datasets.base import Dataset


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def listed(name: str, path: Path, **keys: object) -> Dataset:
    """List a miniature copy, whose count cannot be the published one."""
    return resolve(DatasetSpec(name=name, path=path, allow_count_mismatch=True, **keys))  # type: ignore[arg-type]


class _Entries(list[os.DirEntry[str]]):
    """What os.scandir returns: iterable and a context."""

    def __enter__(self) -> _Entries:
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture(autouse=True)
def shuffled_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give directories in an order of their own, as some file systems do."""
    scandir = os.scandir

    def shuffled(path: str = ".") -> _Entries:
        with scandir(path) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
        random.Random(len(listed)).shuffle(listed)
        return _Entries(listed)

    monkeypatch.setattr(os, "scandir", shuffled)
