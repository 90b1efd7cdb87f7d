"""Heat maps: all metrics against one another over models, visual factors by model, and errors that models
share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from analyze.figures.axes import heat_cells
from analyze.figures.factor_accuracy import factor_set
from analyze.figures.frames import conform_frame, datasets_of, distinct_titles, need, of_one_id_set, shifts_of, titled
from analyze.figures.style import group_colour
from analyze.results.quantities import Quantity, id_dataset_of, values
from analyze.results.titles import dataset_title, factor_title, metric_title
from analyze.trends import MIN_MODELS, correlation_matrix
from analyze.trends.chance import models_at_chance
from cache_schema.format.records import GROUPS
from closerlook_common.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ID_METRICS = ("top1", "ece", "nll", "brier", "smece", "aurc")
SHIFT_METRICS = ("top1", "ece")
MAX_SETS = 5


def matrix_quantities(results: pl.DataFrame) -> list[Quantity]:
    """Return what the correlation matrix sets against one another: the ID numbers, shifts, OOD sets and shape
    bias.
    """
    ground = id_dataset_of(results)
    results = of_one_id_set(results, ground)
    wanted = [Quantity(m, ground) for m in ID_METRICS if ground in datasets_of(results, m, calibrator="", factor="")]
    if ground in datasets_of(results, "ece", calibrator="temperature"):
        wanted.append(Quantity("ece", ground, (("calibrator", "temperature"),)))
    for metric in SHIFT_METRICS:
        wanted += [Quantity(metric, d) for d in shifts_of(results, metric)[:MAX_SETS]]
    wanted += [Quantity("auroc", d) for d in datasets_of(results, "auroc")[:MAX_SETS]]
    wanted += [Quantity("shape_bias", d) for d in datasets_of(results, "shape_bias")[:1]]
    return wanted


def prepare_correlation_matrix(results: pl.DataFrame, *, method: str = "spearman") -> pl.DataFrame:
    """Return the rank correlation of every pair of metrics over the models that have both."""
    wanted = matrix_quantities(results)
    if len(wanted) < 2:
        raise UserError("a correlation matrix needs two metrics")
    ground = id_dataset_of(results)
    quantities = {str(q): q for q in wanted}
    names = distinct_titles(quantities, lambda text: short_title(quantities[text], ground))
    out = models_at_chance(results)
    table = correlation_matrix(of_one_id_set(results, ground), wanted, method=method, left_out=out)
    if not table.filter(pl.col("x") != pl.col("y"))["value"].is_finite().any():
        raise UserError(
            f"a correlation matrix needs {MIN_MODELS} models with two numbers that differ between them;"
            f" the result table has {results['model'].n_unique()}"
        )
    return conform_frame(
        table.select(
            pl.lit("Correlation over models").alias("panel"),
            pl.lit("cell").alias("kind"),
            pl.col("x").replace_strict(names).alias("series"),
            pl.col("y").replace_strict(names).alias("label"),
            pl.col("value").alias("y"),
        )
        .with_columns(order(pl.col("series"), list(names.values())), order(pl.col("label"), list(names.values())))
        .sort("series_order", "label_order")
    )


def order(column: pl.Expr, names: list[str]) -> pl.Expr:
    """Return the position of each value in a list, as a column to sort by."""
    places = {name: i for i, name in reversed(list(enumerate(names)))}
    return column.replace_strict(places, return_dtype=pl.Int64).name.suffix("_order")


def short_title(quantity: Quantity, ground: str) -> str:
    """Return a row's name: the metric, and the set where it is not the in-distribution one."""
    words = metric_title(quantity.metric).replace("Top-1 accuracy", "Accuracy")
    words += ", calibrated" if quantity.variant("calibrator") else ""
    return words if quantity.dataset in (ground, "") else f"{words} · {dataset_title(quantity.dataset)}"


def draw_correlation_matrix(data: pl.DataFrame, ax: Axes) -> Axes:
    """Draw the matrix: blue together, red against one another."""
    ax = heat_cells(data, ax, colours="RdBu", limits=(-1, 1), text_limit=26)
    ax.set_title("Spearman correlation over models")
    return ax


def prepare_factor_heatmap(results: pl.DataFrame) -> pl.DataFrame:
    """Return, for every model and visual factor, how far the factor's accuracy lies from the model's overall
    accuracy.
    """
    rows = results.filter(pl.col("metric") == "factor_accuracy", pl.col("value").is_not_null(), pl.col("factor") != "")
    if rows.is_empty():
        return need([], "factor_accuracy: make the rows with 'analyze factors'")
    dataset, ground = factor_set(results, rows)
    overall = values(results, Quantity("top1", ground)).select("model", pl.col("value").alias("overall"))
    factors = rows.filter(pl.col("dataset") == dataset)["factor"].unique(maintain_order=True)
    parts = [
        values(results, Quantity("factor_accuracy", dataset, (("factor", factor),))).with_columns(
            pl.lit(factor).alias("factor")
        )
        for factor in factors
    ]
    frame = pl.concat(parts).join(overall, on="model")
    if frame.is_empty():
        return need([], f"top1 on {ground} of the models that have factor accuracies")
    present = frame["group"].unique().to_list()
    groups = [g for g in GROUPS if g in present] + sorted(set(present) - set(GROUPS))
    columns = frame.group_by("factor").agg((pl.col("value") - pl.col("overall")).mean().alias("mean")).sort("mean")
    return conform_frame(
        frame.with_columns(order(pl.col("group"), groups), order(pl.col("factor"), columns["factor"].to_list()))
        .sort("group_order", "overall", "model", "factor_order", descending=[False, True, False, False])
        .select(
            pl.lit("Factor accuracy minus overall accuracy").alias("panel"),
            pl.lit("cell").alias("kind"),
            "model",
            "group",
            "source",
            pl.col("model").alias("series"),
            titled("factor", frame, factor_title).alias("label"),
            (pl.col("value") - pl.col("overall")).alias("y"),
        )
    )


def draw_factor_heatmap(data: pl.DataFrame, ax: Axes) -> Axes:
    """Draw models down, a strip of group colours next to them, and factors across; red is worse than average."""
    widest = float(np.nanmax(np.abs(data["y"].to_numpy()))) or 1.0
    ax = heat_cells(data, ax, colours="RdBu", limits=(-widest, widest))
    ax.set_title(data["panel"][0])
    groups = data.unique("series", maintain_order=True)["group"].to_list()
    for at, group in enumerate(groups):
        strip = ax.axvspan(-0.016, -0.005, color=group_colour(group), linewidth=0, clip_on=False, gid="group")
        strip.set_transform(ax.transAxes)
        strip.set_bounds(-0.016, 1 - (at + 1) / len(groups), 0.011, 1 / len(groups))
        if at and groups[at - 1] != group:
            ax.axhline(at - 0.5, color="white", linewidth=1.8)
    ax.tick_params(axis="y", pad=3 + 0.016 * ax.get_window_extent().width * 72 / ax.figure.dpi)
    return ax


def prepare_error_consistency(curves: pl.DataFrame) -> pl.DataFrame:
    """Return error consistency (Cohen's kappa of who is right where) of every pair of models, from
    ``curves``.
    """
    rows = curves.filter(pl.col("curve") == "error_consistency")
    if rows.is_empty():
        return need([], "error consistency: it needs the predictions of two models on one set")
    # Models whose stores of one dataset hold different images cannot be paired: each kind has a matrix of its own.
    several = pl.col("label").n_unique().over("dataset") > 1
    version = pl.when(several).then(pl.format(", images {}", pl.col("label"))).otherwise(pl.lit(""))
    return conform_frame(
        rows.select(
            (pl.lit("Error consistency on ") + titled("dataset", rows, dataset_title) + version).alias("panel"),
            pl.lit("cell").alias("kind"),
            pl.col("model").alias("series"),
            pl.col("series").alias("label"),
            "y",
            "model",
        )
    )


def draw_error_consistency(data: pl.DataFrame, ax: Axes) -> Axes:
    """Draw the matrix: 1 errs on the same images, 0 as often as chance would have it."""
    ax = heat_cells(data, ax, colours="viridis", limits=(0, 1))
    ax.set_title(data["panel"][0])
    return ax
