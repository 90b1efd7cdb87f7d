"""What the number of prompt templates does: accuracy, calibration and OOD detection of zero-shot models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from analyze.figures.axes import draw_lines, draw_points, set_scale
from analyze.figures.frames import conform_frame, need, of_one_id_set
from analyze.figures.ticks import MeasuredTicks, tick_at
from analyze.prompted import count_of
from analyze.results.quantities import id_dataset_of
from analyze.results.titles import metric_title
from closerlook_common.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KEYS = ("model", "group", "source", "templates")
METRICS = ("top1", "ece", "nll", "auroc")


def prepare_prompts(results: pl.DataFrame) -> pl.DataFrame:
    """Return a panel for each metric: a point for each prompt set of a model, by its number of templates.

    A model's line goes through the mean of its prompt sets of one size. AUROC is the mean over OOD sets of the study's
    score.
    """
    ground = id_dataset_of(results)
    sized = results.with_columns(
        pl.col("head").map_elements(count_of, return_dtype=pl.Int64, skip_nulls=True).alias("templates")
    ).filter(
        pl.col("templates").is_not_null(),
        pl.col("value").is_not_null(),
        pl.col("calibrator") == "",
        pl.col("factor") == "",
        pl.col("subset") == "",
    )
    sized = of_one_id_set(sized, ground)
    panels = []
    for metric in METRICS:
        rows = sized.filter(pl.col("metric") == metric)
        rows = (
            # 'analyze ood' writes the same score again, under options of its own.
            rows.filter(pl.col("role") == "ood", pl.col("score").is_in(["mcm", ""]), pl.col("command") != "ood")
            if metric == "auroc"
            else rows.filter(pl.col("dataset") == ground)
        )
        twice = rows.filter(pl.struct("model", "head", "dataset").is_duplicated())
        if not twice.is_empty():
            model, head, dataset = twice.select("model", "head", "dataset").row(0)
            raise UserError(
                f"two numbers for {metric} of {model} under prompts {head} on {dataset}:"
                " narrow the result table with `where`"
            )
        points = rows.group_by(*KEYS, "head").agg(pl.col("value").mean().alias("y"), pl.len().alias("sets"))
        # A mean over fewer OOD sets than other prompt sets have would not be comparable: such points are left out.
        points = points.filter(pl.col("sets") == pl.col("sets").max().over("model"))
        points = points.filter(pl.col("templates").n_unique().over("model") > 1).sort("model", "templates", "head")
        if points.is_empty():
            continue
        lines = points.group_by(KEYS, maintain_order=True).agg(pl.col("y").mean())
        both = pl.concat(
            [lines.with_columns(pl.lit("line").alias("kind")), points.with_columns(pl.lit("point").alias("kind"))],
            how="diagonal",
        )
        title = metric_title(metric) + (" (mean over OOD sets)" if metric == "auroc" else "")
        panels.append(
            conform_frame(
                both.with_columns(
                    pl.col("templates").cast(pl.Float64).alias("x"),
                    pl.col("model").alias("series"),
                    pl.lit(title).alias("panel"),
                    pl.lit("Prompt templates").alias("x_title"),
                    pl.lit(title).alias("y_title"),
                    pl.lit("log").alias("x_scale"),
                    pl.lit("linear").alias("y_scale"),
                )
            )
        )
    return need(
        panels,
        "numbers of one model under several prompt sets ('extract --prompts SET,SET', then 'analyze prompts')",
    )


def draw_prompts(data: pl.DataFrame, ax: Axes) -> Axes:
    """Draw one metric: a line for each model, from few templates to many."""
    for axis in "xy":
        set_scale(ax, axis, data[f"{axis}_scale"][0], data[axis].to_numpy())
    draw_lines(data, ax, band=False)
    draw_points(data, ax, intervals=False, size=12)
    counts = sorted(data["x"].unique())
    tick_at(ax, "x", MeasuredTicks(lambda low, high: [count for count in counts if low <= count <= high], counts[-1]))
    ax.minorticks_off()
    ax.set_xlim(counts[0] / 1.4, counts[-1] * 1.4)
    ax.set_title(data["panel"][0])
    ax.set_xlabel(data["x_title"][0])
    return ax
