"""Risk and coverage against loops over every threshold and every order of ties."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from analyze.metrics import (
    augrc,
    aurc,
    correctness_auroc,
    coverage_at_risk,
    e_aurc,
    risk_at_coverage,
    risk_coverage_curve,
    selective_accuracy_constraint,
)
from closerlook_common.errors import UserError

Column = tuple[NDArray[np.floating], NDArray[np.bool_]]


def _columns() -> dict[str, Column]:
    rng = np.random.default_rng(3)
    confidence = rng.random(600)
    right = rng.random(600) < confidence
    return {
        "random": (confidence, right),
        "tied": (np.round(confidence, 1), right),
        "saturated": (np.where(confidence > 0.4, 1.0, confidence).astype(np.float32), right),
        "one right": (np.array([0.3]), np.array([True])),
        "one wrong": (np.array([0.3]), np.array([False])),
        "two": (np.array([0.3, 0.4]), np.array([True, False])),
        "all right": (confidence, np.ones(600, bool)),
        "all wrong": (confidence, np.zeros(600, bool)),
    }


COLUMNS = _columns()


@pytest.fixture(params=COLUMNS)
def column(request: pytest.FixtureRequest) -> Column:
    return COLUMNS[request.param]


def _points(column: Column) -> list[tuple[float, float]]:
    """Coverage and risk at every distinct threshold, one mask at a time."""
    confidence, right = column
    points = []
    for cut in sorted(set(confidence.tolist()), reverse=True):
        answered = confidence >= cut
        points.append((answered.mean(), (~right[answered]).mean()))
    return points


def test_aurc_equals_the_loop(column: Column) -> None:
    points = _points(column)
    area, before = 0.0, (0.0, points[0][1])
    for point in points:
        area += (point[0] - before[0]) * (point[1] + before[1]) / 2
        before = point
    assert aurc(*column) == pytest.approx(area, abs=1e-12)
    assert type(aurc(*column)) is float


def test_augrc_equals_the_loop(column: Column) -> None:
    area, before = 0.0, (0.0, 0.0)
    for coverage, risk in _points(column):
        joint = coverage * risk
        area += (coverage - before[0]) * (joint + before[1]) / 2
        before = (coverage, joint)
    assert augrc(*column) == pytest.approx(area, abs=1e-12)


def test_mean_curve_is_the_mean_of_risks_without_ties() -> None:
    confidence, right = COLUMNS["random"]
    wrong = ~right[np.argsort(-confidence)]
    wanted = (np.cumsum(wrong) / np.arange(1, wrong.size + 1)).mean()
    assert aurc(confidence, right, curve="mean") == pytest.approx(wanted, abs=1e-12)
    assert aurc(confidence, right) == pytest.approx(wanted, abs=2 / wrong.size)


def test_mean_curve_is_the_expectation_over_orders_of_ties() -> None:
    confidence = np.array([0.9, 0.5, 0.5, 0.5, 0.1])
    right = np.array([True, False, True, True, False])
    risks = []
    for order in permutations(range(1, 4)):
        wrong = ~right[[0, *order, 4]]
        risks.append((np.cumsum(wrong) / np.arange(1, 6)).mean())
    assert aurc(confidence, right, curve="mean") == pytest.approx(np.mean(risks), abs=1e-12)


def test_ties_do_not_ask_for_the_order_of_rows() -> None:
    for order in permutations(range(4)):
        right = np.array([1, 1, 0, 0])[list(order)]
        assert aurc(np.full(4, 0.5), right) == 0.5
        assert aurc(np.full(4, 0.5), right, curve="mean") == 0.5


def test_augrc_identity(column: Column) -> None:
    confidence, right = column
    accuracy = right.mean()
    if 0 < accuracy < 1:
        area = roc_auc_score(right, confidence)
        assert correctness_auroc(confidence, right) == pytest.approx(area, abs=1e-12)
        wanted = (1 - area) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
        assert augrc(confidence, right) == pytest.approx(wanted, abs=1e-12)
    else:
        with pytest.raises(UserError, match="needs both"):
            correctness_auroc(confidence, right)


def test_a_perfect_ranking_has_almost_no_excess() -> None:
    right = np.random.default_rng(5).random(50_000) < 0.8
    ranked = right + np.random.default_rng(6).random(50_000)
    assert abs(e_aurc(ranked, right)) < 2e-5
    assert e_aurc(-ranked, right) > 0.1
    assert e_aurc([0.2, 0.3], [0, 0]) == pytest.approx(0.0)


def test_working_points_equal_the_loop(column: Column) -> None:
    points = _points(column)
    for level in (0.0, 0.05, 0.3, 1.0):
        fits = [coverage for coverage, risk in points if risk <= level]
        assert coverage_at_risk(*column, risk=level) == pytest.approx(max(fits, default=0.0))
        wanted = next(risk for coverage, risk in points if coverage >= level)
        assert risk_at_coverage(*column, coverage=level) == pytest.approx(wanted)
    n = len(column[0])
    late = [coverage for coverage, risk in points if 1 - risk >= 0.7 and coverage * n > 20.5]
    assert selective_accuracy_constraint(*column, accuracy=0.7, skip=20) == pytest.approx(max(late, default=0.0))


def test_curve_has_a_point_for_each_confidence(column: Column) -> None:
    curve = risk_coverage_curve(*column)
    np.testing.assert_allclose(np.stack([curve.coverage, curve.risk], 1), _points(column))
    np.testing.assert_allclose(curve.joint_risk, curve.coverage * curve.risk)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40), st.integers(0, 1000))
def test_order_of_rows_and_scale_of_confidence_never_matter(rows: list[tuple[int, bool]], seed: int) -> None:
    confidence, right = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    order = np.random.default_rng(seed).permutation(len(rows))
    for metric in (aurc, augrc, e_aurc, coverage_at_risk, risk_at_coverage):
        assert metric(np.exp(confidence[order]), right[order]) == pytest.approx(metric(confidence, right), abs=1e-12)
    assert 0 <= aurc(confidence, right) <= 1
    assert 0 <= augrc(confidence, right) <= 0.5
