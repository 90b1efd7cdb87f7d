"""The paper's figures: a prepare function makes the numbers, a draw function puts them on an Axes and
computes nothing.

Imports results and trends; the report, the notebook's class and commands import it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from closerlook_common.errors import UserError
from closerlook_common.plugins import Plugin, attach

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

    Prepare = Callable[..., pl.DataFrame]
    Draw = Callable[[pl.DataFrame, Axes], Axes]


class FigureSpec(NamedTuple):
    """A figure: where its two functions are, how its panels are laid out, and what it is made from.

    Attributes
    ----------
    module
        With ``prepare_NAME`` and ``draw_NAME``.
    title
        What it shows.
    columns
        Panels side by side at most; 0 begins a row at each new name of the vertical axis.
    aspect
        Height of a panel over its width.
    needs
        ``results`` (a result table) or ``curves`` (a cache: single images are looked at).
    legend
        What the legend explains: ``groups`` (and sources), ``series`` (single lines), or guides alone.
    least
        Inches a panel is wide at least: narrower pages lay fewer panels side by side.
    functions
        Prepare and draw of a figure from outside the package; None for those of ``module``.
    """

    module: str
    title: str
    columns: int
    aspect: float = 0.95
    needs: str = "results"
    legend: str = "groups"
    least: float = 1.05
    functions: tuple[Prepare, Draw] | None = None


@dataclass(frozen=True)
class Figure:
    """A figure from outside the package.

    Attributes
    ----------
    name
        In ``--only``, and of its files.
    title
        What it shows.
    prepare
        Result table (or curves) -> numbers, as ``analyze.figures.frames.scatter_panel`` gives them.
    draw
        Numbers of one panel and an Axes -> the Axes; computes nothing. ``analyze.figures.axes.scatter`` draws points
        and fits.
    columns, aspect, needs, legend, least
        As ``FigureSpec`` has them.
    """

    name: str
    title: str
    prepare: Prepare
    draw: Draw
    columns: int = 3
    aspect: float = 0.95
    needs: Literal["results", "curves"] = "results"
    legend: str = "groups"
    least: float = 1.05


_FIGURES: dict[str, FigureSpec] = {
    "factor_accuracy": FigureSpec("factor_accuracy", "factor accuracy against accuracy", 5),
    "shape_bias": FigureSpec("shape_bias", "shape bias by group, and against accuracy", 2, 0.72, least=2.4),
    "ood": FigureSpec("ood", "AUROC and FPR@95 against accuracy", 0),
    "calibration": FigureSpec("calibration", "ECE and NLL against accuracy, before and after temperature scaling", 0),
    "calibration_transfer": FigureSpec("calibration", "calibration under shift against calibration without", 0),
    "prompts": FigureSpec("prompts", "number of prompt templates", 4, 1.0),
    "correlation_matrix": FigureSpec("matrices", "all metrics against one another over models", 1, 0.85, legend=""),
    "factor_heatmap": FigureSpec("matrices", "visual factors by model", 1, 0.95),
    "ranks": FigureSpec("ranks", "average ranks with the critical difference", 1, 0.8),
    "corruptions": FigureSpec("corruptions", "accuracy by severity of corruption", 4),
    "reliability": FigureSpec("curves", "reliability diagrams", 4, 1.0, "curves", legend=""),
    "risk_coverage": FigureSpec("curves", "risk against coverage", 4, 0.9, "curves", legend="series"),
    "roc": FigureSpec("curves", "ROC curves of OOD detection", 4, 0.95, "curves", legend="series"),
    "score_histograms": FigureSpec(
        "curves", "OOD scores, ID against OOD", 3, 0.75, "curves", legend="series", least=1.5
    ),
    "error_consistency": FigureSpec("matrices", "errors that models share", 1, 0.9, "curves", legend=""),
}

FIGURES: Mapping[str, FigureSpec] = _FIGURES
"""Name on the command line -> figure; plug-ins join at the end."""


def _add(plugin: Plugin) -> None:
    """Take a figure from outside."""
    figure = plugin.item
    if not isinstance(figure, Figure):
        raise UserError(f"{plugin.name!r} is not a Figure")
    if not figure.name.isidentifier() or figure.name in _FIGURES:
        raise UserError(
            f"the figure {figure.name!r} exists already, or is not a valid file name; give yours another name"
        )
    _FIGURES[figure.name] = FigureSpec(
        "", figure.title, figure.columns, figure.aspect, figure.needs, figure.legend, figure.least,
        (figure.prepare, figure.draw),
    )  # fmt: skip


attach("figures", _add)
