"""Shape bias by group of models, and against accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from analyze.figures.axes import draw_labels, draw_points, scatter
from analyze.figures.frames import conform_frame, datasets_of, label_best, need, scatter_panel
from analyze.results.quantities import Quantity, id_dataset_of, values
from analyze.results.titles import dataset_title
from cache_schema.format.records import GROUPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BY_GROUP = "By group"


def prepare_shape_bias(results: pl.DataFrame) -> pl.DataFrame:
    """Return two panels: models of each group side by side (spread out by rank), and against accuracy."""
    datasets = datasets_of(results, "shape_bias")
    if not datasets:
        return need([], "shape_bias: it needs a cue-conflict set")
    quantity = Quantity("shape_bias", datasets[0])
    frame = values(results, quantity)
    present = frame["group"].unique().to_list()
    order = [g for g in GROUPS if g in present] + sorted(set(present) - set(GROUPS))
    place = {group: index for index, group in enumerate(order)}
    size = pl.len().over("group")
    within = pl.col("value").rank("ordinal").over("group")
    strip = frame.with_columns(
        (
            pl.col("group").replace_strict(place, return_dtype=pl.Float64)
            + pl.when(size > 1).then((within - 1) / (size - 1) * 0.5 - 0.25).otherwise(0.0)
        ).alias("x"),
        pl.lit("point").alias("kind"),
        pl.col("group").alias("series"),
        pl.col("value").alias("y"),
        pl.col("low").alias("y_low"),
        pl.col("high").alias("y_high"),
    )
    medians = (
        frame.group_by("group")
        .agg(pl.col("value").median().alias("y"))
        .with_columns(
            pl.col("group").replace_strict(place, return_dtype=pl.Float64).alias("x"),
            pl.lit("bar").alias("kind"),
            pl.col("group").alias("series"),
            pl.col("group").replace(GROUPS).alias("label"),
        )
        .sort("x")
    )
    groups = conform_frame(
        pl.concat([medians, strip], how="diagonal").with_columns(
            pl.lit(BY_GROUP).alias("panel"),
            pl.lit("Shape bias").alias("y_title"),
            pl.lit("linear").alias("x_scale"),
            pl.lit("linear").alias("y_scale"),
        )
    )
    ground = id_dataset_of(results)
    against = scatter_panel(
        results,
        Quantity("top1", ground),
        quantity,
        panel="Against accuracy",
        x_title=f"{dataset_title(ground)} accuracy",
        y_title="Shape bias",
        fit_groups=(),
    )
    return need([groups, label_best(against)], "shape_bias")


def draw_shape_bias(data: pl.DataFrame, ax: Axes) -> Axes:
    """Draw one of the two panels: 1 decides by shape, 0 by texture; a short bar is a group's median."""
    if data["panel"][0] != BY_GROUP:
        return scatter(data, ax, title=str(data["panel"][0]))
    bars = data.filter(pl.col("kind") == "bar")
    draw_points(data, ax)
    ax.hlines(bars["y"], bars["x"] - 0.38, bars["x"] + 0.38, colors="#111111", linewidth=1.2, zorder=2.2, gid="median")
    ax.set_xticks(bars["x"], bars["label"], rotation=28, ha="right", rotation_mode="anchor")
    ax.grid(visible=False, axis="x")
    ax.set_title(data["panel"][0])
    ax.set_ylabel(data["y_title"][0])
    draw_labels(data, ax)
    return ax
