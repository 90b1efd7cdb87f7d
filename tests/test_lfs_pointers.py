"""Whatever somebody brings may be a Git LFS pointer, where a repository was cloned without it: each reader says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from analyze.annotations.visual_factors import read_annotations
from analyze.results import read_results
from analyze.results.published import read_published
from cache_schema.importing.class_files import read_class_map, read_class_mask
from closerlook_common.errors import CloserlookError
from closerlook_common.plugins import load_files
from extract.datasets.arrow import open_arrow
from extract.datasets.manifest import read_table
from extract.datasets.parquet import read_parquet_files
from extract.datasets.shards import read_shards
from extract.models.weights import checkpoint_file

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"

READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "result table": ("r.parquet", read_results),
    "result table in CSV": ("r.csv", read_results),
    "published numbers": ("p.csv", read_published),
    "class mask": ("m.txt", read_class_mask),
    "class map": ("m.json", read_class_map),
    "annotations": ("a.jsonl", lambda path: read_annotations(str(path))),
    "plug-in": ("p.py", lambda path: load_files([path], {})),
    "weights": ("w.safetensors", lambda path: checkpoint_file(path, "line 1")),
    "exported network": ("w.onnx", lambda path: checkpoint_file(path, "line 1")),
    "manifest": ("m.csv", read_table),
    "list of files": ("m.txt", lambda path: read_table(path)),
    "manifest in Parquet": ("m.parquet", lambda path: read_table(path)),
    "images in Parquet": ("i.parquet", lambda path: read_parquet_files(path.parent, [path])),
    "images in Arrow": ("data-00000-of-00001.arrow", open_arrow),
    "shard": ("val-000000.tar", lambda path: read_shards(path.parent)),
}


@pytest.mark.parametrize("what", READERS)
def test_a_pointer_is_named(what: str, tmp_path: Path) -> None:
    name, read = READERS[what]
    path = tmp_path / name
    path.write_bytes(POINTER)
    with pytest.raises(CloserlookError, match=r"is a Git LFS pointer, .*'git lfs pull'") as caught:
        read(path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
