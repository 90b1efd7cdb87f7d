"""Accuracy on each visual factor's images against overall accuracy: ten panels, fits, diagonal, intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from analyze.annotations import STUDY_FACTORS
from analyze.figures.axes import scatter
from analyze.figures.frames import datasets_of, distinct_titles, need, scatter_panel
from analyze.results.quantities import Quantity, id_dataset_of
from analyze.results.titles import dataset_title, factor_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIT_GROUPS = ("supervised-in1k", "clip-zero-shot")
"""Groups with a line: the baseline that saw ImageNet alone, and zero-shot CLIP."""


def prepare_factor_accuracy(results: pl.DataFrame) -> pl.DataFrame:
    """Return a panel for each visual factor; the study's ten where the table has them, else whatever it
    has.
    """
    rows = results.filter(pl.col("metric") == "factor_accuracy", pl.col("value").is_not_null(), pl.col("factor") != "")
    if rows.is_empty():
        return need([], "factor_accuracy: make the rows with 'analyze factors'")
    dataset, ground = factor_set(results, rows)
    present = rows.filter(pl.col("dataset") == dataset)["factor"].unique(maintain_order=True).to_list()
    wanted = [f for f in STUDY_FACTORS if f in present] or present
    titles = distinct_titles(wanted, factor_title)
    return need(
        [
            scatter_panel(
                results,
                Quantity("top1", ground),
                Quantity("factor_accuracy", dataset, (("factor", factor),)),
                panel=titles[factor],
                x_title=f"{dataset_title(ground)} accuracy",
                y_title="Factor accuracy",
                fit_groups=FIT_GROUPS,
            )
            for factor in wanted
        ],
        "factor_accuracy",
    )


def factor_set(results: pl.DataFrame, rows: pl.DataFrame) -> tuple[str, str]:
    """Return the set whose factors are drawn, and the set whose accuracy they are held against.

    The in-distribution set where it has factors, else the first that has; its own accuracy where there is one.
    """
    ground = id_dataset_of(results)
    dataset = ground if ground in rows["dataset"].unique() else str(rows["dataset"][0])
    return dataset, dataset if dataset in datasets_of(results, "top1", calibrator="", factor="") else ground


def draw_factor_accuracy(data: pl.DataFrame, ax: Axes) -> Axes:
    """Draw one factor's panel; above the diagonal, the factor's images are easier than the average image."""
    return scatter(data, ax, diagonal=True, title=str(data["panel"][0]))
