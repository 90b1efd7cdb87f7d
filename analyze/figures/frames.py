"""The numbers of a figure as one long frame: what is drawn is what is saved with it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import polars as pl

from analyze.results.quantities import Quantity
from analyze.trends import MIN_MODELS, natural_scale
from analyze.trends.families import Families, families_of
from analyze.trends.fits import fit_line
from analyze.trends.pairs import DEFAULT, OTHER_IMAGES, SAME_CLASSES, SHARED_IMAGES, Choices, pair_of
from analyze.trends.scales import transform, untransform
from closerlook_common.errors import UserError

FRAME_SCHEMA: dict[str, pl.DataType] = {
    "panel": pl.String(),
    "kind": pl.String(),
    "series": pl.String(),
    "model": pl.String(),
    "group": pl.String(),
    "source": pl.String(),
    "x": pl.Float64(),
    "x_low": pl.Float64(),
    "x_high": pl.Float64(),
    "y": pl.Float64(),
    "y_low": pl.Float64(),
    "y_high": pl.Float64(),
    "label": pl.String(),
    "x_title": pl.String(),
    "y_title": pl.String(),
    "x_scale": pl.String(),
    "y_scale": pl.String(),
    "mark": pl.String(),
}
"""Columns of every figure's numbers. ``kind`` is ``point``, ``line`` (with a band in ``y_low``, ``y_high``),
``bar`` or
``cell``; ``panel`` separates the axes, ``series`` what belongs together within one, and ``mark`` says of a point why
lines leave it out."""

CORRUPTED = re.compile(r"^(?P<set>.+-(?:c|3dcc))-(?P<corruption>.+)-(?P<severity>[1-5])$")
"""Name of a corruption set at one severity, such as ``imagenet-c-fog-3``."""


AXIS_WORDS = {
    SAME_CLASSES: ", same classes",
    OTHER_IMAGES: ", others",
    SHARED_IMAGES: ", factor included",
}
"""Which images the horizontal axis is of -> what follows its title."""


def conform_frame(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with all columns of ``FRAME_SCHEMA``, empty where it has none."""
    return frame.select(
        (pl.col(name).cast(kind) if name in frame.columns else pl.lit(None).cast(kind).alias(name))
        for name, kind in FRAME_SCHEMA.items()
    ).with_columns(pl.col(pl.String).fill_null(""))


def scatter_panel(
    results: pl.DataFrame,
    x: Quantity,
    y: Quantity,
    *,
    panel: str,
    x_title: str,
    y_title: str,
    fit_groups: Iterable[str] | None = None,
    scale: str = "probit",
    method: str = "huber",
    score: str = "",
    choices: Choices = DEFAULT,
) -> pl.DataFrame:
    """Return one panel of models as points and of fits as lines.

    Parameters
    ----------
    results
        A result table.
    x, y
        What is on the axes.
    panel, x_title, y_title
        How the panel and its axes are called.
    fit_groups
        Groups that get a line of their own, where they have enough models; None for all of them.
    scale
        Axis for accuracies; other metrics stay linear.
    method
        Of the fits.
    score
        OOD score, where a quantity leaves it open.
    choices
        Which images x is of, and which models the lines leave out; the axis says the first, points are marked for the
        second.
    """
    pair = pair_of(results, x, y, choices, score=score)
    scales = natural_scale(pair.x, scale), natural_scale(y, scale)
    x_title = x_title + AXIS_WORDS.get(pair.axis, "")
    fitted = set(pair.fitted["model"])
    points = pair.everyone.select(
        pl.lit("point").alias("kind"),
        pl.col("group").alias("series"),
        "model",
        "group",
        "source",
        pl.when(pl.col("model").is_in(fitted)).then(pl.lit("")).otherwise("mark").alias("mark"),
        *(pl.col(f"{i}{end}").alias(f"{name}{end}") for i, name in enumerate("xy") for end in ("", "_low", "_high")),
    )
    lines = [points]
    frame = pair.fitted
    wanted = sorted(frame["group"].unique()) if fit_groups is None else list(fit_groups)
    for group in wanted:
        part = frame.filter(pl.col("group") == group)
        if len(part) >= MIN_MODELS and part["0"].n_unique() > 2:
            families = families_of(part, choices.dependence)
            lines.append(line_points(part["0"].to_numpy(), part["1"].to_numpy(), group, scales, method, families))
    return conform_frame(
        pl.concat(lines, how="diagonal").with_columns(
            pl.lit(panel).alias("panel"),
            pl.lit(x_title).alias("x_title"),
            pl.lit(y_title).alias("y_title"),
            pl.lit(scales[0]).alias("x_scale"),
            pl.lit(scales[1]).alias("y_scale"),
        )
    )


def line_points(
    x: np.ndarray[Any, Any],
    y: np.ndarray[Any, Any],
    group: str,
    scales: tuple[str, str],
    method: str,
    families: Families | None = None,
) -> pl.DataFrame:
    """Return a fit as points of its line, with its band over families of models, over the range it was fitted on."""
    line = fit_line(x, y, method=method, x_scale=scales[0], y_scale=scales[1], families=families)
    ends = transform(np.array(line.x_range), scales[0])
    at = untransform(np.linspace(ends[0], ends[1], 41), scales[0])
    low, high = line.band(at)
    return pl.DataFrame(
        {
            "kind": "line",
            "series": group,
            "group": group,
            "x": at,
            "y": line.predict(at),
            "y_low": low,
            "y_high": high,
        }
    )


def need(frames: list[pl.DataFrame], what: str) -> pl.DataFrame:
    """Return the panels as one frame, or say what the result table lacks.

    Raises
    ------
    UserError
        Where there is no panel.
    """
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        raise UserError(f"the result table has no {what}")
    return pl.concat(frames)


def label_best(frame: pl.DataFrame, *, by: str = "group", column: str = "y") -> pl.DataFrame:
    """Name the point with the largest value in each group (column ``label``)."""
    points = (pl.col("kind") == "point") & pl.col(column).is_not_null()
    best = pl.col(column) == pl.col(column).filter(points).max().over("panel", by)
    return frame.with_columns(pl.when(points & best).then("model").otherwise("label").alias("label"))


def distinct_titles(names: Iterable[str], title: Callable[[str], str]) -> dict[str, str]:
    """Return the title of each name, and the name itself where two would share a title.

    Panels and series are distinguished by their titles, so that two names under one title would be drawn as one.
    """
    given = {name: title(name) for name in names}
    shared = Counter(given.values())
    given = {name: text if shared[text] == 1 else name for name, text in given.items()}
    return given if len(set(given.values())) == len(given) else {name: name for name in given}


def titled(column: str, table: pl.DataFrame, title: Callable[[str], str]) -> pl.Expr:
    """Return a column of names as distinct titles."""
    titles = distinct_titles(table[column].unique(maintain_order=True), title)
    return pl.col(column).replace_strict(titles, return_dtype=pl.String)


def of_one_id_set(results: pl.DataFrame, ground: str) -> pl.DataFrame:
    """Keep the rows that belong to one in-distribution set or to none.

    OOD scores and calibrators of another set would make the numbers of a dataset ambiguous.
    """
    return results.filter(pl.col("id_dataset").is_in(["", ground]))


def shifts_of(results: pl.DataFrame, metric: str) -> list[str]:
    """Return the shifted sets that have a metric, without two kinds that are not for this.

    Cue-conflict sets have labels that are not what they are for; corruption sets, one a severity, are a figure of their
    own and would outweigh all others.
    """
    others = datasets_of(results, "shape_bias")
    found = datasets_of(results, metric, "shift", calibrator="", factor="")
    return [d for d in found if d not in others and not CORRUPTED.match(d)]


def datasets_of(results: pl.DataFrame, metric: str, role: str = "", **variants: str) -> list[str]:
    """Return the datasets that have values of a metric, in order of appearance."""
    chosen = results.filter(
        pl.col("metric") == metric,
        pl.col("value").is_not_null(),
        pl.col("dataset") != "",
        *[pl.col(key) == value for key, value in variants.items()],
    )
    if role:
        chosen = chosen.filter(pl.col("role") == role)
    return chosen["dataset"].unique(maintain_order=True).to_list()
