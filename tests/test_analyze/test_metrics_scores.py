"""Accuracies, NLL and Brier score against scikit-learn, scipy and loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, log_loss, top_k_accuracy_score

from analyze.metrics import (
    brier_decomposition,
    brier_score,
    label_ranks,
    mean_per_class_accuracy,
    multi_label_accuracy,
    negative_log_likelihood,
    per_class_accuracy,
    top1_accuracy,
    top_k_accuracy,
    worst_class_accuracy,
)
from closerlook_common.errors import UserError

SHAPES = [(1, 2), (2, 1), (2, 3), (500, 10), (300, 1000)]


def _logits(n: int, n_classes: int, scale: float = 3.0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(n + n_classes)
    return rng.normal(size=(n, n_classes)) * scale, rng.integers(0, n_classes, n)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [0.01, 3.0, 300.0])
def test_nll_equals_scipy(shape: tuple[int, int], scale: float) -> None:
    logits, labels = _logits(*shape, scale=scale)
    wanted = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels].mean()
    assert negative_log_likelihood(logits, labels) == pytest.approx(wanted, rel=1e-12, abs=1e-15)
    assert type(negative_log_likelihood(logits, labels)) is float


def test_nll_equals_scikit_learn_where_nothing_is_clipped() -> None:
    logits, labels = _logits(500, 10)
    wanted = log_loss(labels, softmax(logits, axis=1), labels=np.arange(10))
    assert negative_log_likelihood(logits, labels) == pytest.approx(wanted, rel=1e-12)


def test_nll_neither_clips_nor_overflows() -> None:
    # Probability exp(-1000) is no float; a loss from probabilities would be clipped at 36 or infinite.
    assert negative_log_likelihood([[1000.0, 0.0]], [1]) == 1000.0
    # A row far below another's maximum: subtracting one maximum for all rows would lose it.
    assert negative_log_likelihood([[800.0, 0.0], [1.0, 2.0]], [0, 1]) == pytest.approx(math.log1p(math.exp(-1)) / 2)


@pytest.mark.parametrize("shape", SHAPES)
def test_brier_equals_the_sum_over_classes(shape: tuple[int, int]) -> None:
    logits, labels = _logits(*shape)
    probability = softmax(logits, axis=1)
    wanted = ((probability - np.eye(shape[1])[labels]) ** 2).sum(axis=1).mean()
    assert brier_score(probability, labels) == pytest.approx(wanted, abs=1e-12)
    assert brier_score(probability, labels, scale="half") == pytest.approx(wanted / 2, abs=1e-12)
    assert brier_score(probability, labels, scale="mean") == pytest.approx(wanted / shape[1], abs=1e-12)


def test_brier_equals_scikit_learn() -> None:
    logits, labels = _logits(500, 10)
    probability = softmax(logits, axis=1)
    wanted = brier_score_loss(labels, probability, labels=np.arange(10), scale_by_half=False)
    assert brier_score(probability, labels) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_brier_decomposition_adds_up(binning: str) -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(700)
    right = rng.random(700) < confidence
    parts = brier_decomposition(confidence, right, binning=binning)  # type: ignore[arg-type]
    assert parts.brier == pytest.approx(((confidence - right) ** 2).mean(), abs=1e-14)
    whole = parts.reliability - parts.resolution + parts.uncertainty + parts.within_bins
    assert whole == pytest.approx(parts.brier, abs=1e-14)
    assert parts.uncertainty == pytest.approx(right.mean() * (1 - right.mean()))


def test_brier_decomposition_is_murphys_where_bins_hold_one_value() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.choice([0.1, 0.35, 0.8], 900)
    right = rng.random(900) < confidence + 0.1
    parts = brier_decomposition(confidence, right, n_bins=10)
    base = right.mean()
    reliability = sum((confidence == v).mean() * (v - right[confidence == v].mean()) ** 2 for v in (0.1, 0.35, 0.8))
    resolution = sum((confidence == v).mean() * (base - right[confidence == v].mean()) ** 2 for v in (0.1, 0.35, 0.8))
    assert parts.within_bins == pytest.approx(0, abs=1e-14)
    assert (parts.reliability, parts.resolution) == pytest.approx((reliability, resolution))


@pytest.mark.parametrize("k", [1, 3, 5])
def test_top_k_equals_scikit_learn(k: int) -> None:
    logits, labels = _logits(500, 10)
    wanted = top_k_accuracy_score(labels, logits, k=k, labels=np.arange(10))
    assert top_k_accuracy(logits, labels, k=k) == pytest.approx(wanted)


def test_equal_logits_name_k_classes_and_no_more() -> None:
    logits = np.zeros((4, 4))
    assert list(label_ranks(logits, np.arange(4))) == [0, 1, 2, 3]
    assert top_k_accuracy(logits, np.arange(4), k=1) == 0.25
    assert np.array_equal(label_ranks(logits, np.arange(4)) == 0, logits.argmax(axis=1) == np.arange(4))


def test_class_accuracies_equal_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    labels, predicted = rng.integers(0, 7, 400), rng.integers(0, 7, 400)
    right = labels == predicted
    assert mean_per_class_accuracy(right, labels, n_classes=7) == pytest.approx(
        balanced_accuracy_score(labels, predicted)
    )
    each = [right[labels == c].mean() for c in range(7)]
    result = per_class_accuracy(right, labels, n_classes=9)
    np.testing.assert_allclose(result.accuracy[:7], each)
    assert np.isnan(result.accuracy[7:]).all()
    assert worst_class_accuracy(right, labels, n_classes=9) == pytest.approx(min(each))
    assert result.worst_class == int(np.argmin(each))


def test_real_labels_leave_out_images_without_any() -> None:
    assert multi_label_accuracy([1, 2, 3, 4], [[1, 5], [], [4], [4]]) == pytest.approx(2 / 3)
    with pytest.raises(UserError, match="no image has an acceptable label"):
        multi_label_accuracy([1], [[]])


@settings(max_examples=50)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 10_000), st.floats(-50, 50))
def test_scores_know_no_order_of_classes_and_no_offset(n: int, n_classes: int, seed: int, offset: float) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(n, n_classes)) * 5, rng.integers(0, n_classes, n)
    order = rng.permutation(n_classes)
    place = np.argsort(order)
    value = negative_log_likelihood(logits, labels)
    assert value >= 0
    assert negative_log_likelihood(logits[:, order] + offset, place[labels]) == pytest.approx(value, abs=1e-9)
    probability = softmax(logits, axis=1)
    assert 0 <= brier_score(probability, labels) <= 2
    assert brier_score(probability[:, order], place[labels]) == pytest.approx(
        brier_score(probability, labels), abs=1e-12
    )
    assert top1_accuracy(logits.argmax(axis=1) == labels) == top_k_accuracy(logits, labels, k=1)
