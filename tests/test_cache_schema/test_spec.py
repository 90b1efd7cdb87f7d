"""SPEC.md and the tables in ``schema.py`` say the same, and the examples in docstrings hold."""

from __future__ import annotations

import doctest
import hashlib
import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  registers the filter, as another reader would
import numpy as np
import pytest
import zarr

import cache_schema
from cache_schema.format.schema import KINDS, SCHEMA_VERSION, TEXT, array_spec, layout
from cache_schema.format.structure import structure_problems

SPEC = (Path(cache_schema.__file__).parent / "format" / "SPEC.md").read_text()


def sections() -> dict[str, str]:
    parts = re.split(r"^### 5\.\d (\w+)$", SPEC.partition("## 6.")[0], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_version() -> None:
    assert SPEC.startswith(f"# The store format, version {SCHEMA_VERSION}\n")


@pytest.mark.parametrize("kind", KINDS)
def test_every_array_is_described_as_it_is(kind: str) -> None:
    rows = re.findall(r"^\| `([\w.*]+)` \| (.+?) \| (.+) \|$", sections()[kind], flags=re.MULTILINE)
    described = {name.replace("*", ""): (shape, what) for name, shape, what in rows}
    assert list(described) == [spec.name for spec in KINDS[kind].arrays]
    for spec in KINDS[kind].arrays:
        shape, what = described[spec.name]
        for dtype in spec.dtypes:
            assert ("text" if dtype == TEXT else dtype) in shape
        if spec.dims[-1] != "...":
            assert shape.startswith(f"({', '.join(spec.dims)}{',' if len(spec.dims) == 1 else ''})")
        assert ("optional" in what) == (not spec.required), spec.name


@pytest.mark.parametrize("kind", KINDS)
def test_every_detail_is_described(kind: str) -> None:
    for key in KINDS[kind].details:
        assert f"`{key}`" in sections()[kind]


def test_a_stranger_can_read_a_store(write: Callable[..., cache_schema.PredictionStore]) -> None:
    """By SPEC.md alone, with nothing but zarr, h5py and json."""
    store = write()
    group = zarr.open_group(store.path, mode="r")
    header = group.attrs["closerlook"]
    logits = group["logits"][:].astype("f4") + group["logit_center"][:][:, None]
    data, offsets = bytes(group["image_id"][:]), group["image_id.offsets"][:]
    other = write(backend="hdf5", cache=store.path.parents[1] / "other")
    with h5py.File(other.path) as file:
        np.testing.assert_array_equal(file["logits"][:], group["logits"][:])
        again = json.loads(file.attrs["closerlook"])
    np.testing.assert_array_equal(logits, store.logits())
    assert data[offsets[9] : offsets[10]].decode() == store.image_ids[9]
    assert again["seal"]["arrays"] == header["seal"]["arrays"]
    for name, entry in header["seal"]["arrays"].items():
        lead = f'["{entry["dtype"]}", {entry["shape"]}]\n'.encode()
        assert hashlib.sha256(lead + group[name][:].tobytes()).hexdigest() == entry["digest"]
    content = {key: header[key] for key in ("format", "schema_version", "kind", "details")}
    content["arrays"] = header["seal"]["arrays"]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == header["seal"]["digest"] == again["seal"]["digest"]
    tail = other.path.read_bytes()
    assert hashlib.sha256(tail[:-64]).hexdigest().encode() == tail[-64:]
    raw = (store.path / "zarr.json").read_text()
    digest = group.attrs["closerlook_files"]["file_digest"]
    assert hashlib.sha256(raw.replace(digest, "0" * 64).encode()).hexdigest() == digest


@pytest.mark.parametrize(
    "module",
    [
        "cache_schema.format.schema",
        "cache_schema.format.naming",
        "cache_schema.format.identities",
        "closerlook_common.errors",
    ],
)
def test_examples_in_docstrings(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0


def test_layout() -> None:
    assert layout((50_000, 1_000), 2) == (1024, 8192)
    assert layout((50_000, 21_843), 2) == (64, 512)
    assert layout((1_000_000,), 4) == (65_536, 524_288)
    assert layout((1025, 8), 4) == (1024, 2048)
    assert layout((0, 8), 4) == (1, 1)


def test_array_spec() -> None:
    assert array_spec("predictions", "metadata.") is None
    assert array_spec("predictions", "logits.offsets") is None
    found = array_spec("predictions", "metadata.pose.offsets")
    assert found is not None
    assert found[1] == "offsets"
    assert array_spec("head", "features") is None


GOOD = {
    "logits": ((5, 3), "float16"),
    "logit_center": ((5,), "float32"),
    "labels": ((5,), "int32"),
    "valid": ((5,), "bool"),
    "image_id": ((20,), "uint8"),
    "image_id.offsets": ((6,), "int64"),
}
DETAILS = {"logits_kind": "logits", "n_valid": 5, "metadata": []}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"labels": None}, "labels: missing"),
        ({"valid": ((6,), "bool")}, "valid: axis n is 6 long, but 5"),
        ({"labels": ((5,), "int64")}, "labels: dtype int64 is none of int32"),
        ({"logits": ((5, 3, 1), "float16")}, "logits: shape (5, 3, 1) is not (n, C)"),
        ({"logit_center": None}, "logits and logit_center belong together"),
        ({"logits": None, "logit_center": None}, "logits, features or both"),
        ({"image_id.offsets": None}, "image_id.offsets: missing"),
        ({"image_id": None}, "image_id: missing, only its offsets"),
        ({"image_id.offsets": ((9,), "int64")}, "axis n is"),
        ({"image_id": ((20,), "int8")}, "image_id: text is uint8"),
        ({"extra": ((5,), "bool")}, "extra: a store of kind predictions has no such array"),
        ({"metadata.pose": ((5,), "float32")}, "metadata.pose: dtype float32"),
        (
            {name: ((0, *shape[1:]), dtype) for name, (shape, dtype) in GOOD.items() if name != "image_id.offsets"}
            | {"image_id.offsets": ((1,), "int64")},
            "the store has no rows",
        ),
    ],
)
def test_structure(changes: dict[str, tuple[tuple[int, ...], str] | None], problem: str) -> None:
    assert structure_problems("predictions", GOOD, DETAILS) == []
    arrays = {name: entry for name, entry in {**GOOD, **changes}.items() if entry is not None}
    assert any(problem in what for what in structure_problems("predictions", arrays, DETAILS))


def test_structure_of_details() -> None:
    assert structure_problems("predictions", GOOD, {**DETAILS, "logits_kind": "scores"}) == [
        "details: logits_kind 'scores' is none of logits, log_probabilities"
    ]
    assert structure_problems("predictions", GOOD, {"logits_kind": "logits", "n_valid": 5}) == [
        "details: metadata is missing"
    ]
