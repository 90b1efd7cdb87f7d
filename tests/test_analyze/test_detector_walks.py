"""Detectors that compare rows with one bank: the product is made once, and no score differs from that alone."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from analyze.detectors import Reference, get, relation, score_all, walks
from analyze.detectors.products import Right
from analyze.detectors.relation import LikelyPairs

C, D, M, N = 7, 11, 300, 90
RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(C, D)).astype(np.float32)
TRAIN = RNG.normal(size=(M, D)).astype(np.float32) + 2 * WEIGHT[np.arange(M) % C]
QUERY = RNG.normal(size=(N, D)).astype(np.float32) + WEIGHT[np.arange(N) % C]
LABELS = np.arange(M) % C
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "knn": ("knn", {"k": 5}),
    "nnguide": ("nnguide", {"k": 9}),
    "relation": ("relation", {}),
    "relation of all pairs": ("relation", {"threshold": 0.001, "power": 2}),
    "knn of few": ("knn", {"k": 5, "per_class": 20}),
    "knn of components": ("knn", {"k": 5, "pca": 4}),
    "knn in float16": ("knn", {"k": 5, "half": True}),
    "nnguide of few": ("nnguide", {"k": 9, "alpha": 0.5}),
}
SHARING = ("knn", "nnguide", "relation", "relation of all pairs")


@pytest.fixture(scope="module", params=[False, True], ids=["own length", "unit length"])
def fitted(request: pytest.FixtureRequest) -> dict[str, Any]:
    reference = Reference.from_arrays(TRAIN, TRAIN @ WEIGHT.T, LABELS, normalize=request.param)
    return {
        variant: get(name, **options).fit(reference=reference, head=(WEIGHT, np.zeros(C, np.float32)))
        for variant, (name, options) in VARIANTS.items()
    }


@pytest.mark.parametrize("chosen", [SHARING, ("relation", "knn"), ("nnguide of few", "nnguide"), tuple(VARIANTS)])
@pytest.mark.parametrize("logits", [True, False])
def test_together_equals_alone(
    fitted: dict[str, Any], chosen: tuple[str, ...], logits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_ = {"features": QUERY, "logits": QUERY @ WEIGHT.T if logits else None}
    whole = {name: fitted[name].score(**given_) for name in chosen}
    monkeypatch.setattr(walks, "BLOCK", 64)  # several blocks of the bank
    together = score_all([fitted[name] for name in chosen], **given_)
    for name, scores in zip(chosen, together, strict=True):
        assert np.isfinite(scores).all()
        np.testing.assert_array_equal(scores, whole[name], err_msg=name)
        np.testing.assert_array_equal(scores, fitted[name].score(**given_), err_msg=name)
    parts = [
        score_all([fitted[name] for name in chosen], **{k: None if v is None else v[a:b] for k, v in given_.items()})
        for a, b in itertools.pairwise((0, 1, 40, N))
    ]
    for place, scores in enumerate(together):
        np.testing.assert_array_equal(np.concatenate([part[place] for part in parts]), scores)


def test_the_bank_is_multiplied_once(fitted: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def counted(left: Any, right: Right, **how: Any) -> Any:
        made.append(right.columns)
        return multiply(left, right, **how)

    multiply = walks.multiply
    monkeypatch.setattr(walks, "multiply", counted)
    given_ = {"features": QUERY, "logits": QUERY @ WEIGHT.T}
    for chosen in (*((name,) for name in SHARING), SHARING):
        made.clear()
        score_all([fitted[name] for name in chosen], **given_)
        assert made == [M], chosen
    made.clear()
    score_all(list(fitted.values()), **given_)
    assert sorted(made) == sorted([M, 20 * C, M, M, 22 * C])  # those of another space have banks of their own


def test_what_was_not_announced_is_found_too(fitted: dict[str, Any]) -> None:
    from analyze.detectors.rows import Rows

    logits = (QUERY @ WEIGHT.T).astype(np.float32)
    rows = Rows(QUERY, logits)
    for name in ("relation", "knn", "nnguide"):
        scores = fitted[name].score_rows(rows)
        np.testing.assert_array_equal(scores, fitted[name].score(features=QUERY, logits=logits))


def test_rows_that_hold_nan_spoil_no_other(fitted: dict[str, Any]) -> None:
    features = QUERY.copy()
    features[3] = np.nan
    logits = features @ WEIGHT.T
    for name, scores in zip(fitted, score_all(list(fitted.values()), features=features, logits=logits), strict=True):
        assert np.flatnonzero(np.isnan(scores)).tolist() == [3], name
        rest = np.arange(N) != 3
        np.testing.assert_array_equal(
            scores[rest], fitted[name].score(features=features[rest], logits=logits[rest]), err_msg=name
        )


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    classes=st.integers(1, 40),
    sharpness=st.floats(0, 12),
    threshold=st.floats(relation.FEW_PAIRS, 1),
    room=st.integers(1, 300),
)
def test_no_pair_that_counts_is_left_out(
    seed: int, classes: int, sharpness: float, threshold: float, room: int
) -> None:
    rng = np.random.default_rng(seed)
    bank, rows = (softmax(sharpness * rng.normal(size=(n, classes)), axis=1).astype(np.float32) for n in (150, 20))
    likely = LikelyPairs(bank, threshold)
    likely._room = room
    pairs = likely.find(rows)
    want = rows.astype(np.float64) @ bank.T.astype(np.float64)
    for i, count in enumerate(pairs.counts):
        columns = pairs.columns[i, :count]
        assert (np.diff(columns) > 0).all()
        np.testing.assert_allclose(pairs.agreements[i, :count], want[i, columns], rtol=1e-5)
        assert set(np.flatnonzero(want[i] > threshold)) <= set(columns.tolist())
        assert (want[i, columns] > 0.99 * threshold).all()


@given(seed=st.integers(0, 2**32 - 1), sharpness=st.floats(0, 8), power=st.sampled_from([1.0, 2.0, 0.5]))
@settings(max_examples=25)
def test_sums_over_few_and_over_all_pairs_are_those_of_the_formula(seed: int, sharpness: float, power: float) -> None:
    rng = np.random.default_rng(seed)
    train, query = (rng.normal(size=(n, 5)).astype(np.float32) for n in (80, 10))
    train_logits, logits = (sharpness * rng.normal(size=(n, 6)).astype(np.float32) for n in (80, 10))
    reference = Reference.from_arrays(train, train_logits, np.arange(80) % 6)
    cosine = np.maximum(query @ train.T / np.outer(*(np.linalg.norm(x, axis=1) for x in (query, train))), 0)
    relations = cosine * (softmax(logits, axis=1) @ softmax(train_logits, axis=1).T)
    for threshold in (0.0, 0.009, 0.03, 0.2):
        if (np.abs(relations - threshold) < 1e-5 * (threshold > 0)).any():
            continue  # rounding decides whether it counts
        scores = get("relation", power=power, threshold=threshold).fit(reference=reference).score(
            features=query, logits=logits
        )  # fmt: skip
        want = np.where(relations > threshold, relations, 0) ** power
        np.testing.assert_allclose(scores, want.sum(axis=1), rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 30), columns=st.integers(1, 40), share=st.floats(0, 1))
def test_steps_are_those_of_the_needed_smallest_position(seed: int, steps: int, columns: int, share: float) -> None:
    from analyze.detectors._neighbour_kernels import reach_steps

    rng = np.random.default_rng(seed)
    grid = np.sort(rng.integers(0, 12, (steps, columns)), axis=0).astype(np.float32)
    distance = rng.integers(-1, 14, (6, columns)).astype(np.float32)
    needed = max(1, int(share * columns))
    found = np.empty(6, np.int32)
    reach_steps(distance, grid, needed, found)
    for row, step in zip(distance, found, strict=True):
        positions = sorted(int(np.searchsorted(grid[:, j], row[j])) for j in range(columns))
        assert step == positions[needed - 1]
