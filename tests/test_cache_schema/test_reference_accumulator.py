"""A training set in one pass: sums, bank, shards."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp, softmax

from cache_schema.format.centred import decode
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
    x, y = a.arrays(), b.arrays()
    for field in fields(x):
        if field.name.startswith("bank_") or field.name.endswith("count"):
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
