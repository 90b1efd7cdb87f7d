"""Comparisons of models as printable tables, and as a file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from analyze.evaluate.comparisons import Comparison
from analyze.evaluate.pairing import BY_ROW
from analyze.intervals import PairedDifference
from analyze.results.csv_text import write_csv
from analyze.trends.multiplicity import benjamini_hochberg, holm
from closerlook_common.console.terminal import counted, escaped
from closerlook_common.errors import UserError
from closerlook_common.user_cache import replaced_whole

if TYPE_CHECKING:
    from rich.table import Table

WRITERS = (".csv", ".parquet")


def comparison_tables(comparisons: Sequence[Comparison]) -> Iterator[Table]:
    """Yield a table of numbers for each dataset, and for more than two models one of pairs.

    P-values are also shown as they are among those of all datasets (Holm).
    """
    by_holm, tests = _by_holm(comparisons)
    for comparison in comparisons:
        yield _numbers(comparison, by_holm, tests)
    if comparisons and len(comparisons[0].models) > 2:
        yield _pairs(comparisons)


def check_output(path: Path) -> None:
    """Refuse a file whose ending is not a known format, and a result table, which holds no comparisons."""
    if path.suffix not in WRITERS:
        raise UserError(f"{path}: comparisons are written as {' or '.join(WRITERS)}")
    if (
        path.suffix == ".parquet"
        and path.is_file()
        and {"metric_version", "command"} <= set(pl.read_parquet_schema(path))
    ):
        raise UserError(f"{path} is a result table, and comparisons are not rows of one: give another file with -o")


def write_comparisons(comparisons: Sequence[Comparison], path: Path) -> None:
    """Write every number of comparisons, as CSV or Parquet by the file's ending."""
    check_output(path)
    frame = comparison_frame(comparisons)
    if path.suffix == ".csv":
        write_csv(frame, path)
    else:
        with replaced_whole(path) as part:
            frame.write_parquet(part)


def comparison_frame(comparisons: Sequence[Comparison]) -> pl.DataFrame:
    """Return the numbers of comparisons, one a row.

    Returns
    -------
    polars.DataFrame
        Columns ``dataset metric model other value low high p_value p_holm p_bh tests test n paired_by``: p-values also
        after Holm and after Benjamini and Hochberg, over all ``tests``. A model's own number has no ``other``; a
        pair's (``agreement``, ``error_consistency``, ``difference of METRIC``) has; the ensemble's model
        is ``mean probability``.
    """
    rows: list[dict[str, object]] = []
    for found in comparisons:
        base = {"dataset": found.dataset, "n": found.n, "paired_by": found.paired_by}
        for metric, values in found.values.items():
            own = zip(found.models, values, strict=True)
            rows += [{**base, "metric": metric, "model": model, "value": value} for model, value in own]
        for metric, value in found.ensemble.items():
            rows.append({**base, "metric": metric, "model": "mean probability", "value": value})
        for metric, (value, low, high) in found.diversity.items():
            ends = {"low": _number(low), "high": _number(high)}
            rows.append({**base, "metric": metric, "model": "mean probability", "value": value, **ends})
        for i, model in enumerate(found.models):
            for j, other in enumerate(found.models[:i]):
                pair = {**base, "model": other, "other": model}
                rows.append({**pair, "metric": "agreement", "value": float(found.agreement[i, j])})
                ends = {"low": _number(found.consistency_low[i, j]), "high": _number(found.consistency_high[i, j])}
                rows.append({**pair, "metric": "error_consistency", "value": float(found.consistency[i, j]), **ends})
        for metric, difference in found.differences.items():
            pair = {**base, "model": found.models[0], "other": found.models[1], "metric": f"difference of {metric}"}
            ends = {"low": _number(difference.low), "high": _number(difference.high)}
            test = {"p_value": _number(difference.p_value), "test": difference.method}
            rows.append({**pair, "value": difference.difference, **ends, **test})
    texts = dict.fromkeys(("dataset", "metric", "model", "other"), pl.String())
    numbers = dict.fromkeys(("value", "low", "high", "p_value"), pl.Float64())
    more = {"test": pl.String(), "n": pl.Int64(), "paired_by": pl.String()}
    frame = pl.DataFrame(rows, schema={**texts, **numbers, **more})
    p_values = frame["p_value"].fill_null(float("nan")).to_numpy()
    tested = int(np.count_nonzero(~np.isnan(p_values)))
    return frame.with_columns(
        pl.Series("p_holm", holm(p_values)).fill_nan(None),
        pl.Series("p_bh", benjamini_hochberg(p_values)).fill_nan(None),
        pl.lit(tested or None, dtype=pl.Int64).alias("tests"),
    ).select(*texts, *numbers, "p_holm", "p_bh", "tests", *more)


def _by_holm(comparisons: Sequence[Comparison]) -> tuple[dict[tuple[str, str], float], int]:
    """Return (dataset, metric) -> p-value after Holm's correction, and the number of tests."""
    places = [(found.dataset, metric) for found in comparisons for metric in found.differences]
    p_values = [d.p_value for found in comparisons for d in found.differences.values()]
    return dict(zip(places, holm(p_values).tolist(), strict=True)), sum(not math.isnan(p) for p in p_values)


def _number(value: float) -> float | None:
    """Return the value, None for NaN."""
    return None if math.isnan(value) else float(value)


def _numbers(comparison: Comparison, by_holm: Mapping[tuple[str, str], float], tests: int) -> Table:
    """Return models by metrics on one dataset; below them their difference and what their mean would score."""
    from rich.text import Text

    from closerlook_common.console.terminal import as_text, plain_table

    titles = [f"{comparison.dataset}, {counted(comparison.n, 'image')}"]
    if len(comparison.models) == 2:
        titles.append(
            f"agreement {comparison.agreement[0, 1]:.3f}, error consistency {comparison.consistency[0, 1]:+.3f}"
        )
        if not math.isnan(comparison.consistency_low[0, 1]):
            ends = comparison.consistency_low[0, 1], comparison.consistency_high[0, 1]
            titles[-1] += f" [{ends[0]:+.3f}, {ends[1]:+.3f}]"
    for metric, (value, low, high) in comparison.diversity.items():
        shown = "" if math.isnan(low) else f" [{low:.4f}, {high:.4f}]"
        titles.append(f"{metric.removeprefix('ensemble_').replace('_', ' ')} {value:.4f}{shown}")
    table = plain_table()
    # A fact a line: at 80 columns one line for all would break within an interval.
    table.title = Text("\n").join(as_text(title, "bold") for title in titles)
    table.add_column("model", overflow="fold")
    for metric in comparison.values:
        table.add_column(metric, justify="right", no_wrap=True)
    for index, model in enumerate(comparison.models):
        table.add_row(escaped(model), *(f"{values[index]:.4f}" for values in comparison.values.values()))
    if comparison.ensemble:
        together = [comparison.ensemble.get(metric) for metric in comparison.values]
        table.add_row("mean probability", *("-" if value is None else f"{value:.4f}" for value in together))
    if found := [comparison.differences.get(metric) for metric in comparison.values if comparison.differences]:
        table.add_section()
        table.add_row("difference", *("-" if d is None else f"{d.difference:+.4f}" for d in found))
        table.add_row("interval", *("-" if d is None else _interval(d) for d in found))
        table.add_row("p (equal means)", *("-" if d is None else _p_value(d.p_value) for d in found))
        if tests > 1:
            own = (by_holm.get((comparison.dataset, metric), math.nan) for metric in comparison.values)
            table.add_row(f"p (Holm, {tests} tests)", *map(_p_value, own))
    notes = [f"no ensemble: {escaped(comparison.no_ensemble)}"] if comparison.no_ensemble else []
    if comparison.paired_by == BY_ROW:
        notes.append("paired by row: a store holds no image names")
    if notes:
        table.caption = "\n".join(notes)
    return table


def _interval(found: PairedDifference) -> str:
    return "-" if math.isnan(found.low) else f"\\[{found.low:+.4f}, {found.high:+.4f}]"


def _p_value(p_value: float) -> str:
    if math.isnan(p_value):
        return "-"
    return f"{p_value:.4f}" if p_value >= 0.0001 else f"{p_value:.0e}"


def _pairs(comparisons: Sequence[Comparison]) -> Table:
    from closerlook_common.console.terminal import plain_table

    models = comparisons[0].models
    table = plain_table("agreement / error consistency (kappa)")
    table.add_column("dataset")
    table.add_column("model")
    for model in models:
        table.add_column(escaped(model), justify="right")
    for comparison in comparisons:
        for i, model in enumerate(models):
            cells = [
                f"{comparison.agreement[i, j]:.3f} / {comparison.consistency[i, j]:+.3f}" if i != j else ""
                for j in range(len(models))
            ]
            table.add_row(escaped(comparison.dataset), escaped(model), *cells)
        table.add_section()
    return table
