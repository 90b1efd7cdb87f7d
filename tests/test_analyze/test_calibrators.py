"""Calibrators against scikit-learn, scipy and closed forms; the split; loud failures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from analyze import calibrators
from analyze.calibrators import fit_rows, fit_temperature, fit_temperature_store
from analyze.metrics import auroc, top_k_accuracy
from closerlook_common.errors import UserError


def miscalibrated(n, n_classes, temperature, seed=0):
    """Logits whose labels are drawn from softmax(logits / temperature)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, n_classes))
    p = np.exp(log_softmax(logits / temperature, axis=1))
    labels = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, n_classes - 1)
    return logits, labels


def mean_nll(logits, labels, temperature):
    return -log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_temperature_equals_a_scalar_search_in_float64(true, dtype):
    logits, labels = miscalibrated(6000, 12, true)
    logits = logits.astype(dtype)
    fit = fit_temperature(logits, labels)
    wide = logits.astype(np.float64)
    found = minimize_scalar(
        lambda b: mean_nll(wide, labels, np.exp(-b)), bounds=(-4, 4), method="bounded", options={"xatol": 1e-9}
    )
    assert fit.temperature == pytest.approx(np.exp(-found.x), rel=1e-6)
    assert fit.nll_before == pytest.approx(mean_nll(wide, labels, 1.0), rel=1e-12)
    assert fit.nll_after == pytest.approx(found.fun, rel=1e-12)
    assert abs(fit.temperature - true) < 4 * fit.standard_error


def test_temperature_equals_scikit_learn():
    logits, labels = miscalibrated(3000, 10, 1.7)
    pytest.importorskip("sklearn", minversion="1.8")
    from sklearn.calibration import _TemperatureScaling

    peer = _TemperatureScaling().fit(logits, labels)
    assert fit_temperature(logits, labels).temperature == pytest.approx(1 / peer.beta_, rel=1e-4)


@given(st.integers(0, 10_000), st.floats(0.3, 4.0))
@settings(max_examples=25)
def test_the_derivative_is_zero_at_the_fit_and_adding_to_a_row_changes_nothing(seed, true):
    logits, labels = miscalibrated(300, 6, true, seed)
    fit = fit_temperature(logits, labels)
    beta = 1 / fit.temperature
    p = np.exp(log_softmax(beta * logits, axis=1))
    slope = ((p * logits).sum(axis=1) - logits[np.arange(len(labels)), labels]).mean()
    assert abs(slope) < 1e-6
    assert fit.nll_after <= fit.nll_before + 1e-12
    shifted = logits + np.random.default_rng(seed).normal(0, 5, (300, 1))
    assert fit_temperature(shifted, labels).temperature == pytest.approx(fit.temperature, rel=1e-7)
    assert (fit.apply(logits).argmax(axis=1) == logits.argmax(axis=1)).all()


@given(st.integers(0, 10_000), st.floats(0.05, 20.0))
@settings(max_examples=25)
def test_a_temperature_changes_neither_accuracy_nor_what_the_largest_logit_detects(seed, temperature):
    logits, labels = miscalibrated(200, 5, 1.0, seed)
    fit = calibrators.TemperatureFit(temperature, 0.0, 0.0, 200, 0.0, 0)
    scaled = fit.apply(logits)
    assert top_k_accuracy(scaled, labels, k=1) == top_k_accuracy(logits, labels, k=1)
    inside, outside = logits[:120].max(axis=1), logits[120:].max(axis=1)
    assert auroc(scaled[:120].max(axis=1), scaled[120:].max(axis=1)) == pytest.approx(auroc(inside, outside), abs=1e-4)


def test_threads_change_no_bit():
    logits, labels = miscalibrated(9000, 9, 1.4)
    assert fit_temperature(logits, labels, threads=3) == fit_temperature(logits, labels)


@pytest.mark.parametrize(
    ("logits", "labels", "what"),
    [
        (np.eye(4) * 5, np.arange(4), "bound 0.001"),
        (np.eye(4) * 5, (np.arange(4) + 1) % 4, "bound 1000"),
        (np.zeros((5, 3)), np.zeros(5, int), "all equal"),
        (np.array([[0.0, np.nan]]), np.array([0]), "row 0"),
        (np.array([[0.0, 1.0], [np.inf, 0.0]]), np.array([0, 0]), "row 1"),
        (np.zeros((2, 3)), np.array([0, 3]), "row 1 is 3, no class between 0 and 2"),
        (np.zeros((0, 3)), np.zeros(0, int), "no rows"),
        (np.zeros((2, 3)), np.zeros(3, int), "logits has 2 rows and labels has 3"),
    ],
)
def test_what_has_no_temperature_fails_loudly(logits, labels, what):
    with pytest.raises(UserError, match=what):
        fit_temperature(logits, labels)


def test_too_few_passes_fail_loudly():
    logits, labels = miscalibrated(500, 5, 3.0)
    with pytest.raises(UserError, match="did not converge in 1 passes"):
        fit_temperature(logits, labels, max_passes=1)


def test_temperature_of_a_store_equals_that_of_its_rows(toy_store):
    store = toy_store(n=3000, n_classes=11, seed=4)
    rows = fit_rows(store.labels, seed=2)
    whole = fit_temperature(store.centred_logits()[rows], store.labels[rows])
    for block_rows, threads in ((64, 1), (1000, 2), (4096, 1)):
        blocked = fit_temperature_store(store, rows, block_rows=block_rows, threads=threads)
        assert blocked.temperature == pytest.approx(whole.temperature, rel=1e-9)
        assert blocked.nll_after == pytest.approx(whole.nll_after, rel=1e-12)


@given(st.lists(st.integers(-1, 4), min_size=12, max_size=200), st.floats(0.1, 0.9), st.integers(0, 99), st.booleans())
@settings(max_examples=80)
def test_the_split_keeps_shares_and_is_seeded(labels, fraction, seed, stratified):
    labels = np.array(labels)
    if (labels >= 0).sum() < 6:
        return
    try:
        rows = fit_rows(labels, fraction=fraction, seed=seed, stratified=stratified)
    except UserError:
        assert (labels >= 0).sum() < 12 or stratified
        return
    assert not rows[labels < 0].any()
    again = fit_rows(labels, fraction=fraction, seed=seed, stratified=stratified)
    np.testing.assert_array_equal(rows, again)
    if stratified:
        for label in range(5):
            share = fraction * (labels == label).sum()
            assert np.floor(share) <= rows[labels == label].sum() <= np.ceil(share)


def test_the_split_refuses_what_leaves_nothing():
    with pytest.raises(UserError, match="between 0 and 1"):
        fit_rows(np.arange(5), fraction=1.0)
    with pytest.raises(UserError, match="nothing to fit on"):
        fit_rows(np.zeros(1, int), fraction=0.5)


def right_and_confidence(n=4000, seed=1):
    rng = np.random.default_rng(seed)
    confidence = rng.beta(4, 1.5, n)
    return confidence, rng.random(n) < confidence**2


def test_isotonic_equals_scikit_learn():
    confidence, right = right_and_confidence()
    confidence = np.round(confidence, 2)  # ties
    fit = calibrators.fit_isotonic(confidence, right)
    peer = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(confidence, right)
    new = np.linspace(0, 1, 500)
    np.testing.assert_allclose(fit.apply(new), peer.predict(new), atol=1e-12)


def test_histogram_binning_is_the_share_by_bin():
    confidence, right = right_and_confidence()
    fit = calibrators.fit_histogram(confidence, right, n_bins=10)
    for low in np.arange(10) / 10:
        rows = (confidence > low) & (confidence <= low + 0.1)
        want = right[rows].mean() if rows.any() else low + 0.05
        assert fit.apply([low + 0.05])[0] == pytest.approx(want)
    assert fit.apply([0.0, 1.0]).shape == (2,)


def test_beta_equals_logistic_regression_on_its_two_features():
    confidence, right = right_and_confidence(20_000)
    fit = calibrators.fit_beta(confidence, right)
    design = np.stack([np.log(confidence), -np.log1p(-confidence)], axis=1)
    peer = LogisticRegression(C=1e8, tol=1e-10, max_iter=2000).fit(design, right)
    new = np.linspace(0.05, 0.95, 50)
    want = peer.predict_proba(np.stack([np.log(new), -np.log1p(-new)], axis=1))[:, 1]
    np.testing.assert_allclose(fit.apply(new), want, atol=1e-4)
    assert ((fit.apply([0.0, 1.0]) >= 0) & (fit.apply([0.0, 1.0]) <= 1)).all()


def test_confidence_maps_refuse_what_they_cannot_fit():
    with pytest.raises(UserError, match="row 1"):
        calibrators.fit_isotonic([0.5, 1.5], [True, False])
    with pytest.raises(UserError, match="right and wrong"):
        calibrators.fit_beta([0.5, 0.6], [True, True])
    with pytest.raises(UserError, match="did you mean isotonic"):
        calibrators.fit_confidence_map("isotnic", [0.5], [True])
