"""A figure of one's own: numbers from a result table, and a drawing of one panel of them.

    analyze figures results.parquet --plugins examples/own_figure.py --only ece_by_nll -o figures

The numbers are saved next to the picture as ``ece_by_nll.csv``; ``draw`` computes nothing.
"""

import polars as pl
from matplotlib.axes import Axes

from closerlook.plugins import Figure, Quantity, id_dataset_of, scatter, scatter_panel


def prepare(results: pl.DataFrame) -> pl.DataFrame:
    """Return one panel: ECE against NLL on the in-distribution set, a point a model."""
    ground = id_dataset_of(results)
    x, y = Quantity("nll", ground), Quantity("ece", ground)
    return scatter_panel(results, x, y, panel=ground, x_title="NLL", y_title="ECE")


def draw(data: pl.DataFrame, ax: Axes) -> Axes:
    """Draw the points and the fits."""
    return scatter(data, ax, title=data["panel"][0])


FIGURES = (Figure("ece_by_nll", "ECE against NLL", prepare, draw),)
