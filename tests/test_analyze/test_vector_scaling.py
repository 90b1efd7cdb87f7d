"""Vector scaling against scipy's search without derivatives of ours, on arrays and on stores; loud failures."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn import metrics as sk

import cache_schema
from analyze import metrics
from analyze.calibrators import fit_rows, fit_vector_scaling, fit_vector_scaling_store
from analyze.evaluate import evaluate
from analyze.evaluate.summarize_cache import summarize_cache
from analyze.settings import study_defaults
from closerlook_common.errors import UserError


def distorted(n, n_classes, seed=0, offset=0.0):
    """Logits that a scale and a bias per class would put right."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 2, (n, n_classes))
    p = softmax(true, axis=1)
    labels = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, n_classes - 1)
    labels[:n_classes] = np.arange(n_classes)
    scale, bias = rng.uniform(0.5, 2.0, n_classes), rng.normal(0, 1, n_classes)
    return (true - bias) / scale + offset, labels


def mean_nll(logits, labels, x):
    scale, bias = np.split(x, 2)
    return -log_softmax(logits * scale + bias, axis=1)[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize("offset", [0.0, 20.0])
def test_equals_a_search_by_differences(dtype, offset):
    logits, labels = distorted(1500, 4, offset=offset)
    logits = logits.astype(dtype)
    fit = fit_vector_scaling(logits, labels, tolerance=1e-6)
    wide = logits.astype(np.float64)
    start = np.concatenate([fit.scale + 0.1, fit.bias - 0.1])
    found = minimize(lambda x: mean_nll(wide, labels, x), start, method="BFGS", options={"gtol": 1e-6})
    assert fit.nll_before == pytest.approx(mean_nll(wide, labels, np.repeat([1.0, 0.0], 4)), rel=1e-12)
    assert fit.nll_after == pytest.approx(found.fun, rel=1e-8)
    scale, bias = np.split(found.x, 2)
    np.testing.assert_allclose(fit.scale, scale, atol=2e-3)
    np.testing.assert_allclose(fit.bias, bias - bias.mean(), atol=5e-2 if offset else 2e-3)
    assert (fit.n, fit.apply(logits).shape) == (1500, logits.shape)
    assert mean_nll(wide, labels, np.concatenate([fit.scale, fit.bias])) == pytest.approx(fit.nll_after, rel=1e-12)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_no_step_from_the_fit_lowers_the_loss_and_mean_probabilities_are_frequencies(seed, n_classes):
    logits, labels = distorted(400, n_classes, seed)
    fit = fit_vector_scaling(logits, labels, tolerance=1e-6)
    at = np.concatenate([fit.scale, fit.bias])
    rng = np.random.default_rng(seed)
    for size in (1e-1, 1e-2):
        for _ in range(5):
            assert mean_nll(logits, labels, at + rng.normal(0, size, at.size)) >= fit.nll_after - 1e-9
    # The derivative by the bias is zero: every class is predicted as often as it occurs.
    shares = np.bincount(labels, minlength=n_classes) / 400
    np.testing.assert_allclose(softmax(fit.apply(logits), axis=1).mean(axis=0), shares, atol=1e-6)
    assert fit.nll_after <= fit.nll_before


def test_threads_and_row_order():
    logits, labels = distorted(3000, 12)
    one, four = (fit_vector_scaling(logits, labels, threads=t) for t in (1, 4))
    np.testing.assert_array_equal(one.scale, four.scale)
    assert one.digest == four.digest
    order = np.random.default_rng(1).permutation(3000)
    other = fit_vector_scaling(logits[order], labels[order], tolerance=1e-6)
    assert other.nll_after == pytest.approx(one.nll_after, rel=1e-7)


@pytest.mark.parametrize(
    ("logits", "labels", "what"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "no rows"),
        (np.zeros((3, 3)), np.zeros(4, int), "must describe the same images"),
        (np.ones((3, 3)), np.array([0, 1, 3]), "row 2 is 3, no class"),
        (np.ones((3, 3)), np.array([0, 1, -1]), "row 2 is -1, no class"),
        (np.array([[0.0, 1], [1, np.nan]]), np.array([0, 1]), "row 1: a logit is NaN or infinite"),
        (np.array([[0.0, 1], [-np.inf, 1]]), np.array([0, 1]), "row 1: a logit is NaN or infinite"),
        (np.eye(4)[[0, 1, 2, 0]], np.array([0, 1, 2, 0]), "class 3 has no row"),
        (np.eye(4)[[0, 1, 1, 0]], np.array([0, 1, 1, 0]), "class 2 and 1 more has no row"),
        (np.ones((4, 2)), np.array([0, 1, 1, 0]), "class 0 are all equal"),
        (10 * np.eye(3)[[0, 1, 2, 0, 1]], np.array([0, 1, 2, 0, 1]), "best scale is infinite"),
    ],
)
def test_what_cannot_be_fitted_fails_loudly(logits, labels, what):
    with pytest.raises(UserError, match=what):
        fit_vector_scaling(logits, labels)


def test_too_few_passes_fail_loudly():
    with pytest.raises(UserError, match="did not converge in"):
        fit_vector_scaling(*distorted(300, 5), max_passes=3)


MASK = (0, 2, 3)


@pytest.fixture
def cache(toy_store, tmp_path):
    root = tmp_path / "vector"
    logits, labels = distorted(800, 5, offset=7.0)
    toy_store(cache=root, logits=logits, labels=labels, n=800, n_classes=5)
    shifted, own = distorted(300, 5, seed=3, offset=7.0)
    toy_store(cache=root, dataset="v2", role="shift", logits=shifted, labels=own, n=300, n_classes=5)
    few = np.isin(own, MASK)
    card = {"class_mask": MASK}
    toy_store(cache=root, dataset="few", role="shift", logits=shifted[few], labels=own[few], n=few.sum(),
              n_classes=5, card=card)  # fmt: skip
    wide, far = distorted(100, 7, seed=5)
    toy_store(cache=root, dataset="wide", role="shift", logits=wide, labels=far, n=100, n_classes=7)
    return cache_schema.open_cache(root)


def calibrated(table, dataset, metric):
    found = table.filter(pl.col("dataset") == dataset, pl.col("metric") == metric, pl.col("calibrator") == "vector")
    assert len(found) == 1
    return found.row(0, named=True)


def test_rows_before_and_after_on_the_id_set_and_unchanged_on_shifts(cache):
    options = study_defaults().updated("calibrators", methods=["temperature", "vector"])
    table = evaluate(cache, settings=options).table
    store = cache.store("m", "val")
    rows = fit_rows(store.labels)
    fit = fit_vector_scaling_store(store, rows)
    same = fit_vector_scaling(store.logits()[rows], store.labels[rows])
    np.testing.assert_allclose(fit.scale, same.scale, rtol=1e-3)
    printed = calibrated(table, "val", "vector_scale")
    assert printed["value"] == pytest.approx(fit.scale.mean())
    assert fit.digest in printed["options"]
    assert (printed["n"], printed["direction"]) == (rows.sum(), "none")
    for dataset, kept in (("val", ~rows), ("v2", np.ones(300, bool)), ("few", None)):
        store = cache.store("m", dataset)
        z, y = fit.apply(store.logits()), store.labels
        z, y = (z, y) if kept is None else (z[kept], y[kept])
        if dataset == "few":
            z, y = z[:, list(MASK)], np.searchsorted(MASK, y)
        p = softmax(z, axis=1)
        right = p.argmax(axis=1) == y
        assert calibrated(table, dataset, "top1")["value"] == right.mean()
        assert calibrated(table, dataset, "nll")["value"] == pytest.approx(sk.log_loss(y, p), rel=1e-5)
        ece = metrics.expected_calibration_error(p.max(axis=1), right)
        assert calibrated(table, dataset, "ece")["value"] == pytest.approx(ece, abs=1e-5)
        classwise = metrics.classwise_calibration_error(p, y)
        assert calibrated(table, dataset, "classwise_ece")["value"] == pytest.approx(classwise, abs=1e-5)
        brier = ((p - np.eye(p.shape[1])[y]) ** 2).sum(axis=1).mean()
        assert calibrated(table, dataset, "brier")["value"] == pytest.approx(brier, rel=1e-5)
    held_out = table.filter(pl.col("dataset") == "val", pl.col("subset") == "held-out", pl.col("metric") == "nll")
    assert calibrated(table, "val", "nll")["value"] < held_out["value"][0]
    assert "classes are others" in calibrated(table, "wide", "ece")["reason"]


def test_summaries_keep_the_fit_and_say_when_they_have_none(cache, tmp_path):
    options = study_defaults().updated("calibrators", methods=["vector"])
    heavy = evaluate(cache, settings=options, only=["calibration"]).table
    assert summarize_cache(cache, tmp_path / "s", settings=options).failures == {}
    light = evaluate(cache_schema.open_cache(tmp_path / "s"), settings=options, only=["calibration"]).table
    keys = ["dataset", "metric", "calibrator", "subset", "options"]
    columns = [*keys, "value", "n"]
    assert light.sort(keys).select(columns).equals(heavy.sort(keys).select(columns))
    facts = cache_schema.open_cache(tmp_path / "s").stores("summary")
    kept = {s.dataset.id: s.record["facts"]["vector"] for s in facts if not s.details["variant"]}
    assert len(kept["val"]["parameters"]["scale"]) == 5
    assert "parameters" not in kept["v2"]
    assert summarize_cache(cache, tmp_path / "t", settings=study_defaults()).failures == {}
    bare = evaluate(cache_schema.open_cache(tmp_path / "t"), settings=options, only=["calibration"]).table
    assert "big stores" in calibrated(bare, "val", "ece")["reason"]


def test_a_class_map_and_a_set_without_logits_have_a_reason(toy_store):
    mapped = toy_store(card={"class_map": ((0, 1), (4, 6), (9,))}, labels=np.arange(200) % 3)
    with pytest.raises(UserError, match="groups of them"):
        fit_vector_scaling_store(mapped, np.ones(200, bool))
