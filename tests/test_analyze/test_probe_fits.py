"""Linear probes equal scikit-learn's logistic regression, neighbours a slow definition, draws their definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from analyze.probes.banks import bank_of, held_out_rows, shot_rows
from analyze.probes.l2_path import Tried, choose_l2, clip_search
from analyze.probes.logistic import Problem, fit_logistic
from analyze.probes.neighbours import NearestNeighbours
from closerlook_common.errors import UserError


def rows(seed: int, n: int, width: int, classes: int, spread: float = 1.5, scale: float = 1.0):
    """Return features and labels of every class, with columns of unlike scale."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    centre = rng.normal(size=(classes, width)) * spread
    features = (centre[labels] + rng.normal(size=(n, width))) * scale * np.geomspace(0.1, 3, width) + 2
    return features.astype(np.float32), labels


def softmax(logits: np.ndarray) -> np.ndarray:
    values = np.exp(logits - logits.max(axis=1, keepdims=True))
    return values / values.sum(axis=1, keepdims=True)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10_000), n=st.integers(20, 200), width=st.integers(1, 12), classes=st.integers(3, 6),
    l2=st.sampled_from([0.01, 0.1, 1.0, 30.0, 1e4]), unit=st.booleans(),
)  # fmt: skip
def test_a_linear_probe_is_scikit_learns(seed: int, n: int, width: int, classes: int, l2: float, unit: bool) -> None:
    features, labels = rows(seed, n, width, classes)
    ours = fit_logistic(bank_of(features, labels, classes, unit=unit), l2)
    given_rows = features.astype(np.float64)
    if unit:
        given_rows /= np.linalg.norm(given_rows, axis=1, keepdims=True)
    theirs = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=20_000).fit(given_rows, labels)
    assert ours.converged
    np.testing.assert_allclose(softmax(ours.logits(given_rows)), theirs.predict_proba(given_rows), atol=1e-4)
    np.testing.assert_allclose(ours.weight, theirs.coef_ - theirs.coef_.mean(axis=0), atol=1e-4, rtol=1e-4)


def test_blocks_change_nothing_and_two_classes_work() -> None:
    features, labels = rows(3, 9000, 5, 2)
    whole = bank_of(features, labels, 2)
    assert len(list(whole.blocks())) == 3
    few = whole.part(np.arange(9000) % 3 == 0)
    np.testing.assert_allclose(
        fit_logistic(few, 1.0).weight, fit_logistic(few.in_memory(), 1.0).weight, rtol=1e-9, atol=1e-12
    )
    # Two classes: scikit-learn has one row of weights, ours are plus and minus half of it for twice the penalty.
    theirs = LogisticRegression(C=1 / 2.0, tol=1e-10, max_iter=10_000).fit(features.astype(np.float64), labels)
    ours = fit_logistic(whole, 4.0)
    np.testing.assert_allclose(ours.weight[1] - ours.weight[0], theirs.coef_[0], rtol=1e-4, atol=1e-5)


def test_a_warm_start_ends_at_the_same_minimum() -> None:
    features, labels = rows(5, 300, 8, 4)
    problem = Problem(bank_of(features, labels, 4))
    cold, warm = problem.fit(0.1), problem.fit(0.1, problem.fit(10.0))
    np.testing.assert_allclose(warm.weight, cold.weight, atol=1e-4)
    np.testing.assert_allclose(warm.loss, cold.loss, rtol=1e-9)


def test_a_class_without_rows_is_an_error() -> None:
    features, labels = rows(0, 30, 4, 3)
    with pytest.raises(UserError, match="has none of 1 of 4 \\(class 3, say\\)"):
        fit_logistic(bank_of(features, labels, 4), 1.0)
    with pytest.raises(UserError, match="penalty of 0 must be above 0"):
        fit_logistic(bank_of(features, labels, 3), 0.0)
    with pytest.raises(UserError, match="label 2 is not one of 2 classes"):
        bank_of(features, labels, 2)


@settings(max_examples=40)
@given(peak=st.integers(-48, 48), width=st.floats(0.01, 1.0))
def test_the_search_finds_the_peak_of_one_hill(peak: int, width: float) -> None:
    tried = clip_search(lambda l2: Tried(l2, -width * abs(np.log10(l2) - peak / 8), 0.0))
    best = max(tried, key=lambda one: one.accuracy)
    assert np.isclose(np.log10(best.l2), peak / 8)
    assert len(tried) <= 7 + 2 * 4
    starts = {1e-6, 1e-4, 1e-2, 1.0, 1e2, 1e4, 1e6}
    assert all(any(np.isclose(one.l2, start) for one in tried) for start in starts)


def test_the_strength_is_chosen_on_held_out_rows() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    features = rng.normal(size=(300, 40)) * np.geomspace(1, 8, 40) + 2.0 * np.eye(40)[labels]
    bank = bank_of(features, labels, 3)
    train, held = bank.part(np.arange(300) < 90), bank.part(np.arange(300) >= 90)
    l2, tried = choose_l2(train, held, [1e-4, 1e6, 300.0])
    assert [one.l2 for one in tried] == [1e-4, 300.0, 1e6]
    for one in tried:
        theirs = LogisticRegression(C=1 / one.l2, tol=1e-8, max_iter=20_000).fit(features[:90], labels[:90])
        assert one.accuracy == pytest.approx(theirs.score(features[90:], labels[90:]), abs=0.01)
    scores = {one.l2: one.accuracy for one in tried}
    assert l2 == max(scores, key=lambda key: scores[key])
    assert max(scores.values()) > min(scores.values()) + 0.05
    found, path = choose_l2(train, held, None)
    assert max(path, key=lambda one: (one.accuracy, -one.loss)).l2 == found
    assert len(path) > 7


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000), n=st.integers(1, 60), queries=st.integers(0, 9), k=st.integers(1, 25),
    temperature=st.floats(0.02, 2), unit=st.booleans(), at_most=st.sampled_from([7, 4096]),
)  # fmt: skip
def test_neighbours_are_a_slow_definition(seed, n, queries, k, temperature, unit, at_most) -> None:
    rng = np.random.default_rng(seed)
    features, labels = rng.normal(size=(n, 6)), rng.integers(0, 4, n)
    asked = rng.normal(size=(queries, 6)).astype(np.float32)
    bank = bank_of(features, labels, 4, unit=unit)
    pieces = list(bank.blocks(at_most))
    assert sum(len(block) for block, _ in pieces) == n
    found = NearestNeighbours(bank, k, temperature).log_probabilities(asked)
    assert found.shape == (queries, 4)
    for row, query in enumerate(asked.astype(np.float64)):
        cosines = [float(f @ query / np.sqrt(f @ f) / np.sqrt(query @ query)) for f in features]
        best = sorted(range(n), key=lambda i: -cosines[i])[:k]
        votes = np.zeros(4)
        for i in best:
            votes[labels[i]] += np.exp(cosines[i] / temperature)
        np.testing.assert_allclose(np.exp(found[row]), votes / votes.sum(), atol=1e-9)


def test_neighbours_over_blocks_of_a_bank() -> None:
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(9500, 8)), rng.integers(0, 5, 9500)
    asked = rng.normal(size=(1500, 8))
    found = NearestNeighbours(bank_of(features, labels, 5)).log_probabilities(asked)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = asked / np.linalg.norm(asked, axis=1, keepdims=True) @ unit.T
    best = np.argsort(-cosines, axis=1)[:, :20]
    weights = np.exp(np.take_along_axis(cosines, best, axis=1) / 0.07)
    votes = np.stack([(weights * (labels[best] == c)).sum(axis=1) for c in range(5)], axis=1)
    np.testing.assert_allclose(np.exp(found), votes / votes.sum(axis=1, keepdims=True), atol=1e-9)


@given(
    counts=st.lists(st.integers(0, 12), min_size=1, max_size=6), share=st.floats(0.01, 0.9),
    seed=st.integers(0, 5), shots=st.integers(1, 6),
)  # fmt: skip
def test_draws_are_by_class_seeded_and_nested(counts: list[int], share: float, seed: int, shots: int) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)
    held = held_out_rows(labels, share, seed)
    np.testing.assert_array_equal(held, held_out_rows(labels, share, seed))
    for label, count in enumerate(counts):
        expected = 0 if count < 2 else min(max(1, round(share * count)), count - 1)
        assert held[labels == label].sum() == expected
    drawn = shot_rows(labels, ~held, shots, seed)
    more = shot_rows(labels, ~held, shots + 1, seed)
    assert not (drawn & held).any()
    assert not (drawn & ~more).any()
    for label in range(len(counts)):
        own = labels == label
        assert drawn[own].sum() == min(shots, (own & ~held).sum())


def test_another_seed_draws_other_rows() -> None:
    labels = np.repeat(np.arange(5), 40)
    assert (held_out_rows(labels, 0.2, 0) != held_out_rows(labels, 0.2, 1)).any()
    allowed = np.ones(200, dtype=bool)
    assert (shot_rows(labels, allowed, 5, 0) != shot_rows(labels, allowed, 5, 1)).any()
