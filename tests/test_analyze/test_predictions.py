"""Stores -> per-image statistics: class views against numpy, bounded blocks, invalid rows, conformal sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from analyze import metrics
from analyze.calibrators.split import fit_rows
from analyze.calibrators.vector_scaling import VectorFit
from analyze.fits.conformal import FittedSets, fit_quantiles
from analyze.fits.kl_matching import FittedKLMatching, fit_kl_matching_store
from analyze.fits.temperature import FittedTemperature
from analyze.fits.vector import FittedVector
from analyze.predictions import SummaryOptions, summarize
from analyze.reading.views import ClassView
from closerlook_common.errors import UserError


def columns_of(probabilities, labels):
    """Statistics of float64 probabilities and local labels."""
    n = len(labels)
    p = probabilities
    return {
        "confidence": p.max(axis=1),
        "label_log_probability": np.log(p[np.arange(n), labels]),
        "entropy": -(p * np.log(p)).sum(axis=1),
        "sum_squares": (p**2).sum(axis=1),
    }


def check(summary, want):
    for name, values in want.items():
        np.testing.assert_allclose(summary[name], values, rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_a_plain_store_equals_scipy(toy_store, backend):
    store = toy_store(n=300, n_classes=37, backend=backend)
    logits = store.logits().astype(np.float64)
    summary = summarize(store, options=SummaryOptions(fits=(FittedTemperature(1.7),), energy_temperature=2.0))
    check(summary, columns_of(softmax(logits, axis=1), store.labels))
    scaled = columns_of(softmax(logits / 1.7, axis=1), store.labels)
    check(summary, {f"scaled_{name}": values for name, values in scaled.items()})
    np.testing.assert_array_equal(summary.prediction, logits.argmax(axis=1))
    np.testing.assert_allclose(summary["max_logit"], logits.max(axis=1), rtol=1e-6)
    energy = 2.0 * np.log(np.exp(logits / 2.0).sum(axis=1))
    np.testing.assert_allclose(summary["energy"], energy, rtol=1e-5)
    assert summary.labelled.all()
    assert "mcm" not in summary.columns


def test_rows_invalid_and_unlabelled_are_left_out(toy_store):
    valid = np.ones(50, bool)
    valid[[3, 40]] = False
    labels = np.arange(50) % 10
    labels[7] = -1
    logits = np.random.default_rng(0).normal(size=(50, 10))
    logits[~valid] = np.nan
    summary = summarize(toy_store(n=50, labels=labels, logits=logits, valid=valid))
    assert list(np.flatnonzero(~summary.labelled)) == [3, 7, 40]
    assert np.isnan(summary["confidence"][3])
    assert np.isfinite(summary["confidence"][7])
    assert np.isnan(summary["label_log_probability"][7])
    assert summary["label_rank"][7] == -1


def test_a_class_subset_is_applied_before_the_softmax(toy_store):
    mask = (9, 2, 5, 30)
    labels = np.random.default_rng(2).choice(mask, 80)
    store = toy_store(n=80, n_classes=31, labels=labels, role="shift", card={"class_mask": mask})
    p = softmax(store.logits().astype(np.float64)[:, list(mask)], axis=1)
    summary = summarize(store)
    local = np.array([mask.index(label) for label in labels])
    check(summary, columns_of(p, local))
    np.testing.assert_array_equal(summary.prediction, np.array(mask)[p.argmax(axis=1)])
    np.testing.assert_array_equal(summary["label_rank"] == 0, summary.prediction == labels)
    assert summary.n_classes == 4


GROUPS = ((1, 7), (0, 4, 11), (9,), (2, 3, 5, 6))


@pytest.mark.parametrize("rule", ["max", "mean", "restrict"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_super_classes_equal_numpy(toy_store, rule, temperature):
    labels = np.random.default_rng(1).integers(0, 4, 60)
    logits = np.random.default_rng(5).normal(0, 2, (60, 12))
    store = toy_store(
        n=60,
        n_classes=12,
        labels=labels,
        logits=logits,
        role="shift",
        card={"class_map": GROUPS, "class_map_rule": rule},
    )
    z = store.logits().astype(np.float64) / temperature
    if rule == "max":
        p = softmax(np.stack([z[:, list(g)].max(axis=1) for g in GROUPS], axis=1), axis=1)
        want = columns_of(p, labels)
        prediction = p.argmax(axis=1)
    elif rule == "mean":
        whole = softmax(z, axis=1)
        p = np.stack([whole[:, list(g)].mean(axis=1) for g in GROUPS], axis=1)
        p /= p.sum(axis=1, keepdims=True)
        want = columns_of(p, labels)
        prediction = p.argmax(axis=1)
    else:
        members = [c for g in GROUPS for c in g]
        inside = np.zeros_like(z)
        inside[:, members] = softmax(z[:, members], axis=1)
        p = np.stack([inside[:, list(g)].sum(axis=1) for g in GROUPS], axis=1)
        want = columns_of(p, labels)
        best = inside.argmax(axis=1)
        prediction = np.array([next(i for i, g in enumerate(GROUPS) if b in g) for b in best])
        want["confidence"] = inside.max(axis=1)
    prefix = "scaled_" if temperature != 1.0 else ""
    summary = summarize(store, options=SummaryOptions(fits=(FittedTemperature(temperature),)))
    check(summary, {prefix + name: values for name, values in want.items()})
    if temperature == 1.0 or rule != "mean":
        np.testing.assert_array_equal(summary.prediction, prediction)
        np.testing.assert_array_equal(summary["label_rank"] == 0, prediction == labels)
    else:
        np.testing.assert_array_equal(summary["scaled_label_rank"] == 0, prediction == labels)


def test_views_refuse_what_makes_no_sense():
    with pytest.raises(UserError, match="class 7"):
        ClassView(5, mask=(1, 7))
    with pytest.raises(UserError, match="twice"):
        ClassView(5, groups=((0, 1), (1,)))
    with pytest.raises(UserError, match="at least one class"):
        ClassView(5, groups=((0,), ()))
    with pytest.raises(UserError, match="label 3 is not one of the 2 super-classes"):
        ClassView(5, groups=((0,), (1,))).places(np.array([0, 3]))


@given(st.integers(1, 90), st.integers(1, 3))
@settings(max_examples=12)
def test_no_column_depends_on_blocks_or_threads(bits_store, rows, threads):
    store, whole = bits_store
    held_out = np.arange(len(store)) % 2 == 0
    options = bits_options(store, held_out, fit_quantiles(store, ~held_out, block_rows=rows))
    got = summarize(store, options=options, held_out=held_out, rows=rows, threads=threads)
    for name, values in whole.columns.items():
        if values.dtype == object:
            assert list(got[name]) == list(values)
        else:
            assert np.array_equal(got[name], values, equal_nan=values.dtype.kind == "f"), name
    assert got.facts == whole.facts


def bits_options(store, held_out, quantiles):
    """Everything that a summary can hold."""
    rng = np.random.default_rng(3)
    vector = VectorFit(rng.uniform(0.5, 2, 150), rng.normal(0, 1, 150), 1.0, 1.0, 45, 1, 0.0)
    klm = fit_kl_matching_store(store, ~held_out)
    fits = (
        FittedTemperature(0.6),
        FittedSets(quantiles),
        FittedVector(vector, store.dataset),
        FittedKLMatching(klm, store.dataset.id, store.n_classes),
    )
    return SummaryOptions(fits=fits)


@pytest.fixture(scope="module")
def bits_store(tmp_path_factory):
    from cache_schema import DatasetCard, ModelCard, write_store

    rng = np.random.default_rng(8)
    labels = rng.integers(0, 150, 90)
    logits = rng.normal(size=(90, 150)).astype(np.float32)
    logits[np.arange(90), labels] += 3
    store = write_store(
        tmp_path_factory.mktemp("bits"),
        model=ModelCard(id="m"),
        dataset=DatasetCard(id="val", n_classes=150),
        logits=logits,
        labels=labels,
        image_ids=[f"{i}" for i in range(90)],
        metadata={"view": ["a", "b", "c"] * 30},
    )
    held_out = np.arange(90) % 2 == 0
    options = bits_options(store, held_out, fit_quantiles(store, ~held_out))
    return store, summarize(store, options=options, held_out=held_out)


def test_the_classwise_error_equals_the_metric_on_all_probabilities(toy_store):
    store = toy_store(n=500, n_classes=20)
    held_out = ~fit_rows(store.labels)
    summary = summarize(store, options=SummaryOptions(fits=(FittedTemperature(0.8),)), held_out=held_out)
    logits = store.logits().astype(np.float64)
    found = summary.facts["aggregates"]
    for name, rows, temperature in (
        ("classwise", slice(None), 1.0),
        ("classwise_held_out", held_out, 1.0),
        ("classwise_scaled", held_out, 0.8),
    ):
        want = metrics.classwise_calibration_error(softmax(logits[rows] / temperature, axis=1), store.labels[rows])
        assert found[name]["classwise_ece"] == pytest.approx(want, rel=1e-6), name


@pytest.mark.parametrize("ties", [False, True])
def test_conformal_sets_equal_the_metric(toy_store, ties):
    logits = np.random.default_rng(4).normal(0, 1.5, (400, 25))
    if ties:
        logits = np.round(logits)
    labels = np.random.default_rng(5).integers(0, 25, 400)
    logits[np.arange(400), labels] += 2
    store = toy_store(n=400, n_classes=25, logits=logits, labels=labels)
    p = np.exp(log_softmax(store.logits().astype(np.float64), axis=1))
    fit = fit_rows(store.labels)
    quantiles = fit_quantiles(store, fit, alpha=0.2)
    summary = summarize(store, options=SummaryOptions(fits=(FittedSets(quantiles),)))
    for i, method in enumerate(("lac", "aps", "raps")):
        peer = metrics.fit_conformal(p[fit], store.labels[fit], method=method, alpha=0.2)
        assert quantiles.quantiles[method] == pytest.approx(peer.quantile, rel=1e-6), method
        sizes = peer.sets(p).sum(axis=1)
        # A row whose cumulated mass is the quantile itself may fall to either side of it.
        assert (summary["set_sizes"][:, i] == sizes).mean() > 0.99, method


def test_mcm_takes_the_scale_off_and_does_not_see_the_bias(toy_store):
    cosines = np.random.default_rng(0).uniform(0.1, 0.35, (40, 30))
    labels = np.arange(40) % 30
    plain = toy_store(n=40, n_classes=30, logits=100 * cosines, labels=labels, scale=100.0, model="clip")
    biased = toy_store(n=40, n_classes=30, logits=100 * cosines - 12.9, labels=labels, scale=100.0, model="siglip")
    want = softmax(plain.logits().astype(np.float64) / 100, axis=1).max(axis=1)
    np.testing.assert_allclose(summarize(plain)["mcm"], want, rtol=1e-6)
    np.testing.assert_allclose(summarize(biased)["mcm"], want, rtol=2e-5)
    warm = softmax(plain.logits().astype(np.float64) / 100 / 0.01, axis=1).max(axis=1)
    np.testing.assert_allclose(summarize(plain, options=SummaryOptions(mcm_tau=0.01))["mcm"], warm, rtol=1e-5)


def test_memory_does_not_grow_with_the_store(toy_store):
    """Blocks of logits are let go: ten times the rows need ten times the columns, not ten times the logits."""
    import tracemalloc

    peaks = []
    for n in (2_000, 20_000):
        store = toy_store(n=n, n_classes=100, model=f"m{n}")
        summarize(store, rows=512)
        tracemalloc.start()
        summarize(store, rows=512)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    logits = 2 * 100 * 18_000
    assert peaks[1] - peaks[0] < 1.3 * 18_000 * 200 < 2 * logits
