"""Tables of correlations, fits and tests of lines for any pair of result rows, overall and by group of models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

from analyze.results.quantities import Quantity, id_dataset_of, quantities, unambiguous, values
from analyze.results.titles import is_share_of_images
from analyze.trends.correlations import METHODS, Correlation, correlation
from analyze.trends.families import families_of
from analyze.trends.fits import fit_line
from analyze.trends.line_tests import same_line
from analyze.trends.pairs import DEFAULT, Choices, PairOfNumbers, pair_of
from analyze.trends.tied import tied
from closerlook_common.errors import UserError

Pair = tuple[Quantity, Quantity]

NOT_TRENDS = ("invalid_images", "worst_class")
"""Metrics that count or name something, and measure nothing."""

MIN_MODELS = 3
"""Groups with fewer models than this are left out of tables: two points do not show a trend."""


def natural_scale(quantity: Quantity, asked: str = "probit") -> str:
    """Return the asked scale for accuracies, and ``linear`` for everything else (ECE, AUROC, NLL ...)."""
    return asked if is_share_of_images(quantity.metric) else "linear"


def default_pairs(results: pl.DataFrame, x: Quantity | str | None = None) -> list[Pair]:
    """Return x (default: top1 of the in-distribution set) against every other number that has no unusual
    variant.

    Detectors other than the study's, prompt sets other than the default and options are left to ``--y``. Where a number
    would mean several of one model (there are two in-distribution sets, say), each has its full name.
    """
    x = Quantity.parse(x) if x is not None else Quantity("top1", id_dataset_of(results))
    pairs: dict[Quantity, None] = {}
    for found in quantities(results):
        if found.metric in NOT_TRENDS:
            continue
        # Of conformal sets the score is the method (LAC, APS, RAPS): three numbers, none of them the usual one.
        kept = ("factor", "calibrator", "score") if found.metric.startswith("conformal") else ("factor", "calibrator")
        variants = tuple(pair for pair in found.variants if pair[0] in kept)
        unusual = any(k in ("options", "subset") for k, _ in found.variants)
        if (not unusual and (found.metric, found.dataset) != (x.metric, x.dataset)) or (variants and not unusual):
            pairs.setdefault(Quantity(found.metric, found.dataset, variants))
    named = dict.fromkeys(found for y in pairs for found in unambiguous(results, y))
    return [(x, y) for y in named if y != x]


def _slices(frame: pl.DataFrame, by: str) -> Iterable[tuple[str, pl.DataFrame]]:
    yield "all", frame
    if by:
        for (name,), part in frame.group_by(by, maintain_order=True):
            if len(part) >= MIN_MODELS:
                yield str(name), part


def pairs_found(
    results: pl.DataFrame, pairs: Iterable[Pair | PairOfNumbers], choices: Choices
) -> Iterable[tuple[PairOfNumbers, Quantity]]:
    """Yield the two numbers of each pair with x as it was asked for."""
    for pair in pairs:
        yield (pair, _asked(pair)) if isinstance(pair, PairOfNumbers) else (pair_of(results, *pair, choices), pair[0])


def _asked(pair: PairOfNumbers) -> Quantity:
    """Return x without the subset of classes that was chosen for it."""
    kept = tuple((k, v) for k, v in pair.x.variants if not (k == "subset" and v == f"classes:{pair.y.dataset}"))
    return Quantity(pair.x.metric, pair.x.dataset, kept)


def correlation_table(
    results: pl.DataFrame,
    pairs: Sequence[Pair | PairOfNumbers],
    *,
    methods: Sequence[str] = METHODS,
    by: str = "group",
    scale: str = "probit",
    choices: Choices = DEFAULT,
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
    choices
        Which images x is of, which models are left out, what makes models a family, and the draws of p-values.

    Returns
    -------
    polars.DataFrame
        ``x y among method value low high p_value n families n_effective interval x_scale y_scale axis tied left_out``:
        ``axis`` which images x is of, ``tied`` why y goes with x by construction, ``left_out`` models that were.
    """
    rows: list[dict[str, Any]] = []
    for pair, x in pairs_found(results, pairs, choices):
        scales = natural_scale(pair.x, scale), natural_scale(pair.y, scale)
        for among, part in _slices(pair.fitted, by):
            families = families_of(part, choices.dependence)
            known: dict[str, Correlation] = {}
            for method in methods:
                if method == "r2" and "pearson" in known:
                    known[method] = known["pearson"].squared()
                else:
                    known[method] = correlation(
                        part["0"],
                        part["1"],
                        method=method,
                        x_scale=scales[0],
                        y_scale=scales[1],
                        families=families,
                        flips=choices.flips,
                        seed=choices.seed,
                    )
                found = known[method]
                rows.append(
                    {
                        "x": str(x),
                        "y": str(pair.y),
                        "among": among,
                        "method": method,
                        "value": found.value,
                        "low": found.low,
                        "high": found.high,
                        "p_value": found.p_value,
                        "n": found.n,
                        "families": found.families,
                        "n_effective": found.n_effective,
                        "interval": found.interval,
                        "x_scale": scales[0],
                        "y_scale": scales[1],
                        "axis": pair.axis,
                        "tied": tied(pair.x, pair.y),
                        "left_out": len(pair.left_out),
                    }
                )
    if not rows:
        raise UserError("no pair of numbers to correlate")
    return pl.DataFrame(rows)


def fit_table(
    results: pl.DataFrame,
    pairs: Sequence[Pair | PairOfNumbers],
    *,
    methods: Sequence[str] = ("huber", "ols", "theil-sen"),
    by: str = "group",
    scale: str = "probit",
    choices: Choices = DEFAULT,
) -> pl.DataFrame:
    """Fit lines through pairs of quantities over all models and within each group.

    Returns
    -------
    polars.DataFrame
        ``x y among method slope slope_low slope_high intercept intercept_low intercept_high r2 n families n_effective
        interval x_scale y_scale axis left_out``, on the scales; groups of fewer than three models, or without spread in
        x, are left out.
    """
    rows: list[dict[str, Any]] = []
    for pair, x in pairs_found(results, pairs, choices):
        for among, part in _slices(pair.fitted, by):
            if len(part) < MIN_MODELS or part["0"].n_unique() < 2:
                continue
            families = families_of(part, choices.dependence)
            for method in methods:
                line = fit_line(
                    part["0"],
                    part["1"],
                    method=method,
                    x_scale=natural_scale(pair.x, scale),
                    y_scale=natural_scale(pair.y, scale),
                    families=families,
                    seed=choices.seed,
                )
                slope, intercept = line.interval()
                rows.append(
                    {
                        "x": str(x),
                        "y": str(pair.y),
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
                        "families": line.families,
                        "n_effective": line.n_effective,
                        "interval": line.uncertainty,
                        "x_scale": line.x_scale,
                        "y_scale": line.y_scale,
                        "axis": pair.axis,
                        "left_out": len(pair.left_out),
                    }
                )
    if not rows:
        raise UserError("no pair of numbers has three models to fit a line through")
    return pl.DataFrame(rows)


_LINE_TESTS: dict[str, pl.DataType] = {
    "x": pl.String(),
    "y": pl.String(),
    "first": pl.String(),
    "second": pl.String(),
    "f": pl.Float64(),
    "p_value": pl.Float64(),
    "slope_p_value": pl.Float64(),
    "offset_p_value": pl.Float64(),
    "n": pl.Int64(),
    "families": pl.Int64(),
    "test": pl.String(),
    "axis": pl.String(),
}


def line_tests(
    results: pl.DataFrame,
    pairs: Sequence[Pair | PairOfNumbers],
    *,
    by: str = "group",
    scale: str = "probit",
    choices: Choices = DEFAULT,
) -> pl.DataFrame:
    """Test, for every pair of groups, whether they lie on one line.

    Returns
    -------
    polars.DataFrame
        ``x y first second f p_value slope_p_value offset_p_value n families test axis``; groups of fewer than three
        models are left out.
    """
    rows: list[dict[str, Any]] = []
    for pair, x in pairs_found(results, pairs, choices):
        frame = pair.fitted
        counts = frame[by].value_counts()
        names = sorted(counts.filter(pl.col("count") >= MIN_MODELS)[by])
        for i, first in enumerate(names):
            for second in names[i + 1 :]:
                part = frame.filter(pl.col(by).is_in([first, second]))
                found = same_line(
                    part["0"],
                    part["1"],
                    part[by],
                    x_scale=natural_scale(pair.x, scale),
                    y_scale=natural_scale(pair.y, scale),
                    families=families_of(part, choices.dependence),
                    flips=choices.flips,
                    seed=choices.seed,
                )
                rows.append(
                    {
                        "x": str(x),
                        "y": str(pair.y),
                        "first": first,
                        "second": second,
                        "f": found.f,
                        "p_value": found.p_value,
                        "slope_p_value": found.slope_p_value,
                        "offset_p_value": found.offset_p_value,
                        "n": found.n,
                        "families": found.families,
                        "test": found.test,
                        "axis": pair.axis,
                    }
                )
    return pl.DataFrame(rows, schema=_LINE_TESTS)


def correlation_matrix(
    results: pl.DataFrame,
    wanted: Sequence[Quantity | str],
    *,
    method: str = "spearman",
    left_out: Iterable[str] = (),
) -> pl.DataFrame:
    """Correlate every quantity with every other over the models that have both.

    Parameters
    ----------
    results, wanted
        A result table, and quantities.
    method
        Of ``analyze.trends.correlations``.
    left_out
        Models that do not count (those at chance).

    Returns
    -------
    polars.DataFrame
        ``x y value n``, all ordered pairs, the diagonal included.
    """
    keys = [Quantity.parse(q) for q in wanted]
    kept = ~pl.col("model").is_in(list(left_out))
    series = [values(results, key).filter(kept).select("model", pl.col("value").alias("0")) for key in keys]
    rows = []
    for i, x in enumerate(keys):
        for j in range(i, len(keys)):
            frame = series[i].join(series[j].rename({"0": "1"}), on="model").sort("model")
            found = correlation(frame["0"], frame["1"], method=method, flips=0)
            rows.append((str(x), str(keys[j]), found.value, found.n))
            if i != j:
                rows.append((str(keys[j]), str(x), found.value, found.n))
    schema = {
        "x": pl.String,
        "y": pl.String,
        "value": pl.Float64,
        "n": pl.Int64,
    }
    return pl.DataFrame(rows, orient="row", schema=schema)
