"""Platt, Venn-Abers, top-label, matrix and Dirichlet calibration against libraries and by properties."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax, logit, logsumexp, softmax
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

import cache_schema
from analyze import metrics
from analyze.calibrators import (
    fit_confidence_map,
    fit_dirichlet,
    fit_matrix_scaling,
    fit_platt,
    fit_rows,
    fit_temperature,
    fit_top_label,
    fit_vector_scaling,
    fit_venn_abers,
)
from analyze.evaluate import evaluate
from analyze.settings import study_defaults
from closerlook_common.errors import UserError

seeds = st.integers(0, 2**32 - 1)


def columns(seed: int, n: int = 300, digits: int = 9) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    c = np.round(rng.beta(5, 2, n), digits)
    return c, rng.random(n) < c**2


# Platt


@given(seed=seeds)
def test_platt_as_scikit_learn_has_it(seed: int) -> None:
    c, right = columns(seed)
    odds = logit(np.clip(c, 1e-7, 1 - 1e-7))[:, None]
    plain = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(odds, right)
    ours = fit_platt(c, right, smoothed=False)
    assert ours.slope == pytest.approx(plain.coef_[0, 0], rel=1e-4)
    assert ours.intercept == pytest.approx(plain.intercept_[0], rel=1e-4, abs=1e-4)
    # Smoothed targets: each row counts as right with one weight and as wrong with the rest.
    hits = right.sum()
    t = np.where(right, (hits + 1) / (hits + 2), 1 / (right.size - hits + 2))
    doubled = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(
        np.r_[odds, odds], np.r_[np.ones(c.size), np.zeros(c.size)], sample_weight=np.r_[t, 1 - t]
    )
    smoothed = fit_platt(c, right)
    assert smoothed.slope == pytest.approx(doubled.coef_[0, 0], rel=1e-4)
    np.testing.assert_allclose(smoothed.apply(c), doubled.predict_proba(odds)[:, 1], atol=1e-5)
    assert fit_confidence_map("platt", c, right).apply(c).tolist() == smoothed.apply(c).tolist()


@given(seed=seeds)
def test_platt_undoes_a_logistic_change(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.beta(3, 2, 20_000)
    printed = 1 / (1 + np.exp(-(2 * logit(truth) + 1)))
    fitted = fit_platt(printed, rng.random(truth.size) < truth)
    assert fitted.slope == pytest.approx(0.5, abs=0.05)
    assert fitted.intercept == pytest.approx(-0.5, abs=0.1)


def test_platt_where_there_is_no_best_fit() -> None:
    assert np.isfinite(fit_platt([0.9, 0.8, 0.2], [1, 1, 0]).slope)
    with pytest.raises(UserError, match="no finite best fit"):
        fit_platt([0.9, 0.8, 0.2], [1, 1, 0], smoothed=False)
    with pytest.raises(UserError, match="needs confidences that differ"):
        fit_platt([0.5, 0.5], [1, 0])
    assert 0 < fit_platt([1.0, 0.0, 0.5], [1, 1, 1]).apply([1.0])[0] < 1


# Venn-Abers


@given(seed=seeds, n=st.integers(1, 40), digits=st.integers(1, 3))
def test_venn_abers_by_two_isotonic_fits_a_confidence(seed: int, n: int, digits: int) -> None:
    c, right = columns(seed, n, digits)
    fitted = fit_venn_abers(c, right)
    asked = np.unique(np.r_[c, columns(seed + 1, 10, digits)[0], 0.0, 1.0])
    low, high = fitted.bounds(asked)
    for place, s in enumerate(asked):
        both = []
        for label in (0.0, 1.0):
            fit = IsotonicRegression().fit(np.r_[c, s], np.r_[right.astype(float), label])
            both.append(float(fit.predict([s])[0]))
        assert [low[place], high[place]] == pytest.approx(both, abs=1e-9)
    assert (low <= high + 1e-12).all()
    merged = fitted.apply(asked)
    np.testing.assert_allclose(merged, high / (1 - low + high))
    assert ((low - 1e-12 <= merged) & (merged <= high + 1e-12)).all()
    assert (np.diff(merged) >= -1e-12).all()


def test_venn_abers_calibrates() -> None:
    c, right = columns(0, 4000)
    test, truth = columns(1, 40_000)
    fitted = fit_venn_abers(c, right)
    before = metrics.expected_calibration_error(test, truth)
    after = metrics.expected_calibration_error(fitted.apply(test), truth)
    assert after < 0.03 < before
    low, high = fitted.bounds(test)
    # One of the two is calibrated: the accuracy lies between their means, up to the test's own error.
    assert low.mean() - 0.01 <= truth.mean() <= high.mean() + 0.01


# Top label


def test_the_top_label_histogram_by_class() -> None:
    c, right = columns(3, 2000)
    predicted = np.random.default_rng(4).choice(5, 2000, p=[0.4, 0.3, 0.2, 0.09, 0.01])
    fitted = fit_top_label(c, right, predicted, rows_per_bin=60)
    calibrated = fitted.apply(c, predicted)
    for label in range(4):
        own = predicted == label
        groups = np.array_split(np.sort(c[own]), own.sum() // 60)
        for group in groups:
            inside = own & (c >= group[0]) & (c <= group[-1])
            np.testing.assert_allclose(calibrated[inside], right[inside].mean())
    rare = predicted == 4
    assert 4 not in fitted.by_class
    np.testing.assert_allclose(calibrated[rare], fitted.others.apply(c[rare]))
    unseen = fitted.apply([0.5], [77])
    np.testing.assert_allclose(unseen, fitted.others.apply([0.5]))


@given(seed=seeds)
def test_after_the_top_label_histogram_no_class_is_off_on_its_own_rows(seed: int) -> None:
    c, right = columns(seed, 400)
    predicted = np.random.default_rng(seed).integers(0, 3, 400)
    calibrated = fit_top_label(c, right, predicted).apply(c, predicted)
    assert ((calibrated >= 0) & (calibrated <= 1)).all()
    error = metrics.top_label_calibration_error(calibrated, right, predicted, n_bins=400)
    assert error == pytest.approx(0, abs=1e-12)


# Matrix scaling and Dirichlet calibration


def planted(seed: int, n: int = 600, classes: int = 3) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, classes)) * 2
    moved = z @ (np.eye(classes) * 0.5 + rng.normal(0, 0.1, (classes, classes))) + rng.normal(0, 0.3, classes)
    labels = (moved + rng.gumbel(size=moved.shape)).argmax(axis=1)
    return z, labels


def penalised(x: Any, inputs: Any, labels: Any, off: float, bias: float) -> float:
    classes = inputs.shape[1]
    weight, b = x[: classes**2].reshape(classes, classes), x[classes**2 :]
    scores = inputs @ weight.T + b
    loss = (logsumexp(scores, axis=1) - scores[np.arange(len(labels)), labels]).mean()
    away = weight[~np.eye(classes, dtype=bool)]
    return float(loss + off * np.mean(away**2) + bias * np.mean(b**2))


@pytest.mark.parametrize("fit", [fit_matrix_scaling, fit_dirichlet])
@pytest.mark.parametrize("penalty", [1e-4, 0.3])
def test_the_linear_map_minimises_its_loss(fit: Any, penalty: float) -> None:
    z, labels = planted(5)
    found = fit(z, labels, off_diagonal=penalty, bias=2 * penalty)
    inputs = log_softmax(z, axis=1) if fit is fit_dirichlet else z
    best = minimize(
        penalised, np.r_[np.eye(3).ravel(), np.zeros(3)], (inputs, labels, penalty, 2 * penalty), method="BFGS"
    )
    ours = penalised(np.r_[found.weight.ravel(), found.bias], inputs, labels, penalty, 2 * penalty)
    assert ours == pytest.approx(best.fun, abs=1e-6)
    np.testing.assert_allclose(found.weight.ravel(), best.x[:9], atol=5e-3)
    after = metrics.negative_log_likelihood(found.apply(z), labels)
    assert found.nll_after == pytest.approx(after, rel=1e-9)
    assert found.nll_before == pytest.approx(metrics.negative_log_likelihood(z, labels), rel=1e-9)


@given(seed=seeds)
def test_a_small_penalty_fits_at_least_as_well_as_simpler_maps(seed: int) -> None:
    z, labels = planted(seed, 200)
    found = fit_matrix_scaling(z, labels, off_diagonal=1e-7, bias=1e-7)
    assert found.nll_after <= fit_temperature(z, labels).nll_after + 1e-6
    assert found.nll_after <= fit_vector_scaling(z, labels).nll_after + 1e-6
    # Nothing but the scale of each class is left where the rest is forbidden.
    tight = fit_matrix_scaling(z, labels, off_diagonal=1e6, bias=1e6)
    assert np.abs(tight.weight[~np.eye(3, dtype=bool)]).max() < 1e-3
    assert np.abs(tight.bias).max() < 1e-3
    assert tight.nll_after >= found.nll_after - 1e-9


@given(seed=seeds, shift=st.floats(-50, 50))
def test_dirichlet_does_not_see_a_constant_a_row(seed: int, shift: float) -> None:
    z, labels = planted(seed, 120)
    moved = z + shift * np.random.default_rng(seed).normal(size=(len(z), 1))
    a, b = fit_dirichlet(z, labels), fit_dirichlet(moved, labels)
    np.testing.assert_allclose(softmax(a.apply(z), axis=1), softmax(b.apply(moved), axis=1), atol=1e-4)


@pytest.mark.parametrize("fit", [fit_matrix_scaling, fit_dirichlet])
def test_bad_fits_are_refused(fit: Any) -> None:
    z, labels = planted(0)
    with pytest.raises(UserError, match="every row can be made right"):
        fit(np.eye(3)[labels] * 3 + 0.1, labels)
    with pytest.raises(UserError, match="off_diagonal must be a number above 0; got 0"):
        fit(z, labels, off_diagonal=0)
    with pytest.raises(UserError, match=r"did not converge in \d+ passes"):
        fit(z, labels, max_passes=2)
    with pytest.raises(UserError, match="row 4: a logit is NaN or infinite"):
        fit(np.where(np.arange(len(z))[:, None] == 4, -np.inf, z), labels)
    with pytest.raises(UserError, match=r"logits \(n, 3\) expected"):
        fit(z, labels).apply(z[:, :2])


def test_scikit_learns_multinomial_model_is_the_dirichlet_map_without_a_penalty() -> None:
    z, labels = planted(7, 3000)
    plain = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5000).fit(log_softmax(z, axis=1), labels)
    ours = fit_dirichlet(z, labels, off_diagonal=1e-9, bias=1e-9)
    np.testing.assert_allclose(softmax(ours.apply(z), axis=1), plain.predict_proba(log_softmax(z, axis=1)), atol=2e-3)


def test_platt_and_venn_abers_in_the_result_table(toy_store: Any, tmp_path: Any) -> None:
    root = tmp_path / "cache"
    store = toy_store(cache=root, n=400, skill=1.0)
    toy_store(cache=root, n=60, dataset="v2", role="shift")
    settings = study_defaults().updated("calibrators", methods=["platt", "venn-abers", "top-label"])
    table = evaluate(cache_schema.open_cache(root), settings=settings, only=["ece"]).table
    p = softmax(store.logits().astype(np.float64), axis=1)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == store.labels
    fitted = fit_rows(store.labels)
    for method, fit in (("platt", fit_platt), ("venn-abers", fit_venn_abers)):
        own = table.filter(pl.col("calibrator") == method)
        assert set(own["dataset"]) == {"val", "v2"}
        calibrated = fit(confidence[fitted], right[fitted]).apply(confidence[~fitted])
        wanted = metrics.expected_calibration_error(calibrated, right[~fitted])
        assert own.filter(pl.col("dataset") == "val")["value"][0] == pytest.approx(wanted, abs=1e-5)
    predicted = p.argmax(axis=1)
    mapping = fit_top_label(confidence[fitted], right[fitted], predicted[fitted])
    calibrated = mapping.apply(confidence[~fitted], predicted[~fitted])
    own = table.filter(pl.col("calibrator") == "top-label")
    assert set(own["dataset"]) == {"val", "v2"}
    wanted = metrics.expected_calibration_error(calibrated, right[~fitted])
    assert own.filter(pl.col("dataset") == "val")["value"][0] == pytest.approx(wanted, abs=1e-5)
