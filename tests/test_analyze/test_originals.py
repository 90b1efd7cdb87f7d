"""Sets made from images of the ID set are tested on the images whose originals no calibrator was fitted on."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

import cache_schema
from analyze import metrics
from analyze.calibrators import fit_histogram, fit_rows
from analyze.evaluate import evaluate
from analyze.evaluate.originals import ImageNames, made_from
from analyze.evaluate.summarize_cache import summarize_cache
from analyze.settings import study_defaults
from cache_schema import DatasetCard, ModelCard, write_store

N, C = 600, 10
LABELS = np.random.default_rng(1).integers(0, C, N)
LOGITS = np.random.default_rng(2).normal(size=(N, C)) * 1.5
LOGITS[np.arange(N), LABELS] += 1.5
ORDER = np.random.default_rng(3).permutation(N)
FACTOR = np.where(np.arange(N) % 3 == 0, "pose", "color").astype(object)
NAMES = [f"n{LABELS[i]:08d}/ILSVRC2012_val_{i + 1:08d}.JPEG" for i in range(N)]


def add(root, dataset, names, rows, role="shift", metadata=None, shift_of="val"):
    card = {"shift_of": shift_of} if role == "shift" else {}
    return write_store(
        root,
        model=ModelCard(id="m", head_kind="linear", group="supervised-in1k"),
        dataset=DatasetCard(id=dataset, role=role, class_space="toy", n_classes=C, **card),
        logits=np.asarray(LOGITS[rows], np.float32),
        labels=LABELS[rows],
        image_ids=names,
        metadata={"kind": FACTOR[rows], **(metadata or {})},
    )


@pytest.fixture
def cache(tmp_path):
    """The ID set; copies of it in another order and with other endings; and unrelated images of like names."""
    root = tmp_path / "cache"
    add(root, "val", NAMES, np.arange(N), "id")
    copies = [f"fog/3/{NAMES[i]}" for i in ORDER]
    add(root, "imagenet-c-fog-3", copies, ORDER)
    add(root, "stylized", [name.replace(".JPEG", "_styled.png") for name in copies], ORDER)
    add(root, "column", [f"{i}.png" for i in range(N)], ORDER, metadata={"original": [NAMES[i] for i in ORDER]})
    add(root, "unrelated", [f"images/{i:06d}.jpg" for i in range(N)], ORDER)
    return root


SETTINGS = (
    study_defaults()
    .updated("calibrators", methods=["temperature", "histogram"])
    .updated("conformal", methods=["lac"])
    .updated("factors", columns=["kind"])
)
COPIES = ["imagenet-c-fog-3", "stylized", "column"]


def one(table, dataset, metric, **variant):
    given = {"calibrator": "", "subset": "", "factor": "", **variant}
    found = table.filter(
        pl.col("dataset") == dataset, pl.col("metric") == metric, *[pl.col(k) == v for k, v in given.items()]
    )
    assert len(found) == 1, found
    return found.row(0, named=True)


@pytest.fixture
def table(cache):
    return evaluate(cache_schema.open_cache(cache), settings=SETTINGS).table


@pytest.mark.parametrize("dataset", COPIES)
def test_a_leaking_copy_is_tested_on_held_out_originals(table, dataset):
    # The copies have the logits of their originals, so that every number after a calibrator is known.
    for metric in ("ece", "nll", "classwise_ece"):
        mine = one(table, dataset, metric, calibrator="temperature")
        assert mine["value"] == pytest.approx(one(table, "val", metric, calibrator="temperature")["value"], rel=1e-6)
        assert mine["n"] == N - fit_rows(LABELS).sum()
        plain = one(table, dataset, metric, subset="held-out")
        assert plain["value"] == pytest.approx(one(table, "val", metric, subset="held-out")["value"], rel=1e-6)
        assert plain["n"] == mine["n"]
        assert one(table, dataset, metric)["n"] == N  # nothing is fitted there
    leaking = metrics.expected_calibration_error(*_histogram(np.arange(N)))
    tested = metrics.expected_calibration_error(*_histogram(np.flatnonzero(~fit_rows(LABELS))))
    assert leaking < tested  # what the copies of fitted images would have hidden
    mine = one(table, dataset, "ece", calibrator="histogram")
    assert mine["value"] == pytest.approx(tested, abs=1e-6)


def _histogram(rows):
    z = LOGITS.astype(np.float32).astype(np.float64)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    confidence, right = (p / p.sum(axis=1, keepdims=True)).max(axis=1), z.argmax(axis=1) == LABELS
    fitted = fit_rows(LABELS)
    return fit_histogram(confidence[fitted], right[fitted]).apply(confidence)[rows], right[rows]


@pytest.mark.parametrize("dataset", COPIES)
def test_factors_and_conformal_sets_of_copies_are_held_out_too(table, dataset):
    inside = fit_rows(LABELS)
    for factor in ("pose", "color"):
        member = factor == FACTOR
        for variant in ({"calibrator": "temperature"}, {"subset": "held-out"}):
            mine = one(table, dataset, "ece", factor=f"kind={factor}", **variant)
            assert mine["n"] == (member & ~inside).sum()
        assert one(table, dataset, "ece", factor=f"kind={factor}")["n"] == member.sum()
    covered = one(table, dataset, "conformal_coverage", calibrator="conformal")
    assert covered["n"] == (~inside).sum()
    assert covered["value"] == pytest.approx(
        one(table, "val", "conformal_coverage", calibrator="conformal")["value"], abs=1e-9
    )


def test_like_names_of_unrelated_images_leave_nothing_out(table):
    for metric in ("ece", "nll"):
        assert one(table, "unrelated", metric, calibrator="temperature")["n"] == N
    assert table.filter(pl.col("dataset") == "unrelated", pl.col("subset") == "held-out").is_empty()
    assert one(table, "unrelated", "conformal_coverage", calibrator="conformal")["n"] == N


def test_summaries_leave_out_the_same_images(cache, table, tmp_path):
    target = tmp_path / "small"
    summarize_cache(cache_schema.open_cache(cache), target, settings=SETTINGS)
    small = evaluate(cache_schema.open_cache(target), settings=SETTINGS).table
    for dataset in ("imagenet-c-fog-3", "column", "unrelated"):
        for metric in ("ece", "nll", "classwise_ece"):
            for variant in ({"calibrator": "temperature"}, {}):
                big, little = one(table, dataset, metric, **variant), one(small, dataset, metric, **variant)
                assert (little["value"], little["n"]) == (pytest.approx(big["value"], rel=1e-5), big["n"])


def test_made_from_by_number_column_and_not_by_chance():
    of = ImageNames(ids=["a/ILSVRC2012_val_00000001.JPEG", "b/ILSVRC2012_val_00000002.JPEG", "c/x.jpg"])
    fitted = np.array([True, False, True])
    copies = ImageNames(ids=["ILSVRC2012_val_00000002.png", "fog_ILSVRC2012_val_00000001.JPEG", "c/x.jpg"])
    assert made_from(copies, of, fitted, 3).tolist() == [False, True, False]
    printed = ImageNames(ids=["0", "1", "2"], originals=["q/x.jpg", "", "ILSVRC2012_val_00000002.JPEG"])
    assert made_from(printed, of, fitted, 3).tolist() == [True, False, False]
    assert made_from(ImageNames(), of, fitted, 3).tolist() == [False] * 3
    assert made_from(printed, ImageNames(), fitted, 3).tolist() == [False] * 3
    by_key = ImageNames(keys=of.hashes())
    assert by_key.numbers().tolist() == [1, 2, 0]
    assert made_from(copies, by_key, fitted, 3).tolist() == [False, True, False]
