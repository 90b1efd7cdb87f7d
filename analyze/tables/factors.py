"""Accuracies by factor as a person reads them: a printable table, and what could not be had."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from closerlook_common.console.terminal import GAP, counted, escaped, printable

if TYPE_CHECKING:
    from rich.table import Table

Part = tuple[str, str, pl.DataFrame, dict[str, float]]
"""Model, dataset, its accuracies by factor, and its overall accuracy."""

FEW = 3
"""Up to so many models and datasets the factors are the rows, with room for intervals."""

_TITLE = "accuracy by factor in % (dim: its interval holds the overall accuracy)"


def factor_table(table: pl.DataFrame, *, width: int = 120) -> list[Table]:
    """Return the factor accuracies as printable tables, none where there is not a number.

    A number whose interval holds the model's overall accuracy is dim: so few images decide nothing. Factors that do not
    fit next to the names go on in a further table.
    """
    plain = table.filter(~pl.col("options").str.contains('"correct"'))
    accuracies = plain.filter(pl.col("metric") == "factor_accuracy", pl.col("value").is_not_null())
    if accuracies.is_empty():
        return []
    parts = [
        (str(model), str(dataset), part, _overall(plain, str(model), str(dataset)))
        for (model, dataset), part in accuracies.group_by("model", "dataset", maintain_order=True)
    ]
    names = accuracies["factor"].unique(maintain_order=True).to_list()
    return [_by_factor(parts, names)] if len(parts) <= FEW else _by_model(parts, names, width)


def reasons(table: pl.DataFrame) -> Iterator[str]:
    """Yield why numbers are missing, each reason once with the datasets and how many models it concerns."""
    rows = table.filter(pl.col("reason") != "").group_by("dataset", "reason", maintain_order=True)
    for dataset, reason, models in rows.agg(pl.col("model").n_unique()).iter_rows():
        yield f"{dataset} ({counted(models, 'model')}): {reason}"


def quantile_notes(table: pl.DataFrame) -> Iterator[str]:
    """Yield which metadata columns were cut into ranges between quantiles."""
    cut = table.filter(pl.col("metric") == "factor_accuracy", pl.col("options").str.contains('"quantiles"'))
    columns = cut.select("dataset", "options", column=pl.col("factor").str.extract("^([^=]*)=")).unique(
        maintain_order=True
    )
    for dataset, options, column in columns.iter_rows():
        ranges = json.loads(options).get("quantiles")
        yield f"{dataset}: the numbers of column {column!r} are cut into {ranges} ranges at their quantiles."


def _by_model(parts: Sequence[Part], names: list[str], width: int) -> list[Table]:
    counts: dict[str, int] = {}
    for _, _, part, _ in parts:
        for factor, n in part.select("factor", "n").iter_rows():
            counts[factor] = max(counts.get(factor, 0), n)
    datasets = list(dict.fromkeys(dataset for _, dataset, _, _ in parts))
    heads = [["model", *(model for model, _, _, _ in parts)]]
    if len(datasets) > 1:
        heads.append(["dataset", *(dataset for _, dataset, _, _ in parts)])
    room = width - sum(max(map(len, head)) + GAP for head in heads) - len("overall")
    pieces: list[list[str]] = [[]]
    used = 0
    for name in names:
        need = max(len(printable(name)), len(f"n={counts[name]}"), len("100.0")) + GAP
        if pieces[-1] and used + need > room:
            pieces.append([])
            used = 0
        pieces[-1].append(name)
        used += need
    title = _TITLE if len(datasets) > 1 else f"{datasets[0]}: {_TITLE}"
    return [_piece(title if piece is pieces[0] else "", parts, piece, counts, len(heads) > 1) for piece in pieces]


def _piece(title: str, parts: Sequence[Part], names: list[str], counts: dict[str, int], with_dataset: bool) -> Table:
    from closerlook_common.console.terminal import plain_table

    printed = plain_table(title)
    printed.add_column("model", overflow="fold")
    if with_dataset:
        printed.add_column("dataset", overflow="fold")
    printed.add_column("overall", justify="right", no_wrap=True)
    for name in names:
        printed.add_column(f"{escaped(name)}\nn={counts[name]}", justify="right", no_wrap=True)
    for model, dataset, part, overall in parts:
        cells = {row["factor"]: _cell(row, overall) for row in part.iter_rows(named=True)}
        shown = " / ".join(f"{100 * value:.1f}" for value in dict.fromkeys(overall.values()))
        who = [escaped(model), *[escaped(dataset)] * with_dataset]
        printed.add_row(*who, shown, *[cells.get(name, "") for name in names])
    return printed


def _by_factor(parts: Sequence[Part], names: list[str]) -> Table:
    from closerlook_common.console.terminal import plain_table

    printed = plain_table(_TITLE)
    printed.add_column("factor")
    for model, dataset, _, _ in parts:
        printed.add_column("images", justify="right")
        printed.add_column(f"{escaped(model)}\n{escaped(dataset)}", justify="right")
    whole: list[str] = []
    for _, _, _, overall in parts:
        shown = " / ".join(f"{100 * value:.1f}" for value in dict.fromkeys(overall.values()))
        whole += ["", shown]
    printed.add_row("overall", *whole)
    printed.add_section()
    cells = [{row["factor"]: row for row in part.iter_rows(named=True)} for _, _, part, _ in parts]
    for name in names:
        line: list[str] = []
        for found, (_, _, _, overall) in zip(cells, parts, strict=True):
            row = found.get(name)
            line += ["", ""] if row is None else [f"{row['n']:,}", _cell(row, overall, interval=True)]
        printed.add_row(escaped(name), *line)
    return printed


def _overall(table: pl.DataFrame, model: str, dataset: str) -> dict[str, float]:
    """Accuracy over all images that the factors divide: by metadata column, the empty name for the visual factors."""
    found = table.filter(
        pl.col("model") == model,
        pl.col("dataset") == dataset,
        pl.col("metric") == "top1",
        pl.col("subset").str.starts_with("annotated"),
        pl.col("value").is_not_null(),
    )
    return {subset.partition(":")[2]: value for subset, value in found.select("subset", "value").iter_rows()}


def _cell(row: dict[str, Any], overall: dict[str, float], *, interval: bool = False) -> str:
    text = f"{100 * row['value']:.1f}"
    if interval and row["low"] is not None:
        text += f" \\[{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
    column = row["factor"].partition("=")[0] if "=" in row["factor"] else ""
    whole = overall.get(column)
    if whole is not None and row["low"] is not None and row["low"] <= whole <= row["high"]:
        return f"[dim]{text}[/dim]"
    return text
