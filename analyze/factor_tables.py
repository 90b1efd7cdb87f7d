"""Numbers by visual factor over a cache, and how a person reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from analyze.annotations import Annotations
from analyze.cases import build_cases
from analyze.evaluate import Evaluation, choose, result_row
from analyze.results import to_frame
from analyze.settings import Settings
from analyze.sources import LABELLED, sources_of
from analyze.suites import factors
from analyze.suites.registry import SUITES
from analyze.suites.resampling import resampling_of
from cache_schema.errors import CloserlookError, UserError

if TYPE_CHECKING:
    from rich.table import Table

    from cache_schema.cache import Cache


def evaluate_factors(
    cache: Cache,
    annotations: Annotations | None,
    *,
    settings: Settings,
    models: Sequence[str] | None = None,
    datasets: Sequence[str] | None = None,
    progress: Callable[[str, int, int], None] = lambda _model, _done, _all: None,
) -> Evaluation:
    """Compute the numbers by factor of every model.

    Parameters
    ----------
    cache
        An open cache.
    annotations
        Joined by file name to the in-distribution sets (or those named); None for the sets' own metadata columns.
    settings
        Options.
    models, datasets
        Ids or patterns.
    progress
        Called with (model, models done, models in all).

    Raises
    ------
    UserError
        Where no dataset has annotations at all.
    """
    sources = [s for s in sources_of(cache) if s.role in LABELLED]
    wanted = set(choose({s.dataset for s in sources}, datasets, "dataset"))
    if datasets is None and annotations is not None:
        wanted = {s.dataset for s in sources if s.role == "id"}
    chosen = choose({s.model for s in sources}, models, "model")
    result = Evaluation(pl.DataFrame())
    resampling = resampling_of(settings)
    rows = []
    for done, name in enumerate(chosen, 1):
        own = [s for s in sources if s.model == name and s.dataset in wanted]
        try:
            suites = {"factors", "annotations"}
            built = build_cases(own, settings, suites, resampling=resampling) if own else None
        except CloserlookError as error:
            result.failures[name] = str(error)
            built = None
        if built is not None:
            result.failures.update({f"{name} on {d}": reason for d, reason in built.problems.items()})
            for dataset, case in built.cases.items():
                numbers = factors.run(case) if annotations is None else factors.by_file(case, annotations)
                version = SUITES["factors"].version
                rows += [replace(result_row(n, built, dataset), metric_version=version) for n in numbers]
        progress(name, done, len(chosen))
    result.table = to_frame(rows)
    if result.table.is_empty() and not result.failures:
        raise UserError(
            "no dataset of this cache has factor columns: give --annotations imagenet-x or a JSONL file, or name a"
            " metadata column with --columns"
        )
    return result


def factor_table(table: pl.DataFrame) -> Table:
    """Return the factor accuracies as a printable table: models by factors.

    A number whose interval holds the model's overall accuracy is dim: so few images decide nothing.
    """
    from rich.table import Table

    plain = table.filter(~pl.col("options").str.contains('"correct"'))
    accuracies = plain.filter(pl.col("metric") == "factor_accuracy", pl.col("value").is_not_null())
    names = accuracies["factor"].unique(maintain_order=True).to_list()
    printed = Table(title="accuracy by factor in % (dim: its interval holds the overall accuracy)")
    printed.add_column("model")
    printed.add_column("dataset")
    printed.add_column("overall", justify="right")
    counts = dict(accuracies.group_by("factor").agg(pl.col("n").max()).iter_rows())
    for name in names:
        printed.add_column(f"{name}\nn={counts[name]}", justify="right")
    for (model, dataset), part in accuracies.group_by("model", "dataset", maintain_order=True):
        overall = _overall(plain, str(model), str(dataset))
        cells = {row["factor"]: _cell(row, overall) for row in part.iter_rows(named=True)}
        shown = "" if overall is None else f"{100 * overall:.1f}"
        printed.add_row(str(model), str(dataset), shown, *[cells.get(name, "") for name in names])
    return printed


def _overall(table: pl.DataFrame, model: str, dataset: str) -> float | None:
    found = table.filter(
        pl.col("model") == model,
        pl.col("dataset") == dataset,
        pl.col("metric") == "top1",
        pl.col("subset") == "annotated",
    )
    return None if found.is_empty() else float(found["value"][0])


def _cell(row: dict[str, Any], overall: float | None) -> str:
    text = f"{100 * row['value']:.1f}"
    if overall is not None and row["low"] is not None and row["low"] <= overall <= row["high"]:
        return f"[dim]{text}[/dim]"
    return text
