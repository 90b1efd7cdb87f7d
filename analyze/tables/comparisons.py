"""Comparisons of models as printable tables, and as a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analyze.evaluate.compare import Comparison
from cache_schema.errors import UserError

if TYPE_CHECKING:
    import polars as pl
    from rich.table import Table

WRITERS = (".csv", ".parquet")


def comparison_tables(comparisons: Sequence[Comparison]) -> Iterator[Table]:
    """Yield a table of numbers for each dataset, and for more than two models one of pairs."""
    for comparison in comparisons:
        yield _numbers(comparison)
    if comparisons and len(comparisons[0].models) > 2:
        yield _pairs(comparisons)


def check_output(path: Path) -> None:
    """Refuse a file whose ending tells no format."""
    if path.suffix not in WRITERS:
        raise UserError(f"{path}: comparisons are written as {' or '.join(WRITERS)}")


def write_comparisons(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write every number of comparisons, as CSV or Parquet by the file's ending."""
    check_output(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    frame = comparison_frame(comparisons)
    if path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path)


def comparison_frame(comparisons: Sequence[Comparison]) -> pl.DataFrame:
    """Return the numbers of comparisons, one a row.

    Returns
    -------
    polars.DataFrame
        Columns ``dataset metric model other value low high p_value n``. A model's own number has no ``other``; a
        pair's (``agreement``, ``error_consistency``, ``difference of METRIC``) has; the ensemble's model is
        ``mean probability``.
    """
    import polars as pl

    rows: list[dict[str, object]] = []
    for found in comparisons:
        base = {"dataset": found.dataset, "n": found.n}
        for metric, values in found.values.items():
            own = zip(found.models, values, strict=True)
            rows += [{**base, "metric": metric, "model": model, "value": value} for model, value in own]
        for metric, value in found.ensemble.items():
            rows.append({**base, "metric": metric, "model": "mean probability", "value": value})
        for i, model in enumerate(found.models):
            for j, other in enumerate(found.models[:i]):
                pair = {**base, "model": other, "other": model}
                rows.append({**pair, "metric": "agreement", "value": float(found.agreement[i, j])})
                rows.append({**pair, "metric": "error_consistency", "value": float(found.consistency[i, j])})
        for metric, difference in found.differences.items():
            told = {"value": difference.difference, "low": difference.low, "high": difference.high}
            pair = {**base, "model": found.models[0], "other": found.models[1], "p_value": difference.p_value}
            rows.append({**pair, "metric": f"difference of {metric}", **told})
    texts = dict.fromkeys(("dataset", "metric", "model", "other"), pl.String())
    numbers = dict.fromkeys(("value", "low", "high", "p_value"), pl.Float64())
    return pl.DataFrame(rows, schema={**texts, **numbers, "n": pl.Int64()})


def _numbers(comparison: Comparison) -> Table:
    """Return models by metrics on one dataset; below them their difference and what their mean would score."""
    from rich.markup import escape

    from cache_schema.console.terminal import plain_table

    title = f"{comparison.dataset}, {comparison.n:,} images"
    if len(comparison.models) == 2:
        title += f"; agreement {comparison.agreement[0, 1]:.3f}, error consistency {comparison.consistency[0, 1]:+.3f}"
    table = plain_table(title)
    table.add_column("model", overflow="fold")
    for metric in comparison.values:
        table.add_column(metric, justify="right", no_wrap=True)
    for index, model in enumerate(comparison.models):
        table.add_row(escape(model), *(f"{values[index]:.4f}" for values in comparison.values.values()))
    if comparison.ensemble:
        together = [comparison.ensemble.get(metric) for metric in comparison.values]
        table.add_row("mean probability", *("-" if value is None else f"{value:.4f}" for value in together))
    if found := [comparison.differences.get(metric) for metric in comparison.values if comparison.differences]:
        table.add_section()
        table.add_row("difference", *("-" if d is None else f"{d.difference:+.4f}" for d in found))
        table.add_row("interval", *("-" if d is None else f"\\[{d.low:+.4f}, {d.high:+.4f}]" for d in found))
        table.add_row("p", *("-" if d is None else f"{d.p_value:.4f}" for d in found))
    if comparison.no_ensemble:
        table.caption = f"no ensemble: {escape(comparison.no_ensemble)}"
    return table


def _pairs(comparisons: Sequence[Comparison]) -> Table:
    from rich.markup import escape

    from cache_schema.console.terminal import plain_table

    models = comparisons[0].models
    table = plain_table("agreement / error consistency (kappa)")
    table.add_column("dataset")
    table.add_column("model")
    for model in models:
        table.add_column(escape(model), justify="right")
    for comparison in comparisons:
        for i, model in enumerate(models):
            cells = [
                f"{comparison.agreement[i, j]:.3f} / {comparison.consistency[i, j]:+.3f}" if i != j else ""
                for j in range(len(models))
            ]
            table.add_row(comparison.dataset, escape(model), *cells)
        table.add_section()
    return table
