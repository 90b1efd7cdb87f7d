"""Shape bias, agreement, ensembles, factors and conformal sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import cohen_kappa_score

from analyze.metrics import (
    agreement_matrix,
    ensemble_probabilities,
    error_consistency,
    error_consistency_matrix,
    error_ratio,
    factor_accuracy,
    factor_accuracy_matrix,
    factor_results,
    fit_conformal,
    predict_categories,
    prediction_agreement,
    shape_bias,
    shape_bias_by_category,
    shape_decisions,
    worst_factor,
)
from closerlook_common.errors import UserError

CATEGORIES = np.array(["cat", "dog", "car", "boat"])


def test_shape_bias_counts_conflicts_only() -> None:
    rng = np.random.default_rng(0)
    predicted, shape, texture = (CATEGORIES[rng.integers(0, 4, 500)] for _ in range(3))
    shapes = textures = others = 0
    for p, s, t in zip(predicted, shape, texture, strict=True):
        if s != t:
            shapes, textures, others = shapes + (p == s), textures + (p == t), others + (p not in (s, t))
    counted = shape_decisions(predicted, shape, texture)
    assert (counted.shape, counted.texture, counted.other) == (shapes, textures, others)
    assert shape_bias(predicted, shape, texture) == shapes / (shapes + textures)
    codes = {name: i for i, name in enumerate(CATEGORIES)}
    as_numbers = [np.array([codes[v] for v in column]) for column in (predicted, shape, texture)]
    assert shape_bias(*as_numbers) == shape_bias(predicted, shape, texture)
    by_category = shape_bias_by_category(predicted, shape, texture)
    assert sum(d.shape for d in by_category.values()) == shapes
    assert set(by_category) == set(CATEGORIES)


def test_shape_bias_without_a_decision_is_refused() -> None:
    with pytest.raises(UserError, match="undefined"):
        shape_bias(["car"], ["cat"], ["dog"])
    with pytest.raises(UserError, match="2 rows"):
        shape_bias(["car", "cat"], ["cat"], ["dog"])


def test_categories_are_chosen_by_mean_not_by_sum() -> None:
    # "many" has the larger sum (0.55) but the smaller mean: a sum or a maximum over members decides
    # otherwise.
    probability = np.array([[0.15, 0.1, 0.1, 0.1, 0.1, 0.25, 0.2]])
    members = {"many": [0, 1, 2, 3, 4], "few": [5, 6]}
    assert list(predict_categories(probability, members)) == ["few"]
    with pytest.raises(UserError, match="'few'"):
        predict_categories(probability, {"few": [7]})


@settings(max_examples=80)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=50))
def test_error_consistency_equals_scikit_learn(pairs: list[tuple[bool, bool]]) -> None:
    a, b = np.array(pairs).T
    got = error_consistency(a, b)
    assert got == error_consistency(b, a)
    if np.array_equal(a, b):
        assert got == 1.0  # also where kappa is 0/0
    else:
        assert got == pytest.approx(cohen_kappa_score(a, b, labels=[False, True]), abs=1e-12)
    assert type(got) is float


def test_pairwise_tables_equal_the_pairs() -> None:
    rng = np.random.default_rng(1)
    correct = rng.random((5, 300)) < 0.7
    correct[4] = True
    table = error_consistency_matrix(correct)
    np.testing.assert_allclose(table, [[error_consistency(a, b) for b in correct] for a in correct], atol=1e-12)
    predictions = rng.integers(0, 3, (5, 300))
    expected = [[prediction_agreement(a, b) for b in predictions] for a in predictions]
    np.testing.assert_allclose(agreement_matrix(predictions), expected)
    np.testing.assert_allclose(expected, [[(a == b).mean() for b in predictions] for a in predictions])


def test_ensemble_is_the_mean_of_probabilities() -> None:
    rng = np.random.default_rng(2)
    members = [softmax(rng.normal(size=(20, 4)), axis=1) for _ in range(3)]
    np.testing.assert_allclose(ensemble_probabilities(iter(members)), np.mean(members, axis=0), atol=1e-15)
    weighted = ensemble_probabilities(members, weights=[2, 1, 0])
    np.testing.assert_allclose(weighted, (2 * members[0] + members[1]) / 3, atol=1e-15)
    for bad in ([], [members[0], members[1][:5]]):
        with pytest.raises(UserError):
            ensemble_probabilities(bad)
    with pytest.raises(UserError, match="weight"):
        ensemble_probabilities(members, weights=[1.0])


# --- factors
# -----------------------------------------------------------------------------------------------------


def test_factors_equal_the_masks() -> None:
    rng = np.random.default_rng(3)
    right = rng.random(2000) < 0.8
    members = {"pose": rng.random(2000) < 0.5, "style": rng.random(2000) < 0.02, "none": np.zeros(2000, bool)}
    results = {r.factor: r for r in factor_results(right, members)}
    assert set(results) == {"pose", "style"}
    for factor, result in results.items():
        rows = members[factor]
        assert result.accuracy == factor_accuracy(right, rows) == right[rows].mean()
        assert result.error_ratio == pytest.approx((1 - right[rows].mean()) / (1 - right.mean()))
        assert result.error_ratio == pytest.approx(error_ratio(right, rows))
        assert result.low < result.accuracy < result.high
        assert result.n == rows.sum()
    matrix = factor_accuracy_matrix(np.stack([right, ~right]), np.stack(list(members.values()), axis=1))
    np.testing.assert_allclose(matrix[0, :2], [r.accuracy for r in results.values()], rtol=1e-6)
    assert np.isnan(matrix[:, 2]).all()


def test_few_images_decide_nothing() -> None:
    right = np.ones(1000, bool)
    right[:200] = False
    few, many = np.zeros(1000, bool), np.zeros(1000, bool)
    few[195:209] = True  # accuracy 9/14 = 0.64
    many[100:380] = True  # accuracy 180/280 = 0.64
    small, large = factor_results(right, {"few": few, "many": many})
    assert small.accuracy == pytest.approx(large.accuracy)
    assert not small.decided
    assert large.decided
    assert worst_factor([small, large]).factor == "few"
    with pytest.raises(UserError, match="no image has this factor"):
        factor_accuracy(right, np.zeros(1000, bool))
    with pytest.raises(UserError, match="error ratio is undefined"):
        error_ratio(np.ones(3), np.ones(3))


# --- conformal
# -----------------------------------------------------------------------------------------------------


def _labelled(n: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    probability = softmax(rng.normal(size=(n, 12)) * 2, axis=1)
    labels = np.array([rng.choice(12, p=softmax(np.log(row) * 0.6)) for row in probability])
    return np.round(probability, 3), labels  # rounded: ties among classes


def _score(row: NDArray[np.float64], c: int, method: str) -> float:
    """Score of one class by definition: no sorting, no ties to break."""
    ahead = row >= row[c]
    if method == "lac":
        return 1 - row[c]
    return float(row[ahead].sum() + (0.01 * max(0, int(ahead.sum()) - 5) if method == "raps" else 0.0))


@pytest.mark.parametrize("method", ["lac", "aps", "raps"])
@pytest.mark.parametrize("alpha", [0.05, 0.1, 0.5])
def test_conformal_sets_equal_the_definition(method: str, alpha: float) -> None:
    probability, labels = _labelled(219, 0)
    fitted = fit_conformal(probability, labels, method=method, alpha=alpha)  # type: ignore[arg-type]
    own = sorted(_score(row, c, method) for row, c in zip(probability, labels, strict=True))
    assert fitted.quantile == pytest.approx(own[int(np.ceil(220 * (1 - alpha) - 1e-9)) - 1], abs=1e-12)
    test, truth = _labelled(80, 1)
    sets = fitted.sets(test)
    wanted = np.array([[_score(row, c, method) <= fitted.quantile + 1e-12 for c in range(12)] for row in test])
    # A score may equal the quantile but for the order of a sum.
    assert (sets != wanted).mean() < 0.01
    assert fitted.coverage(test, truth) == sets[np.arange(80), truth].mean()
    assert fitted.mean_size(test) == pytest.approx(sets.sum(axis=1).mean())
    assert fitted.coverage(probability, labels) >= 1 - alpha


def test_coverage_holds_on_average() -> None:
    covered = []
    for seed in range(60):
        probability, labels = _labelled(160, 100 + seed)
        fitted = fit_conformal(probability[:80], labels[:80], method="aps", alpha=0.2)
        covered.append(fitted.coverage(probability[80:], labels[80:]))
    # 60 x 80 images: the mean has a standard error of about 0.008 (both halves vary).
    assert 0.8 - 0.025 <= np.mean(covered) <= 0.8 + 1 / 81 + 0.03


def test_too_few_images_let_every_class_in() -> None:
    probability, labels = _labelled(5, 0)
    fitted = fit_conformal(probability, labels, alpha=0.1)
    assert fitted.quantile == np.inf
    assert fitted.sets(probability).all()
    assert fit_conformal(*_labelled(9, 0), alpha=0.1).quantile < np.inf


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.sampled_from(["lac", "aps", "raps"]))
def test_sets_know_no_order_of_classes(seed: int, method: str) -> None:
    probability, labels = _labelled(30, seed)
    order = np.random.default_rng(seed).permutation(12)
    fitted = fit_conformal(probability, labels, method=method)  # type: ignore[arg-type]
    again = fit_conformal(probability[:, order], np.argsort(order)[labels], method=method)  # type: ignore[arg-type]
    assert again.quantile == pytest.approx(fitted.quantile, abs=1e-12)
    loose = fit_conformal(probability, labels, method=method, alpha=0.3)  # type: ignore[arg-type]
    assert loose.quantile <= fitted.quantile
    assert loose.mean_size(probability) <= fitted.mean_size(probability)
