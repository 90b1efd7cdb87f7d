"""Video sets: an anchor counts where all of its neighbourhood is right; intervals are of clips."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st

import cache_schema
from analyze.evaluate import evaluate
from analyze.evaluate.summarize_cache import summarize_cache
from analyze.intervals import proportion_interval
from analyze.intervals.means import clustered_standard_error
from analyze.metrics.clips import anchor_accuracy, clustered_proportion_interval
from analyze.metrics.proportions import wilson_interval
from analyze.settings import study_defaults
from closerlook_common.errors import UserError


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40))
def test_an_anchor_is_right_with_all_of_its_frames(rows: list[tuple[int, bool]]) -> None:
    frames = defaultdict(list)
    for anchor, right in rows:
        frames[anchor].append(right)
    want = sum(all(group) for group in frames.values()) / len(frames)
    assert anchor_accuracy([right for _, right in rows], [f"v/{anchor}" for anchor, _ in rows]) == want


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=4, max_size=60))
def test_clustered_intervals_against_the_sandwich_estimator(rows: list[tuple[int, bool]]) -> None:
    clips, right = np.array([c for c, _ in rows]), np.array([r for _, r in rows])
    n, share = right.size, right.mean()
    found = clustered_proportion_interval(right, clips)
    plain = proportion_interval(int(right.sum()), n)
    assert found.low <= share <= found.high
    assert found.high - found.low >= plain.high - plain.low - 1e-12
    groups = np.unique(clips).size
    if share in (0, 1) or groups == 1:
        want = wilson_interval(share * groups, groups)
    elif groups == n:
        want = plain
    else:
        fit = sm.OLS(right.astype(float), np.ones(n)).fit(
            cov_type="cluster", cov_kwds={"groups": clips, "use_correction": True}
        )
        # statsmodels' correction is G / (G - 1) x (n - 1) / (n - 1) for one column.
        independent = min(n, share * (1 - share) / float(fit.cov_params()[0, 0])) if fit.cov_params()[0, 0] > 0 else n
        z2 = 1.959963984540054**2
        middle = (share + z2 / (2 * independent)) / (1 + z2 / independent)
        half = np.sqrt(z2 * (share * (1 - share) / independent + z2 / (4 * independent**2))) / (1 + z2 / independent)
        np.testing.assert_allclose((found.low, found.high), (middle - half, middle + half), atol=1e-9)
        return
    np.testing.assert_allclose((found.low, found.high), (want.low, want.high), atol=1e-12)


def test_clustered_intervals_cover_where_plain_ones_do_not() -> None:
    """Frames of a clip are right or wrong together; 300 draws of 80 clips of ten frames, true share 0.6."""
    rng = np.random.default_rng(5)
    clips = np.repeat(np.arange(80), 10)
    hits = {"clips": 0, "frames": 0}
    for _ in range(300):
        skill = rng.beta(1.2, 0.8, 80)
        right = rng.random(800) < skill[clips]
        for name, found in (
            ("clips", clustered_proportion_interval(right, clips)),
            ("frames", proportion_interval(int(right.sum()), 800)),
        ):
            hits[name] += found.low <= 0.6 <= found.high
    assert hits["clips"] >= 0.92 * 300
    assert hits["frames"] <= 0.75 * 300


@pytest.mark.parametrize(("right", "clips"), [([], []), ([True], ["a", "b"]), ([2, 0], ["a", "b"])])
def test_bad_columns_are_refused(right: list[object], clips: list[str]) -> None:
    with pytest.raises(UserError):
        anchor_accuracy(right, clips)
    with pytest.raises(UserError):
        clustered_proportion_interval(right, clips)


@pytest.fixture
def videos(toy_store, tmp_path: Path):
    """Forty neighbourhoods of four frames in twenty clips, labels in sets, one frame unreadable."""
    n = 160
    anchors = np.array([f"val/v{i // 8:02}/{i // 4:04}.JPEG" for i in range(n)], dtype=object)
    labels = np.random.default_rng(3).integers(0, 10, n // 4).repeat(4)
    sets = np.array([f"{v} {(v + 1) % 10}" if i % 3 else f"{v}" for i, v in enumerate(labels)], dtype=object)
    metadata = {"anchor": anchors, "is_anchor": np.arange(n) % 4 == 0, "label_set": sets}
    valid = np.arange(n) != 9
    root = tmp_path / "cache"
    toy_store(cache=root, dataset="val", n=200, skill=3)
    toy_store(cache=root, dataset="pm10", role="shift", n=n, labels=labels, metadata=metadata, valid=valid, skill=2.5)
    still = {name: column[::4] for name, column in metadata.items()}
    toy_store(cache=root, dataset="pm0", role="shift", n=n // 4, labels=labels[::4], metadata=still, skill=2.5)
    return cache_schema.open_cache(root)


def number(table: pl.DataFrame, metric: str, dataset: str = "pm10") -> dict:
    own = (pl.col("dataset") == dataset) & (pl.col("metric") == metric) & (pl.col("calibrator") == "")
    return table.filter(own, pl.col("subset") == "").row(0, named=True)


def test_the_suite_counts_anchors_with_whole_neighbourhoods(videos, tmp_path: Path) -> None:
    table = evaluate(videos, only=["accuracy"]).table
    store = videos.store("m", "pm10")
    predicted = store.logits().argmax(axis=1)
    sets = [set(map(int, text.split())) for text in store.metadata["label_set"]]
    right = np.array([p in s for p, s in zip(predicted, sets, strict=True)])
    groups = {a: np.flatnonzero(store.metadata["anchor"] == a) for a in set(store.metadata["anchor"])}
    whole = [rows for rows in groups.values() if store.valid[rows].all()]
    found = number(table, "anchor_accuracy")
    assert found["n"] == len(whole) == 39
    assert found["value"] == np.mean([right[rows].all() for rows in whole])
    assert found["low"] < found["value"] < found["high"]
    assert found["value"] < number(table, "top1")["value"] == right[store.valid].mean()
    clips = np.array([anchor.split("/")[1] for anchor in store.metadata["anchor"]])
    of_clips = clustered_proportion_interval(right[store.valid], clips[store.valid])
    top1 = number(table, "top1")
    assert (top1["low"], top1["high"]) == (of_clips.low, of_clips.high)
    mean = number(table, "mean_class_accuracy")
    assert mean["low"] < mean["value"] < mean["high"], mean["reason"]
    # Without neighbours there is nothing that top1 does not say.
    assert table.filter(pl.col("metric") == "anchor_accuracy")["dataset"].to_list() == ["pm10"]
    assert summarize_cache(videos, tmp_path / "s", settings=study_defaults()).failures == {}
    light = evaluate(cache_schema.open_cache(tmp_path / "s"), only=["accuracy"]).table
    again = number(light, "anchor_accuracy")
    assert {name: again[name] for name in ("value", "low", "high", "n")} == {
        name: found[name] for name in ("value", "low", "high", "n")
    }


def test_the_bootstrap_draws_clips(videos) -> None:
    settings = study_defaults().updated("bootstrap", replicates=400)
    table = evaluate(videos, only=["calibration_gap"], settings=settings).table
    found = number(table, "calibration_gap")
    store = videos.store("m", "pm10")
    logits = store.logits().astype(np.float64)[store.valid]
    confidence = np.exp(logits - logits.max(1, keepdims=True))
    confidence = (confidence / confidence.sum(1, keepdims=True)).max(1)
    sets = [set(map(int, text.split())) for text in store.metadata["label_set"][store.valid]]
    gaps = confidence - np.array([p in s for p, s in zip(logits.argmax(1), sets, strict=True)])
    clips = np.array([a.split("/")[1] for a in store.metadata["anchor"][store.valid]])
    names, rng = np.unique(clips), np.random.default_rng(0)
    own = [gaps[clips == name] for name in names]
    drawn = [np.concatenate([own[i] for i in rng.integers(0, names.size, names.size)]).mean() for _ in range(4000)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    assert found["low"] == pytest.approx(low, abs=0.25 * (high - low))
    assert found["high"] == pytest.approx(high, abs=0.25 * (high - low))


def test_numbers_by_factor_and_set_sizes_have_intervals_over_clips(videos) -> None:
    """Their intervals are those of the clips, never narrower than those of as many independent frames."""
    settings = study_defaults().updated("factors", columns=["is_anchor"])
    table = evaluate(videos, only=["factors", "conformal"], settings=settings).table
    store = videos.store("m", "pm10")
    predicted = store.logits().argmax(axis=1)
    sets = [set(map(int, text.split())) for text in store.metadata["label_set"]]
    right = np.array([p in s for p, s in zip(predicted, sets, strict=True)])
    clips = np.array([anchor.split("/")[1] for anchor in store.metadata["anchor"]])
    own = table.filter(pl.col("dataset") == "pm10")
    for factor in own.filter(pl.col("metric") == "factor_accuracy")["factor"].to_list():
        members = store.valid & (store.metadata["is_anchor"] == factor.lower().endswith("true"))
        want = clustered_proportion_interval(right[members], clips[members])
        accuracy = own.filter(pl.col("factor") == factor, pl.col("metric") == "factor_accuracy").row(0, named=True)
        assert (accuracy["n"], accuracy["low"], accuracy["high"]) == (members.sum(), want.low, want.high)
        ratio = own.filter(pl.col("factor") == factor, pl.col("metric") == "error_ratio").row(0, named=True)
        error = 1 - right[store.valid].mean()
        np.testing.assert_allclose((ratio["low"], ratio["high"]), ((1 - want.high) / error, (1 - want.low) / error))


def test_set_sizes_have_intervals_over_clips(toy_store, tmp_path: Path) -> None:
    n, root = 160, tmp_path / "cache"
    anchors = np.array([f"val/v{i // 16:02}/{i // 4:04}.JPEG" for i in range(n)], dtype=object)
    toy_store(cache=root, dataset="val", n=200, skill=3)
    for name, metadata in (("film", {"anchor": anchors, "is_anchor": np.arange(n) % 4 == 0}), ("still", {})):
        labels = np.arange(n) // 16
        toy_store(cache=root, dataset=name, role="shift", n=n, labels=labels, metadata=metadata, skill=2.5)
    table = evaluate(cache_schema.open_cache(root), only=["conformal_size"]).table
    rows = table.filter(pl.col("score") == "lac") if "lac" in table["score"].to_list() else table
    film, still = (rows.filter(pl.col("dataset") == name).row(0, named=True) for name in ("film", "still"))
    for found in (film, still):
        assert found["low"] < found["value"] < found["high"], found["reason"]
    assert film["high"] - film["low"] >= 0.999 * (still["high"] - still["low"]) or film["value"] != still["value"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 20)), min_size=2, max_size=60))
def test_clustered_errors_against_the_sandwich_estimator(rows: list[tuple[int, int]]) -> None:
    clips, sizes = np.array([c for c, _ in rows]), np.array([float(s) for _, s in rows])
    found = clustered_standard_error(sizes, clips)
    independent = sizes.std() / np.sqrt(sizes.size)
    assert clustered_standard_error(sizes, None) == pytest.approx(independent)
    if np.unique(clips).size == 1:
        assert found == np.inf
        return
    fit = sm.OLS(sizes, np.ones(sizes.size)).fit(
        cov_type="cluster", cov_kwds={"groups": np.unique(clips, return_inverse=True)[1], "use_correction": True}
    )
    assert found == pytest.approx(max(independent, np.sqrt(float(fit.cov_params()[0, 0]))), abs=1e-9)
