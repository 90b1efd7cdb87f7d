"""One model as a person wants to read it: its card, accuracy and calibration by dataset, OOD detection, factors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import polars as pl

from analyze.tables.reading_order import in_reading_order
from cache_schema.console.terminal import plain_table
from cache_schema.records import GROUPS, ModelCard

if TYPE_CHECKING:
    from rich.table import Table


WIDE = 100
"""Characters from which on tables have room for what matters less."""


def model_page(card: ModelCard, results: pl.DataFrame, *, width: int = 120) -> Iterator[Table]:
    """Yield printable tables: the card, and each family of numbers that the results hold.

    Parameters
    ----------
    card, results
        The model's card and its rows of a result table.
    width
        Characters of a line; on a narrow page minor columns are left out and OOD scores go on in a further table.
    """
    yield _card(card)
    results = in_reading_order(results)
    first = (_labelled(results, width), *_outside(results, width), _factors(results, width))
    for table in (*first, _shape(results), _reasons(results)):
        if table is not None and table.row_count:
            yield table


def _card(card: ModelCard) -> Table:
    from rich.markup import escape

    table = plain_table(card.id, "", "")
    table.show_header = False
    table.columns[1].no_wrap = False
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


def _labelled(results: pl.DataFrame, width: int) -> Table | None:
    names = results.filter(pl.col("metric") == "top1", pl.col("subset") == "")["dataset"].unique(maintain_order=True)
    minor = {"top-5 %": ("top5", _percent), "AURC": ("aurc", _plain)} if width >= WIDE else {}
    heads = ("dataset", "images", "top-1 %", "ECE %", "NLL", "ECE % (T)", "NLL (T)", *minor)
    table = plain_table("accuracy and calibration", *heads)
    for name in names:
        rows = results.filter(pl.col("dataset") == name)
        top1 = _one(rows, metric="top1")
        table.add_row(
            name,
            "-" if top1 is None else f"{top1['n']:,}",
            _percent(top1, interval=True),
            _percent(_one(rows, metric="ece")),
            _plain(_one(rows, metric="nll")),
            _percent(_one(rows, metric="ece", calibrator="temperature")),
            _plain(_one(rows, metric="nll", calibrator="temperature")),
            *(shown(_one(rows, metric=metric)) for metric, shown in minor.values()),
        )
    temperature = results.filter(pl.col("metric") == "temperature", pl.col("value").is_not_null())
    if not temperature.is_empty():
        told = ", ".join(f"{t:.3f} on {d}" for t, d in temperature.select("value", "dataset").iter_rows())
        table.caption = f"(T): after temperature scaling, {told}"
    return table


def _outside(results: pl.DataFrame, width: int) -> Iterator[Table]:
    """Yield AUROC and FPR@95 of every score (columns) on every OOD set (rows), by metric and ID set."""
    titles = {"auroc": "OOD detection: AUROC %", "fpr95_id": "OOD detection: FPR@95 %, ID positive"}
    rows = results.filter(pl.col("metric").is_in(list(titles)), pl.col("score") != "")
    scores = rows["score"].unique(maintain_order=True).to_list()
    for metric, title in titles.items():
        for inside in rows["id_dataset"].unique(maintain_order=True):
            own = rows.filter(pl.col("id_dataset") == inside)
            label = {
                (dataset, subset): dataset or f"mean of {subset}"
                for dataset, subset in own.select("dataset", "subset").unique(maintain_order=True).rows()
            }
            first = f"from {inside}"
            room = width - max(map(len, (first, *label.values())))
            for part in _that_fit(scores, room):
                table = plain_table(title if part[0] == scores[0] else "", first, *part)
                for (dataset, subset), name in label.items():
                    pair = own.filter(pl.col("dataset") == dataset, pl.col("subset") == subset)
                    table.add_row(
                        name, *(_percent(_one(pair, metric=metric, score=s, subset=subset)) for s in part)
                    )
                yield table


def _that_fit(names: list[str], room: int) -> Iterator[list[str]]:
    """Yield the names in parts whose columns fit into so many characters."""
    part: list[str] = []
    used = 0
    for name in names:
        need = max(len(name), 5) + 2
        if part and used + need > room:
            yield part
            part, used = [], 0
        part.append(name)
        used += need
    if part:
        yield part


def _factors(results: pl.DataFrame, width: int) -> Table | None:
    rows = results.filter(
        pl.col("metric") == "factor_accuracy",
        pl.col("value").is_not_null(),
        ~pl.col("options").str.contains('"correct"'),
    )
    several = rows["dataset"].n_unique() > 1
    minor = {"gap %": ("calibration_gap", _percent), "NLL": ("nll", _plain)} if width >= WIDE else {}
    title = "by factor" if several or rows.is_empty() else f"by factor, {rows['dataset'][0]}"
    heads = ("factor", *(["dataset"] if several else []), "images", "accuracy %", "error ratio", "ECE %", *minor)
    table = plain_table(title, *heads)
    table.caption = "error ratio: 1 is no harder than the whole; dim: its interval holds 1"
    for row in rows.iter_rows(named=True):
        own = results.filter(pl.col("dataset") == row["dataset"], pl.col("options") == row["options"])
        more = {m: _one(own, metric=m, factor=row["factor"]) for m in ("error_ratio", "ece", "calibration_gap", "nll")}
        table.add_row(
            row["factor"],
            *([row["dataset"]] if several else []),
            f"{row['n']:,}",
            _percent(row, interval=True),
            _ratio(more["error_ratio"]),
            _percent(more["ece"]),
            *(shown(more[metric]) for metric, shown in minor.values()),
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
    table = plain_table("shape bias", "dataset", "category", "decisions", "shape bias %")
    for row in rows.iter_rows(named=True):
        table.add_row(row["dataset"], row["factor"] or "all", f"{row['n']:,}", _percent(row, interval=True))
    return table


def _reasons(results: pl.DataFrame) -> Table | None:
    from rich.markup import escape

    rows = results.filter(pl.col("reason") != "").group_by("dataset", "reason", maintain_order=True)
    table = plain_table("what cannot be had", "dataset", "numbers", "why")
    for column in table.columns[1:]:
        column.justify, column.no_wrap, column.overflow = "left", False, "fold"
    for row in rows.agg(pl.col("metric").unique(maintain_order=True)).iter_rows(named=True):
        names = row["metric"][:4] + (["..."] if len(row["metric"]) > 4 else [])
        table.add_row(row["dataset"], ", ".join(names), escape(row["reason"]))
    return table
