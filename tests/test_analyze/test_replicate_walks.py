"""Fast walks against the metrics themselves: detection numbers, and bootstrap replicates on the drawn rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analyze import metrics
from analyze.intervals import BootstrapWeights, detection_pairs
from analyze.intervals.detection_pairs import SortedScores
from analyze.intervals.ranking import Binning, Ranking
from analyze.intervals.replicates import detection_replicates, ks_replicates, point_replicates
from analyze.kernels.sorting import rising_order
from cache_schema.errors import UserError

scores = st.lists(st.integers(0, 12), min_size=1, max_size=60)


@given(scores, scores)
@settings(max_examples=150, deadline=None)
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


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=3, max_size=60), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_replicates_are_the_metrics_on_the_drawn_rows(pairs, seed):
    confidence = np.array([c for c, _ in pairs]) / 9.0
    correct = np.array([r for _, r in pairs])
    weights = BootstrapWeights(len(pairs), replicates=7, seed=seed).all()
    ks = ks_replicates(confidence, correct, weights)
    covered, risk = point_replicates(
        confidence, correct, weights, risks=[(0.3, 0), (0.4, 2)], coverages=[0.8]
    )
    for r in range(7):
        drawn = np.repeat(np.arange(len(pairs)), weights[:, r])
        c, right = confidence[drawn], correct[drawn]
        assert ks[r] == pytest.approx(metrics.ks_calibration_error(c, right), abs=1e-9)
        assert covered[0, r] == pytest.approx(metrics.coverage_at_risk(c, right, risk=0.3), abs=1e-6)
        want = metrics.selective_accuracy_constraint(c, right, accuracy=0.6, skip=2)
        assert covered[1, r] == pytest.approx(want, abs=1e-6)
        assert risk[0, r] == pytest.approx(metrics.risk_at_coverage(c, right, coverage=0.8), abs=1e-6)


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
@settings(max_examples=150, deadline=None)
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
@settings(max_examples=200, deadline=None)
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


@pytest.mark.parametrize("n_replicates", [1, 63, 64, 65, 130])
@pytest.mark.parametrize("levels", [7, 100_000])
def test_replicates_of_a_ranking_do_not_depend_on_how_many_there_are(n_replicates, levels):
    rng = np.random.default_rng(levels)
    n, m = 700, 300
    confidence = rng.integers(0, levels + 1, n) / levels
    correct = rng.random(n) < confidence
    weights = BootstrapWeights(n, replicates=n_replicates, seed=4).all()
    binnings = [Binning(), Binning(15, "mass"), Binning(100, "mass")]
    ranking = Ranking(confidence, correct)
    walked = ranking.calibration_replicates(weights, binnings)
    named, covered, risk = ranking.selective_replicates(weights, risks=[(0.2, 0), (0.05, 20)], coverages=[0.8])
    other = rng.integers(0, levels + 1, m) / levels * 0.8
    other_weights = BootstrapWeights(m, replicates=n_replicates, seed=9).all()
    pairs = detection_replicates(confidence, other, weights, other_weights)
    for r in range(0, n_replicates, 9):
        drawn = np.repeat(np.arange(n), weights[:, r])
        c, right = confidence[drawn], correct[drawn]
        far = other[np.repeat(np.arange(m), other_weights[:, r])]
        assert walked.expected_calibration_error()[r] == pytest.approx(metrics.expected_calibration_error(c, right))
        assert walked.expected_calibration_error(norm="max")[r] == pytest.approx(
            metrics.expected_calibration_error(c, right, norm="max")
        )
        assert walked.ks_calibration_error()[r] == pytest.approx(metrics.ks_calibration_error(c, right))
        assert walked.signed_calibration_gap()[r] == pytest.approx(metrics.signed_calibration_gap(c, right))
        for name in ("aurc", "e_aurc", "augrc", "correctness_auroc"):
            assert named[name][r] == pytest.approx(getattr(metrics, name)(c, right), abs=1e-6)
        assert covered[0, r] == metrics.coverage_at_risk(c, right, risk=0.2)
        assert covered[1, r] == metrics.coverage_at_risk(c, right, risk=0.05, skip=20)
        assert risk[0, r] == pytest.approx(metrics.risk_at_coverage(c, right, coverage=0.8), abs=1e-6)
        assert pairs["auroc"][r] == pytest.approx(metrics.auroc(c, far), abs=1e-6)
        assert pairs["fpr95_id"][r] == pytest.approx(metrics.fpr_at_tpr(c, far, positive="id"), abs=1e-7)
        assert pairs["fpr95_ood"][r] == pytest.approx(metrics.fpr_at_tpr(c, far, positive="ood"), abs=1e-7)
        assert pairs["aupr_in"][r] == pytest.approx(metrics.aupr(c, far, positive="id"), abs=1e-6)
        assert pairs["aupr_out"][r] == pytest.approx(metrics.aupr(c, far, positive="ood"), abs=1e-6)
    # A replicate stands for itself: others beside it change nothing.
    few = ranking.calibration_replicates(weights[:, :1], binnings)
    assert few.expected_calibration_error()[0] == walked.expected_calibration_error()[0]
    assert ranking.selective_replicates(weights[:, :1])[0]["aurc"][0] == named["aurc"][0]
