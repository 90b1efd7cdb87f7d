"""How figures look and are saved: colours, markers, widths, bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from analyze.figures.axes import set_scale
from analyze.figures.labels import overlap
from analyze.figures.pages import compose, prepare
from analyze.figures.style import (
    CONFERENCE_WIDTHS,
    GROUP_COLOURS,
    figure_style,
    source_markers,
    width_in_inches,
)
from analyze.prompted import count_of
from cache_schema.format.records import GROUPS
from closerlook_common.errors import UserError

SCALES = ("linear", "probit", "logit")


def luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    y = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 116 * y ** (1 / 3) - 16 if y > 0.008856 else 903.3 * y


def seen_with(colour: str, matrix: np.ndarray) -> np.ndarray:
    linear = np.array([c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)])
    back = np.clip(matrix @ linear, 0, 1)
    return np.where(back <= 0.0031308, 12.92 * back, 1.055 * back ** (1 / 2.4) - 0.055)


def test_colours_differ_in_grey_and_for_the_colour_blind() -> None:
    known = [GROUP_COLOURS[group] for group in GROUPS if group != "unknown"]
    for a, b in itertools.combinations(known, 2):
        assert abs(luminance(a) - luminance(b)) > 7
    # Machado, Oliveira and Fernandes 2009, severity 1: protanopia, deuteranopia, tritanopia
    kinds = [
        np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
        np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
        np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
    ]
    for matrix in kinds:
        for a, b in itertools.combinations(known, 2):
            assert np.linalg.norm(seen_with(a, matrix) - seen_with(b, matrix)) > 0.1


def test_sources_get_markers_of_their_own() -> None:
    markers = source_markers(["wit", "laion-2b", "imagenet-1k", "mine", "yours", "datacomp-1b"])
    assert markers["wit"] == "o"
    assert markers["datacomp-1b"] == "h"
    assert len(set(markers.values())) == 6


@pytest.mark.parametrize(
    ("head", "count"),
    [
        ("openai-80", 80), ("photo-1", 1), ("mine", None), ("", None), ("photo-1+openai-7", 8), ("photo-1+mine", None),
        ("mine:0-4 7", 6), ("mine:37 templates 0a1b2c3d", 37), ("openai-80:zpe", None), ("mine:0-4:zpe:laion", None),
    ],
)  # fmt: skip
def test_templates_are_counted_by_name(head: str, count: int | None) -> None:
    assert count_of(head) == count


@pytest.mark.parametrize(("width", "inches"), [("neurips", 5.5), ("cvpr-column", 3.25), ("4.2", 4.2), (7, 7.0)])
def test_widths(width: str | float, inches: float) -> None:
    assert width_in_inches(width) == inches
    assert "neurips" in CONFERENCE_WIDTHS


@pytest.mark.parametrize("width", ["nerips", "0", "400"])
def test_impossible_widths_are_refused(width: str) -> None:
    with pytest.raises(UserError):
        width_in_inches(width)


def test_the_readers_own_style_comes_back() -> None:
    before = dict(mpl.rcParams)
    with figure_style():
        assert mpl.rcParams["pdf.fonttype"] == 42
    assert dict(mpl.rcParams) == before


OWN_FONTS = Path(mpl.get_data_path()) / "fonts" / "ttf"


def picture(data: pl.DataFrame) -> bytes:
    out = BytesIO()
    compose("calibration_transfer", data, width="icml-column").savefig(out, format="png", dpi=100)
    return out.getvalue()


@pytest.fixture
def fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[font_manager.FontEntry]]:
    """Return the list of fonts that matplotlib knows, to be changed; at first it has matplotlib's own alone."""
    manager = font_manager.fontManager
    own = [font for font in manager.ttflist if Path(font.fname).parent == OWN_FONTS]
    monkeypatch.setattr(manager, "ttflist", own)
    manager._findfont_cached.cache_clear()
    yield own
    manager._findfont_cached.cache_clear()


def test_figures_are_the_same_whatever_fonts_and_settings_a_machine_has(
    results: pl.DataFrame, fonts: list[font_manager.FontEntry]
) -> None:
    data = prepare("calibration_transfer", results)
    bare = picture(data)
    stranger = str(OWN_FONTS / "STIXGeneral.ttf")
    names = ("Helvetica", "Arial", "Liberation Sans", "DejaVu Sans")
    fonts.extend(font_manager.FontEntry(fname=stranger, name=name) for name in names)
    font_manager.fontManager._findfont_cached.cache_clear()
    with mpl.rc_context({"font.family": "serif", "font.size": 20, "axes.formatter.use_locale": True, "figure.dpi": 40}):
        assert picture(data) == bare


@given(st.floats(0.0001, 0.9998), st.floats(1e-6, 1), st.floats(0.3, 4), st.sampled_from("xy"), st.sampled_from(SCALES))
@settings(max_examples=60)
def test_tick_labels_never_touch(low: float, span: float, inches: float, axis: str, scale: str) -> None:
    high = min(low + span, 0.9999) if scale == "probit" else low + 1000 * span
    with figure_style():
        page = Figure(figsize=(inches, inches))
        FigureCanvasAgg(page)
        ax = page.add_axes((0.1, 0.1, 0.8, 0.8))
        set_scale(ax, axis, scale, np.array([low, high]))
        page.canvas.draw()
        first, last = sorted(getattr(ax, f"get_{axis}lim")())
        ticks = getattr(ax, f"get_{axis}ticks")()
        labels = getattr(ax, f"get_{axis}ticklabels")()
        boxes = [label.get_window_extent().extents for label in labels]
    assert all(first <= tick <= last for tick in ticks)
    assert len(ticks) >= 1
    assert len({label.get_text() for label in labels}) == len(labels)
    for a, b in itertools.combinations(boxes, 2):
        assert not overlap(tuple(a), tuple(b))


@pytest.mark.parametrize("value", [0.0, 0.031, 1.0, 5.2, -40.0])
def test_an_axis_around_one_number_shows_it(value: float) -> None:
    ax = Figure().add_subplot()
    set_scale(ax, "y", "linear", np.array([value, value * (1 + 1e-12)]))
    low, high = ax.get_ylim()
    assert low < value < high
    assert high - low > 0.1 * abs(value)
