"""Names of others are text in every format: nothing in them is obeyed, and a reader gets them back."""

from __future__ import annotations

import csv
import io
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from analyze.figures.pages import compose, prepare
from analyze.figures.text import drawable
from analyze.report.page import escaped_json
from analyze.results import ResultRow, read_results, to_frame, write_results
from analyze.results.csv_text import csv_text, unguarded
from analyze.tables import build_tables
from analyze.tables.escapes import escape_latex, escape_markdown, one_line
from analyze.tables.factors import factor_table
from analyze.tables.model_page import model_page
from analyze.tables.writers import print_tables, to_csv, to_html, to_latex, to_markdown
from cache_schema import ModelCard
from closerlook_common.console.terminal import printable

PIECES = (
    *(
        "$",
        "$$",
        "$x_0$",
        "\\undefinedmacro",
        "\\",
        "{",
        "}",
        "%",
        "&",
        "#",
        "^^5e",
        "--",
        "---",
        "''",
        "``",
        ",,",
        "~",
    ),
    *(
        "[/red]",
        "[bold]",
        "[",
        "]",
        "*",
        "**",
        "_",
        "`",
        "|",
        "~~",
        "<b>",
        "</script>",
        "<!--",
        "-->",
        "&amp;",
        '"',
        "'",
    ),
    *(
        "javascript:alert(1)",
        "https://x.y",
        "www.x.y",
        "a@b.c",
        "=1+1",
        "+",
        "-",
        "@",
        "\t",
        "\r",
        "\n",
        "1. ",
        "# ",
        ": ",
    ),
    *(
        "\x00",
        "\x1b[31m",
        "\x07",
        "\x7f",
        "\x85",
        "\u202e",
        "\u2028",
        "\u200b",
        "\ufeff",
        "é",
        "中",
        "مر",
        "😀",
        "m" * 120,
        "a",
    ),
)
names = st.lists(st.one_of(st.sampled_from(PIECES), st.characters(exclude_categories=["Cs"])), min_size=1, max_size=6)
NAMES = names.map("".join).filter(lambda name: bool(name.strip()) and bool(one_line(name)))
EXAMPLES = [
    "[a]",
    "* b",
    "m$0$x",
    "\\undefinedmacro",
    "$$",
    "[/red]",
    "=cmd|' /C calc'!A0",
    "'=x",
    "a--b",
    "-x",
    "1. a",
]


def row(model: str, metric: str, value: float, **more: Any) -> ResultRow:
    return ResultRow(**{"model": model, "dataset": "val", "metric": metric, "value": value, "role": "id", **more})


def tables_of(name: str) -> Any:
    """Return a table whose model, dataset and score have the name, beside one with plain names."""
    rows = [row(name, "top1", 0.5), row(name, "auroc", 0.5, score=name), row("plain", "top1", 0.25)]
    return build_tables(to_frame([*rows, row(name, "top1", 0.5, dataset=name)]), best=True)


MACROS = {
    "textbackslash": "\\",
    "textasciitilde": "~",
    "textasciicircum": "^",
    "textasciigrave": "`",
    "textless": "<",
    "textgreater": ">",
    "textbar": "|",
    "textquotedbl": '"',
}


def typeset(source: str) -> str:
    """Return what TeX prints for a source that may hold known macros, escaped signs, groups and plain letters alone."""
    out, place = "", 0
    for found in re.finditer(r"\\(text\w+)\{\}|\\([&%$#_{}])|\$\\infty\$|\{\}|--|([^\\&%$#_{}~^<>|\"`])", source):
        assert found.start() == place, source[place:]
        place = found.end()
        macro, sign, letter = found.groups()
        out += MACROS[macro] if macro else sign or letter or {"$\\infty$": "∞", "--": "–"}.get(found[0], "")
    assert place == len(source)
    return out


@given(NAMES)
@example("[a]")
@example("*a")
def test_latex_prints_the_name(name: str) -> None:
    source = escape_latex(name)
    assert typeset(source) == one_line(name)
    assert not re.search(r"''|,,|---", source)
    assert source[0] not in "[*"
    assert all(c.isprintable() for c in source)


@given(NAMES)
@settings(max_examples=40)
def test_latex_tables_have_a_cell_for_a_cell(name: str) -> None:
    for page in to_latex(tables_of(name)).split("\\begin{tabular}")[1:]:
        lines = [line for line in page.splitlines() if line.endswith(r" \\")]
        assert lines
        counts = {len(re.findall(r"(?<!\\)&", line)) for line in lines}
        assert len(counts) == 1
        assert not any(re.match(r"[\[*]", line) for line in lines)


class Cells(HTMLParser):
    """The text of each cell, every element and every attribute of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag in ("td", "th", "caption", "h3"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


@given(NAMES)
@settings(max_examples=60)
def test_html_shows_the_name(name: str) -> None:
    found = Cells(to_html(tables_of(name)))
    assert one_line(name) in {cell.strip() for cell in found.cells}
    assert found.tags <= {
        *[
            "html",
            "head",
            "meta",
            "title",
            "style",
            "body",
            "table",
            "caption",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "b",
            "span",
            "p",
        ]
    }
    assert found.attributes <= {"lang", "charset", "class", "scope", "colspan"}


@given(NAMES)
@settings(max_examples=60)
def test_markdown_shows_the_name(name: str) -> None:
    parser = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable(["table", "strikethrough"])
    found = Cells(parser.render(to_markdown(tables_of(name))))
    assert one_line(name) in {cell.strip() for cell in found.cells}
    assert found.tags <= {"h3", "table", "thead", "tbody", "tr", "th", "td", "strong", "u", "p", "br"}


@given(NAMES)
def test_markdown_makes_no_links(name: str) -> None:
    assert not re.search(r"\w://|www\.|\w@\w", escape_markdown(name))


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_csv_holds_no_formula_and_is_read_back(texts: list[str]) -> None:
    heads = [f"{text}{i}" for i, text in enumerate(texts)]
    frame = pl.DataFrame(dict.fromkeys(heads, texts) | {"number": [-1.5] * len(texts)})
    written = csv_text(frame)
    for line in csv.reader(io.StringIO(written, newline="")):
        assert not any(re.match(r"[=+\-@\t\r\n]", cell) for cell in line if cell != "-1.5")
    head, *lines = csv.reader(io.StringIO(written, newline=""))
    back = unguarded(pl.DataFrame(dict(zip(head, zip(*lines, strict=True), strict=True))))
    assert back.columns == frame.columns
    assert back.drop("number").equals(frame.drop("number"))


def test_result_tables_in_csv_hold_no_formula_and_are_read_back(tmp_path: Path) -> None:
    table = to_frame([row(name, "top1", -0.5, dataset=name) for name in EXAMPLES])
    path = write_results(table, tmp_path / "r.csv")
    with path.open(newline="") as file:
        assert not any(re.match(r"[=+\-@\t\r\n]", cell) for line in csv.reader(file) for cell in line if cell != "-0.5")
    assert read_results(path).equals(table)


def test_csv_tables_hold_no_formula() -> None:
    for name in EXAMPLES:
        for line in csv.reader(io.StringIO(to_csv(tables_of(name)), newline="")):
            assert not any(re.match(r"[=+\-@\t\r\n]", cell) for cell in line)


@given(NAMES)
@settings(max_examples=40)
@example("[/red]")
@example("\x1b[31m")
def test_terminal_shows_the_name(name: str) -> None:
    out = io.StringIO()
    console = Console(file=out, width=3000, color_system=None)
    print_tables(tables_of(name), console, all_columns=True)
    assert one_line(name) in out.getvalue()
    rows = [
        row(name, "top1", 0.5, dataset=name, low=0.4, high=0.6, n=10),
        row(name, "temperature", 1.5, dataset=name),
        row(name, "factor_accuracy", 0.5, dataset=name, factor=name, n=10),
        row(name, "shape_bias", 0.5, dataset=name, factor=name, n=10),
        row(name, "auroc", 0.5, dataset=name, id_dataset=name, score=name, role="ood"),
        ResultRow(model=name, dataset=name, metric=name, reason=name),
    ]
    card = ModelCard(id=name, library=name, name=name, source=name, licence=name)
    for part in (*model_page(card, to_frame(rows), width=3000), *factor_table(to_frame(rows), width=3000)):
        console.print(part)
    text = out.getvalue()
    assert printable(name) in text
    assert all(c == "\n" or c.isprintable() for c in text)


@given(st.lists(NAMES, min_size=6, max_size=6, unique=True))
@settings(max_examples=6, phases=[Phase.explicit, Phase.generate])
@example([*EXAMPLES[:3], "中文\x00", "m" * 300, "a\nb"])
@example(["W" * (60 + i) for i in range(6)])
def test_figures_draw_the_name(texts: list[str]) -> None:
    rows = [
        row(name, metric, (i + 1) / 10 + shift / 30, dataset=dataset, role=role, source=texts[0], **more)
        for i, name in enumerate(texts)
        for shift, (dataset, role) in enumerate([(texts[0], "id"), (texts[1], "shift")])
        for metric, more in (
            ("top1", {}),
            ("factor_accuracy", {"factor": texts[2]}),
            ("factor_accuracy", {"factor": "b"}),
        )
    ]
    for name in ("ranks", "factor_heatmap"):
        page = compose(name, prepare(name, to_frame(rows)))
        shown = [label.get_text() for label in page.axes[0].get_yticklabels()]
        wanted = {drawable(name).replace("…", "") for name in texts}
        for text in shown:
            head, _, tail = text.partition("…")
            assert any(whole.startswith(head) and whole.endswith(tail) for whole in wanted)
        out = io.BytesIO()
        page.savefig(out, format="svg")
        ElementTree.fromstring(out.getvalue())
        page.savefig(io.BytesIO(), format="pdf")


@given(NAMES)
def test_the_reports_data_are_data(name: str) -> None:
    import json

    text = escaped_json({"name": name})
    assert json.loads(text) == {"name": name}
    assert not set(text) & set("<>&\u2028\u2029")


def test_a_figures_numbers_hold_the_names_and_no_formula(results: pl.DataFrame, tmp_path: Path) -> None:
    from analyze.figures.pages import save

    first = results["model"][0]
    table = results.with_columns(pl.col("model").replace(first, "=1+1"))
    data = prepare("ranks", table)
    save("ranks", data, tmp_path, formats=[])
    back = pl.read_csv(tmp_path / "ranks.csv", infer_schema_length=None)
    assert "'=1+1" in back["model"].to_list()
    assert set(unguarded(back)["model"].drop_nulls()) == set(data["model"])
