"""Skill, soft labels, diversity, parts of curves, areas and top-label errors against oracles and by properties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import interp1d
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from sklearn import metrics as sk

from analyze import metrics
from closerlook_common.errors import UserError

seeds = st.integers(0, 2**32 - 1)


def rows(seed: int, n: int = 120, classes: int = 5) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * 2
    labels = np.where(rng.random(n) < 0.6, logits.argmax(axis=1), rng.integers(0, classes, n))
    labels[:2] = 0, 1
    return logits, softmax(logits, axis=1), labels


# Skill


@given(seed=seeds)
def test_d2_as_scikit_learn_has_it(seed: int) -> None:
    logits, shares, labels = rows(seed)
    weights = np.random.default_rng(seed).gamma(1, 1, labels.size)
    for w in (None, weights):
        theirs = sk.d2_log_loss_score(labels, shares, sample_weight=w, labels=range(5))
        assert metrics.d2_log_loss(logits, labels, weights=w) == pytest.approx(theirs, abs=1e-10)
        if hasattr(sk, "d2_brier_score"):
            theirs = sk.d2_brier_score(labels, shares, sample_weight=w, labels=range(5))
            assert metrics.d2_brier(shares, labels, weights=w) == pytest.approx(theirs, abs=1e-10)


@given(seed=seeds)
def test_the_shares_of_the_classes_have_no_skill_and_certainty_has_all(seed: int) -> None:
    _, _, labels = rows(seed)
    share = np.bincount(labels, minlength=5) / labels.size
    with np.errstate(divide="ignore"):
        assert metrics.d2_log_loss(np.tile(np.log(share), (labels.size, 1)), labels) == pytest.approx(0, abs=1e-12)
    assert metrics.d2_brier(np.tile(share, (labels.size, 1)), labels) == pytest.approx(0, abs=1e-12)
    sure = np.eye(5)[labels]
    assert metrics.d2_brier(sure, labels) == 1.0
    assert metrics.d2_log_loss(sure * 1000, labels) == 1.0


def test_one_class_has_nothing_to_compare_with() -> None:
    for function in (metrics.d2_brier, metrics.d2_log_loss):
        with pytest.raises(UserError, match="every label is of one class"):
            function([[0.5, 0.5], [0.5, 0.5]], [1, 1])


# Soft labels


@given(seed=seeds)
def test_soft_scores_against_plain_definitions(seed: int) -> None:
    logits, shares, _ = rows(seed, 40)
    votes = np.random.default_rng(seed).multinomial(7, np.full(5, 0.2), 40) / 7
    cross = -(votes * log_softmax(logits, axis=1)).sum(axis=1)
    assert metrics.soft_negative_log_likelihood(logits, votes) == pytest.approx(cross.mean())
    divergence = entropy(votes, shares, axis=1).mean()
    assert metrics.soft_negative_log_likelihood(logits, votes, excess=True) == pytest.approx(divergence)
    # The expected score of one answer that is drawn from the label.
    drawn = sum(votes[:, c] * ((shares - np.eye(5)[c]) ** 2).sum(axis=1) for c in range(5))
    assert metrics.soft_brier_score(shares, votes, excess=False) == pytest.approx(float(drawn.mean()))
    assert metrics.soft_brier_score(shares, votes) == pytest.approx(((shares - votes) ** 2).sum(axis=1).mean())
    assert metrics.soft_brier_score(votes, votes) == 0.0
    with np.errstate(divide="ignore"):
        own = np.log(votes)
    assert metrics.soft_negative_log_likelihood(own, votes, excess=True) == pytest.approx(0, abs=1e-12)


@given(seed=seeds)
def test_one_answer_is_an_ordinary_label(seed: int) -> None:
    logits, shares, labels = rows(seed, 40)
    hard = np.eye(5)[labels]
    assert metrics.soft_negative_log_likelihood(logits, hard) == pytest.approx(
        metrics.negative_log_likelihood(logits, labels)
    )
    for excess in (True, False):
        assert metrics.soft_brier_score(shares, hard, excess=excess) == pytest.approx(
            metrics.brier_score(shares, labels)
        )


def test_counts_of_answers_are_refused_as_shares() -> None:
    with pytest.raises(UserError, match=r"targets: row 1 sums to 0.5, not 1"):
        metrics.soft_brier_score([[0.5, 0.5]] * 2, [[0.5, 0.5], [0.5, 0.0]])
    with pytest.raises(UserError, match="probabilities has 2 classes and targets has 3"):
        metrics.soft_brier_score([[0.5, 0.5]], [[0.5, 0.5, 0.0]])
    infinite = metrics.soft_negative_log_likelihood([[0.0, -np.inf]], [[0.5, 0.5]])
    assert infinite == np.inf
    both = ([[0.0, -np.inf], [0.0, 0.0]], [[0.5, 0.5], [0.5, 0.5]])
    assert metrics.soft_negative_log_likelihood(*both, weights=[0, 1]) == pytest.approx(np.log(2))


# Diversity


@given(seed=seeds, members=st.integers(2, 6))
def test_diversity_by_definition(seed: int, members: int) -> None:
    rng = np.random.default_rng(seed)
    each = softmax(rng.normal(size=(members, 30, 4)) * 3, axis=2)
    labels = rng.integers(0, 4, 30)
    found = metrics.ensemble_diversity(each)
    mean = each.mean(axis=0)
    information = entropy(mean, axis=1) - entropy(each, axis=2).mean(axis=0)
    np.testing.assert_allclose(found.mutual_information, information, atol=1e-12)
    # Averaging takes the ambiguity off the Brier score, exactly.
    single = np.mean([metrics.brier_score(p, labels) for p in each])
    assert single - found.ambiguity.mean() == pytest.approx(metrics.brier_score(mean, labels))
    votes = each.argmax(axis=2)
    pairs = [votes[i] != votes[j] for i in range(members) for j in range(i)]
    np.testing.assert_allclose(found.disagreement, np.mean(pairs, axis=0), atol=1e-12)
    if members == 2:
        agreement = metrics.prediction_agreement(*votes)
        assert found.disagreement.mean() == pytest.approx(1 - agreement)
    assert (found.mutual_information <= np.log(members) + 1e-12).all()


def test_equal_members_have_no_diversity() -> None:
    shares = rows(0)[1]
    found = metrics.ensemble_diversity(iter([shares, shares.astype(np.float32), shares]))
    for column in (found.mutual_information, found.ambiguity, found.disagreement):
        np.testing.assert_allclose(column, 0, atol=1e-6)
        assert (column >= 0).all()
    for bad in ([], [shares], [shares, shares[:5]], [shares, shares + 2]):
        with pytest.raises(UserError):
            metrics.ensemble_diversity(bad)


# Points and parts of detection curves


@given(seed=seeds, max_fpr=st.sampled_from([0.013, 0.05, 0.1, 0.5, 1.0]))
def test_the_partial_area_as_scikit_learn_has_it(seed: int, max_fpr: float) -> None:
    rng = np.random.default_rng(seed)
    inside, outside = np.round(rng.normal(1, 1, 60), 1), np.round(rng.normal(0, 1, 45), 1)
    truth, scores = np.r_[np.ones(60), np.zeros(45)], np.r_[inside, outside]
    ours = metrics.partial_auroc(inside, outside, max_fpr=max_fpr)
    assert ours == pytest.approx(sk.roc_auc_score(truth, scores, max_fpr=max_fpr), abs=1e-9)
    flagged = metrics.partial_auroc(inside, outside, max_fpr=max_fpr, positive="ood")
    assert flagged == pytest.approx(sk.roc_auc_score(1 - truth, -scores, max_fpr=max_fpr), abs=1e-9)
    if max_fpr == 1:
        plain = metrics.partial_auroc(inside, outside, max_fpr=1.0, standardised=False)
        assert plain == pytest.approx(metrics.auroc(inside, outside))


@given(seed=seeds)
def test_the_equal_error_rate_is_where_the_errors_are_equal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inside, outside = np.round(rng.normal(1, 1, 60), 1), np.round(rng.normal(0, 1, 45), 1)
    fpr, tpr, _ = sk.roc_curve(np.r_[np.ones(60), np.zeros(45)], np.r_[inside, outside], drop_intermediate=False)
    # Along the length of the curve, so that vertical pieces are no jumps.
    along = np.r_[0, np.cumsum(np.abs(np.diff(fpr)) + np.abs(np.diff(tpr)))]
    a, b = interp1d(along, fpr), interp1d(along, tpr)
    place = brentq(lambda s: a(s) + b(s) - 1, 0, along[-1], xtol=1e-12)
    assert metrics.equal_error_rate(inside, outside) == pytest.approx(float(a(place)), abs=1e-9)
    # The same whichever side is positive.
    assert metrics.equal_error_rate(-outside, -inside) == pytest.approx(metrics.equal_error_rate(inside, outside))


@given(seed=seeds)
def test_precision_and_recall_as_scikit_learn_has_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inside, outside = np.round(rng.normal(1, 1, 20), 1), np.round(rng.normal(0, 1, 30), 1)
    truth, scores = np.r_[np.ones(20), np.zeros(30)], np.r_[inside, outside]
    for positive, t, s in (("id", truth, scores), ("ood", 1 - truth, -scores)):
        precision, recall, _ = sk.precision_recall_curve(t, s)
        ours = metrics.pr_curve(inside, outside, positive=positive)  # type: ignore[arg-type]
        np.testing.assert_allclose(ours.precision, precision[::-1])
        np.testing.assert_allclose(ours.recall, recall[::-1])
    area = np.diff(ours.recall) @ ours.precision[1:]
    assert area == pytest.approx(metrics.aupr(inside, outside, positive="ood"))


def test_extreme_detection() -> None:
    assert metrics.equal_error_rate([2.0, 3.0], [0.0, 1.0]) == 0.0
    assert metrics.equal_error_rate([0.0, 1.0], [2.0, 3.0]) == 1.0
    assert metrics.equal_error_rate([1.0], [1.0]) == 0.5
    assert metrics.partial_auroc([2.0], [1.0], max_fpr=0.1) == 1.0
    for bad in (0.0, -0.1, 1.1):
        with pytest.raises(UserError, match="max_fpr"):
            metrics.partial_auroc([2.0], [1.0], max_fpr=bad)


# Areas under risk-coverage curves


def _tied(seed: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    confidence = np.round(rng.random(n), int(rng.integers(1, 4)))
    return confidence, rng.random(n) < confidence, rng.choice(4, n, p=[0.55, 0.3, 0.15, 0.0])


def _curve(confidence: Any, right: Any, risk_of: Any) -> tuple[list[float], list[float]]:
    """Coverage and risk at every threshold, one loop each."""
    coverage, risk = [0.0], []
    for threshold in sorted(set(confidence.tolist()), reverse=True):
        answered = confidence >= threshold
        coverage.append(float(answered.mean()))
        risk.append(risk_of(answered))
    return coverage, risk


@given(seed=seeds)
def test_balanced_areas_against_loops(seed: int) -> None:
    confidence, right, labels = _tied(seed)
    present = np.unique(labels)

    def selective(answered: Any) -> float:
        shares = [(~right[answered & (labels == c)]).mean() for c in present if (answered & (labels == c)).any()]
        return float(np.sum(shares) / present.size)

    def joint(answered: Any) -> float:
        return float(np.mean([(~right & answered)[labels == c].mean() for c in present]))

    coverage, risk = _curve(confidence, right, selective)
    area = np.trapezoid([risk[0], *risk], coverage)
    assert metrics.balanced_aurc(confidence, right, labels, n_classes=4) == pytest.approx(area, abs=1e-12)
    coverage, risk = _curve(confidence, right, joint)
    area = np.trapezoid([0.0, *risk], coverage)
    assert metrics.balanced_augrc(confidence, right, labels, n_classes=4) == pytest.approx(area, abs=1e-12)


@given(seed=seeds)
def test_balanced_areas_of_one_class_are_the_plain_ones(seed: int) -> None:
    confidence, right, _ = _tied(seed)
    one = np.full(right.size, 2)
    assert metrics.balanced_aurc(confidence, right, one, n_classes=4) == pytest.approx(metrics.aurc(confidence, right))
    assert metrics.balanced_augrc(confidence, right, one, n_classes=4) == pytest.approx(
        metrics.augrc(confidence, right)
    )


@given(seed=seeds)
def test_the_achievable_area_is_that_of_the_hull(seed: int) -> None:
    scipy_spatial = pytest.importorskip("scipy.spatial")
    confidence, right, _ = _tied(seed)
    ours = metrics.achievable_aurc(confidence, right)
    curve = metrics.risk_coverage_curve(confidence, right)
    x, y = np.r_[0.0, curve.coverage], np.r_[0.0, curve.joint_risk]
    # Corners of the lower hull by a library, closed by a far corner above; the area by numeric integration.
    points = np.c_[np.r_[x, 0.0, 1.0], np.r_[y, 9.0, 9.0]]
    corners = np.unique(points[scipy_spatial.ConvexHull(points).vertices], axis=0)
    corners = corners[corners[:, 1] < 5]
    grid = np.unique(np.r_[np.linspace(1e-9, 1, 40_001), corners[1:, 0]])
    risk = np.interp(grid, corners[:, 0], corners[:, 1]) / grid
    assert ours == pytest.approx(np.trapezoid(risk, grid), abs=2e-4)
    # The hull is below the curve of errors, so that its risk is nowhere higher.
    whole = np.interp(grid, x, y) / grid
    assert ours <= np.trapezoid(whole, grid) + 2e-4


@given(seed=seeds)
def test_excess_augrc_by_the_area_of_the_roc_curve(seed: int) -> None:
    confidence, right, _ = _tied(seed)
    a = right.mean()
    auroc = metrics.correctness_auroc(confidence, right) if 0 < a < 1 else 1.0
    assert metrics.e_augrc(confidence, right) == pytest.approx((1 - auroc) * a * (1 - a), abs=1e-12)


# Worst classes


@given(seed=seeds, k=st.integers(1, 6))
def test_the_worst_classes_by_sorting(seed: int, k: int) -> None:
    _, right, labels = _tied(seed)
    shares = sorted(float(right[labels == c].mean()) for c in np.unique(labels))
    ours = metrics.worst_classes_accuracy(right, labels, n_classes=4, k=k)
    assert ours == pytest.approx(np.mean(shares[:k]))
    if k == 1:
        assert ours == metrics.worst_class_accuracy(right, labels, n_classes=4)
    many = metrics.worst_classes_accuracy(right, labels, n_classes=4, k=10)
    assert many == pytest.approx(metrics.mean_per_class_accuracy(right, labels, n_classes=4))
    with pytest.raises(UserError, match="no class has 1000 images"):
        metrics.worst_classes_accuracy(right, labels, n_classes=4, least=1000)


# Top-label calibration


@given(seed=seeds, norm=st.sampled_from(["l1", "l2", "max"]), binning=st.sampled_from(["width", "mass"]))
def test_the_top_label_error_by_classes(seed: int, norm: Any, binning: Any) -> None:
    confidence, right, predicted = _tied(seed)
    ours = metrics.top_label_calibration_error(confidence, right, predicted, n_bins=6, norm=norm, binning=binning)
    parts, shares = [], []
    for c in np.unique(predicted):
        own = predicted == c
        ece = metrics.expected_calibration_error(confidence[own], right[own], n_bins=6, norm=norm, binning=binning)
        parts.append(ece)
        shares.append(own.mean())
    expected = {
        "l1": np.dot(shares, parts),
        "l2": np.sqrt(np.dot(shares, np.square(parts))),
        "max": max(parts),
    }[norm]
    assert ours == pytest.approx(float(expected), abs=1e-12)
    if binning == "width" and norm != "max":
        ece = metrics.expected_calibration_error(confidence, right, n_bins=6, norm=norm)
        assert ours >= ece - 1e-12
    one = metrics.top_label_calibration_error(confidence, right, np.zeros(right.size, int), norm=norm, binning=binning)
    assert one == pytest.approx(metrics.expected_calibration_error(confidence, right, norm=norm, binning=binning))
