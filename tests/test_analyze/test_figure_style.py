"""How figures look and are saved: colours, markers, widths, bytes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from analyze.figures.prompts import templates_of
from analyze.figures.style import (
    CONFERENCE_WIDTHS,
    GROUP_COLOURS,
    figure_style,
    source_markers,
    width_in_inches,
)
from cache_schema.errors import UserError
from cache_schema.records import GROUPS


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


@pytest.mark.parametrize(("head", "count"), [("openai-80", 80), ("photo-1", 1), ("mine", None), ("", None)])
def test_templates_are_counted_by_name(head: str, count: int | None) -> None:
    assert templates_of(head) == count


@pytest.mark.parametrize(("width", "inches"), [("neurips", 5.5), ("cvpr-column", 3.25), ("4.2", 4.2), (7, 7.0)])
def test_widths(width: str | float, inches: float) -> None:
    assert width_in_inches(width) == inches
    assert "neurips" in CONFERENCE_WIDTHS


@pytest.mark.parametrize("width", ["nerips", "0", "400"])
def test_impossible_widths_are_refused(width: str) -> None:
    with pytest.raises(UserError):
        width_in_inches(width)


def test_the_readers_own_style_comes_back() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    with figure_style():
        assert mpl.rcParams["pdf.fonttype"] == 42
    assert dict(mpl.rcParams) == before
