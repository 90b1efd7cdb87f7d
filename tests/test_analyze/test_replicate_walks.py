"""Fast walks against the metrics themselves: detection numbers, and bootstrap replicates on the drawn rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyze import metrics
from analyze._pair_kernels import detection_numbers
from analyze._walk_kernels import ks_replicates, point_replicates
from analyze.intervals import BootstrapWeights

scores = st.lists(st.integers(0, 12), min_size=1, max_size=60)


@given(scores, scores)
@settings(max_examples=150, deadline=None)
def test_detection_numbers_equal_the_metrics(inside, outside):
    a, b = np.array(inside, np.float32) / 7, np.array(outside, np.float32) / 7
    got = detection_numbers(a, b)
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
