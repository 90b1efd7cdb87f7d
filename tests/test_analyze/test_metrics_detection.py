"""ROC and precision-recall numbers against scikit-learn and against counting pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from analyze.metrics import aupr, auroc, fpr_at_tpr, roc_curve

Pair = tuple[NDArray[np.floating], NDArray[np.floating]]


def _pairs() -> dict[str, Pair]:
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(1, 1, 700), rng.normal(0, 1, 400)
    return {
        "random": (inside, outside),
        "float32": (inside.astype(np.float32), outside.astype(np.float32)),
        "tied": (np.round(inside), np.round(outside)),
        "saturated": (np.minimum(inside, 1.0), np.minimum(outside, 1.0)),
        "all equal": (np.zeros(5), np.zeros(9)),
        "apart": (inside + 100, outside),
        "reversed": (inside, outside + 100),
        "one each": (np.array([1.0]), np.array([0.0])),
        "twenty tied pairs": (np.repeat(np.arange(20.0), 1), np.repeat(np.arange(20.0), 1)),
    }


PAIRS = _pairs()


@pytest.fixture(params=PAIRS)
def pair(request: pytest.FixtureRequest) -> Pair:
    return PAIRS[request.param]


def _as_sklearn(pair: Pair, positive: str) -> tuple[NDArray[np.bool_], NDArray[np.floating]]:
    scores = np.concatenate(pair)
    inside = np.arange(len(scores)) < len(pair[0])
    return (inside, scores) if positive == "id" else (~inside, -scores)


def test_auroc_equals_scikit_learn_and_pairs(pair: Pair) -> None:
    inside, outside = pair
    pairs = (inside[:, None] > outside).mean() + 0.5 * (inside[:, None] == outside).mean()
    assert auroc(*pair) == pytest.approx(pairs, abs=1e-12)
    assert auroc(*pair) == pytest.approx(roc_auc_score(*_as_sklearn(pair, "id")), abs=1e-12)
    assert type(auroc(*pair)) is float


@pytest.mark.parametrize("positive", ["id", "ood"])
@pytest.mark.parametrize("tpr", [0.5, 0.8, 0.95, 1.0])
def test_fpr_is_the_first_point_of_the_full_curve(pair: Pair, positive: str, tpr: float) -> None:
    truth, scores = _as_sklearn(pair, positive)
    rates, reached, _ = sklearn_roc_curve(truth, scores, drop_intermediate=False)
    got = fpr_at_tpr(*pair, tpr=tpr, positive=positive)  # type: ignore[arg-type]
    assert got == pytest.approx(rates[np.argmax(reached >= tpr)], abs=1e-12)


@pytest.mark.parametrize("positive", ["id", "ood"])
@pytest.mark.parametrize("tpr", [0.5, 0.8, 0.95, 1.0])
def test_nearest_threshold_is_the_last_point_of_the_nearest_recall(pair: Pair, positive: str, tpr: float) -> None:
    truth, scores = _as_sklearn(pair, positive)
    rates, reached, _ = sklearn_roc_curve(truth, scores, drop_intermediate=False)
    rates, reached = rates[1:], reached[1:]
    full = int(np.argmax(reached == 1.0))  # the curve is read from where recall is first complete, backwards
    rates, reached = rates[full::-1], reached[full::-1]
    wanted = rates[np.argmin(np.abs(reached - tpr))]
    got = fpr_at_tpr(*pair, tpr=tpr, positive=positive, threshold="nearest")  # type: ignore[arg-type]
    assert got == pytest.approx(wanted, abs=1e-12)


def test_the_two_conventions_differ() -> None:
    inside, outside = PAIRS["random"]
    assert abs(fpr_at_tpr(inside, outside) - fpr_at_tpr(inside, outside, positive="ood")) > 0.01
    assert fpr_at_tpr(inside, outside, positive="ood") == fpr_at_tpr(-outside, -inside, positive="id")


def test_twenty_tied_pairs_give_095() -> None:
    assert fpr_at_tpr(*PAIRS["twenty tied pairs"]) == 0.95


@pytest.mark.parametrize("positive", ["id", "ood"])
def test_aupr_equals_scikit_learn(pair: Pair, positive: str) -> None:
    truth, scores = _as_sklearn(pair, positive)
    got = aupr(*pair, positive=positive)  # type: ignore[arg-type]
    assert got == pytest.approx(average_precision_score(truth, scores), abs=1e-12)
    precision, recall, _ = precision_recall_curve(truth, scores)
    trapezoid = aupr(*pair, positive=positive, method="trapezoid")  # type: ignore[arg-type]
    assert trapezoid == pytest.approx(auc(recall, precision), abs=1e-12)


@pytest.mark.parametrize("positive", ["id", "ood"])
def test_roc_curve_equals_scikit_learn(pair: Pair, positive: str) -> None:
    truth, scores = _as_sklearn(pair, positive)
    rates, reached, thresholds = sklearn_roc_curve(truth, scores, drop_intermediate=False)
    curve = roc_curve(*pair, positive=positive)  # type: ignore[arg-type]
    np.testing.assert_allclose(curve.fpr, rates, atol=1e-12)
    np.testing.assert_allclose(curve.tpr, reached, atol=1e-12)
    sign = 1 if positive == "id" else -1
    np.testing.assert_allclose(curve.thresholds[1:], sign * thresholds[1:], atol=1e-12)
    assert np.trapezoid(curve.tpr, curve.fpr) == pytest.approx(auroc(*pair), abs=1e-12)


scores = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=40)


@settings(max_examples=80)
@given(scores, scores, st.floats(0.05, 1.0))
def test_properties(inside: list[float], outside: list[float], tpr: float) -> None:
    a, b = np.array(inside), np.array(outside)
    assert auroc(a, b) == pytest.approx(1 - auroc(b, a), abs=1e-12)
    assert auroc(-a, -b) == pytest.approx(1 - auroc(a, b), abs=1e-12)
    # A strictly rising map of the scores changes nothing.
    assert auroc(np.exp(a), np.exp(b)) == auroc(a, b)
    assert fpr_at_tpr(np.exp(a), np.exp(b), tpr=tpr) == fpr_at_tpr(a, b, tpr=tpr)
    assert fpr_at_tpr(a, b, tpr=tpr) <= fpr_at_tpr(a, b, tpr=1.0)
    assert aupr(a, b) == pytest.approx(aupr(a[::-1], b[::-1]), abs=1e-12)
    assert 0 < aupr(a, b) <= 1 + 1e-12
