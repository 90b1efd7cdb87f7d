"""Comparisons of models as printable tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from analyze.compare import Comparison

if TYPE_CHECKING:
    from rich.table import Table


def comparison_tables(comparisons: Sequence[Comparison]) -> Iterator[Table]:
    """Yield one table of numbers, and for more than two models one of pairs."""
    if not comparisons:
        return
    yield _numbers(comparisons)
    if len(comparisons[0].models) > 2:
        yield _pairs(comparisons)


def _numbers(comparisons: Sequence[Comparison]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    models = comparisons[0].models
    table = Table(title="on the same images", title_justify="left")
    table.add_column("dataset")
    table.add_column("metric")
    for model in models:
        table.add_column(escape(model), justify="right")
    if len(models) == 2:
        table.add_column("difference", justify="right")
        table.add_column("p", justify="right")
    table.add_column("mean probability", justify="right")
    for comparison in comparisons:
        for metric, values in comparison.values.items():
            cells = [f"{value:.4f}" for value in values]
            difference = comparison.differences.get(metric)
            if difference is not None:
                interval = f"[dim]\\[{difference.low:+.4f}, {difference.high:+.4f}][/dim]"
                cells += [f"{difference.difference:+.4f} {interval}", f"{difference.p_value:.4f}"]
            together = comparison.ensemble.get(metric)
            table.add_row(comparison.dataset, metric, *cells, "-" if together is None else f"{together:.4f}")
        if len(models) == 2:
            table.add_row(comparison.dataset, "agreement", "", f"{comparison.agreement[0, 1]:.4f}")
            table.add_row(comparison.dataset, "error consistency", "", f"{comparison.consistency[0, 1]:.4f}")
        table.add_row(comparison.dataset, "images", "", f"{comparison.n:,}")
        table.add_section()
    reasons = sorted({c.no_ensemble for c in comparisons if c.no_ensemble})
    if reasons:
        table.caption = f"no ensemble: {escape('; '.join(reasons))}"
    return table


def _pairs(comparisons: Sequence[Comparison]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    models = comparisons[0].models
    table = Table(title="agreement / error consistency (kappa)", title_justify="left")
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
