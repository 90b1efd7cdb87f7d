"""Average ranks of models over datasets, with the difference that counts (a critical-difference plot)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from analyze.figures.axes import draw_points
from analyze.figures.frames import conform_frame, need, shifts_of
from analyze.results.quantities import Quantity, id_dataset_of, joined
from analyze.results.titles import metric_title
from analyze.trends.chance import models_at_chance
from analyze.trends.ranks import rank_test
from closerlook_common.console.terminal import counted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_MODELS = 40


def prepare_ranks(results: pl.DataFrame, *, metric: str = "top1") -> pl.DataFrame:
    """Return the average rank of the best 40 models over the ID set and the shifts, with its interval.

    The bar reaches from the best as far as models are not distinguished from it. Models at chance are left out.
    """
    chance = list(models_at_chance(results))
    results = results.filter(~pl.col("model").is_in(chance))
    ground = id_dataset_of(results)
    sets = [ground, *shifts_of(results, metric)]
    wanted = [Quantity(metric, dataset) for dataset in dict.fromkeys(sets)]
    if len(wanted) < 2 or len(joined(results, wanted)) < 3:
        return need([], f"{metric} of three models on an in-distribution set and a shifted one")
    found = rank_test(results, wanted)
    best = float(found.table["rank"][0])
    table = found.table.head(MAX_MODELS).with_row_index("y")
    points = table.select(
        pl.lit("point").alias("kind"),
        pl.col("group").alias("series"),
        "model",
        "group",
        "source",
        pl.col("rank").alias("x"),
        pl.col("rank_low").alias("x_low"),
        pl.col("rank_high").alias("x_high"),
        pl.col("y").cast(pl.Float64),
        pl.col("model").alias("label"),
    )
    bar = pl.DataFrame(
        {
            "kind": ["bar"],
            "series": ["critical difference"],
            "x_low": [best],
            "x_high": [best + found.critical_difference],
        }
    )
    return conform_frame(
        pl.concat([points, bar], how="diagonal").with_columns(
            pl.lit(f"{metric_title(metric)}: average rank over {counted(found.n_datasets, 'set')}").alias("panel"),
            pl.lit("Average rank (1 = best)").alias("x_title"),
        )
    )


def draw_ranks(data: pl.DataFrame, ax: Axes) -> Axes:
    """Draw models from best to worst; those inside the band are not distinguished from the best (Nemenyi, 5 %)."""
    points, bar = data.filter(pl.col("kind") == "point"), data.filter(pl.col("kind") == "bar")
    ax.axvspan(bar["x_low"][0], bar["x_high"][0], color="#000000", alpha=0.06, linewidth=0, gid="critical-difference")
    ax.hlines(points["y"], 0, points["x"], colors="#dddddd", linewidth=0.6, zorder=1)
    sure = points.filter(pl.col("x_low").is_not_nan() & pl.col("x_low").is_not_null())
    if len(sure):
        ends = ax.hlines(sure["y"], sure["x_low"], sure["x_high"], colors="#555555", linewidth=0.8, zorder=2)
        ends.set_gid("rank-interval")
    draw_points(points, ax, intervals=False)
    ax.set_yticks(points["y"], points["label"], fontsize=5.5)
    ax.set_ylim(len(points) - 0.4, -0.6)
    # The band may reach far beyond the last model: none is then distinguished from the best.
    last = [points["x"].max(), *([] if sure.is_empty() else [sure["x_high"].max()])]
    ax.set_xlim(0.5, 1.04 * float(max(last)) + 0.5)  # type: ignore[type-var, arg-type]
    ax.grid(visible=False, axis="y")
    ax.set_xlabel(data["x_title"][0])
    ax.set_title(data["panel"][0])
    return ax
