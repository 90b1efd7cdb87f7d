"""One model as a person wants to read it: its card, accuracy and calibration by dataset, OOD detection, factors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import polars as pl

from analyze.tables.reading_order import in_reading_order
from analyze.tables.variants import SUBSETS
from cache_schema.format.records import GROUPS, UNKNOWN, ModelCard
from closerlook_common.console.terminal import GAP, as_text, escaped, plain_table, printable

if TYPE_CHECKING:
    from rich.table import Table


Place = tuple[str, str]
"""Dataset and subset of a number; without a dataset it is a mean over the subset's."""

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
            # A long name goes on in the next line: cut short it could not be distinguished from another.
            table.columns[0].no_wrap, table.columns[0].overflow = False, "fold"
            yield table


def _card(card: ModelCard) -> Table:
    table = plain_table(card.id, "", "")
    table.show_header = False
    table.columns[1].no_wrap = False
    table.columns[1].justify = "left"
    given = {
        "group": GROUPS[card.group],
        "library": " ".join(word for word in (card.library, card.name, card.tag) if word and word != UNKNOWN),
        "family": card.family,
        "training source": card.source,
        "training images": _count(card.source_size),
        "samples seen": _count(card.samples_seen),
        "parameters": _count(card.parameters),
        "input": f"{card.input_size} px" if card.input_size else "",
        "head": card.head_kind + (f", logit scale {card.logit_scale:.4g}" if card.logit_scale else ""),
        "licence": card.licence,
    }
    for name, value in given.items():
        if value and value != "unknown":
            table.add_row(name, escaped(str(value)))
    return table


def _count(number: int | None) -> str:
    if number is None:
        return ""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def _one(rows: pl.DataFrame, **variant: str) -> dict[str, Any] | None:
    given = {"score": "", "calibrator": "", "subset": "", "factor": "", **variant}
    found = rows.filter([pl.col(name) == value for name, value in given.items()], pl.col("value").is_not_null())
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
            as_text(name),
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
        text = ", ".join(f"{t:.3f} on {d}" for t, d in temperature.select("value", "dataset").iter_rows())
        table.caption = as_text(f"(T): after temperature scaling, {text}")
    return table


def _outside(results: pl.DataFrame, width: int) -> Iterator[Table]:
    """Yield AUROC and FPR@95 of every score or detector (rows) on every OOD set (columns), by metric and ID set."""
    from rich.text import Text

    titles = {"auroc": "OOD detection: AUROC %", "fpr95_id": "OOD detection: FPR@95 %, ID positive"}
    rows = results.filter(
        pl.col("metric").is_in(list(titles)),
        pl.col("score") != "",
        pl.col("value").is_not_null(),
        ~pl.col("options").str.contains('"full_spectrum"'),
    )
    for metric, title in titles.items():
        for inside in rows["id_dataset"].unique(maintain_order=True):
            own = rows.filter(pl.col("id_dataset") == inside, pl.col("metric") == metric)
            places = {
                (dataset, subset): _folded(dataset) if dataset else f"mean\n{SUBSETS.get(subset, _folded(subset))}"
                for dataset, subset in own.select("dataset", "subset").unique(maintain_order=True).rows()
            }
            scores = own["score"].unique(maintain_order=True).to_list()
            room = width - max((len(printable(name)) for name in ("score", *scores)), default=0)
            for number, part in enumerate(_that_fit(places, room)):
                table = plain_table("" if number else f"{title}, from {inside}", "score")
                for place in part:
                    table.add_column(Text(places[place]), justify="right", no_wrap=True)
                for score in scores:
                    scored = own.filter(pl.col("score") == score)
                    found = (
                        _one(scored.filter(pl.col("dataset") == dataset), score=score, subset=subset)
                        for dataset, subset in part
                    )
                    table.add_row(as_text(score), *map(_percent, found))
                yield table


HEAD = 16
"""Characters of a line of a column's heading."""


def _folded(name: str) -> str:
    """Return a heading in lines of at most ``HEAD`` characters."""
    words = printable(name)
    return "\n".join(words[at : at + HEAD] for at in range(0, len(words), HEAD))


def _that_fit(heads: Mapping[Place, str], room: int) -> Iterator[list[Place]]:
    """Yield the columns in parts that fit into so many characters."""
    part: list[Place] = []
    used = 0
    for place, head in heads.items():
        need = max(*map(len, head.split("\n")), 5) + GAP
        if part and used + need > room:
            yield part
            part, used = [], 0
        part.append(place)
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
            as_text(row["factor"]),
            *([as_text(row["dataset"])] if several else []),
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
        table.add_row(
            as_text(row["dataset"]), as_text(row["factor"] or "all"), f"{row['n']:,}", _percent(row, interval=True)
        )
    return table


def _reasons(results: pl.DataFrame) -> Table | None:
    rows = results.filter(pl.col("reason") != "").group_by("dataset", "reason", maintain_order=True)
    table = plain_table("what cannot be had", "dataset", "numbers", "why")
    for column in table.columns[1:]:
        column.justify, column.no_wrap, column.overflow = "left", False, "fold"
    for row in rows.agg(pl.col("metric").unique(maintain_order=True)).iter_rows(named=True):
        names = row["metric"][:4] + (["..."] if len(row["metric"]) > 4 else [])
        table.add_row(as_text(row["dataset"]), as_text(", ".join(names)), as_text(row["reason"]))
    return table
