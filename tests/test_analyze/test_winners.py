"""Every model that cannot be distinguished from the best is marked, not the winner alone."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

import cache_schema
from analyze.evaluate import evaluate
from analyze.interactive import Results
from analyze.intervals import paired_difference, wilson_interval
from analyze.intervals.winners import as_good_as_best, as_good_by_test, smallest
from analyze.results import ResultRow, to_frame
from analyze.results.quantities import Quantity
from analyze.tables import build_tables
from analyze.tables.detectors import leaderboard_table
from analyze.trends.paired_winners import as_good_in_table, as_good_on_the_same_images
from closerlook_common.errors import UserError


def test_close_numbers_share_the_mark_and_far_ones_do_not() -> None:
    values = [0.80, 0.795, 0.70, 0.80]
    kept = as_good_as_best(values, [v - 0.01 for v in values], [v + 0.01 for v in values], higher=True)
    assert kept.tolist() == [True, True, False, True]
    lower = as_good_as_best(values, [v - 0.01 for v in values], [v + 0.01 for v in values], higher=False)
    assert lower.tolist() == [False, False, True, False]


def test_without_intervals_equal_numbers_alone_share_it() -> None:
    nan = [float("nan")] * 4
    assert as_good_as_best([0.5, 0.6, 0.6, float("nan")], nan, nan, higher=True).tolist() == [False, True, True, False]
    assert not as_good_as_best(nan, nan, nan, higher=True).any()


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 0.2), st.floats(0, 0.2)), min_size=1, max_size=12))
def test_the_best_is_always_marked_and_wider_intervals_mark_more(numbers: list[tuple[float, float, float]]) -> None:
    v, below, above = (np.array(column) for column in zip(*numbers, strict=True))
    narrow = as_good_as_best(v, v - below, v + above, higher=True)
    wide = as_good_as_best(v, v - 2 * below - 0.01, v + 2 * above + 0.01, higher=True)
    assert narrow[v.argmax()]
    assert (wide | ~narrow).all()


def test_equally_good_models_are_set_apart_in_one_of_twenty_draws_at_most() -> None:
    rng = np.random.default_rng(0)
    lost = 0
    for _ in range(300):
        ends = [wilson_interval(int(k), 1000) for k in rng.binomial(1000, 0.7, 8)]
        middle = [(e.low + e.high) / 2 for e in ends]
        lost += not as_good_as_best(middle, [e.low for e in ends], [e.high for e in ends], higher=True).all()
    assert 0.02 < lost / 300 < 0.09


def test_tests_against_the_best_allow_for_its_having_been_picked() -> None:
    assert smallest(2) == pytest.approx(0.05, rel=1e-3)
    assert 0.05 / 6 < smallest(4) < 0.05 / 3  # between all pairs and the three with the best
    p = {(0, 1): 0.02, (0, 2): 0.001, (0, 3): float("nan")}
    kept = as_good_by_test([0.9, 0.8, 0.85, 0.7], lambda best, other: p[best, other], higher=True)
    assert kept.tolist() == [True, True, False, True]


@pytest.fixture
def cache(toy_store, tmp_path):
    """Three models: two that err on nearly the same images, and one that is much worse."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 600)
    shared = rng.normal(0, 1, (600, 10))
    for name, skill, noise in (("a", 2.0, 0.05), ("b", 1.97, 0.05), ("c", 0.6, 0.5)):
        logits = shared + np.random.default_rng(len(name) + int(100 * noise)).normal(0, noise, (600, 10))
        logits[np.arange(600), labels] += skill
        toy_store(model=name, n=600, labels=labels, logits=logits, cache=tmp_path / "cache")
    return tmp_path / "cache"


def test_on_the_same_images_each_is_compared_with_the_best(cache) -> None:
    opened = cache_schema.open_cache(cache)
    found = as_good_on_the_same_images(opened, "top1", "val", ["a", "b", "c"])
    right = {n: (opened.store(n, "val").logits().argmax(1) == opened.store(n, "val").labels) * 1.0 for n in "abc"}
    best = max(right, key=lambda n: right[n].mean())
    rng = np.random.default_rng(0)
    p = {n: paired_difference(right[best], right[n], rng=rng).p_value for n in "abc" if n != best}
    assert found[best]
    assert found["c"] is False
    assert p["c"] < 0.01
    assert found == {best: True, **{n: p[n] >= smallest(3) for n in p}}
    with pytest.raises(UserError, match="not a mean over images"):
        as_good_on_the_same_images(opened, "ece", "val", ["a", "b"])
    with pytest.raises(UserError, match="two are needed"):
        as_good_on_the_same_images(opened, "top1", "val", ["a", "nobody"])


def test_best_says_which_are_as_good(cache) -> None:
    results = Results(evaluate(cache_schema.open_cache(cache), only=["top1", "nll"]).table)
    by_interval = results.best("top1")
    assert by_interval["as_good"][0]
    assert not by_interval["as_good"][2]
    paired = results.best("nll", cache=cache)
    assert paired["as_good"].to_list()[0] is True
    assert paired["as_good"].to_list()[-1] is False
    bare = Results(results.frame.with_columns(low=pl.lit(None, dtype=pl.Float64))).best("top1")
    assert bare["as_good"].to_list() == [True, None, None]
    with pytest.raises(UserError, match="variant"):
        results.best("nll[calibrator=temperature]", cache=cache)


def test_tables_mark_all_that_are_as_good_and_then_the_next() -> None:
    rows = [
        ResultRow(model=m, dataset="v", metric="top1", value=v, low=v - 0.01, high=v + 0.01)
        for m, v in (("a", 0.80), ("b", 0.795), ("c", 0.70), ("d", 0.60))
    ]
    (table,) = build_tables(to_frame(rows), best=True)
    assert [cells[0].rank for cells in table.cells] == [1, 1, 2, 0]
    assert any("not distinguish" in note for note in table.notes)
    (bare,) = build_tables(to_frame(rows).with_columns(low=pl.lit(None, dtype=pl.Float64)), best=True)
    assert [cells[0].rank for cells in bare.cells] == [1, 2, 0, 0]
    assert not any("not distinguish" in note for note in bare.notes)


def test_a_leaderboard_shows_all_leaders_in_bold() -> None:
    board = pl.DataFrame({"score": ["x", "y", "z"], "models": [1, 1, 1], "sun": [0.9, 0.89, 0.5]})

    def bold(leaders: dict[str, set[str]] | None) -> list[bool]:
        (table,) = leaderboard_table("t", board, 100, leaders)
        return [str(cell.style) == "bold" for cell in table.columns[-1].cells]

    assert bold(None) == [True, False, False]
    assert bold({"sun": {"x", "y"}}) == [True, True, False]


@pytest.fixture
def detection_cache(toy_store, tmp_path):
    """Three models: two that score nearly alike, and one that hardly distinguishes the sets."""
    rng = np.random.default_rng(3)
    root = tmp_path / "detection"
    sides = {name: rng.normal(0, 1, (n, 10)) for name, n in (("val", 700), ("far", 500))}
    sides["val"][:, 0] += 3
    for name, scale, noise in (("a", 1.0, 0.02), ("b", 1.0, 0.04), ("c", 0.5, 2.0)):
        for dataset, shared in sides.items():
            own = np.random.default_rng(int(100 * noise) + len(dataset)).normal(0, noise, shared.shape)
            role = "id" if dataset == "val" else "ood"
            toy_store(cache=root, model=name, dataset=dataset, role=role, n=len(shared), logits=scale * shared + own)
    return root


def test_detection_is_compared_on_the_same_images(detection_cache) -> None:
    results = Results(evaluate(cache_schema.open_cache(detection_cache), only=["auroc", "fpr95_id"]).table)
    inside, outside = {}, {}
    for name in "abc":
        for dataset, kept in (("val", inside), ("far", outside)):
            store = cache_schema.open_cache(detection_cache).store(name, dataset)
            z = store.logits().astype(np.float64)[store.valid]
            p = np.exp(z - z.max(axis=1, keepdims=True))
            kept[name] = (p / p.sum(axis=1, keepdims=True)).max(axis=1)
    parts = {}
    for name in "abc":
        wins = (inside[name][:, None] > outside[name]) + 0.5 * (inside[name][:, None] == outside[name])
        parts[name] = wins.mean(), wins.mean(axis=1), wins.mean(axis=0)
    best = max(parts, key=lambda name: parts[name][0])
    wanted = {best: True}
    for name in set("abc") - {best}:
        gaps = [parts[best][k] - parts[name][k] for k in (1, 2)]
        error = math.sqrt(sum(gap.var(ddof=1) / gap.size for gap in gaps))
        wanted[name] = bool(2 * norm.sf((parts[best][0] - parts[name][0]) / error) >= smallest(3))
    assert wanted["c"] is False
    found = results.best("auroc", on="far", cache=detection_cache)
    assert dict(found.select("model", "as_good").iter_rows()) == wanted
    rates = results.best("fpr95_id[score=msp]", on="far", cache=detection_cache)
    assert rates["as_good"][0]
    assert not rates["as_good"][2]
    with pytest.raises(UserError, match="plain numbers of one OOD set"):
        as_good_in_table(results.frame, Quantity("auroc"), ["a", "b"], detection_cache)
    plain = results.frame.filter(pl.col("score") == "msp")
    fitted = plain.with_columns(score=pl.lit("tempscale"))
    with pytest.raises(UserError, match="no paired test of score tempscale"):
        Results(fitted).best("auroc", on="far", cache=detection_cache)
    of_ood = Results(plain.with_columns(command=pl.lit("ood")))
    with pytest.raises(UserError, match="analyze compare --detectors"):
        of_ood.best("auroc", on="far", cache=detection_cache)


def ranks(table, column: int = 0) -> dict[str, int]:
    return {label[0]: row[column].rank for label, row in zip(table.rows, table.cells, strict=True)}


def test_tables_are_marked_by_tests_where_the_stores_are(cache, detection_cache, toy_store) -> None:
    results = evaluate(cache_schema.open_cache(cache), only=["top1", "nll", "ece"]).table
    results = results.filter(pl.col("calibrator") == "", pl.col("subset") == "")
    (table,) = build_tables(results, best=True, cache=cache)
    by_metric = {column.metric: place for place, column in enumerate(table.columns)}
    for metric in ("top1", "nll"):
        good = as_good_on_the_same_images(cache_schema.open_cache(cache), metric, "val", ["a", "b", "c"])
        found = ranks(table, by_metric[metric])
        assert {model: rank == 1 for model, rank in found.items()} == good
        assert 2 in found.values()
    notes = "\n".join(table.notes)
    assert "top1: McNemar's mid-p test on the same images decides" in notes
    assert "nll: a paired test of means" in notes
    assert "ece: marked by intervals: there is no paired test" in notes
    (plain,) = build_tables(results, best=True)
    assert not any("same images" in note for note in plain.notes)
    assert [c.value for row in plain.cells for c in row] == [c.value for row in table.cells for c in row]
    # Not all models are there, or another store than the table's: intervals decide, and a note says why.
    imported = results.filter(pl.col("model") == "a").with_columns(
        model=pl.lit("published"), store=pl.lit("published:x")
    )
    (mixed,) = build_tables(pl.concat([results, imported]).filter(pl.col("metric") == "top1"), best=True, cache=cache)
    assert any("marked by intervals: the cache does not hold" in n and "published" in n for n in mixed.notes)
    (others,) = build_tables(
        imported.filter(pl.col("metric") == "top1").vstack(
            results.filter(pl.col("metric") == "top1").with_columns(store=pl.lit("0" * 16))
        ),
        best=True,
        cache=cache,
    )
    assert any("for 0 of 4 models: two are needed" in note for note in others.notes)
    (turned,) = build_tables(results, rows=["metric"], columns=["model"], best=True, cache=cache)
    assert not any("same images" in note for note in turned.notes)
    ood = evaluate(cache_schema.open_cache(detection_cache), only=["auroc", "fpr95_id"]).table
    ood = ood.filter(pl.col("score") == "msp", pl.col("dataset") == "far")
    (table,) = build_tables(ood, best=True, cache=detection_cache)
    assert any(note.startswith("auroc: DeLong's test") for note in table.notes)
    assert any(note.startswith("fpr95_id: a paired test of each image's influence") for note in table.notes)
    good = Results(ood).best("auroc", on="far", cache=detection_cache)
    place = [column.metric for column in table.columns].index("auroc")
    assert {m for m, r in ranks(table, place).items() if r == 1} == set(good.filter("as_good")["model"])


def test_frames_of_one_clip_are_not_tested_as_images(toy_store, tmp_path) -> None:
    clips = {"anchor": [f"val/{i // 6}/0.jpg" for i in range(60)], "is_anchor": [i % 6 == 0 for i in range(60)]}
    for model in "ab":
        toy_store(model=model, n=60, metadata=clips, cache=tmp_path / "clips")
    results = evaluate(cache_schema.open_cache(tmp_path / "clips"), only=["top1"]).table
    with pytest.raises(UserError, match="frames of one clip"):
        Results(results).best("top1", cache=tmp_path / "clips")
    (table,) = build_tables(results, best=True, cache=tmp_path / "clips")
    assert any("frames of one clip" in note for note in table.notes)


def test_the_command_marks_by_tests(cache, tmp_path, capsys) -> None:
    from analyze.cli import main

    table = tmp_path / "r.parquet"
    assert main(["metrics", str(cache), "--only", "top1", "-o", str(table)]) == 0
    assert (
        main(["table", str(table), "--best", "--cache", str(cache), "--where", "subset=", "--where", "calibrator="])
        == 0
    )
    assert "McNemar's mid-p test" in capsys.readouterr().out
    assert main(["table", str(table), "--cache", str(cache)]) == 2
    assert "--cache is for --best" in capsys.readouterr().err
