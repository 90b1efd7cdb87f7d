"""Accuracy under corruptions as they get stronger (ImageNet-C, 3DCC): a line for each model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from analyze.figures.axes import draw_lines, draw_points, set_scale
from analyze.figures.frames import CORRUPTED, conform_frame, distinct_titles, need, titled
from analyze.results.meant import usual_heads
from analyze.results.titles import dataset_title
from closerlook_common.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MEAN = "Mean of all corruptions"
KEYS = ("model", "group", "source", "x")


def prepare_corruptions(results: pl.DataFrame, *, metric: str = "top1") -> pl.DataFrame:
    """Return a panel of the corruptions' mean and one for each: x is the severity, 1 to 5.

    Sets are recognised by their names, ``imagenet-c-CORRUPTION-SEVERITY``.
    """
    rows = usual_heads(results).filter(
        pl.col("metric") == metric,
        pl.col("value").is_not_null(),
        pl.col("calibrator") == "",
        pl.col("factor") == "",
        pl.col("subset") == "",
    )
    names = rows["dataset"].unique()
    split = [(d, *found.group("set", "corruption", "severity")) for d in names if (found := CORRUPTED.match(d))]
    if not split:
        return need([], "accuracies of a corruption set (names such as imagenet-c-fog-3)")
    parts = pl.DataFrame(split, orient="row", schema=dict.fromkeys(("dataset", "set", "corruption", "x"), pl.String()))
    frame = rows.join(parts, on="dataset").with_columns(pl.col("x").cast(pl.Float64))
    twice = frame.filter(pl.struct("model", "dataset").is_duplicated())
    if not twice.is_empty():
        model, dataset = twice.select("model", "dataset").row(0)
        raise UserError(f"two numbers for {metric} of {model} on {dataset}: narrow the result table with `where`")
    titles = _panel_titles(parts)
    each = frame.select(
        *KEYS,
        pl.struct("set", "corruption").map_elements(lambda row: titles[tuple(row.values())], pl.String).alias("panel"),
        pl.col("value").alias("y"),
    )
    # A mean over fewer corruptions than other models have would not be comparable: such points are left out.
    mean = frame.group_by("set", *KEYS).agg(pl.col("value").mean().alias("y"), pl.len().alias("corruptions"))
    mean = mean.filter(pl.col("corruptions") == pl.col("corruptions").max().over("set", "x"))
    several = parts["set"].n_unique() > 1
    named = pl.format(f"{MEAN} ({{}})", titled("set", mean, dataset_title)) if several else pl.lit(MEAN)
    mean = mean.with_columns(named.alias("panel"))
    both = each.select(*KEYS, "panel", "y")
    if each["panel"].n_unique() > 1:
        both = pl.concat([mean.select(both.columns), both])
    lines = pl.concat([both.with_columns(pl.lit(kind).alias("kind")) for kind in ("line", "point")])
    return conform_frame(
        lines.with_columns(
            pl.col("model").alias("series"),
            pl.lit("Severity").alias("x_title"),
            pl.lit("Accuracy").alias("y_title"),
            pl.lit("linear").alias("x_scale"),
            pl.lit("linear").alias("y_scale"),
        ).sort(~pl.col("panel").is_in(mean["panel"].unique().to_list()), "panel", "kind", "model", "x")
    )


def _panel_titles(parts: pl.DataFrame) -> dict[tuple[str, ...], str]:
    """Return the panel of each set and corruption; the set is named where there are several."""
    pairs = parts.select("set", "corruption").unique(maintain_order=True).rows()
    sets = distinct_titles({name for name, _ in pairs}, dataset_title)
    kinds = distinct_titles({kind for _, kind in pairs}, lambda kind: kind.replace("_", " ").title())
    return {(name, kind): kinds[kind] + (f" ({sets[name]})" if len(sets) > 1 else "") for name, kind in pairs}


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
