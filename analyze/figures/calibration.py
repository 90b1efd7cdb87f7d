"""Calibration against accuracy, before and after temperature scaling; and calibration under shift against
that without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from analyze.figures.axes import scatter
from analyze.figures.frames import distinct_titles, need, of_one_id_set, scatter_panel, shifts_of
from analyze.results.quantities import Quantity, id_dataset_of
from analyze.results.titles import dataset_title, metric_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STUDY_SHIFTS = ("imagenet-v2-a", "imagenet-r", "imagenet-a")
STAGES = (("", "before"), ("temperature", "after temperature scaling"))
FIT_GROUPS = ("clip-zero-shot", "supervised-in1k")


def _stage(results: pl.DataFrame, metric: str, dataset: str, calibrator: str) -> Quantity | None:
    """Return the quantity before or after calibration, on the same images: the held-out half where the set
    was
    fitted on.
    """
    rows = results.filter(
        pl.col("metric") == metric,
        pl.col("dataset") == dataset,
        pl.col("value").is_not_null(),
        pl.col("calibrator") == calibrator,
    )
    if rows.is_empty():
        return None
    if calibrator:
        return Quantity(metric, dataset, (("calibrator", calibrator),))
    held_out = not rows.filter(pl.col("subset") == "held-out").is_empty()
    return Quantity(metric, dataset, (("subset", "held-out"),) if held_out else ())


def _shifts(results: pl.DataFrame) -> list[str]:
    present = shifts_of(results, "ece")
    return [d for d in STUDY_SHIFTS if d in present] or present[:3]


def prepare_calibration(results: pl.DataFrame) -> pl.DataFrame:
    """Return panels of ECE and NLL, before and after (rows), on the ID set and up to three shifted ones
    (columns).

    The x axis is the accuracy on the same images' set.
    """
    ground = id_dataset_of(results)
    results = of_one_id_set(results, ground)
    sets = [ground, *_shifts(results)]
    titles = distinct_titles(sets, dataset_title)
    panels = []
    for calibrator, text in STAGES:
        for metric in ("ece", "nll"):
            for dataset in sets:
                quantity = _stage(results, metric, dataset, calibrator)
                if quantity is None:
                    continue
                panels.append(
                    scatter_panel(
                        results,
                        Quantity("top1", dataset),
                        quantity,
                        panel=f"{titles[dataset]}: {metric_title(metric)} {text.split()[0]}",
                        x_title="Accuracy",
                        y_title=f"{metric_title(metric)}, {text}",
                        fit_groups=FIT_GROUPS,
                    )
                )
    return need(panels, "ece or nll")


def draw_calibration(data: pl.DataFrame, ax: Axes) -> Axes:
    """Draw one metric on one set, before or after temperature scaling; lower is better."""
    ax = scatter(data, ax)
    ax.set_ylabel(data["y_title"][0].replace(", after temperature scaling", " after scaling"))
    return ax


def prepare_calibration_transfer(results: pl.DataFrame) -> pl.DataFrame:
    """Return panels of shifted ECE against in-distribution ECE, before and after temperature scaling fitted
    on ID.
    """
    ground = id_dataset_of(results)
    results = of_one_id_set(results, ground)
    titles = distinct_titles(_shifts(results), dataset_title)
    panels = []
    for calibrator, text in STAGES:
        x = _stage(results, "ece", ground, calibrator)
        for dataset in titles:
            y = _stage(results, "ece", dataset, calibrator)
            if x is not None and y is not None:
                panels.append(
                    scatter_panel(
                        results,
                        x,
                        y,
                        panel=f"{titles[dataset]}: {text.split()[0]}",
                        x_title=f"{dataset_title(ground)} ECE",
                        y_title=f"ECE under shift, {text.split()[0]}",
                        fit_groups=FIT_GROUPS,
                    )
                )
    return need(panels, "ece of a shifted set")


def draw_calibration_transfer(data: pl.DataFrame, ax: Axes) -> Axes:
    """Draw one shifted set; on the diagonal, calibration under shift is as good as without."""
    return scatter(data, ax, diagonal=True)
