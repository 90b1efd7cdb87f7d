"""Class-conditional and clustered conformal sets and SAPS as rows of the result table: against sets by definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

import cache_schema
from analyze import metrics
from analyze.calibrators.split import fit_rows
from analyze.evaluate import evaluate
from analyze.evaluate.summarize_cache import summarize_cache
from analyze.fits.base import LogitBlock
from analyze.fits.conformal import saps_statistics
from analyze.reading.views import ClassView
from analyze.settings import study_defaults

C, MASK = 5, (0, 1, 3, 4)
METHODS = ["lac", "aps", "raps", "saps"]
KINDS = ["all", "class", "clustered"]


@pytest.fixture
def cache(toy_store: Any, tmp_path: Any) -> Any:
    root = tmp_path / "sets"

    def write(n: int, seed: int, **more: Any) -> None:
        rng = np.random.default_rng(seed)
        labels = rng.integers(0, C, n)
        z = rng.normal(size=(n, C)) * (1 + 0.5 * labels[:, None])
        z[np.arange(n), labels] += 1.5
        kept = np.isin(labels, MASK) if "card" in more else np.ones(n, bool)
        # Two decimals: equal probabilities occur.
        toy_store(cache=root, logits=np.round(z, 2)[kept], labels=labels[kept], n=int(kept.sum()), n_classes=C, **more)

    write(900, 0)
    write(300, 1, dataset="v2", role="shift")
    write(200, 2, dataset="few", role="shift", card={"class_mask": MASK})
    toy_store(cache=root, dataset="wide", role="shift", n=50, n_classes=7)
    toy_store(cache=root, dataset="groups", role="shift", n=60, n_classes=C, labels=np.arange(60) % 2,
              card={"class_map": ((0, 1), (2, 3, 4)), "class_names": ("a", "b")})  # fmt: skip
    return cache_schema.open_cache(root)


def settings(**more: Any) -> Any:
    given = {"methods": METHODS, "quantiles": KINDS, "alpha": 0.2, "saps_weight": 0.1, "groups": True} | more
    return study_defaults().updated("conformal", **given)


def number(table: Any, dataset: str, metric: str, method: str, calibrator: str) -> dict[str, Any]:
    found = table.filter(
        pl.col("dataset") == dataset,
        pl.col("metric") == metric,
        pl.col("score") == method,
        pl.col("calibrator") == calibrator,
    )
    assert len(found) == 1
    return found.row(0, named=True)


def score(row: Any, c: int, method: str) -> float:
    """Return the score of a class by its definition (APS, RAPS and SAPS let equal probabilities in together)."""
    if method == "lac":
        return float(1 - row[c])
    above = row >= row[c]
    mass, rank = float(row[above].sum()), int(above.sum())
    mass = 1.0 if rank == row.size else mass
    if method == "saps":
        return float(row.max() + 0.1 * (rank - 1))
    return mass + (0.01 * max(0, rank - 5) if method == "raps" else 0.0)


def scores_of(p: Any, method: str) -> Any:
    return np.array([[score(row, c, method) for c in range(p.shape[1])] for row in p])


def kth(scores: Any, alpha: float = 0.2) -> float:
    k = int(np.ceil((len(scores) + 1) * (1 - alpha) - 1e-9))
    return float(np.sort(scores)[k - 1]) if k <= len(scores) else np.inf


@pytest.mark.parametrize("method", METHODS)
def test_rows_are_those_of_the_definition(cache: Any, method: Any) -> None:
    table = evaluate(cache, settings=settings(), only=["conformal"]).table
    store = cache.store("m", "val")
    rows = fit_rows(store.labels)
    p = softmax(store.logits().astype(np.float64), axis=1)
    scores = scores_of(p[rows], method)
    own = np.take_along_axis(scores, store.labels[rows, None].astype(int), axis=1)[:, 0]
    by_class = np.array([kth(own[store.labels[rows] == c]) for c in range(C)])
    groups = metrics.fit_clustered_conformal(
        p[rows],
        store.labels[rows],
        method=method,
        alpha=0.2,
        weight=0.1,
    )
    for name, quantiles in (
        ("conformal", np.full(C, kth(own))),
        ("conformal-class", by_class),
        ("conformal-clustered", groups.quantiles),
    ):
        for dataset, kept in (("val", ~rows), ("v2", None), ("few", None)):
            part = cache.store("m", dataset)
            z, y = part.logits().astype(np.float64), part.labels.astype(int)
            z, y = (z, y) if kept is None else (z[kept], y[kept])
            limits = quantiles
            if dataset == "few":
                z, y, limits = z[:, list(MASK)], np.searchsorted(MASK, y), quantiles[list(MASK)]
            sets = scores_of(softmax(z, axis=1), method) <= limits + 1e-12
            covered = sets[np.arange(len(y)), y]
            # A score that equals a quantile but for rounding: one image either way.
            close = 1.5 / len(y)
            assert number(table, dataset, "conformal_coverage", method, name)["value"] == pytest.approx(
                covered.mean(), abs=close
            )
            assert number(table, dataset, "conformal_size", method, name)["value"] == pytest.approx(
                sets.sum(axis=1).mean(), abs=2 * close
            )
        if name != "conformal":
            assert "classes are others" in number(table, "wide", "conformal_size", method, name)["reason"]
            assert "groups of them" in number(table, "groups", "conformal_size", method, name)["reason"]
    plain = number(table, "val", "conformal_class_gap", method, "conformal")["value"]
    assert number(table, "val", "conformal_class_gap", method, "conformal-class")["value"] < plain


def test_summaries_hold_the_sets_and_refuse_other_options(cache: Any, tmp_path: Any) -> None:
    heavy = evaluate(cache, settings=settings(), only=["conformal"]).table
    assert summarize_cache(cache, tmp_path / "s", settings=settings()).failures == {}
    light = cache_schema.open_cache(tmp_path / "s")
    keys = ["dataset", "metric", "score", "calibrator", "options"]
    columns = [*keys, "value", "n", "reason"]
    found = evaluate(light, settings=settings(), only=["conformal"]).table.sort(keys).select(columns)
    assert found.equals(heavy.sort(keys).select(columns))
    others = evaluate(light, settings=settings(saps_weight=0.3), only=["conformal"]).table
    for calibrator in ("conformal", "conformal-class", "conformal-clustered"):
        assert "other options" in number(others, "val", "conformal_size", "saps", calibrator)["reason"]
    assert summarize_cache(cache, tmp_path / "t", settings=study_defaults()).failures == {}
    bare = evaluate(cache_schema.open_cache(tmp_path / "t"), settings=study_defaults().updated(
        "conformal", methods=METHODS, quantiles=KINDS), only=["conformal"]).table  # fmt: skip
    assert number(bare, "val", "conformal_size", "lac", "conformal")["value"] is not None
    assert "big stores" in number(bare, "val", "conformal_size", "saps", "conformal")["reason"]
    assert "big stores" in number(bare, "val", "conformal_size", "lac", "conformal-class")["reason"]


@given(seed=st.integers(0, 2**32 - 1), weight=st.sampled_from([0.0, 0.02, 0.4]), masked=st.booleans())
def test_saps_of_logits_is_saps_of_probabilities(seed: int, weight: float, masked: bool) -> None:
    rng = np.random.default_rng(seed)
    logits = np.round(rng.normal(size=(40, C)) * 2, 1).astype(np.float32)
    view = ClassView(C, mask=MASK) if masked else ClassView(C)
    k = view.n_classes
    labels = rng.integers(-1, k, 40).astype(np.int32)
    use = rng.random(40) < 0.8
    block = LogitBlock(view, logits, np.zeros(40, np.float32), labels, use)
    p = softmax(logits[:, view.columns].astype(np.float64), axis=1)
    rule = metrics.fit_conformal(p, np.maximum(labels, 0), method="saps", alpha=0.2, weight=weight)
    scores, sizes = saps_statistics(block, use, weight, rule.quantile + 1e-9)
    wanted = rule.class_scores(p)
    own = np.take_along_axis(wanted, np.maximum(labels, 0)[:, None], axis=1)[:, 0]
    known = use & (labels >= 0)
    np.testing.assert_allclose(scores[known], own[known], atol=1e-9)
    assert np.isnan(scores[~known]).all()
    assert (sizes[~use] == -1).all()
    np.testing.assert_array_equal(sizes[use], (wanted <= rule.quantile + 1e-9).sum(axis=1)[use])
