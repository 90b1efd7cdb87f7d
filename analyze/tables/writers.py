"""Tables as text: Markdown, LaTeX (booktabs), HTML, CSV, the terminal; everything shown is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import polars as pl

from analyze.results.csv_text import csv_text
from analyze.results.titles import dataset_title, metric_title
from analyze.tables import Cell, Column, Table
from analyze.tables.escapes import escape_html, escape_latex, escape_markdown, one_line
from analyze.tables.notes import Note
from closerlook_common.console.messages import line
from closerlook_common.console.terminal import counted

if TYPE_CHECKING:
    from rich.console import Console


def page_title(page: dict[str, str]) -> str:
    """Return the heading of a page (``ImageNet-A``, ``ImageNet-A: ECE``)."""
    if not page:
        return "Results"
    stated = {"dataset": lambda name: dataset_title(name) or "Means over datasets", "metric": metric_title}
    return ": ".join(given for key, value in page.items() if (given := stated.get(key, str)(value)))


def _blocks(table: Table) -> Iterable[tuple[str, list[int]]]:
    """Rows by group, in order; one nameless block where rows are not grouped."""
    blocks: dict[str, list[int]] = {}
    for index, group in enumerate(table.groups):
        blocks.setdefault(group, []).append(index)
    return blocks.items()


def to_markdown(tables: Sequence[Table]) -> str:
    """Return pages as Markdown: best bold, second underlined."""

    def cell(table: Table, c: Cell, column: Column) -> str:
        text = table.shown(c, column)
        return {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(c.rank, text)

    parts = []
    for table in tables:
        head = [
            *map(escape_markdown, table.row_names),
            *(f"{escape_markdown(c.title)} {c.arrow}".rstrip() for c in table.columns),
        ]
        lines = [
            "| " + " | ".join(head) + " |",
            "|" + "|".join([" --- "] * len(table.row_names) + [" ---: "] * len(table.columns)) + "|",
        ]
        for group, members in _blocks(table):
            if group:
                lines.append("| " + " | ".join([f"*{escape_markdown(group)}*", *[""] * (len(head) - 1)]) + " |")
            for i in members:
                numbers = [cell(table, c, column) for c, column in zip(table.cells[i], table.columns, strict=True)]
                lines.append("| " + " | ".join([*map(escape_markdown, table.rows[i]), *numbers]) + " |")
        title = [f"### {escape_markdown(page_title(table.page))}", ""] if table.page else []
        notes = ["", *(f"{escape_markdown(note)}  " for note in table.notes)] if table.notes else []
        parts.append("\n".join([*title, *lines, *notes]))
    return "\n\n".join(parts) + "\n"


def _spans(table: Table) -> list[tuple[str, int]]:
    """Return what neighbouring columns share and how many they are; empty where titles have one line."""
    spans: list[tuple[str, int]] = []
    for column in table.columns:
        if not column.over:
            return []
        if spans and spans[-1][0] == column.over:
            spans[-1] = (column.over, spans[-1][1] + 1)
        else:
            spans.append((column.over, 1))
    # Where nothing is shared, a line above saves no room.
    return spans if len(spans) < len(table.columns) else []


def _latex_spans(spans: Sequence[tuple[str, int]], before: int) -> Iterable[str]:
    if not spans:
        return
    yield "& " * before + " & ".join(rf"\multicolumn{{{n}}}{{c}}{{{escape_latex(name)}}}" for name, n in spans) + r" \\"
    rules, start = "", before + 1
    for _, n in spans:
        rules += rf"\cmidrule(lr){{{start}-{start + n - 1}}}"
        start += n
    yield rules


def to_latex(tables: Sequence[Table]) -> str:
    r"""Return pages as LaTeX ``tabular``s for the ``booktabs`` package: best bold, second underlined."""

    def cell(table: Table, c: Cell, column: Column) -> str:
        text = escape_latex(table.shown(c, column))
        return {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(c.rank, text)

    arrows = {"↑": r" $\uparrow$", "↓": r" $\downarrow$", "": ""}
    parts = []
    for table in tables:
        width = len(table.row_names) + len(table.columns)
        spans = _spans(table)
        head = [
            *map(escape_latex, table.row_names),
            *(f"{escape_latex(c.under if spans else c.title)}{arrows[c.arrow]}" for c in table.columns),
        ]
        lines = [
            f"% {escape_latex(page_title(table.page))}",
            *(f"% note: {escape_latex(n)}" for n in table.notes),
            rf"\begin{{tabular}}{{{'l' * len(table.row_names)}{'r' * len(table.columns)}}}",
            r"\toprule",
            *_latex_spans(spans, len(table.row_names)),
            " & ".join(head) + r" \\",
            r"\midrule",
        ]
        for number, (group, members) in enumerate(_blocks(table)):
            if group:
                lines += [r"\addlinespace"] * bool(number)
                lines.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{escape_latex(group)}}}}} \\")
            lines += [
                " & ".join(
                    [
                        *map(escape_latex, table.rows[i]),
                        *(cell(table, c, column) for c, column in zip(table.cells[i], table.columns, strict=True)),
                    ]
                )
                + r" \\"
                for i in members
            ]
        parts.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}"]))
    text = "\n\n".join(parts)
    needs = r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}"
    if any(ord(c) > LATIN for c in text):
        needs = r"% needs XeLaTeX or LuaLaTeX with a font of these letters, and \usepackage{booktabs}"
    return f"{needs}\n\n{text}\n"


LATIN = 0x17F
"""Letters up to here are those of pdfLaTeX with T1 fonts."""

# Type and colours are those of the report and of the site.
_STYLE = """body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
body{margin:2rem;color:#1d2025;background:#fbfbfa}
table{border-collapse:collapse;margin:0 0 2rem;border-top:2px solid;border-bottom:2px solid}
table{font-variant-numeric:tabular-nums}
th,td{padding:.2rem .8rem;text-align:right}th.label,td.label{text-align:left}thead th{border-bottom:1px solid}
caption{text-align:left;font-weight:600;padding:.4rem 0}
tr.group th{text-align:left;font-style:italic;font-weight:400}
.second{text-decoration:underline}@media(prefers-color-scheme:dark){body{color:#e7e8ea;background:#14161a}}"""


def to_html(tables: Sequence[Table]) -> str:
    """Return pages as one HTML document without scripts: best bold, second underlined."""

    def cell(table: Table, c: Cell, column: Column) -> str:
        text = escape_html(table.shown(c, column))
        return {1: f"<b>{text}</b>", 2: f'<span class="second">{text}</span>'}.get(c.rank, text)

    parts = []
    for table in tables:
        head = "".join(
            [
                *(f'<th class="label" scope="col">{escape_html(n)}</th>' for n in table.row_names),
                *(f'<th scope="col">{escape_html(c.title)} {c.arrow}</th>' for c in table.columns),
            ]
        )
        body = []
        for group, members in _blocks(table):
            if group:
                span = len(table.row_names) + len(table.columns)
                body.append(f'<tr class="group"><th colspan="{span}">{escape_html(group)}</th></tr>')
            for i in members:
                labels = "".join(f'<td class="label">{escape_html(v)}</td>' for v in table.rows[i])
                numbers = "".join(
                    f"<td>{cell(table, c, column)}</td>"
                    for c, column in zip(table.cells[i], table.columns, strict=True)
                )
                body.append(f"<tr>{labels}{numbers}</tr>")
        parts.append(
            f"<table><caption>{escape_html(page_title(table.page))}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>\n{chr(10).join(body)}\n</tbody></table>"
            + "".join(f"<p>{escape_html(note)}</p>" for note in table.notes)
        )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Results</title>'
        f"<style>{_STYLE}</style></head><body>\n{chr(10).join(parts)}\n</body></html>\n"
    )


def to_csv(tables: Sequence[Table]) -> str:
    """Return pages as one CSV, numbers at full precision, what heads a page as leading columns."""
    frames = [
        table.to_frame().select(*(pl.lit(value).alias(key) for key, value in table.page.items()), pl.all())
        for table in tables
    ]
    return csv_text(pl.concat(frames, how="diagonal"))


WRITERS = {"csv": to_csv, "markdown": to_markdown, "latex": to_latex, "html": to_html}
"""Option of ``analyze table`` -> function that gives the text."""


def print_tables(tables: Sequence[Table], console: Console, *, all_columns: bool = False) -> None:
    """Print pages in the terminal; what does not fit is named below, or follows as further pages.

    Parameters
    ----------
    tables
        Pages of ``build_tables``.
    console
        A rich console; its width decides how many columns fit.
    all_columns
        Print the columns that do not fit as further tables instead of naming them.
    """
    for table in tables:
        width = (
            console.width
            - 2
            - sum(2 + min(_label_width(table, i), console.width // 2) for i in range(len(table.row_names)))
        )
        pieces: list[list[int]] = [[]]
        used = 0
        for index in sorted(range(len(table.columns)), key=lambda i: table.columns[i].variant):
            column = table.columns[index]
            need = 2 + max([len(_two_lines(column)), 5, *(len(table.shown(row[index], column)) for row in table.cells)])
            if pieces[-1] and used + need > max(width, 20):
                pieces.append([])
                used = 0
            pieces[-1].append(index)
            used += need
        for piece in pieces if all_columns else pieces[:1]:
            _print_piece(table, piece, console)
        hidden = [table.columns[i].name for piece in pieces[1:] for i in piece]
        if hidden and not all_columns:
            names = one_line(", ".join(hidden[:8])) + (" ..." if len(hidden) > 8 else "")
            text = f"{counted(len(hidden), 'more column')} (see `all_columns`, `where`): {names}"
            console.print(line(text, "dim"))
        for reason in _missing(table, pieces if all_columns else pieces[:1]):
            console.print(line(f"– {one_line(reason)}", "dim"))
        printed = {table.columns[i].key for piece in (pieces if all_columns else pieces[:1]) for i in piece}
        notes = [note.about(printed) if isinstance(note, Note) else note for note in table.notes]
        for note in filter(None, notes):
            console.print(line(f"note: {one_line(note)}", "dim"))
        console.print()


REASONS = 6
"""Reasons for missing values that are printed below a page; the result table's column ``reason`` has all."""


def _missing(table: Table, pieces: Sequence[Sequence[int]]) -> Iterable[str]:
    """Yield why values of the printed columns are missing, and how many reasons are left out."""
    found: dict[str, int] = {}
    for row in table.cells:
        for cell in (row[index] for piece in pieces for index in piece):
            if cell.value is None and cell.reason:
                found[cell.reason] = found.get(cell.reason, 0) + 1
    for reason, count in list(found.items())[:REASONS]:
        yield f"{count} without a value: {reason}"
    if (left := len(found) - REASONS) > 0:
        yield f"{left} more reasons in the column 'reason' of the result table"


def _two_lines(column: Column) -> str:
    """Return the longest line of a column's heading."""
    return max(_heading(column).split("\n"), key=len)


def _heading(column: Column) -> str:
    return f"{one_line(column.name)} {column.arrow}".rstrip().replace(" [", "\n[")


def _label_width(table: Table, index: int) -> int:
    """Return the width of the longest label of a row, or of its heading."""
    return max(len(one_line(text)) for text in (table.row_names[index], *(row[index] for row in table.rows)))


def _print_piece(table: Table, piece: list[int], console: Console) -> None:
    from rich.text import Text

    from closerlook_common.console.terminal import plain_table

    drawn = plain_table(page_title(table.page))
    for index, name in enumerate(table.row_names):
        width = min(_label_width(table, index), console.width // 2)
        drawn.add_column(Text(one_line(name)), justify="left", overflow="fold", min_width=width)
    for i in piece:
        drawn.add_column(Text(_heading(table.columns[i])), justify="right", no_wrap=True)
    for group, members in _blocks(table):
        if group:
            drawn.add_row(Text(one_line(group), style="italic"), *[""] * (len(table.row_names) - 1 + len(piece)))
        for r in members:
            numbers = [
                Text(
                    table.shown(table.cells[r][i], table.columns[i]),
                    style={1: "bold green", 2: "underline"}.get(table.cells[r][i].rank, ""),
                )
                for i in piece
            ]
            drawn.add_row(*(Text(one_line(label)) for label in table.rows[r]), *numbers)
    console.print(drawn)
