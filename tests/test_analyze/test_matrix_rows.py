"""Matrix scaling and Dirichlet calibration as rows of the result table: against scipy and softmax by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import sklearn.metrics as sk
from hypothesis import given
from hypothesis import settings as run_with
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

import cache_schema
from analyze import metrics
from analyze.calibrators.matrix_scaling import LEAST_ROWS_A_CLASS, MatrixFit, fit_dirichlet, fit_matrix_scaling
from analyze.calibrators.split import fit_rows
from analyze.evaluate import evaluate
from analyze.evaluate.summarize_cache import summarize_cache
from analyze.settings import study_defaults

C, MASK = 4, (0, 2, 3)
PENALTIES = {"matrix_off_diagonal": 0.3, "matrix_bias": 0.2}
METHODS = ["matrix", "dirichlet"]


def distorted(n: int, seed: int = 0, n_classes: int = C) -> tuple[Any, Any]:
    """Logits whose classes leak into each other, with a centre of their own."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    z = rng.normal(size=(n, n_classes))
    z[np.arange(n), labels] += 1.5
    z[:, 0] += 0.8 * z[:, 1] + 0.7
    return (2 * z + 3).astype(np.float32), labels


@pytest.fixture
def cache(toy_store: Any, tmp_path: Any) -> Any:
    root = tmp_path / "matrix"
    z, y = distorted(600)
    toy_store(cache=root, logits=z, labels=y, n=600, n_classes=C)
    shifted, own = distorted(200, 1)
    toy_store(cache=root, dataset="v2", role="shift", logits=shifted, labels=own, n=200, n_classes=C)
    few = np.isin(own, MASK)
    toy_store(cache=root, dataset="few", role="shift", logits=shifted[few], labels=own[few], n=int(few.sum()),
              n_classes=C, card={"class_mask": MASK})  # fmt: skip
    wide, far = distorted(60, 5, 7)
    toy_store(cache=root, dataset="wide", role="shift", logits=wide, labels=far, n=60, n_classes=7)
    return cache_schema.open_cache(root)


def settings(**more: Any) -> Any:
    return study_defaults().updated("calibrators", methods=METHODS, **PENALTIES, **more)


def number(table: Any, dataset: str, metric: str, method: str) -> dict[str, Any]:
    found = table.filter(pl.col("dataset") == dataset, pl.col("metric") == metric, pl.col("calibrator") == method)
    assert len(found) == 1
    return found.row(0, named=True)


def by_scipy(x: Any, y: Any) -> tuple[Any, Any]:
    """Minimise the written-out loss with numerical derivatives."""
    off = 1 - np.eye(C)

    def loss(v: Any) -> float:
        w, b = v[: C * C].reshape(C, C), v[C * C :]
        nll = -log_softmax(x @ w.T + b, axis=1)[np.arange(len(y)), y].mean()
        ridge = PENALTIES["matrix_off_diagonal"] * ((w * off) ** 2).sum() / (C * (C - 1))
        return float(nll + ridge + PENALTIES["matrix_bias"] * (b**2).mean())

    found = minimize(loss, np.r_[np.eye(C).ravel(), np.zeros(C)], method="BFGS", options={"gtol": 1e-7})
    return found.x[: C * C].reshape(C, C), found.x[C * C :]


@pytest.mark.parametrize("method", METHODS)
def test_rows_are_those_of_a_search_by_scipy(cache: Any, method: str) -> None:
    table = evaluate(cache, settings=settings(), only=["calibration"]).table
    store = cache.store("m", "val")
    rows = fit_rows(store.labels)
    inputs = (lambda z: log_softmax(z, axis=1)) if method == "dirichlet" else (lambda z: z)
    weight, bias = by_scipy(inputs(store.logits().astype(np.float64)[rows]), store.labels[rows])
    for dataset, kept in (("val", ~rows), ("v2", None), ("few", None)):
        store = cache.store("m", dataset)
        z, y = inputs(store.logits().astype(np.float64)) @ weight.T + bias, store.labels
        z, y = (z, y) if kept is None else (z[kept], y[kept])
        if dataset == "few":
            z, y = z[:, list(MASK)], np.searchsorted(MASK, y)
        p = softmax(z, axis=1)
        right = p.argmax(axis=1) == y
        assert number(table, dataset, "top1", method)["value"] == pytest.approx(right.mean(), abs=0.011)
        assert number(table, dataset, "nll", method)["value"] == pytest.approx(sk.log_loss(y, p), rel=1e-3)
        brier = ((p - np.eye(p.shape[1])[y]) ** 2).sum(axis=1).mean()
        assert number(table, dataset, "brier", method)["value"] == pytest.approx(brier, rel=1e-3)
        ece = metrics.expected_calibration_error(p.max(axis=1), right)
        assert number(table, dataset, "ece", method)["value"] == pytest.approx(ece, abs=0.02)
        assert number(table, dataset, "classwise_ece", method)["value"] is not None
    plain = table.filter(pl.col("dataset") == "val", pl.col("subset") == "held-out", pl.col("metric") == "nll")
    mine = number(table, "val", "nll", method)
    assert mine["value"] < plain["value"][0]
    assert '"matrix_off_diagonal":0.3' in mine["options"]
    assert '"matrix_bias":0.2' in mine["options"]
    for metric in ("top1", "ece", "nll"):
        assert "classes are others" in number(table, "wide", metric, method)["reason"]


def test_summaries_hold_the_columns_and_refuse_other_penalties(cache: Any, tmp_path: Any) -> None:
    heavy = evaluate(cache, settings=settings(), only=["calibration"]).table
    assert summarize_cache(cache, tmp_path / "s", settings=settings()).failures == {}
    light = cache_schema.open_cache(tmp_path / "s")
    keys = ["dataset", "metric", "calibrator", "subset", "options"]
    columns = [*keys, "value", "n"]
    assert (evaluate(light, settings=settings(), only=["calibration"]).table.sort(keys).select(columns)).equals(
        heavy.sort(keys).select(columns)
    )
    others = settings().updated("calibrators", matrix_bias=0.5)
    table = evaluate(light, settings=others, only=["calibration"]).table
    assert "other penalties" in number(table, "val", "ece", "dirichlet")["reason"]


def test_too_few_rows_are_a_reason(toy_store: Any, tmp_path: Any) -> None:
    root = tmp_path / "small"
    z, y = distorted(2 * LEAST_ROWS_A_CLASS * C - 10)
    toy_store(cache=root, logits=z, labels=y, n=len(y), n_classes=C)
    table = evaluate(cache_schema.open_cache(root), settings=settings(), only=["calibration"]).table
    for method in METHODS:
        assert "rows are too few for the 4 x 4 weights" in number(table, "val", "nll", method)["reason"]


@given(seed=st.integers(0, 2**32 - 1), shift=st.floats(-50, 50))
def test_the_map_keeps_classes_that_cannot_win_and_dirichlet_ignores_a_constant(seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(C, C)), rng.normal(size=C)
    z = rng.normal(size=(9, C))
    linear = MatrixFit(weight, bias, False, 0.0, 0.0, 9, 1)
    logs = MatrixFit(weight, bias, True, 0.0, 0.0, 9, 1)
    np.testing.assert_allclose(linear.move(z), z @ weight.T + bias, atol=1e-12)
    np.testing.assert_allclose(logs.move(z + shift), logs.move(z), atol=1e-9)
    assert linear.digest == MatrixFit(weight.copy(), bias.copy(), False, 1.0, 1.0, 3, 2).digest
    shut = z.copy()
    shut[:, 2] = -np.inf
    for fit in (linear, logs):
        moved = fit.move(shut)
        assert (moved[:, 2] == -np.inf).all()
        assert np.isfinite(np.delete(moved, 2, axis=1)).all()


@run_with(max_examples=6)
@given(seed=st.integers(0, 2**32 - 1))
def test_order_of_rows_and_names_of_classes_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z, y = distorted(200, seed % 1000)
    rows, names = rng.permutation(200), rng.permutation(C)
    for fit in (fit_matrix_scaling, fit_dirichlet):
        first = softmax(fit(z, y).apply(z), axis=1)
        second = softmax(fit(z[rows][:, names], np.argsort(names)[y[rows]]).apply(z[:, names]), axis=1)
        np.testing.assert_allclose(second, first[:, names], atol=5e-3)
