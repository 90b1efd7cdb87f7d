"""Figures of single models, from a cache: reliability diagrams, risk-coverage, ROC curves and score
histograms.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from analyze.figures.frames import conform_frame, need, titled
from analyze.figures.style import AFTER_LINE, DIAGONAL, MARKER_EDGES, TPR_95, group_colour, series_look
from analyze.results.titles import dataset_title, score_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_PANELS = 16
AFTER = "after temperature scaling"
FILLED = "filled"
"""Kind of the bars of an in-distribution set in a histogram."""


def _panels(curves: pl.DataFrame, curve: str, what: str) -> pl.DataFrame:
    rows = curves.filter(pl.col("curve") == curve)
    return rows if len(rows) else need([], what)


def prepare_reliability(curves: pl.DataFrame) -> pl.DataFrame:
    """Return a panel for each model and set: accuracy and share of images by bin of confidence, before and
    after.
    """
    rows = _panels(curves, "reliability", "reliability diagrams")
    if rows.select("model", "dataset").n_unique() > MAX_PANELS and (rows["label"] == "id").any():
        rows = rows.filter(pl.col("label") == "id")
    return conform_frame(
        rows.select(
            (pl.col("model") + "\n" + titled("dataset", rows, dataset_title)).alias("panel"),
            pl.lit("bar").alias("kind"),
            "series",
            "model",
            "group",
            "source",
            "x",
            "x_low",
            "x_high",
            "y",
            "y_low",
            "y_high",
            pl.col("weight").round(6).cast(pl.String).alias("label"),
            pl.lit("Confidence").alias("x_title"),
            pl.lit("Accuracy").alias("y_title"),
        )
    )


def draw_reliability(data: pl.DataFrame, ax: Axes) -> Axes:
    """Draw one reliability diagram: bars of accuracy with intervals, the histogram of confidences below them.

    Dots show each bin's mean confidence and accuracy; open dots are those after temperature scaling.
    """
    first = data.filter(pl.col("series") != AFTER)
    colour = group_colour(str(data["group"][0]))
    bars = first.filter(pl.col("y").is_not_null())
    ax.plot([0, 1], [0, 1], **DIAGONAL, zorder=1.5, gid="diagonal")
    ax.bar(
        bars["x_low"],
        bars["y"],
        width=bars["x_high"] - bars["x_low"],
        align="edge",
        color=colour,
        alpha=0.22,
        edgecolor="white",
        linewidth=0.5,
        zorder=1,
    )
    ink = MARKER_EDGES.get(str(data["group"][0]), colour)
    ax.vlines(bars["x"], bars["y_low"], bars["y_high"], colors=ink, linewidth=0.7, zorder=2)
    ax.scatter(bars["x"], bars["y"], s=6, c=ink, zorder=3, gid="before")
    after = data.filter(pl.col("series") == AFTER, pl.col("y").is_not_null())
    if len(after):
        ax.plot(after["x"], after["y"], **AFTER_LINE, zorder=2.8, gid="after")
    share = first["label"].cast(pl.Float64)
    below = ax.inset_axes((0.0, -0.0, 1.0, 0.16))
    below.bar(
        first["x_low"],
        share,
        width=first["x_high"] - first["x_low"],
        align="edge",
        color="#555555",
        alpha=0.55,
        edgecolor="white",
        linewidth=0.3,
        gid="histogram",
    )
    below.set_xlim(0, 1)
    below.axis("off")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1)
    ax.set_title(data["panel"][0])
    ax.set_xlabel(data["x_title"][0])
    ax.set_ylabel(data["y_title"][0])
    return ax


def _lines(data: pl.DataFrame, ax: Axes) -> None:
    for (place, series), part in data.group_by("label", "series", maintain_order=True):
        colour, dashes = series_look(int(str(place)))
        ax.plot(part["x"], part["y"], color=colour, linestyle=dashes, gid=f"line:{series}")
    ax.set_title(data["panel"][0])
    ax.set_xlabel(data["x_title"][0])
    ax.set_ylabel(data["y_title"][0])


def _places(series: pl.Expr) -> pl.Expr:
    """Return the place of each series among all of the figure, as text: a series looks the same in every panel."""
    return (series.rank("dense") - 1).cast(pl.String)


def _line_frame(rows: pl.DataFrame, panel: pl.Expr, x_title: str, y_title: str) -> pl.DataFrame:
    return conform_frame(
        rows.select(
            panel.alias("panel"),
            pl.lit("line").alias("kind"),
            "series",
            _places(pl.col("series")).alias("label"),
            "model",
            "group",
            "source",
            "x",
            "y",
            pl.lit(x_title).alias("x_title"),
            pl.lit(y_title).alias("y_title"),
        )
    )


def prepare_risk_coverage(curves: pl.DataFrame) -> pl.DataFrame:
    """Return a panel for each set, in-distribution ones first, with a risk-coverage curve for each model."""
    rows = _panels(curves, "risk_coverage", "risk-coverage curves").with_columns(pl.col("model").alias("series"))
    rows = rows.sort(pl.col("label") != "id", maintain_order=True)
    return _line_frame(
        rows,
        titled("dataset", rows, dataset_title),
        "Coverage",
        "Error of the answered",
    )


def draw_risk_coverage(data: pl.DataFrame, ax: Axes) -> Axes:
    """Draw one set: the error among the most confident images, as more of them are answered."""
    _lines(data, ax)
    ax.set_xlim(0, 1)
    ax.set_ylim(bottom=0)
    return ax


def prepare_roc(curves: pl.DataFrame) -> pl.DataFrame:
    """Return a panel for each OOD set with a ROC curve for each model, score and in-distribution set."""
    rows = _panels(curves, "roc", "ROC curves: they need an OOD set")
    text = pl.col("model") + " · " + titled("series", rows, score_title) + _id_set(rows)
    return _line_frame(
        rows.with_columns(text.alias("series")),
        titled("dataset", rows, dataset_title),
        "OOD accepted (FPR)",
        "ID accepted (TPR)",
    )


def _id_set(rows: pl.DataFrame) -> pl.Expr:
    """Return what names the in-distribution set, nothing where there is but one."""
    if rows["id_dataset"].n_unique() < 2:
        return pl.lit("")
    return pl.lit(" · ID: ") + titled("id_dataset", rows, dataset_title)


def draw_roc(data: pl.DataFrame, ax: Axes) -> Axes:
    """Draw one OOD set's ROC curves; in-distribution images are the positive class."""
    ax.plot([0, 1], [0, 1], **DIAGONAL, gid="diagonal")
    ax.axhline(0.95, **TPR_95, gid="tpr-95")
    _lines(data, ax)
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.005)
    return ax


def prepare_score_histograms(curves: pl.DataFrame) -> pl.DataFrame:
    """Return a panel for each model, score and ID set: densities of the score on the ID set and on each OOD set."""
    rows = _panels(curves, "score_histogram", "score histograms: they need an OOD set")
    rows = rows.with_columns(pl.col("label").alias("score"))
    panel = pl.col("model") + " · " + titled("score", rows, score_title) + _id_set(rows)
    inside = pl.col("series") == pl.col("id_dataset")
    names = rows.sort(~inside, maintain_order=True)["series"].unique(maintain_order=True).to_list()
    return conform_frame(
        rows.select(
            panel.alias("panel"),
            pl.when(inside).then(pl.lit(FILLED)).otherwise(pl.lit("bar")).alias("kind"),
            titled("series", rows, dataset_title),
            pl.col("series").replace_strict({name: str(i) for i, name in enumerate(names)}).alias("place"),
            "model",
            "group",
            "source",
            "x_low",
            "x_high",
            "y",
            pl.col("score").alias("x_title"),
            pl.lit("Density").alias("y_title"),
        ).rename({"place": "label"})
    )


def draw_score_histograms(data: pl.DataFrame, ax: Axes) -> Axes:
    """Draw the ID set's scores filled and each OOD set's as an outline; right is more in-distribution."""
    for (place,), part in data.group_by("label", maintain_order=True):
        colour, dashes = series_look(int(str(place)))
        filled = part["kind"][0] == FILLED
        ax.stairs(
            part["y"],
            [*part["x_low"], part["x_high"][-1]],
            fill=filled,
            color=colour,
            alpha=0.35 if filled else 1.0,
            linestyle=dashes,
            linewidth=1.0,
            gid="filled" if filled else f"outline:{part['series'][0]}",
        )
    ax.set_yticks([])
    ax.set_title(data["panel"][0])
    ax.set_xlabel(f"Score ({score_title(data['x_title'][0])})")
    ax.set_ylabel(data["y_title"][0])
    return ax
