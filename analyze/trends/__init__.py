"""What goes with what over models: tables of correlations and fits for any pair of result rows, overall and
by group.

Imports results, and evaluate for agreement on the line; figures, the report and commands import it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from analyze.results.quantities import Quantity, id_dataset_of, joined, quantities, values
from analyze.results.titles import PROPORTIONS
from analyze.trends.correlations import METHODS, correlation
from analyze.trends.fits import fit_line
from analyze.trends.robustness import effective_robustness, factor_effective_robustness, relative_robustness, same_line
from cache_schema.errors import UserError

__all__ = [
    "correlation_matrix",
    "correlation_table",
    "default_pairs",
    "effective_robustness",
    "factor_effective_robustness",
    "fit_table",
    "line_tests",
    "natural_scale",
    "relative_robustness",
    "same_line",
]

Pair = tuple[Quantity, Quantity]

NOT_TRENDS = ("invalid_images", "worst_class")
"""Rows that count what could not be read."""

MIN_MODELS = 3
"""Groups with fewer models than this are left out of tables: nothing can be said of two points."""


def natural_scale(quantity: Quantity, asked: str = "probit") -> str:
    """Return the asked scale for accuracies, and ``linear`` for everything else (ECE, AUROC, NLL ...)."""
    return asked if quantity.metric in PROPORTIONS else "linear"


def default_pairs(results: pl.DataFrame, x: Quantity | str | None = None) -> list[Pair]:
    """Return x (default: top1 of the in-distribution set) against every other number that has no unusual
    variant.

    Detectors other than the study's, prompt sets other than the default and options are left to be asked for.
    """
    x = Quantity.parse(x) if isinstance(x, str) else x or Quantity("top1", id_dataset_of(results))
    pairs: dict[Quantity, None] = {}
    for found in quantities(results):
        if found.metric in NOT_TRENDS:
            continue
        # Of conformal sets the score is the method (LAC, APS, RAPS): three numbers, none of them the usual one.
        kept = ("factor", "calibrator", "score") if found.metric.startswith("conformal") else ("factor", "calibrator")
        told = tuple(pair for pair in found.variants if pair[0] in kept)
        unusual = any(k in ("options", "subset") for k, _ in found.variants)
        if (not unusual and (found.metric, found.dataset) != (x.metric, x.dataset)) or (told and not unusual):
            pairs.setdefault(Quantity(found.metric, found.dataset, told))
    return [(x, y) for y in pairs if y != x]


def _slices(frame: pl.DataFrame, by: str) -> Iterable[tuple[str, pl.DataFrame]]:
    yield "all", frame
    if by:
        for (name,), part in frame.group_by(by, maintain_order=True):
            if len(part) >= MIN_MODELS:
                yield str(name), part


def correlation_table(
    results: pl.DataFrame,
    pairs: Sequence[Pair],
    *,
    methods: Sequence[str] = METHODS,
    by: str = "group",
    scale: str = "probit",
    n_boot: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """Correlate pairs of quantities over all models and within each group.

    Parameters
    ----------
    results
        A result table.
    pairs
        Quantities to correlate.
    methods
        Of ``analyze.trends.correlations``.
    by
        Card column whose groups are also shown alone (``group``, ``source``, ``family``), empty for none.
    scale
        Axis for accuracies in Pearson and R^2; other metrics stay linear.
    n_boot, seed
        Bootstrap over models.

    Returns
    -------
    polars.DataFrame
        ``x y among method value low high p_value n x_scale y_scale``.
    """
    rows: list[dict[str, Any]] = []
    for x, y in pairs:
        frame = joined(results, [x, y])
        scales = natural_scale(x, scale), natural_scale(y, scale)
        for among, part in _slices(frame, by):
            for method in methods:
                found = correlation(
                    part["0"],
                    part["1"],
                    method=method,
                    x_scale=scales[0],
                    y_scale=scales[1],
                    n_boot=n_boot,
                    seed=seed,
                )
                rows.append(
                    {
                        "x": str(x),
                        "y": str(y),
                        "among": among,
                        "method": method,
                        "value": found.value,
                        "low": found.low,
                        "high": found.high,
                        "p_value": found.p_value,
                        "n": found.n,
                        "x_scale": scales[0],
                        "y_scale": scales[1],
                    }
                )
    if not rows:
        raise UserError("no pair of numbers to correlate")
    return pl.DataFrame(rows)


def fit_table(
    results: pl.DataFrame,
    pairs: Sequence[Pair],
    *,
    methods: Sequence[str] = ("huber", "ols", "theil-sen"),
    by: str = "group",
    scale: str = "probit",
    n_boot: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """Fit lines through pairs of quantities over all models and within each group.

    Returns
    -------
    polars.DataFrame
        ``x y among method slope slope_low slope_high intercept intercept_low intercept_high r2 n x_scale
        y_scale``, on the scales; groups of fewer than three models, or without spread in x, are left out.
    """
    rows: list[dict[str, Any]] = []
    for x, y in pairs:
        frame = joined(results, [x, y])
        for among, part in _slices(frame, by):
            if len(part) < MIN_MODELS or part["0"].n_unique() < 2:
                continue
            for method in methods:
                line = fit_line(
                    part["0"],
                    part["1"],
                    method=method,
                    x_scale=natural_scale(x, scale),
                    y_scale=natural_scale(y, scale),
                    n_boot=n_boot,
                    seed=seed,
                )
                slope, intercept = line.interval()
                rows.append(
                    {
                        "x": str(x),
                        "y": str(y),
                        "among": among,
                        "method": method,
                        "slope": line.slope,
                        "slope_low": slope[0],
                        "slope_high": slope[1],
                        "intercept": line.intercept,
                        "intercept_low": intercept[0],
                        "intercept_high": intercept[1],
                        "r2": line.r2,
                        "n": line.n,
                        "x_scale": line.x_scale,
                        "y_scale": line.y_scale,
                    }
                )
    if not rows:
        raise UserError("no pair of numbers has three models to fit a line through")
    return pl.DataFrame(rows)


def line_tests(
    results: pl.DataFrame, pairs: Sequence[Pair], *, by: str = "group", scale: str = "probit"
) -> pl.DataFrame:
    """Test, for every pair of groups, whether they lie on one line.

    Returns
    -------
    polars.DataFrame
        ``x y first second f p_value slope_p_value offset_p_value n``; groups of fewer than three models are
        left out.
    """
    rows: list[dict[str, Any]] = []
    for x, y in pairs:
        frame = joined(results, [x, y])
        counts = frame[by].value_counts()
        names = sorted(counts.filter(pl.col("count") >= MIN_MODELS)[by])
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                part = frame.filter(pl.col(by).is_in([first, second]))
                found = same_line(
                    part["0"],
                    part["1"],
                    part[by],
                    x_scale=natural_scale(x, scale),
                    y_scale=natural_scale(y, scale),
                )
                rows.append(
                    {
                        "x": str(x),
                        "y": str(y),
                        "first": first,
                        "second": second,
                        "f": found.f,
                        "p_value": found.p_value,
                        "slope_p_value": found.slope_p_value,
                        "offset_p_value": found.offset_p_value,
                        "n": found.n,
                    }
                )
    schema = {
        "x": pl.String,
        "y": pl.String,
        "first": pl.String,
        "second": pl.String,
        "f": pl.Float64,
        "p_value": pl.Float64,
        "slope_p_value": pl.Float64,
        "offset_p_value": pl.Float64,
        "n": pl.Int64,
    }
    return pl.DataFrame(rows, schema=schema)


def correlation_matrix(
    results: pl.DataFrame,
    wanted: Sequence[Quantity | str],
    *,
    method: str = "spearman",
    n_boot: int = 0,
    seed: int = 0,
) -> pl.DataFrame:
    """Correlate every quantity with every other over the models that have both.

    Returns
    -------
    polars.DataFrame
        ``x y value low high n``, all ordered pairs, the diagonal included.
    """
    keys = [Quantity.parse(q) if isinstance(q, str) else q for q in wanted]
    series = [values(results, key).select("model", pl.col("value").alias("0")) for key in keys]
    rows = []
    for i, x in enumerate(keys):
        for j in range(i, len(keys)):
            frame = series[i].join(series[j].rename({"0": "1"}), on="model").sort("model")
            found = correlation(frame["0"], frame["1"], method=method, n_boot=n_boot, seed=seed)
            rows.append((str(x), str(keys[j]), found.value, found.low, found.high, found.n))
            if i != j:
                rows.append((str(keys[j]), str(x), found.value, found.low, found.high, found.n))
    schema = {
        "x": pl.String,
        "y": pl.String,
        "value": pl.Float64,
        "low": pl.Float64,
        "high": pl.Float64,
        "n": pl.Int64,
    }
    return pl.DataFrame(rows, orient="row", schema=schema)
