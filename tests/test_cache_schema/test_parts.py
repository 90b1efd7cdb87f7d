"""Arrays that prediction stores hold because they were asked for: written, checked, refused, and found again."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cache_schema
from cache_schema.format.header_rules import PART_DETAILS
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.format.schema import KINDS, part_arrays, part_names
from cache_schema.reading.extending import not_extended
from cache_schema.reading.store import Store
from cache_schema.writing.validate import problems
from closerlook_common.errors import UserError

N, C, D, W = 9, 3, 4, 5
DETAILS: dict[str, dict[str, Any]] = {
    "patches": {"tokens": "values of the last block", "temperature": 1.0},
    "tokens": {"layer": "ln_post"},
    "blocks": {"numbers": [1, 3], "of": 4},
    "views": {"of": 64, "seed": 0, "scale": [0.08, 1.0], "ratio": [0.75, 1.25], "flip": 0.5},
}
WIDTHS = {"D": D, "W": W, "B": 2, "V": 3}
DTYPES = {spec.name: spec.dtypes for spec in KINDS["predictions"].arrays}
LOGITS = np.random.default_rng(0).normal(size=(N, C)).astype(np.float32)


def arrays_of(parts: Any, seed: int = 0, n: int = N) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    found: dict[str, np.ndarray] = {}
    for part in parts:
        for spec in part_arrays("predictions", part):
            shape = (n, *(WIDTHS[axis] for axis in spec.dims[1:]))
            whole = spec.dtypes[0].startswith("int")
            found[spec.name] = rng.integers(0, 9, shape) if whole else rng.normal(size=shape).astype(np.float32)
    return found


def write(cache: Path, which: Any = ("patches",), **more: Any) -> cache_schema.PredictionStore:
    given_ = {
        "model": ModelCard(id="m"), "dataset": DatasetCard(id="d", digest="d" * 64), "logits": LOGITS,
        "features": LOGITS @ np.ones((C, D), np.float32), "parts": {part: DETAILS[part] for part in which},
        "arrays": arrays_of(which), "image_ids": [f"{i}.png" for i in range(N)],
    }  # fmt: skip
    return cache_schema.write_store(cache, **{**given_, **more})


def test_every_part_has_details_and_an_entry_here() -> None:
    assert set(part_names("predictions")) == set(PART_DETAILS) == set(DETAILS)
    assert all(spec.since == 2 and not spec.required for spec in KINDS["predictions"].arrays if spec.part)


@settings(max_examples=20)
@given(
    parts=st.sets(st.sampled_from(sorted(DETAILS))), valid=st.lists(st.booleans(), min_size=N, max_size=N),
    backend=st.sampled_from(["zarr", "hdf5"]), dtype=st.sampled_from(["float16", "float32"]), cut=st.integers(1, N - 1),
)  # fmt: skip
def test_what_was_written_is_read(parts: set[str], valid: list[bool], backend: str, dtype: str, cut: int) -> None:
    keep, arrays = np.array(valid), arrays_of(parts)
    with tempfile.TemporaryDirectory() as folder:
        store = write(Path(folder), parts, valid=keep, backend=backend, features_dtype=dtype)
        assert set(store.parts) == parts
        assert store.header["schema_version"] == (2 if parts else 1)
        assert problems(store.path) == []
        for name, values in arrays.items():
            got = store.read(name)
            assert got.dtype == (dtype if dtype in DTYPES[name] else DTYPES[name][0])
            np.testing.assert_array_equal(got[keep], values.astype(got.dtype)[keep])
            assert (got[~keep] == -1 if got.dtype.kind == "i" else np.isnan(got[~keep])).all()
            np.testing.assert_array_equal(store.read(name, cut), got[cut:])
        plain = write(Path(folder) / "plain", (), valid=keep, backend=backend, features_dtype=dtype)
        for name, entry in plain.header["seal"]["arrays"].items():
            assert store.header["seal"]["arrays"][name] == entry
        other = write(Path(folder) / "other", parts, valid=keep, features_dtype=dtype)
        assert other.digest == store.digest  # in either format


def spoilt(name: str, row: int, value: float) -> dict[str, np.ndarray]:
    arrays = arrays_of(["patches"])
    arrays[name][row] = value
    return arrays


@pytest.mark.parametrize(
    ("more", "printed"),
    [
        ({"parts": {"patch": {}}}, "no arrays called 'patch'"),
        ({"arrays": {}}, "patch_features: the store needs it in every append"),
        ({"arrays": {**arrays_of(["patches"]), "patch_scor": np.zeros(N)}}, "no array 'patch_scor'; did you mean"),
        ({"parts": {}}, "the store holds no array 'patch_features'"),
        ({"arrays": spoilt("patch_features", 4, np.nan)}, r"row 4 \(4.png\) holds NaN or infinity in patch_features"),
        ({"arrays": spoilt("patch_score", 0, np.inf)}, r"row 0 \(0.png\) holds NaN or infinity in patch_score"),
        ({"arrays": spoilt("patch_features", 2, 1e6)}, "holds 1e.06 in patch_features, too large for float16"),
        ({"arrays": arrays_of(["patches"], n=4)}, r"patch_features is \(4, 4\), not \(9, D\)"),
        ({"arrays": {**arrays_of(["patches"]), "patch_features": np.ones((N, D + 1))}}, "axis D is"),
        ({"parts": {"patches": {"tokens": "x"}}}, "details.patches.temperature is missing"),
        ({"parts": {"patches": {"tokens": "x", "temperature": 0}}}, "is not a number above 0"),
    ],
)  # fmt: skip
def test_what_is_not_allowed_is_refused(more: dict[str, Any], printed: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=printed):
        write(tmp_path, **more)
    assert not list(tmp_path.rglob("*.zarr"))


def test_only_stores_of_one_model_and_dataset_are_opened_to_find_the_extended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = write(tmp_path, (), identity="a" * 64)
    more = write(tmp_path, identity="b" * 64, record={"extends": [plain.identity]})
    most = write(tmp_path, DETAILS, identity="c" * 64, record={"extends": [plain.identity, more.identity]})
    alone = write(tmp_path, (), identity="e" * 64, dataset=DatasetCard(id="other", digest="e" * 64))
    opened: list[str] = []
    record = Store.record.fget
    assert record is not None
    monkeypatch.setattr(Store, "record", property(lambda store: opened.append(store.identity) or record(store)))
    assert not_extended([plain, alone, more, most]) == [alone, most]
    assert alone.identity not in opened
    assert cache_schema.open_cache(tmp_path).store("m", "d").identity == most.identity


def test_stores_with_different_parts_say_what_makes_one_of_them(tmp_path: Path) -> None:
    plain = write(tmp_path, (), identity="a" * 64)
    one = write(tmp_path, ["patches"], identity="b" * 64, record={"extends": [plain.identity]})
    two = write(tmp_path, ["tokens"], identity="c" * 64, record={"extends": [plain.identity]})
    with pytest.raises(UserError, match=r"2 predictions store .* 'extract --arrays patches,tokens' makes one"):
        cache_schema.open_cache(tmp_path).store("m", "d")
    names = [plain.identity, one.identity, two.identity]
    both = write(tmp_path, ["patches", "tokens"], identity="d" * 64, record={"extends": names})
    assert cache_schema.open_cache(tmp_path).store("m", "d").identity == both.identity
    write(tmp_path, identity="f" * 64)  # of another precision, say
    with pytest.raises(UserError, match=r"delete the others$"):
        cache_schema.open_cache(tmp_path).store("m", "d")
