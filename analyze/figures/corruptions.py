"""Accuracy under corruptions as they get stronger (ImageNet-C, 3DCC): a line for each model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from analyze.figures.axes import draw_lines, draw_points, set_scale
from analyze.figures.frames import CORRUPTED, conform_frame, need

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEAN = "Mean of all corruptions"


def prepare_corruptions(results: pl.DataFrame, *, metric: str = "top1") -> pl.DataFrame:
    """Return a panel of the corruptions' mean and one for each: x is the severity, 1 to 5.

    Sets are recognised by their names, ``imagenet-c-CORRUPTION-SEVERITY``.
    """
    rows = results.filter(
        pl.col("metric") == metric,
        pl.col("value").is_not_null(),
        pl.col("calibrator") == "",
        pl.col("factor") == "",
        pl.col("subset") == "",
    )
    names = rows["dataset"].unique()
    split = [(d, *found.group("corruption", "severity")) for d in names if (found := CORRUPTED.match(d))]
    if not split:
        return need([], "accuracies of a corruption set (names such as imagenet-c-fog-3)")
    told = pl.DataFrame(split, orient="row", schema={"dataset": pl.String, "corruption": pl.String, "x": pl.String})
    frame = rows.join(told, on="dataset").with_columns(pl.col("x").cast(pl.Float64))
    keys = ["model", "group", "source", "x"]
    each = frame.select(
        *keys,
        pl.col("corruption").str.replace_all("_", " ").str.to_titlecase().alias("panel"),
        pl.col("value").alias("y"),
    )
    mean = frame.group_by(keys).agg(pl.col("value").mean().alias("y")).with_columns(pl.lit(MEAN).alias("panel"))
    both = pl.concat([mean, each.select(mean.columns)]) if each["panel"].n_unique() > 1 else each.select(mean.columns)
    lines = pl.concat([both.with_columns(pl.lit(kind).alias("kind")) for kind in ("line", "point")])
    return conform_frame(
        lines.with_columns(
            pl.col("model").alias("series"),
            pl.lit("Severity").alias("x_title"),
            pl.lit("Accuracy").alias("y_title"),
            pl.lit("linear").alias("x_scale"),
            pl.lit("linear").alias("y_scale"),
        ).sort(pl.col("panel") != MEAN, "panel", "kind", "model", "x")
    )


def draw_corruptions(data: pl.DataFrame, ax: Axes) -> Axes:
    """Draw one corruption: accuracy falls from severity 1 to 5."""
    for axis in "xy":
        set_scale(ax, axis, data[f"{axis}_scale"][0], data[axis].to_numpy())
    draw_lines(data, ax, band=False)
    draw_points(data, ax, intervals=False, size=9)
    ax.set_xticks([1, 2, 3, 4, 5])
    ax.set_title(data["panel"][0])
    ax.set_xlabel(data["x_title"][0])
    ax.set_ylabel(data["y_title"][0])
    return ax
