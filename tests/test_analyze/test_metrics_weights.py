"""Sample weights and the ignored label: against scikit-learn, and against rows that are repeated or left out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
    top_k_accuracy_score,
)

from analyze import metrics
from closerlook_common.errors import UserError

N, C = 200, 6
RNG = np.random.default_rng(1)
LOGITS = RNG.normal(size=(N, C)) * 2
LABELS = RNG.integers(0, C, N)
SHARES = softmax(LOGITS, axis=1)
CONFIDENCES, RIGHT = SHARES.max(axis=1), LOGITS.argmax(axis=1) == LABELS
WEIGHTS = RNG.gamma(1.0, 1.0, N)

WEIGHTED: dict[str, tuple[Callable[..., float], tuple[Any, ...]]] = {
    "top1": (metrics.top1_accuracy, (RIGHT,)),
    "top_k": (lambda *a, **k: metrics.top_k_accuracy(*a, k=2, **k), (LOGITS, LABELS)),
    "nll": (metrics.negative_log_likelihood, (LOGITS, LABELS)),
    "brier": (metrics.brier_score, (SHARES, LABELS)),
    "d2_log_loss": (metrics.d2_log_loss, (LOGITS, LABELS)),
    "d2_brier": (metrics.d2_brier, (SHARES, LABELS)),
    "soft_nll": (metrics.soft_negative_log_likelihood, (LOGITS, SHARES[::-1].copy())),
    "soft_brier": (metrics.soft_brier_score, (SHARES, SHARES[::-1].copy())),
    "ece": (metrics.expected_calibration_error, (CONFIDENCES, RIGHT)),
    "ece_l2": (lambda *a, **k: metrics.expected_calibration_error(*a, norm="l2", **k), (CONFIDENCES, RIGHT)),
    "mce": (lambda *a, **k: metrics.expected_calibration_error(*a, norm="max", **k), (CONFIDENCES, RIGHT)),
    "gap": (metrics.signed_calibration_gap, (CONFIDENCES, RIGHT)),
    "aurc": (metrics.aurc, (np.round(CONFIDENCES, 1), RIGHT)),
    "e_aurc": (metrics.e_aurc, (np.round(CONFIDENCES, 1), RIGHT)),
    "augrc": (metrics.augrc, (np.round(CONFIDENCES, 1), RIGHT)),
    "correctness_auroc": (metrics.correctness_auroc, (np.round(CONFIDENCES, 1), RIGHT)),
}  # fmt: skip
each = pytest.mark.parametrize("name", WEIGHTED)


@each
@given(seed=st.integers(0, 2**32 - 1))
def test_a_whole_weight_is_a_repeated_row(name: str, seed: int) -> None:
    function, columns = WEIGHTED[name]
    times = np.random.default_rng(seed).integers(0, 4, N)
    repeated = [np.repeat(column, times, axis=0) for column in columns]
    assert function(*columns, weights=times) == pytest.approx(function(*repeated), rel=1e-9, abs=1e-12)


@each
def test_only_the_ratio_of_weights_counts(name: str) -> None:
    function, columns = WEIGHTED[name]
    plain = function(*columns)
    assert function(*columns, weights=np.full(N, 0.37)) == pytest.approx(plain, rel=1e-9)
    weighted = function(*columns, weights=WEIGHTS)
    assert function(*columns, weights=7.3 * WEIGHTS) == pytest.approx(weighted, rel=1e-9)
    assert weighted != pytest.approx(plain, rel=1e-6)


@each
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.where(np.arange(N) == 17, -1.0, 1.0), "weights: row 17 is -1.0; a weight is at least 0"),
        (np.where(np.arange(N) == 17, np.nan, 1.0), "weights: row 17 is nan"),
        (np.zeros(N), "weights are all 0"),
        (np.ones(N - 1), f"{N} rows and weights has {N - 1}"),
    ],
)
def test_bad_weights_are_refused(name: str, bad: Any, message: str) -> None:
    function, columns = WEIGHTED[name]
    with pytest.raises(UserError, match=message):
        function(*columns, weights=bad)


def test_weights_as_scikit_learn_has_them() -> None:
    w, predictions = WEIGHTS, LOGITS.argmax(axis=1)
    assert metrics.top1_accuracy(RIGHT, weights=w) == pytest.approx(
        accuracy_score(LABELS, predictions, sample_weight=w)
    )
    assert metrics.top_k_accuracy(LOGITS, LABELS, k=3, weights=w) == pytest.approx(
        top_k_accuracy_score(LABELS, LOGITS, k=3, sample_weight=w, labels=range(C))
    )
    assert metrics.negative_log_likelihood(LOGITS, LABELS, weights=w) == pytest.approx(
        log_loss(LABELS, softmax(log_softmax(LOGITS, axis=1), axis=1), sample_weight=w, labels=range(C))
    )
    assert metrics.brier_score(SHARES, LABELS, weights=w) == pytest.approx(
        brier_score_loss(LABELS, SHARES, sample_weight=w, labels=range(C), scale_by_half=False)
    )
    rounded = np.round(CONFIDENCES, 1)
    assert metrics.correctness_auroc(rounded, RIGHT, weights=w) == pytest.approx(
        roc_auc_score(RIGHT, rounded, sample_weight=w)
    )


@pytest.mark.parametrize("positive", ["id", "ood"])
def test_weighted_detection_as_scikit_learn_has_it(positive: Any) -> None:
    inside, outside = np.round(RNG.normal(1, 1, 80), 1), np.round(RNG.normal(0, 1, 50), 1)
    a, b = RNG.gamma(1, 1, 80), RNG.gamma(1, 1, 50)
    truth = np.r_[np.ones(80), np.zeros(50)]
    scores, mass = np.r_[inside, outside], np.r_[a, b]
    assert metrics.auroc(inside, outside, id_weights=a, ood_weights=b) == pytest.approx(
        roc_auc_score(truth, scores, sample_weight=mass)
    )
    ours = metrics.aupr(inside, outside, positive=positive, id_weights=a, ood_weights=b)
    theirs = (
        average_precision_score(truth, scores, sample_weight=mass)
        if positive == "id"
        else average_precision_score(1 - truth, -scores, sample_weight=mass)
    )
    assert ours == pytest.approx(theirs)


@given(seed=st.integers(0, 2**32 - 1))
def test_weighted_detection_repeats_rows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inside, outside = np.round(rng.normal(1, 1, 30), 1), np.round(rng.normal(0, 1, 20), 1)
    a, b = rng.integers(0, 3, 30), rng.integers(0, 3, 20)
    a[0] = b[0] = 1
    more = np.repeat(inside, a), np.repeat(outside, b)
    for function in (metrics.auroc, metrics.aupr, metrics.fpr_at_tpr):
        given_weights = function(inside, outside, id_weights=a, ood_weights=b)
        assert given_weights == pytest.approx(function(*more), abs=1e-12)
    one_side = metrics.auroc(inside, outside, ood_weights=b)
    assert one_side == pytest.approx(metrics.auroc(inside, more[1]), abs=1e-12)
    for function in (metrics.aupr, metrics.fpr_at_tpr):
        flagged = function(inside, outside, positive="ood", id_weights=a, ood_weights=b)
        assert flagged == pytest.approx(function(*more, positive="ood"), abs=1e-12)


@pytest.mark.parametrize(
    "call",
    [
        lambda: metrics.expected_calibration_error(CONFIDENCES, RIGHT, binning="mass", weights=WEIGHTS),
        lambda: metrics.expected_calibration_error(CONFIDENCES, RIGHT, compat="guo", weights=WEIGHTS),
        lambda: metrics.expected_calibration_error(CONFIDENCES, RIGHT, norm="l2", debias=True, weights=WEIGHTS),
        lambda: metrics.aurc(CONFIDENCES, RIGHT, curve="mean", weights=WEIGHTS),
        lambda: metrics.fpr_at_tpr(CONFIDENCES, CONFIDENCES, threshold="nearest", id_weights=WEIGHTS),
    ],
)
def test_what_has_no_weighted_form_is_refused(call: Callable[[], float]) -> None:
    with pytest.raises(UserError, match="weights need"):
        call()


IGNORING: dict[str, tuple[Callable[..., float], tuple[Any, ...]]] = {
    "top_k": (lambda *a, **k: metrics.top_k_accuracy(*a, k=2, **k), (LOGITS, LABELS)),
    "nll": (metrics.negative_log_likelihood, (LOGITS, LABELS)),
    "brier": (metrics.brier_score, (SHARES, LABELS)),
    "d2_log_loss": (metrics.d2_log_loss, (LOGITS, LABELS)),
    "d2_brier": (metrics.d2_brier, (SHARES, LABELS)),
    "mean_class": (lambda *a, **k: metrics.mean_per_class_accuracy(*a, n_classes=C, **k), (RIGHT, LABELS)),
    "worst_class": (lambda *a, **k: metrics.worst_class_accuracy(*a, n_classes=C, **k), (RIGHT, LABELS)),
    "worst_classes": (lambda *a, **k: metrics.worst_classes_accuracy(*a, n_classes=C, k=3, **k), (RIGHT, LABELS)),
    "classwise": (metrics.classwise_calibration_error, (SHARES, LABELS)),
}  # fmt: skip


@pytest.mark.parametrize("name", IGNORING)
@pytest.mark.parametrize("ignore_index", [-100, -1, 2])
def test_rows_of_the_ignored_label_are_left_out(name: str, ignore_index: int) -> None:
    function, (first, labels) = IGNORING[name]
    marked = labels.copy()
    if ignore_index < 0:
        marked[::7] = ignore_index
    kept = marked != ignore_index
    ours = function(first, marked, ignore_index=ignore_index)
    assert ours == pytest.approx(function(first[kept], marked[kept]), rel=1e-12)
    with pytest.raises(UserError, match=r"no row is left|labels: row"):
        function(first, np.full(N, ignore_index), ignore_index=ignore_index)
    assert function(first, labels, ignore_index=-100) == function(first, labels)
    if ignore_index < 0:
        with pytest.raises(UserError, match=f"labels: row 0 is {ignore_index}"):
            function(first, marked)


def test_the_ignored_label_and_weights_go_together() -> None:
    marked = np.where(np.arange(N) % 5 == 0, -100, LABELS)
    kept = marked >= 0
    ours = metrics.negative_log_likelihood(LOGITS, marked, ignore_index=-100, weights=WEIGHTS)
    assert ours == pytest.approx(
        metrics.negative_log_likelihood(LOGITS[kept], LABELS[kept], weights=WEIGHTS[kept]), rel=1e-12
    )
    with pytest.raises(UserError, match="no row is left"):
        metrics.negative_log_likelihood(LOGITS, marked, ignore_index=-100, weights=(~kept).astype(float))
    with pytest.raises(UserError, match=r"ignore_index must be a whole number or None; got 1\.5"):
        metrics.brier_score(SHARES, LABELS, ignore_index=1.5)  # type: ignore[arg-type]


def test_the_ignored_label_as_torchmetrics_has_it() -> None:
    torch = pytest.importorskip("torch")
    functional = pytest.importorskip("torchmetrics.functional.classification")
    marked = np.where(np.arange(N) % 5 == 0, -100, LABELS)
    theirs = functional.multiclass_accuracy(
        torch.tensor(LOGITS), torch.tensor(marked), num_classes=C, top_k=2, average="micro", ignore_index=-100
    )
    assert metrics.top_k_accuracy(LOGITS, marked, k=2, ignore_index=-100) == pytest.approx(float(theirs), rel=1e-6)
