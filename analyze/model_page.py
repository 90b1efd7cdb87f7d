"""One model as a person wants to read it: its card, accuracy and calibration by dataset, OOD detection, factors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import polars as pl

from cache_schema.records import GROUPS, ModelCard

if TYPE_CHECKING:
    from rich.table import Table


def model_page(card: ModelCard, results: pl.DataFrame) -> Iterator[Table]:
    """Yield printable tables: the card, and each family of numbers that the results hold."""
    yield _card(card)
    for make in (_labelled, _outside, _factors, _shape, _reasons):
        table = make(results)
        if table is not None and table.row_count:
            yield table


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    return table


def _card(card: ModelCard) -> Table:
    from rich.markup import escape

    table = _table(escape(card.id), "", "")
    table.show_header = False
    table.columns[1].justify = "left"
    told = {
        "group": GROUPS[card.group],
        "library": " ".join(word for word in (card.library, card.name, card.tag) if word),
        "family": card.family,
        "training source": card.source,
        "training images": _count(card.source_size),
        "samples seen": _count(card.samples_seen),
        "parameters": _count(card.parameters),
        "input": f"{card.input_size} px" if card.input_size else "",
        "head": card.head_kind + (f", logit scale {card.logit_scale:.4g}" if card.logit_scale else ""),
        "licence": card.licence,
    }
    for name, value in told.items():
        if value and value != "unknown":
            table.add_row(name, escape(str(value)))
    return table


def _count(number: int | None) -> str:
    if number is None:
        return ""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def _one(rows: pl.DataFrame, **variant: str) -> dict[str, Any] | None:
    told = {"score": "", "calibrator": "", "subset": "", "factor": "", **variant}
    found = rows.filter([pl.col(name) == value for name, value in told.items()], pl.col("value").is_not_null())
    return None if found.is_empty() else found.row(0, named=True)


def _percent(row: dict[str, Any] | None, *, interval: bool = False) -> str:
    if row is None:
        return "-"
    text = f"{100 * row['value']:.1f}"
    if interval and row["low"] is not None:
        text += f" [dim]\\[{100 * row['low']:.1f}, {100 * row['high']:.1f}][/dim]"
    return text


def _plain(row: dict[str, Any] | None) -> str:
    return "-" if row is None else f"{row['value']:.3f}"


def _labelled(results: pl.DataFrame) -> Table | None:
    names = results.filter(pl.col("metric") == "top1", pl.col("subset") == "")["dataset"].unique(maintain_order=True)
    table = _table(
        "accuracy and calibration",
        "dataset",
        "images",
        "top-1 %",
        "top-5 %",
        "ECE %",
        "NLL",
        "AURC",
        "ECE % after T",
        "NLL after T",
    )
    for name in names:
        rows = results.filter(pl.col("dataset") == name)
        top1 = _one(rows, metric="top1")
        table.add_row(
            name,
            "-" if top1 is None else f"{top1['n']:,}",
            _percent(top1, interval=True),
            _percent(_one(rows, metric="top5")),
            _percent(_one(rows, metric="ece")),
            _plain(_one(rows, metric="nll")),
            _plain(_one(rows, metric="aurc")),
            _percent(_one(rows, metric="ece", calibrator="temperature")),
            _plain(_one(rows, metric="nll", calibrator="temperature")),
        )
    temperature = results.filter(pl.col("metric") == "temperature", pl.col("value").is_not_null())
    if not temperature.is_empty():
        told = ", ".join(f"{t:.3f} on {d}" for t, d in temperature.select("value", "dataset").iter_rows())
        table.caption = f"fitted temperature: {told}"
    return table


def _outside(results: pl.DataFrame) -> Table | None:
    rows = results.filter(pl.col("metric").is_in(["auroc", "fpr95_id"]), pl.col("score") != "")
    scores = rows["score"].unique(maintain_order=True).to_list()
    table = _table("OOD detection: AUROC % / FPR@95 % (ID positive)", "ID set", "OOD set", *scores)
    table.columns[1].justify = "left"
    for inside, dataset, subset in rows.select("id_dataset", "dataset", "subset").unique(maintain_order=True).rows():
        own = rows.filter(pl.col("id_dataset") == inside, pl.col("dataset") == dataset, pl.col("subset") == subset)
        cells = []
        for score in scores:
            both = [_one(own, metric=m, score=score, subset=subset) for m in ("auroc", "fpr95_id")]
            cells.append(" / ".join(_percent(value) for value in both))
        table.add_row(inside, dataset or f"mean of {subset}", *cells)
    return table


def _factors(results: pl.DataFrame) -> Table | None:
    rows = results.filter(
        pl.col("metric") == "factor_accuracy",
        pl.col("value").is_not_null(),
        ~pl.col("options").str.contains('"correct"'),
    )
    title = "by factor (error ratio: 1 is no harder than the whole; dim: its interval holds 1)"
    table = _table(title, "factor", "dataset", "images", "accuracy %", "error ratio", "ECE %", "gap %", "NLL")
    for row in rows.iter_rows(named=True):
        own = results.filter(pl.col("dataset") == row["dataset"], pl.col("options") == row["options"])
        more = {m: _one(own, metric=m, factor=row["factor"]) for m in ("error_ratio", "ece", "calibration_gap", "nll")}
        table.add_row(
            row["factor"],
            row["dataset"],
            f"{row['n']:,}",
            _percent(row, interval=True),
            _ratio(more["error_ratio"]),
            _percent(more["ece"]),
            _percent(more["calibration_gap"]),
            _plain(more["nll"]),
        )
    return table


def _ratio(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    text = f"{row['value']:.2f}"
    if row["low"] is None:
        return text
    text += f" \\[{row['low']:.2f}, {row['high']:.2f}]"
    return f"[dim]{text}[/dim]" if row["low"] <= 1.0 <= row["high"] else text


def _shape(results: pl.DataFrame) -> Table | None:
    rows = results.filter(pl.col("metric") == "shape_bias", pl.col("value").is_not_null())
    table = _table("shape bias", "dataset", "category", "decisions", "shape bias %")
    for row in rows.iter_rows(named=True):
        table.add_row(row["dataset"], row["factor"] or "all", f"{row['n']:,}", _percent(row, interval=True))
    return table


def _reasons(results: pl.DataFrame) -> Table | None:
    from rich.markup import escape

    rows = results.filter(pl.col("reason") != "").group_by("dataset", "reason", maintain_order=True)
    table = _table("what cannot be had", "dataset", "numbers", "why")
    table.columns[1].justify = table.columns[2].justify = "left"
    for row in rows.agg(pl.col("metric").unique(maintain_order=True)).iter_rows(named=True):
        names = row["metric"][:4] + (["..."] if len(row["metric"]) > 4 else [])
        table.add_row(row["dataset"], ", ".join(names), escape(row["reason"]))
    return table
