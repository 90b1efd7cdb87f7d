"""OOD detection against accuracy: AUROC and FPR@95, a column for each OOD set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from analyze.figures.axes import scatter
from analyze.figures.frames import datasets_of, distinct_titles, need, of_one_id_set, scatter_panel
from analyze.results.quantities import Quantity, id_dataset_of
from analyze.results.titles import dataset_title, metric_title, score_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STUDY_SETS = ("inaturalist", "sun", "places", "textures", "imagenet-o")
METRICS = ("auroc", "fpr95_id")


def prepare_ood(results: pl.DataFrame, *, score: str = "") -> pl.DataFrame:
    """Return a panel for each metric and OOD set (the study's five first, at most five).

    ``score`` names one score for all models; empty takes the study's: MCM for zero-shot CLIP, MSP for the
    others.
    """
    ground = id_dataset_of(results)
    # Rows of another in-distribution set than the one whose accuracy is drawn: the axis then says which is meant.
    several = results.filter(pl.col("metric") == "auroc")["id_dataset"].n_unique() > 1
    results = of_one_id_set(results, ground)
    present = datasets_of(results, "auroc")
    wanted = [d for d in STUDY_SETS if d in present] or present[:5]
    words = [score_title(score)] * bool(score) + [f"ID: {dataset_title(ground)}"] * several
    text = f" ({', '.join(words)})" if words else ""
    titles = distinct_titles(wanted, dataset_title)
    return need(
        [
            scatter_panel(
                results,
                Quantity("top1", ground),
                Quantity(metric, dataset),
                panel=f"{titles[dataset]}: {metric_title(metric)}",
                x_title=f"{dataset_title(ground)} accuracy",
                y_title=f"{metric_title(metric)}{text}",
                fit_groups=("clip-zero-shot", "supervised-in1k", "more-data"),
                score=score,
            )
            for metric in METRICS
            for dataset in wanted
            if dataset in datasets_of(results, metric)
        ],
        "auroc of an OOD set",
    )


def draw_ood(data: pl.DataFrame, ax: Axes) -> Axes:
    """Draw one metric on one OOD set: AUROC up is better, FPR@95 down is better."""
    return scatter(data, ax)
