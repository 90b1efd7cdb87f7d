"""Fast walks against the metrics themselves: detection numbers, and the numbers of a ranking."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analyze import metrics
from analyze.intervals import detection_pairs
from analyze.intervals.detection_pairs import SortedScores
from analyze.intervals.ranking import Ranking
from analyze.kernels.sorting import rising_order
from closerlook_common.errors import UserError

scores = st.lists(st.integers(0, 12), min_size=1, max_size=60)


@given(scores, scores)
@settings(max_examples=150)
def test_detection_numbers_equal_the_metrics(inside, outside):
    a, b = np.array(inside, np.float32) / 7, np.array(outside, np.float32) / 7
    got = detection_pairs.detection_numbers(SortedScores.of(a), SortedScores.of(b))
    want = {
        "auroc": metrics.auroc(a, b),
        "fpr95_id": metrics.fpr_at_tpr(a, b, positive="id"),
        "fpr95_ood": metrics.fpr_at_tpr(a, b, positive="ood"),
        "aupr_in": metrics.aupr(a, b, positive="id"),
        "aupr_out": metrics.aupr(a, b, positive="ood"),
    }
    assert got == pytest.approx(want, abs=1e-12)


@given(
    st.sampled_from([np.float32, np.float64]).flatmap(
        lambda kind: arrays(
            kind,
            st.integers(0, 70),
            elements=st.one_of(
                st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5]),
                st.floats(allow_nan=False, width=np.dtype(kind).itemsize * 8),
            ),
        )
    )
)
@settings(max_examples=150)
def test_sorting_by_bits_is_a_stable_sort(values):
    rows, ordered = rising_order(values)
    np.testing.assert_array_equal(rows, np.argsort(values, kind="stable"))
    np.testing.assert_array_equal(ordered, np.sort(values))
    assert ordered.dtype == values.dtype


def test_sorting_many_rows_by_bits():
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=30_000), rng.beta(3, 0.3, 30_000).astype(np.float32), np.full(5000, -2.5)):
        rows, ordered = rising_order(values)
        np.testing.assert_array_equal(rows, np.argsort(values, kind="stable"))
        np.testing.assert_array_equal(ordered, values[rows])


@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=1, max_size=80))
@settings(max_examples=200)
def test_a_ranking_equals_the_metrics(pairs):
    confidence = np.array([c for c, _ in pairs], np.float32) / np.float32(12.0)
    correct = np.array([r for _, r in pairs])
    ranking = Ranking(confidence, correct)
    for how in (
        {},
        {"n_bins": 4},
        {"binning": "mass"},
        {"binning": "mass", "n_bins": 100},
        {"norm": "max"},
        {"binning": "mass", "norm": "l2", "debias": True},
    ):
        want = metrics.expected_calibration_error(confidence, correct, **how)
        # A root of a difference of nearly equal squares keeps half the digits.
        assert ranking.expected_calibration_error(**how) == pytest.approx(want, abs=1e-7 if "debias" in how else 1e-12)
    assert ranking.signed_calibration_gap() == pytest.approx(
        metrics.signed_calibration_gap(confidence, correct), abs=1e-12
    )
    assert ranking.ks_calibration_error() == pytest.approx(metrics.ks_calibration_error(confidence, correct), abs=1e-12)
    assert ranking.aurc() == pytest.approx(metrics.aurc(confidence, correct), abs=1e-12)
    assert ranking.e_aurc() == pytest.approx(metrics.e_aurc(confidence, correct), abs=1e-12)
    assert ranking.augrc() == pytest.approx(metrics.augrc(confidence, correct), abs=1e-12)
    assert ranking.e_augrc() == pytest.approx(metrics.e_augrc(confidence, correct), abs=1e-12)
    for risk, skip in ((0.3, 0), (0.5, 3), (0.0, 0)):
        want = metrics.coverage_at_risk(confidence, correct, risk=risk, skip=skip)
        assert ranking.coverage_at_risk(risk=risk, skip=skip) == want
        want = metrics.selective_accuracy_constraint(confidence, correct, accuracy=1 - risk, skip=skip)
        assert ranking.selective_accuracy_constraint(accuracy=1 - risk, skip=skip) == want
    for coverage in (0.0, 0.8, 1.0):
        assert ranking.risk_at_coverage(coverage=coverage) == metrics.risk_at_coverage(
            confidence, correct, coverage=coverage
        )
    if correct.all() or not correct.any():
        with pytest.raises(UserError, match="needs both"):
            ranking.correctness_auroc()
    else:
        want = metrics.correctness_auroc(confidence, correct)
        assert ranking.correctness_auroc() == pytest.approx(want, abs=1e-12)
