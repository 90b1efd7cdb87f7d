"""Edges of calibrators, conformal sets and intervals: bins, sums, bounds and samples that leave nothing to vary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.stats import binomtest

from analyze import detectors
from analyze.calibrators import fit_beta, fit_histogram, fit_temperature
from analyze.metrics import fit_conformal, negative_log_likelihood, reliability_diagram, top_k_accuracy
from analyze.suites.accuracy import mean_of_shares
from closerlook_common.errors import UserError


@pytest.mark.parametrize("n_bins", [3, 6, 7, 10, 15, 49, 100])
def test_histogram_binning_cuts_where_the_calibration_error_does(n_bins: int) -> None:
    edges = np.arange(n_bins + 1) / n_bins
    right = np.arange(n_bins + 1) % 2 == 0
    drawn = reliability_diagram(edges, right, n_bins=n_bins)
    fitted = fit_histogram(edges, right, n_bins=n_bins)
    np.testing.assert_array_equal(fitted.edges, drawn.edges)
    np.testing.assert_array_equal(fitted.values, drawn.accuracy)
    np.testing.assert_array_equal(fitted.apply(edges[1:]), drawn.accuracy)


def test_beta_calibration_finds_the_best_fit() -> None:
    rng = np.random.default_rng(45)
    c = rng.random(50)
    found = fit_beta(c, rng.random(50) < c**2)
    assert (found.a, found.b, found.intercept) == pytest.approx((1.168, 0.847, -0.733), abs=1e-3)


@given(seed=st.integers(0, 10_000), n=st.integers(8, 200), shape=st.sampled_from([(1, 1), (8, 1), (0.3, 0.3)]))
@settings(max_examples=40)
def test_no_other_beta_calibration_is_better(seed: int, n: int, shape: tuple[float, float]) -> None:
    rng = np.random.default_rng(seed)
    c = rng.beta(*shape, n)
    right = rng.random(n) < [c**2, 1 - c, c * 0 + 0.5][seed % 3]
    if right.all() or not right.any():
        return
    low = np.clip(c, 2.0**-25, 1 - 2.0**-25)
    design = np.stack([np.log(low), -np.log1p(-low), np.ones(n)], axis=1)

    def loss(x: np.ndarray) -> float:
        z = design @ x
        return float(np.mean(np.logaddexp(0, z) - right * z))

    bounds = [(0, None), (0, None), (None, None)]
    best = minimize(loss, [0.5, 0.5, 0.0], method="L-BFGS-B", bounds=bounds)
    try:
        found = fit_beta(c, right)
    except UserError:
        assert best.fun < 1e-3  # right and wrong rows part: the loss only falls
        return
    assert found.a >= 0
    assert found.b >= 0
    assert loss(np.array([found.a, found.b, found.intercept])) <= best.fun + 1e-9


@pytest.mark.parametrize("method", ["aps", "raps"])
def test_conformal_sets_at_quantile_one_hold_every_class(method: str) -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(40), 300).astype(np.float32)
    p /= p.sum(axis=1, keepdims=True)
    assert len(set(p.astype(float).sum(axis=1))) > 1  # not exactly 1
    fitted = fit_conformal(p[:100], p[:100].argmin(axis=1), method=method, alpha=0.5, penalty=0.0)
    assert fitted.quantile == 1
    assert fitted.sets(p).all()
    assert fitted.coverage(p, p.argmin(axis=1)) == 1


def test_a_class_of_probability_zero() -> None:
    logits = np.array([[0.0, -np.inf, 0.0], [1.0, 0.0, -np.inf]])
    assert negative_log_likelihood(logits, [0, 0]) == pytest.approx((np.log(2) + np.log1p(np.exp(-1))) / 2)
    assert negative_log_likelihood(logits, [1, 0]) == np.inf
    assert top_k_accuracy(logits, [2, 1], k=2) == 1
    with pytest.raises(UserError, match="row 1 is -inf for every class"):
        negative_log_likelihood(np.array([[0.0, 1.0], [-np.inf, -np.inf]]), [0, 0])


def test_the_interval_of_a_mean_over_classes_of_one_image_has_a_width() -> None:
    low, high = mean_of_shares(np.array([1] * 18 + [0]), np.ones(19, int), 0.95)
    assert low < 18 / 19 - 0.05
    assert 18 / 19 < high <= 1
    # One class: the Wilson interval itself.
    wilson = binomtest(7, 20).proportion_ci(0.95, "wilson")
    assert mean_of_shares(np.array([7]), np.array([20]), 0.95) == pytest.approx((wilson.low, wilson.high), abs=1e-6)
    # Many images a class: the usual variance.
    hits, counts = np.array([4000, 7000, 9000]), np.full(3, 10_000)
    reach = 1.959964 * np.sqrt((hits / counts * (1 - hits / counts) / counts).sum()) / 3
    low, high = mean_of_shares(hits, counts, 0.95)
    assert (low, high) == pytest.approx((2 / 3 - reach, 2 / 3 + reach), abs=1e-4)


def test_the_interval_of_a_temperature_stays_positive(toy_store, tmp_path) -> None:
    from analyze.evaluate import evaluate
    from cache_schema import open_cache

    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 16)
    logits = 40 * np.eye(3)[labels] + rng.normal(0, 30, (16, 3))
    toy_store(cache=tmp_path / "c", n=16, n_classes=3, labels=labels, logits=logits)
    rows = evaluate(open_cache(tmp_path / "c"), only=["temperature"]).table
    (row,) = rows.filter(rows["value"].is_not_null()).rows(named=True)
    assert 0 < row["low"] < row["value"] < row["high"]


def test_labels_are_not_cast() -> None:
    for labels in ([0.7, 1.0, 0.0], [2**32 + 1, 1, 0]):
        with pytest.raises(UserError, match="labels"):
            fit_temperature(np.eye(3), labels)


def test_detectors_fitted_on_no_rows_say_so() -> None:
    head = (np.eye(3), None)
    for features in (np.zeros((0, 3)), np.full((4, 3), np.nan)):
        with pytest.raises(UserError, match="validation holds no row"):
            detectors.get("react").fit(validation=(features, np.zeros((len(features), 3))), head=head)
    with pytest.raises(UserError, match="equal length"):
        detectors.get("react").fit(validation=(np.zeros((4, 3)), np.zeros((3, 3))), head=head)


def test_bfloat16_tensors() -> None:
    torch = pytest.importorskip("torch")
    logits = torch.tensor([[1.0, 0.5], [0.25, 2.0]], dtype=torch.bfloat16, requires_grad=True)
    assert negative_log_likelihood(logits, torch.tensor([0, 1])) == negative_log_likelihood(
        [[1.0, 0.5], [0.25, 2.0]], [0, 1]
    )
    assert detectors.get("mls").fit().score(logits=logits).tolist() == [1.0, 2.0]


def test_a_softmax_of_float32_may_exceed_one_by_rounding() -> None:
    assert reliability_diagram([1.0000001, 0.5], [1, 0]).counts.sum() == 2
    with pytest.raises(UserError, match="outside"):
        reliability_diagram([1.001, 0.5], [1, 0])
