"""``analyze table``: every cell is its row, marks follow the direction, names are escaped."""

from __future__ import annotations

import csv
import html
import io
import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from analyze.cli import main
from analyze.results import ResultRow, to_frame, write_results
from analyze.results.selection import parse_where, select, varying
from analyze.results.titles import dataset_title
from analyze.tables import build_tables
from analyze.tables.writers import (
    print_tables,
    to_csv,
    to_html,
    to_latex,
    to_markdown,
)
from closerlook_common.errors import UserError

HOSTILE = '<script>alert("x")</script>|a_b & 50% #$ {x}~^\\ `c`\nnext'


def row(model: str, metric: str, value: float | None, **more: object) -> ResultRow:
    return ResultRow(model=model, dataset=more.pop("dataset", "d"), metric=metric, value=value, **more)  # type: ignore[arg-type]


@pytest.fixture
def small() -> pl.DataFrame:
    rows = []
    for model, group, top1, ece in (
        ("a", "self-supervised", 0.7, 0.05),
        ("b", "clip-zero-shot", 0.9, 0.04),
        ("c", "clip-zero-shot", 0.8, 0.06),
        ("e", "self-supervised", 0.9, 0.10),
    ):
        rows += [
            row(model, "top1", top1, low=top1 - 0.01, high=top1 + 0.01, group=group),
            row(model, "ece", ece, direction="lower", group=group),
            row(
                model,
                "ece",
                ece / 2,
                direction="lower",
                group=group,
                calibrator="temperature",
                id_dataset="val",
            ),
        ]
    rows.append(
        row("e", "nll", None, direction="lower", reason="label outside the class space", group="self-supervised")
    )
    return to_frame(rows)


def test_every_cell_is_the_value_of_its_row(results: pl.DataFrame) -> None:
    tables = build_tables(results)
    assert {t.page["dataset"] for t in tables} == set(results["dataset"].unique())
    seen = 0
    for table in tables:
        frame = table.to_frame()
        for index, column in enumerate(table.columns):
            metric, *printed = column.key
            for (model,), cells in zip(table.rows, table.cells, strict=True):
                wanted = results.filter(
                    pl.col("model") == model,
                    pl.col("dataset") == table.page["dataset"],
                    pl.col("metric") == metric,
                    *[pl.any_horizontal(pl.col("calibrator", "factor", "head") == t) for t in printed if t],
                    *[pl.all_horizontal(pl.col("calibrator", "factor", "head") == "")] * (not any(printed)),
                )
                if cells[index].value is None:
                    assert wanted.is_empty()
                else:
                    assert wanted["value"].to_list() == [cells[index].value]
                    seen += 1
            assert frame[column.name].to_list() == [r[index].value for r in table.cells]
    assert seen == len(results)


def test_marks_follow_the_direction_and_ties_share_them(small: pl.DataFrame) -> None:
    (table,) = build_tables(small, best=True)
    ranks = {c.name: [cells[i].rank for cells in table.cells] for i, c in enumerate(table.columns)}
    assert ranks["top1"] == [0, 1, 2, 1]
    assert ranks["ece"] == [2, 1, 0, 0]
    assert ranks["ece [temperature]"] == [2, 1, 0, 0]


def test_a_metric_without_direction_and_a_single_row_get_no_mark() -> None:
    (table,) = build_tables(
        to_frame(
            [
                row("a", "shape_bias", 0.3, direction="none"),
                row("b", "shape_bias", 0.4, direction="none"),
                row("a", "top1", 0.5),
            ]
        ),
        best=True,
    )
    assert {cell.rank for cells in table.cells for cell in cells} == {0}


@given(
    st.lists(
        st.one_of(st.none(), st.floats(allow_infinity=False), st.sampled_from([0.25, 0.5])),
        min_size=2,
        max_size=12,
    ),
    st.sampled_from(["higher", "lower"]),
)
def test_best_is_the_extreme_of_the_column(values: list[float | None], direction: str) -> None:
    frame = to_frame([row(f"m{i}", "x", v, direction=direction) for i, v in enumerate(values)])
    (table,) = build_tables(frame, best=True)
    cells = [c[0] for c in table.cells]
    best = [c.value for c in cells if c.rank == 1]
    rest = [c.value for c in cells if c.value is not None and c.value == c.value]
    if len(rest) > 1:
        assert best
        assert set(best) == {max(rest) if direction == "higher" else min(rest)}
        assert len(best) == rest.count(best[0])
        second = {c.value for c in cells if c.rank == 2}
        assert len(second) <= 1
        assert bool(second) == (len(set(rest)) > 1)
    else:
        assert not best


def test_groups_keep_the_studys_order_and_sorting_stays_within(small: pl.DataFrame) -> None:
    (table,) = build_tables(small, group_rows="group", sort="top1")
    assert [r[0] for r in table.rows] == ["b", "c", "e", "a"]
    assert table.groups == ("zero-shot CLIP",) * 2 + ("self-supervised",) * 2
    (ece,) = build_tables(small, sort="ece")
    assert [r[0] for r in ece.rows] == ["b", "a", "c", "e"]


def test_two_numbers_for_one_cell_are_refused() -> None:
    frame = to_frame([row("a", "top1", 0.5, store="x"), row("a", "top1", 0.6, store="y")])
    with pytest.raises(UserError, match=r"two numbers for one cell .*model=a"):
        build_tables(frame)


def test_a_column_that_mixes_scores_says_so() -> None:
    frame = to_frame([row("a", "auroc", 0.5, score="msp"), row("b", "auroc", 0.6, score="mcm")])
    (table,) = build_tables(frame)
    assert [c.name for c in table.columns] == ["auroc"]
    assert len(table.notes) == 1
    assert table.notes[0].startswith("auroc: score is ")
    assert {"msp in 1", "mcm in 1"} <= {part.removesuffix(" rows") for part in re.split(", | is ", table.notes[0])}
    assert "score is" in to_markdown([table])
    assert "score is" in to_latex([table])


def test_datasets_as_columns_and_models_as_rows(small: pl.DataFrame) -> None:
    both = pl.concat([small, small.with_columns(dataset=pl.lit("d2"), value=pl.col("value") / 2)])
    (table,) = build_tables(select(both, {"metric": "top1"}), columns=["dataset"])
    assert table.page == {"metric": "top1"}
    assert [c.name for c in table.columns] == ["d", "d2"]
    assert table.cells[0][1].value == pytest.approx(0.35)


def test_csv_reads_back_at_full_precision(results: pl.DataFrame) -> None:
    chosen = select(results, {"metric": "top1", "head": ""})
    back = pl.read_csv(io.StringIO(to_csv(build_tables(chosen, intervals=True))))
    joined = chosen.join(back, on=["model", "dataset"])
    assert len(joined) == len(chosen)
    assert joined["value"].to_list() == joined["top1"].to_list()
    assert joined["low"].to_list() == joined["top1 low"].to_list()


def test_intervals_digits_and_percent(small: pl.DataFrame) -> None:
    (table,) = build_tables(select(small, {"metric": "top1"}), intervals=True, percent=True)
    assert table.shown(table.cells[0][0], table.columns[0]) == "70.0 [69.0, 71.0]"
    (table,) = build_tables(small, digits=2)
    assert table.shown(table.cells[0][0], table.columns[0]) == "0.70"


def test_a_missing_value_keeps_its_reason(small: pl.DataFrame) -> None:
    (table,) = build_tables(small)
    assert table.reasons == {"label outside the class space": 1}
    out = io.StringIO()
    print_tables([table], Console(file=out, width=120))
    assert "1 without a value: label outside the class space" in out.getvalue()


def test_terminal_names_what_does_not_fit(results: pl.DataFrame) -> None:
    tables = build_tables(select(results, {"dataset": "imagenet-val"}))
    narrow, whole = io.StringIO(), io.StringIO()
    print_tables(tables, Console(file=narrow, width=80))
    print_tables(tables, Console(file=whole, width=80), all_columns=True)
    hidden = re.search(r"(\d+) more columns", narrow.getvalue())
    assert hidden
    assert "[pose]" not in narrow.getvalue().split("more columns")[0]
    for factor in ("pose", "larger"):
        assert f"[{factor}]" in whole.getvalue()
    assert max(map(len, whole.getvalue().splitlines())) <= 80


def test_hostile_names_are_text_in_every_format() -> None:
    tables = build_tables(to_frame([row(HOSTILE, "top1", 0.5, group="more-data")]), group_rows="group", best=True)
    page = to_html(tables)
    assert "<script" not in page
    assert html.escape(" ".join(HOSTILE.split())) in page
    line = next(ln for ln in to_markdown(tables).splitlines() if "alert" in ln)
    assert len(re.findall(r"(?<!\\)\|", line)) == 3
    latex = to_latex(tables)
    (body,) = [ln for ln in latex.splitlines() if "alert" in ln]
    assert len(re.findall(r"(?<!\\)&", body)) == 1
    assert next(csv.DictReader(io.StringIO(to_csv(tables))))["model"] == HOSTILE
    out = io.StringIO()
    print_tables(build_tables(to_frame([row("[bold]x[/bold]", "top1", 0.5)])), Console(file=out, width=80))
    assert "[bold]x[/bold]" in out.getvalue()


def test_conditions_choose_exclude_and_use_wildcards(results: pl.DataFrame) -> None:
    chosen = select(results, parse_where(["dataset=imagenet-v2-*", "metric=top1,ece", "calibrator=", "model!=clip-*"]))
    assert set(chosen["dataset"]) == {"imagenet-v2-a", "imagenet-v2-b", "imagenet-v2-c"}
    assert set(chosen["metric"]) == {"top1", "ece"}
    assert not any(m.startswith("clip") for m in chosen["model"])


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["metric"], "not of the form key=value"),
        (["metrc=top1"], "did you mean metric"),
        (["metric=top11"], "did you mean top1"),
        (["metric=top1", "dataset=textures"], "no row of the result table meets all"),
    ],
)
def test_bad_conditions_name_the_mend(results: pl.DataFrame, words: list[str], text: str) -> None:
    with pytest.raises(UserError, match=text):
        select(results, parse_where(words))


def test_varying_finds_what_tells_rows_apart(results: pl.DataFrame) -> None:
    assert set(varying(results, ["model", "dataset", "metric"])) == {
        "id_dataset",
        "calibrator",
        "factor",
        "head",
    }


def test_a_variant_may_label_the_columns() -> None:
    frame = to_frame([row("a", "auroc", value, score=score) for score, value in (("msp", 0.6), ("energy", 0.7))])
    (table,) = build_tables(frame, columns=["score"])
    assert {column.key[0]: cell.value for column, cell in zip(table.columns, table.cells[0], strict=True)} == {
        "msp": 0.6,
        "energy": 0.7,
    }


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("imagenet-a", "ImageNet-A"),
        ("imagenet-v2-a", "ImageNet-V2-A"),
        ("sun", "SUN"),
        ("MyData", "MyData"),
        ("imagenet-sketch", "ImageNet-Sketch"),
        ("", ""),
    ],
)
def test_dataset_titles(name: str, title: str) -> None:
    assert dataset_title(name) == title


def test_command_writes_every_format(small: pl.DataFrame, tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_results(small, tmp_path / "r.parquet")
    targets = {kind: tmp_path / "out" / f"t.{kind}" for kind in ("csv", "markdown", "latex", "html")}
    words = [word for kind, path in targets.items() for word in (f"--{kind}", str(path))]
    assert main(["table", str(source), "--best", "--group-rows", *words]) == 0
    assert "top1" in capsys.readouterr().out
    assert r"\toprule" in targets["latex"].read_text()
    assert "**0.900**" in targets["markdown"].read_text()
    assert "<b>0.900</b>" in targets["html"].read_text()
    assert targets["csv"].read_text().startswith("dataset,model,group,top1")
    assert main(["table", str(source), "--csv", "-"]) == 0
    assert capsys.readouterr().out.startswith("dataset,model,top1")


@pytest.mark.parametrize(
    "words",
    [
        ["--rows", "modell"],
        ["--where", "metric=nope"],
        ["--digits", "-1"],
        ["--sort", "x"],
        ["--rows", "metric"],
        ["--group-rows", "colour"],
    ],
)
def test_bad_options_exit_with_2(
    small: pl.DataFrame, tmp_path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    source = write_results(small, tmp_path / "r.parquet")
    try:
        code = main(["table", str(source), *words])
    except SystemExit as stop:  # what the parser itself refuses
        code = stop.code
    assert code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_what_a_reader_looks_for_comes_first() -> None:
    names = ("invalid_images", "mean_class_accuracy", "nll", "top1")
    frame = to_frame(
        [row(m, n, 0.5, dataset=d, role=r) for d, r in (("a-far", "ood"), ("b-shift", "shift"), ("c-val", "id"))
         for m in ("z", "y") for n in names]
    )  # fmt: skip
    tables = build_tables(frame)
    assert [table.page["dataset"] for table in tables] == ["c-val", "b-shift", "a-far"]
    assert [column.name for column in tables[0].columns] == ["top1", "nll", "mean_class_accuracy", "invalid_images"]
    assert tables[0].rows == (("z",), ("y",))  # models stay as the table has them
    (wide,) = build_tables(select(frame, {"metric": "top1"}), columns=["dataset"])
    assert [column.name for column in wide.columns] == ["c-val", "b-shift", "a-far"]


def test_one_prompt_set_beside_classifiers_needs_no_note() -> None:
    mixed = [row("clip", "top1", 0.5, head="openai-80"), row("net", "top1", 0.6)]
    assert build_tables(to_frame(mixed))[0].notes == ()
    two = [*mixed, row("clip2", "top1", 0.4, head="photo-1")]
    assert "head is" in build_tables(to_frame(two))[0].notes[0]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_short_and_long_model_names_stay_whole(width: int) -> None:
    metrics = ("top1", "top5", "ece", "nll", "brier", "aurc", "mean_class_accuracy", "worst_class_accuracy")
    names = ("c", "more-efficientnet-of-some-length")
    out = io.StringIO()
    frame = to_frame([row(model, metric, 0.5) for model in names for metric in metrics])
    print_tables(build_tables(frame), Console(file=out, width=width))
    assert re.search(r"^more-efficientnet-of-some-length +0\.500", out.getvalue(), re.MULTILINE)
    for model in names[:1]:
        out = io.StringIO()
        print_tables(build_tables(to_frame([row(model, m, 0.5) for m in metrics])), Console(file=out, width=width))
        assert re.search(r"^model +top1", out.getvalue(), re.MULTILINE)


def test_the_command_takes_the_usual_prompts_and_shows_all_when_asked(tmp_path, capsys) -> None:
    clip = [row("clip", "top1", 0.5, head="openai-80"), row("clip", "top1", 0.4, head="photo-1")]
    rows = [row("net", "top1", 0.6), *clip]
    write_results(to_frame([*rows, row("other", "top1", 0.3, head="photo-1")]), tmp_path / "r.parquet")
    assert main(["table", str(tmp_path / "r.parquet"), "--csv", "-"]) == 0
    text = capsys.readouterr()
    table = {line["model"]: line for line in csv.DictReader(io.StringIO(text.out))}
    assert [float(table[model]["top1"]) for model in ("net", "clip", "other")] == [0.6, 0.5, 0.3]
    assert "usual prompts" in text.err
    assert main(["table", str(tmp_path / "r.parquet"), "--where", "head=*", "--csv", "-"]) == 0
    text = capsys.readouterr()
    assert "0.4" in text.out
    assert "usual prompts" not in text.err


def test_a_note_stands_under_the_table_that_shows_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    from analyze.tables.writers import print_tables

    plain = [row(m, f"metric_{number}_with_a_long_name", 0.5) for m in "ab" for number in range(9)]
    mixed = [row("a", "z_auroc", 0.5, score="msp"), row("b", "z_auroc", 0.6, score="mcm")]
    (table,) = build_tables(to_frame([*plain, *mixed]))
    assert [str(note).partition(":")[0] for note in table.notes] == ["z_auroc"]
    print_tables([table], Console(width=80))
    cut = capsys.readouterr().out
    assert "more column" in cut
    assert "note:" not in cut
    print_tables([table], Console(width=80), all_columns=True)
    assert "note: z_auroc: score is" in capsys.readouterr().out
