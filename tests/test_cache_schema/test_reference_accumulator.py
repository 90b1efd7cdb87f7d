"""A training set in one pass: sums, bank, shards."""

from __future__ import annotations

import tempfile
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax

import cache_schema
from cache_schema.format.centred import decode
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.reading.kinds.references import ReferenceArrays, ReferenceStore
from cache_schema.writing.kinds.reference_accumulator import ReferenceAccumulator
from closerlook_common.errors import UserError

C, D, N = 5, 4, 300


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, C - 1, N)  # no row of the last class
    features = rng.normal(size=(N, D)).astype("f4")
    logits = (rng.normal(size=(N, C)) + 1.5 * np.eye(C)[labels]).astype("f4")
    return features, logits, labels, [f"image{i}" for i in range(N)]


def gather(rows: Any, parts: list[np.ndarray], **options: Any) -> ReferenceAccumulator:
    sums = ReferenceAccumulator(C, D, **{"per_class": 7, **options})
    for chosen in parts:
        sums.update(rows[0][chosen], rows[1][chosen], rows[2][chosen], [rows[3][i] for i in chosen])
    return sums


def same(a: ReferenceAccumulator, b: ReferenceAccumulator) -> None:
    same_arrays(a.arrays(), b.arrays())


def same_arrays(x: ReferenceArrays, y: ReferenceArrays) -> None:
    for field in fields(x):
        if getattr(x, field.name) is None or getattr(y, field.name) is None:
            assert getattr(x, field.name) is getattr(y, field.name), field.name
        elif field.name.startswith("bank_") or field.name.endswith("count"):
            np.testing.assert_array_equal(getattr(x, field.name), getattr(y, field.name), err_msg=field.name)
        else:
            np.testing.assert_allclose(getattr(x, field.name), getattr(y, field.name), rtol=1e-13, atol=1e-12)


def test_sums_are_those_of_the_rows(rows: Any) -> None:
    f, z, y, _ = rows
    got = gather(rows, [np.arange(N)]).arrays()
    f, z = f.astype(float), z.astype(float)
    p, right = softmax(z, axis=1), z.argmax(axis=1) == y
    for c in range(C):
        assert got.class_count[c] == (y == c).sum()
        assert got.correct_count[c] == (right & (y == c)).sum()
        assert got.predicted_count[c] == (z.argmax(axis=1) == c).sum()
        np.testing.assert_allclose(got.feature_sum[c], f[y == c].sum(axis=0), atol=1e-12)
        np.testing.assert_allclose(got.correct_feature_sum[c], f[right & (y == c)].sum(axis=0), atol=1e-12)
        np.testing.assert_allclose(got.softmax_sum[c], p[z.argmax(axis=1) == c].sum(axis=0), atol=1e-12)
        assert got.correct_logit_sum is not None
        np.testing.assert_allclose(got.correct_logit_sum[c], z[right & (y == c)].sum(axis=0), atol=1e-12)
    np.testing.assert_allclose(got.second_moment, f.T @ f, atol=1e-11)
    assert got.max_logit_sum == pytest.approx(z.max(axis=1).sum())
    assert got.logsumexp_sum == pytest.approx(logsumexp(z, axis=1).sum())
    assert got.n == N


def test_bank_is_balanced_and_of_the_training_set(rows: Any) -> None:
    got = gather(rows, [np.arange(N)]).arrays()
    np.testing.assert_array_equal(np.bincount(got.bank_labels, minlength=C), [7, 7, 7, 7, 0])
    stored = rows[0].astype("f2")
    logits = decode(got.bank_logits, got.bank_logit_center)
    for feature, logit, label in zip(got.bank_features, logits, got.bank_labels, strict=True):
        (found,) = np.flatnonzero((stored == feature).all(axis=1))
        assert rows[2][found] == label
        np.testing.assert_allclose(logit, rows[1][found], rtol=2e-3, atol=2e-3)
    other = gather(rows, [np.arange(N)], seed=1).arrays()
    assert not np.array_equal(other.bank_features, got.bank_features)


@settings(max_examples=25)
@given(cuts=st.lists(st.integers(1, N - 1), max_size=6), shards=st.integers(1, 4), seed=st.integers(0, 99))
def test_batches_order_and_shards_change_nothing(cuts: list[int], shards: int, seed: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, C - 1, N)
    features = rng.normal(size=(N, D)).astype("f4")
    logits = (rng.normal(size=(N, C)) + 1.5 * np.eye(C)[labels]).astype("f4")
    data = (features, logits, labels, [f"image{i}" for i in range(N)])
    whole = gather(data, [np.arange(N)])
    order = np.random.default_rng(seed).permutation(N)
    batches = np.split(order, sorted(cuts))
    pieces = [gather(data, batches[i::shards]) for i in range(shards)]
    merged = pieces[0]
    for piece in pieces[1:]:
        merged.merge(piece)
    same(merged, whole)


def test_without_ids_the_rows_choose_themselves(rows: Any) -> None:
    f, z, y, _ = rows
    whole, first, second = (ReferenceAccumulator(C, D, per_class=7) for _ in range(3))
    whole.update(f, z, y)
    first.update(f[:100], z[:100], y[:100])
    second.update(f[100:], z[100:], y[100:])
    same(first.merge(second), whole)


def test_bad_rows_are_left_out_and_counted(rows: Any) -> None:
    f, z, y, _ = (v.copy() if isinstance(v, np.ndarray) else v for v in rows)
    f[3, 1], z[4, 0], y[5] = np.nan, np.inf, -1
    got = ReferenceAccumulator(C, D)
    got.update(f, z, y)
    assert (got.n, got.skipped) == (N - 3, 3)
    kept = np.setdiff1d(np.arange(N), [3, 4, 5])
    clean = ReferenceAccumulator(C, D)
    clean.update(f[kept], z[kept], y[kept])
    same(got, clean)
    assert got.options()["skipped"] == 3


def test_unit_features_and_wide_values() -> None:
    f = np.array([[3.0, 4.0], [0.0, 0.0], [1e5, 0.0]], dtype="f4")
    got = ReferenceAccumulator(2, 2, normalize=True)
    got.update(f, np.eye(3, 2, dtype="f4"), np.array([0, 1, 0]))
    np.testing.assert_allclose(got.arrays().feature_sum, [[1.6, 0.8], [0, 0]], rtol=1e-6)
    wide = ReferenceAccumulator(2, 2)
    wide.update(f, np.eye(3, 2, dtype="f4"), np.array([0, 1, 0]))
    assert wide.arrays().bank_features.dtype == np.float32  # 1e5 is beyond float16


def test_unit_sums_are_those_of_unit_rows(rows: Any) -> None:
    f, _, y, _ = rows
    plain, got = gather(rows, [np.arange(N)]).arrays(), gather(rows, [np.arange(N)], unit=True).arrays()
    u = f.astype(float) / np.linalg.norm(f.astype(float), axis=1, keepdims=True)
    assert got.unit_feature_sum is not None
    for c in range(C):
        np.testing.assert_allclose(got.unit_feature_sum[c], u[y == c].sum(axis=0), atol=1e-12)
    np.testing.assert_allclose(got.unit_second_moment, u.T @ u, atol=1e-11)
    for field in fields(plain):  # nothing else is changed by them
        if getattr(plain, field.name) is not None:
            np.testing.assert_array_equal(getattr(plain, field.name), getattr(got, field.name), err_msg=field.name)
    scaled = gather(rows, [np.arange(N)], unit=True, normalize=True).arrays()
    assert scaled.unit_features is True
    assert scaled.unit_feature_sum is None
    np.testing.assert_allclose(scaled.feature_sum, got.unit_feature_sum, rtol=1e-5, atol=1e-6)


MODEL = ModelCard(id="m", library="timm", name="m", weights_digest="w" * 64)


def card(name: str) -> DatasetCard:
    return DatasetCard(id=name, role="reference", class_space="five", digest=name.ljust(64, "0"), n_images=N)


def seal(folder: Path, name: str, sums: ReferenceAccumulator, backend: str = "zarr") -> ReferenceStore:
    arrays, record = sums.arrays(), {"reference": dict(sums.options())}
    return cache_schema.write_reference(
        folder, model=MODEL, dataset=card(name), arrays=arrays, backend=backend, record=record
    )


@settings(max_examples=8)
@given(
    parts=st.integers(2, 3), per_class=st.integers(0, 60), seed=st.integers(0, 99),
    normalize=st.booleans(), backend=st.sampled_from(["zarr", "hdf5"]),
)  # fmt: skip
def test_sealed_parts_merge_to_one_pass_over_all(
    parts: int, per_class: int, seed: int, normalize: bool, backend: str
) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, C - 1, N)
    features = rng.normal(size=(N, D)).astype("f4")
    logits = (rng.normal(size=(N, C)) + 1.5 * np.eye(C)[labels]).astype("f4")
    data = (features, logits, labels, [f"image{i}" for i in range(N)])
    options = {"per_class": per_class, "normalize": normalize, "unit": True}
    of = rng.integers(0, parts, N)
    of[:parts] = np.arange(parts)  # none is empty
    with tempfile.TemporaryDirectory() as folder:
        sealed = [
            seal(Path(folder), f"part{i}", gather(data, [np.flatnonzero(of == i)], **options), backend)
            for i in range(parts)
        ]
        merged = cache_schema.merge_references(folder, sealed[::-1], dataset="whole", backend=backend)
        assert merged.dataset.n_images == parts * N
        whole = gather(data, [np.arange(N)], **options)
        same_arrays(merged.arrays(), whole.arrays())
        assert merged.record["reference"] == whole.options()


def test_what_cannot_be_merged_exactly_is_refused(rows: Any, tmp_path: Path) -> None:
    one, two = np.arange(150), np.arange(150, N)
    first = seal(tmp_path, "first", gather(rows, [one], unit=True))
    other = seal(tmp_path, "second", gather(rows, [two], unit=True))
    cases = [
        ([first], "two references or more"),
        ([first, seal(tmp_path, "bare", gather(rows, [two]))], "lacks the keys of its bank"),
        ([first, seal(tmp_path, "seed", gather(rows, [two], unit=True, seed=1))], "bank_seed differ"),
        ([first, seal(tmp_path, "few", gather(rows, [two], unit=True, per_class=3))], "bank_per_class differ"),
        ([first, seal(tmp_path, "scaled", gather(rows, [two], unit=True, normalize=True))], "unit_features differ"),
        ([first, other, seal(tmp_path, "again", gather(rows, [np.arange(9)], unit=True))], "share images"),
    ]
    for parts, printed in cases:
        with pytest.raises(UserError, match=printed):
            cache_schema.merge_references(tmp_path, parts, dataset="whole")
    wide = (rows[0].copy(), *rows[1:])
    wide[0][two] *= 1e6
    with pytest.raises(UserError, match="exceed float16"):
        ReferenceStore.merge([first, gather(wide, [two], unit=True).arrays()])


def test_a_store_that_lies_about_its_version_or_bank_is_refused(rows: Any, tmp_path: Path) -> None:
    arrays = gather(rows, [np.arange(N)], unit=True).arrays()
    for changed, printed in (
        (replace(arrays, bank_seed=None), "bank_seed is not a whole number"),
        (replace(arrays, unit_second_moment=None), "belong together"),
    ):
        with pytest.raises(UserError, match=printed):
            cache_schema.write_reference(tmp_path, model=MODEL, dataset=card("x"), arrays=changed)


def test_the_command_merges(rows: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from cache_schema.cli import main

    halves = [np.arange(0, N, 2), np.arange(1, N, 2)]
    paths = [seal(tmp_path, f"part{i}", gather(rows, [half], unit=True)).path for i, half in enumerate(halves)]
    words = [*map(str, paths), "--dataset", "train", "--cache", str(tmp_path), "--store", "hdf5"]
    assert main(["merge", *words]) == 0
    assert "300 images of 2 parts" in capsys.readouterr().out
    found = cache_schema.open_cache(tmp_path).reference("m", "train")
    same_arrays(found.arrays(), gather(rows, [np.arange(N)], unit=True).arrays())
    assert main(["merge", *words]) != 0
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "printed"),
    [
        (lambda: ReferenceAccumulator(0, 3), "n_classes >= 1"),
        (lambda: ReferenceAccumulator(2, 3).update(np.ones((1, 2)), np.ones((1, 2)), np.zeros(1, int)), "width 3"),
        (lambda: ReferenceAccumulator(2, 3).update(np.ones((1, 3)), np.ones((1, 2)), np.array([2])), "label 2"),
        (lambda: ReferenceAccumulator(2, 3).merge(ReferenceAccumulator(2, 3, seed=1)), "seed 0 and 1"),
    ],
)
def test_misuse_is_answered(make: Any, printed: str) -> None:
    with pytest.raises(UserError, match=printed):
        make()
