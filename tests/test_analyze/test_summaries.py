"""Summary stores: the same numbers as the big stores, few bytes an image, honest about what they lack."""

from __future__ import annotations

import numpy as np
import pytest

import cache_schema
from analyze.evaluate import summarize_cache as summarize_cache_module
from analyze.evaluate.summarize_cache import summarize_cache
from analyze.fits.conformal import FittedSets, fit_quantiles
from analyze.fits.temperature import FittedTemperature
from analyze.predictions import SummaryOptions, summarize
from analyze.predictions.summaries import COLUMNS, MissingColumn, read_summary, write
from analyze.settings import study_defaults
from cache_schema import DatasetCard, ModelCard, write_summary


@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_a_summary_reads_back_as_it_was(toy_store, tmp_path, backend):
    store = toy_store(n=70, metadata={"style": ["a", "b"] * 35, "size": np.arange(70)})
    summary = summarize(
        store, options=SummaryOptions(fits=(FittedTemperature(1.3),), split={"seed": 0}, reasons={"vector": "why"})
    )
    written = write(tmp_path / "small", summary, backend=backend)
    back = read_summary(written)
    assert set(back.columns) == set(summary.columns)
    for name, values in summary.columns.items():
        if values.dtype == object:
            assert list(back[name]) == list(values)
        else:
            np.testing.assert_array_equal(back[name], values, err_msg=name)
    assert back.digest == store.digest
    assert back.n_classes == 10
    assert back.facts["temperature"] == 1.3
    assert back.reason("temperature") == ""
    assert back.reason("vector") == "why"
    assert list(back.metadata) == ["style", "size"]


def test_columns_cost_about_a_hundred_bytes_an_image(toy_store):
    store = toy_store(n=400, scale=20.0)
    quantiles = fit_quantiles(store, np.arange(400) % 2 == 0)
    summary = summarize(store, options=SummaryOptions(fits=(FittedTemperature(1.3), FittedSets(quantiles))))
    width = {"top": 5, "set_sizes": 3}
    size = sum(np.dtype(COLUMNS[name].dtype).itemsize * width.get(name, 1) for name in summary.columns)
    assert size <= 100


def test_what_a_summary_lacks_is_reported(toy_store):
    summary = summarize(toy_store(), options=SummaryOptions(gen=None))
    for name, words in (
        ("mcm", "logit scale"),
        ("scaled_confidence", "temperature fitted on the in-distribution set"),
        ("set_sizes", "big store"),
        ("gen", "big store"),
        ("metadata.style", "no metadata column 'style'"),
    ):
        with pytest.raises(MissingColumn, match=words):
            summary[name]


def test_an_imported_table_gives_what_it_can(tmp_path):
    label = np.array([0, 1, 2, 1])
    predicted = np.array([0, 1, 1, 2])
    store = write_summary(
        tmp_path,
        model=ModelCard(id="m"),
        dataset=DatasetCard(id="val", n_classes=3),
        columns={"label": label, "predicted": predicted, "confidence": np.array([0.9, 0.8, 0.7, 0.6], np.float32)},
    )
    summary = read_summary(store)
    assert summary.labelled.all()
    assert (summary["label_rank"] == 0).tolist() == [True, True, False, False]
    np.testing.assert_array_equal(summary.prediction, predicted)
    with pytest.raises(MissingColumn, match="label_log_probability"):
        summary["label_log_probability"]


def test_rows_of_a_summary(toy_store):
    summary = summarize(toy_store(n=30))
    half = summary.rows(np.arange(30) < 15)
    assert len(half) == 15
    np.testing.assert_array_equal(half["confidence"], summary["confidence"][:15])
    assert summary.rows(np.array([4, 2]))["label"].tolist() == summary["label"][[4, 2]].tolist()


def test_summarize_writes_once_and_again_only_what_changed(toy_store, tmp_path):
    cache = tmp_path / "cache"
    labels = np.random.default_rng(0).choice([1, 4, 6], 60)
    for model in ("a", "b"):
        toy_store(model=model, cache=cache)
        toy_store(
            model=model,
            cache=cache,
            dataset="hard",
            role="shift",
            n=60,
            labels=labels,
            card={"class_mask": (1, 4, 6), "shift_of": "val"},
        )
    to = tmp_path / "small"
    first = summarize_cache(cache_schema.open_cache(cache), to, settings=study_defaults())
    # Two sets and the ID set on the subset's classes, for each of two models.
    assert (first.written, first.unchanged, first.failures) == (6, 0, {})
    again = summarize_cache(cache_schema.open_cache(cache), to, settings=study_defaults())
    assert (again.written, again.unchanged, again.failures) == (0, 6, {})
    toy_store(model="a", cache=cache, dataset="more", role="shift", n=40)
    third = summarize_cache(cache_schema.open_cache(cache), to, settings=study_defaults())
    assert third.written == 1
    other = study_defaults().updated("ood", gen_gamma=0.5)
    assert summarize_cache(cache_schema.open_cache(cache), to, settings=other).written == 7


@pytest.mark.parametrize("after", [1, 2])
def test_an_interrupted_summary_of_a_model_is_finished(toy_store, tmp_path, monkeypatch, after):
    cache = tmp_path / "cache"
    toy_store(cache=cache)
    labels = np.random.default_rng(0).choice([1, 4, 6], 60)
    toy_store(
        cache=cache, dataset="hard", role="shift", n=60, labels=labels,
        card={"class_mask": (1, 4, 6), "shift_of": "val"},
    )  # fmt: skip
    written = []

    def stopped(*args, **options):
        if len(written) == after:
            raise KeyboardInterrupt
        written.append(write(*args, **options))
        return written[-1]

    opened, settings = cache_schema.open_cache(cache), study_defaults()
    with monkeypatch.context() as patch:
        patch.setattr(summarize_cache_module, "write", stopped)
        with pytest.raises(KeyboardInterrupt):
            summarize_cache(opened, tmp_path / "small", settings=settings)
    rest = summarize_cache(opened, tmp_path / "small", settings=settings)
    assert (rest.written, rest.unchanged, rest.failures) == (3 - after, after, {})
