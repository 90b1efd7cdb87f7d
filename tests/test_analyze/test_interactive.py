"""The notebook's wrapper answers as the functions below it do, and shows itself without running anything."""

from __future__ import annotations

import polars as pl
import pytest

from analyze.interactive import Results
from analyze.results import ResultRow, to_frame, write_results
from analyze.results.quantities import values
from analyze.trends.agreement import agreement_on_the_line
from analyze.trends.fits import fit_line, fit_piecewise
from analyze.trends.ranks import rank_test
from closerlook_common.errors import UserError


def test_the_five_questions(results: pl.DataFrame, tmp_path) -> None:
    found = Results(write_results(results, tmp_path / "r.parquet"))
    (page,) = found.table()
    assert page.page == {"dataset": "imagenet-val"}
    assert {r[0] for r in page.rows} == set(found.models)
    best = found.best("ece", on="imagenet-r", n=3)
    assert best["ece"].to_list() == values(results, "ece@imagenet-r")["value"].sort().to_list()[:3]
    assert found.best("top1", n=1)["top1"][0] == values(results, "top1@imagenet-val")["value"].max()
    name = found.models[0]
    (card,) = found.model(name)
    assert {r[0] for r in card.rows} >= {"imagenet-val", "imagenet-a", "textures"}
    trend = found.trend("top1@imagenet-a")
    assert trend.pearson.low <= trend.pearson.value <= trend.pearson.high
    assert len(trend.points) == 36
    assert trend.line.x_scale == "probit"
    assert found.trend("auroc@sun").line.y_scale == "linear"
    assert len(found.figure("ood").axes) == 10


def test_a_table_shows_the_headlines_and_says_what_else_there_is(results: pl.DataFrame) -> None:
    from analyze.tables.reading_order import HEADLINES

    (page,) = Results(results).table()
    shown = [column.metric for column in page.columns]
    assert set(shown) <= set(HEADLINES)
    assert len(shown) == len(set(shown))  # each once, however many calibrators, subsets and prompt sets there are
    others = set(results.filter(pl.col("dataset") == "imagenet-val")["metric"]) - set(HEADLINES)
    assert others
    printed = f"{len(others)} more metrics, calibrated or by subset too: where={{'metric': 'ece*'}}, where={{}} for all"
    assert [note for note in page.notes if "more metrics" in note] == [printed]
    (whole,) = Results(results).table(where={})
    assert {column.metric for column in whole.columns} >= others


def test_options_that_are_defaults_go_without_saying() -> None:
    options = '{"k":50}', '{"k":7}'
    rows = [
        ResultRow(model="m", dataset="far", role="ood", metric="auroc", value=v, score="knn", options=o, command="ood")
        for v, o in zip((0.5, 0.6), options, strict=True)
    ]
    rows.append(ResultRow(model="m", dataset="val", role="id", metric="top1", value=0.7))
    found = Results(to_frame(rows))
    where = {"dataset": "far", "metric": "auroc"}
    (page,) = found.table(columns=["dataset", "score"], where=where)
    names = [column.name for column in page.columns]
    assert len(names) == 2
    assert not any("k=50" in name for name in names)
    assert any("k=7" in name for name in names)
    (whole,) = found.table(columns=["dataset", "score", "options"], where=where)
    assert any("50" in column.name for column in whole.columns)


def test_a_pandas_frame_needs_no_pyarrow(results: pl.DataFrame) -> None:
    import subprocess
    import sys

    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from analyze.interactive import Results\nfrom analyze.results import ResultRow, to_frame\n"
        "rows = [ResultRow(model='a', dataset='d', metric='top1', value=0.5, n=3),"
        " ResultRow(model='b', dataset='d', metric='top1', value=None, reason='no')]\n"
        "own = to_frame(rows)\nframe = Results(own).to_pandas()\n"
        "assert frame['model'].tolist() == ['a', 'b'] and frame['value'].isna().tolist() == [False, True]\n"
        "assert Results(frame).frame.equals(own)\nprint('same')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "same\n", done.stderr


def test_a_number_names_the_store_it_comes_from(toy_store, tmp_path) -> None:
    from analyze.cli import main

    stores = [toy_store(model="a", seed=1), toy_store(model="b", seed=2)]
    assert main(["metrics", str(tmp_path / "cache"), "-o", str(tmp_path / "r.parquet")]) == 0
    found = Results(tmp_path / "r.parquet")
    plain = found.origin("ece@val")
    assert plain["model"].to_list() == ["a", "b"]
    assert plain["store"].to_list() == [store.digest[:16] for store in stores]
    assert plain["value"].to_list() == values(found.frame, "ece@val").sort("model")["value"].to_list()
    whole = found.origin("ece@val", cache=tmp_path / "cache")
    assert whole["path"].to_list() == [str(store.path) for store in stores]
    for store, text in zip(stores, whole["made_by"], strict=True):
        assert store.header["seal"]["written"] in text
    other = tmp_path / "empty"
    toy_store(model="c", cache=other)
    assert found.origin("ece@val", cache=other)["path"].to_list() == ["", ""]


def test_the_origin_is_that_of_the_number_and_not_of_an_equal_one() -> None:
    given = {"model": "m", "dataset": "far", "metric": "auroc", "value": 1.0, "role": "ood"}
    rows = [
        ResultRow(**given, score=score, store=store, options=options)
        for score, store, options in (("energy", "a" * 16, '{"temperature":2.0}'), ("msp", "b" * 16, ""))
    ]
    found = Results(to_frame(rows)).origin("auroc@far")
    assert found.select("store", "options").rows() == [("b" * 16, "")]


def test_it_shows_itself(results: pl.DataFrame, hostile_table: pl.DataFrame) -> None:
    found = Results(results)
    assert repr(found).startswith("Results: 3,396 numbers of 36 models (6 ")
    assert "ImageNet-A" in repr(found)
    assert "**" in repr(found.table())
    for shown in (
        Results(hostile_table),
        Results(hostile_table).table(),
        Results(hostile_table).trend("ece@val"),
    ):
        page = shown._repr_html_()
        assert "<script>" not in page
        assert "<img" not in page
    # pyplot, whose formatters show figures otherwise, is not imported by the five lines
    assert found.figure("prompts")._repr_png_().startswith(b"\x89PNG")


def test_results_of_functions_say_what_they_found(results: pl.DataFrame) -> None:
    x, y = (values(results, q).sort("model")["value"] for q in ("top1@imagenet-val", "top1@imagenet-a"))
    line = fit_line(x, y)
    assert repr(line).startswith(f"huber line: slope {line.slope:.3f} [{line.interval()[0][0]:.3f}, ")
    assert "(probit of y on probit of x; 36 points)" in repr(line)
    assert "[" not in repr(fit_line(x, y, errors=False))
    pieces = repr(fit_piecewise(x, y, split=0.7, errors=False)).splitlines()
    assert [piece.partition(":")[0] for piece in pieces] == ["up to 0.7", "above 0.7"]
    ranks = rank_test(results, [f"top1@{d}" for d in ("imagenet-a", "imagenet-r", "imagenet-sketch")])
    within = ranks.table.filter(pl.col("rank") <= ranks.table["rank"][0] + ranks.critical_difference)
    assert f"best {ranks.table['model'][0]} " in repr(ranks)
    assert f"{len(within) - 1} others within" in repr(ranks)
    agreement = agreement_on_the_line(
        pl.DataFrame({"model": ["<b>"] * 36, "id": x, "shifted": y}), pl.DataFrame({"id": x, "shifted": y})
    )
    assert "36 models predicted from agreement; off by" in repr(agreement)
    for shown in (agreement, ranks, Results(results).effective_robustness("top1@imagenet-a")):
        assert "<b>" not in shown._repr_html_()
        assert "<table" in shown._repr_html_()


def test_conditions_narrow(results: pl.DataFrame) -> None:
    found = Results(results).where(group="clip-*", dataset=["imagenet-val", "imagenet-a"])
    assert all(m.startswith("clip") for m in found.models)
    assert found.datasets == ["imagenet-val", "imagenet-a"]


@pytest.mark.parametrize(
    ("question", "text"),
    [
        (lambda r: r.model("clip-ft-in1k-wit-01"), "did you mean"),
        (lambda r: r.best("shape_bias", on="cue-conflict"), "no direction"),
        (lambda r: r.figure("reliability"), "single images"),
        (lambda r: r.figure("odo"), "did you mean ood"),
        (lambda r: r.best("tpo1"), "did you mean top1"),
    ],
)
def test_wrong_questions_name_the_mend(results: pl.DataFrame, question, text: str) -> None:
    with pytest.raises(UserError, match=text):
        question(Results(results))
