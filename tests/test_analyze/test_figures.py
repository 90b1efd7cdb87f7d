"""What is drawn is what the frame holds; the frame is what the table holds; nothing is computed on the way."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from analyze.curves import CURVE_SCHEMA
from analyze.figures import FIGURES
from analyze.figures.labels import LABEL, overlap
from analyze.figures.pages import compose, functions, layout, prepare
from analyze.figures.style import (
    GROUP_COLOURS,
    figure_style,
    width_in_inches,
)
from analyze.results import ResultRow, conform, to_frame
from analyze.results.quantities import values
from cache_schema.format.records import GROUPS
from closerlook_common.errors import UserError

SCATTERS = (
    "factor_accuracy",
    "shape_bias",
    "ood",
    "calibration",
    "calibration_transfer",
    "prompts",
    "ranks",
    "corruptions",
)


@pytest.fixture(scope="module")
def everything(results: pl.DataFrame) -> pl.DataFrame:
    """Return the synthetic table with corruptions added."""
    rng = np.random.default_rng(6)
    rows = [
        ResultRow(
            model=model,
            group=group,
            source=source,
            dataset=f"imagenet-c-{kind}-{level}",
            role="shift",
            metric="top1",
            value=float(0.8 - 0.1 * level + 0.02 * rng.normal()),
        )
        for model, group, source in results.select("model", "group", "source").unique(maintain_order=True).rows()[:6]
        for kind in ("fog", "gaussian_noise")
        for level in range(1, 6)
    ]
    return conform(pl.concat([results, to_frame(rows)]))


@pytest.fixture(scope="module")
def drawn_curves() -> pl.DataFrame:
    """Return curves of two models."""
    rows: list[dict[str, Any]] = []
    for model, group in (("a", "self-supervised"), ("b", "clip-zero-shot")):
        base = {"model": model, "group": group, "source": "wit"}
        for series, b in itertools.product(("before", "after temperature scaling"), range(15)):
            inside = (
                {} if b == 0 else {"x": (b + 0.5) / 15, "y": b / 15, "y_low": (b - 0.5) / 15, "y_high": (b + 0.5) / 15}
            )
            rows.append(
                {
                    **base,
                    "curve": "reliability",
                    "dataset": "val",
                    "series": series,
                    "x_low": b / 15,
                    "x_high": (b + 1) / 15,
                    "weight": b / 105,
                    **inside,
                }
            )
        for x in np.linspace(0, 1, 11):
            rows.append(
                {**base, "curve": "risk_coverage", "dataset": "val", "series": "confidence", "x": x, "y": 0.3 * x}
            )
            rows.append({**base, "curve": "roc", "dataset": "sun", "series": "msp", "x": x, "y": x**0.5})
        for name, b in itertools.product(("val", "sun"), range(5)):
            rows.append(
                {
                    **base,
                    "curve": "score_histogram",
                    "dataset": name,
                    "series": name,
                    "label": "msp",
                    "x_low": b / 5,
                    "x_high": (b + 1) / 5,
                    "y": float(b),
                }
            )
        rows += [
            {
                **base,
                "curve": "error_consistency",
                "dataset": "val",
                "series": other,
                "y": 1.0 if other == model else 0.4,
            }
            for other in "ab"
        ]
    return pl.DataFrame(rows, schema=CURVE_SCHEMA)


FRAMES: dict[str, pl.DataFrame] = {}


def frame_of(name: str, results: pl.DataFrame, curves: pl.DataFrame) -> pl.DataFrame:
    """Prepare a figure's numbers once for all tests."""
    if name not in FRAMES:
        FRAMES[name] = prepare(name, curves if FIGURES[name].needs == "curves" else results)
    return FRAMES[name]


def drawn_panels(name: str, data: pl.DataFrame) -> list[tuple[pl.DataFrame, Any]]:
    draw = functions(name)[1]
    panels = []
    with figure_style():
        for panel in data["panel"].unique(maintain_order=True):
            ax = Figure(figsize=(4, 3)).add_subplot()
            part = data.filter(pl.col("panel") == panel)
            assert draw(part, ax) is ax
            panels.append((part, ax))
    return panels


@pytest.mark.parametrize("name", SCATTERS)
def test_every_point_is_drawn_where_the_frame_says(
    name: str, everything: pl.DataFrame, drawn_curves: pl.DataFrame
) -> None:
    for part, ax in drawn_panels(name, frame_of(name, everything, drawn_curves)):
        wanted = part.filter(pl.col("kind") == "point")
        collections = [c for c in ax.collections if str(c.get_gid()).startswith("points:")]
        drawn = np.concatenate([np.asarray(c.get_offsets()) for c in collections])
        assert np.array(sorted(map(tuple, drawn))) == pytest.approx(np.array(sorted(wanted.select("x", "y").rows())))
        for collection in collections:
            assert isinstance(collection, PathCollection)
            _, group, _ = collection.get_gid().split(":")
            assert tuple(collection.get_facecolor()[0][:3]) == pytest.approx(to_rgb(GROUP_COLOURS[group]))
        low, high = ax.get_xlim()
        assert wanted.filter((pl.col("x") < low) | (pl.col("x") > high)).is_empty()
        low, high = sorted(ax.get_ylim())
        assert wanted.filter((pl.col("y") < low) | (pl.col("y") > high)).is_empty()


@pytest.mark.parametrize(
    "name", ["factor_accuracy", "ood", "calibration", "prompts", "corruptions", "risk_coverage", "roc"]
)
def test_every_line_is_drawn_where_the_frame_says(
    name: str, everything: pl.DataFrame, drawn_curves: pl.DataFrame
) -> None:
    for part, ax in drawn_panels(name, frame_of(name, everything, drawn_curves)):
        lines = {line.get_gid(): line for line in ax.lines if str(line.get_gid()).startswith("line:")}
        wanted = part.filter(pl.col("kind") == "line")
        assert set(lines) == {f"line:{series}" for series in wanted["series"].unique()}
        for (series,), points in wanted.group_by("series", maintain_order=True):
            assert lines[f"line:{series}"].get_xydata() == pytest.approx(points.select("x", "y").to_numpy())


@pytest.mark.parametrize("name", ["correlation_matrix", "factor_heatmap", "error_consistency"])
def test_every_cell_is_drawn(name: str, everything: pl.DataFrame, drawn_curves: pl.DataFrame) -> None:
    for part, ax in drawn_panels(name, frame_of(name, everything, drawn_curves)):
        matrix = np.asarray(ax.images[0].get_array())
        wide = part.pivot("label", index="series", values="y", maintain_order=True)
        assert [t.get_text() for t in ax.get_yticklabels()] == wide["series"].to_list()
        assert [t.get_text() for t in ax.get_xticklabels()] == wide.columns[1:]
        assert matrix == pytest.approx(wide.drop("series").to_numpy(), nan_ok=True)


def test_reliability_bars_and_histogram(everything: pl.DataFrame, drawn_curves: pl.DataFrame) -> None:
    for part, ax in drawn_panels("reliability", prepare("reliability", drawn_curves)):
        first = part.filter(pl.col("series") == "before")
        held = first.filter(pl.col("y").is_not_null())
        assert len(held) == 14
        assert [bar.get_height() for bar in ax.patches] == held["y"].to_list()
        assert [bar.get_x() for bar in ax.patches] == pytest.approx(held["x_low"].to_list())
        (inset,) = ax.child_axes
        assert [bar.get_height() for bar in inset.patches] == pytest.approx([b / 105 for b in range(15)], abs=1e-6)
        (after,) = [line for line in ax.lines if line.get_gid() == "after"]
        assert after.get_xydata() == pytest.approx(held.select("x", "y").to_numpy())


def test_score_histograms(drawn_curves: pl.DataFrame) -> None:
    for part, ax in drawn_panels("score_histograms", prepare("score_histograms", drawn_curves)):
        for patch, (_, bins) in zip(ax.patches, part.group_by("series", maintain_order=True), strict=True):
            assert patch.get_data().values == pytest.approx(bins["y"].to_numpy())


def test_ood_sets_of_another_test_set_are_not_drawn(everything: pl.DataFrame) -> None:
    """A table may hold another cache's rows: its sets were compared with a test set that this figure does not show."""
    ood = pl.col("role") == "ood"
    stray = everything.filter(ood, pl.col("dataset") == "sun").with_columns(
        id_dataset=pl.lit("my-val"), model=pl.lit("my-model")
    )
    own = everything.with_columns(pl.when(ood).then("my-" + pl.col("dataset")).otherwise("dataset").alias("dataset"))
    assert len(stray)
    drawn = prepare("ood", pl.concat([own, stray]))
    assert drawn.drop("y_title").equals(prepare("ood", own).drop("y_title"))
    assert set(drawn["y_title"]) == {"AUROC (ID: ImageNet)", "FPR@95 (ID: ImageNet)"}


def test_frames_hold_the_tables_numbers(everything: pl.DataFrame) -> None:
    frame = prepare("ood", everything).filter(pl.col("panel") == "SUN: AUROC", pl.col("kind") == "point")
    assert dict(frame.select("model", "y").rows()) == dict(
        values(everything, "auroc@sun").select("model", "value").rows()
    )
    assert dict(frame.select("model", "x").rows()) == dict(
        values(everything, "top1@imagenet-val").select("model", "value").rows()
    )
    heat = prepare("factor_heatmap", everything).filter(pl.col("label") == "Pose")
    overall = dict(values(everything, "top1@imagenet-val").select("model", "value").rows())
    for model, value in values(everything, "factor_accuracy@imagenet-val[factor=pose]").select("model", "value").rows():
        assert heat.filter(pl.col("model") == model)["y"][0] == pytest.approx(value - overall[model])
    severe = prepare("corruptions", everything).filter(
        pl.col("panel") == "Fog", pl.col("kind") == "point", pl.col("x") == 5
    )
    assert dict(severe.select("model", "y").rows()) == dict(
        values(everything, "top1@imagenet-c-fog-5").select("model", "value").rows()
    )


def test_corruptions_stand_in_their_own_figure_alone(everything: pl.DataFrame) -> None:
    assert prepare("corruptions", everything)["panel"].unique(maintain_order=True).to_list() == [
        "Mean of all corruptions", "Fog", "Gaussian Noise"
    ]  # fmt: skip
    assert prepare("ranks", everything)["panel"][0] == "Top-1 accuracy: average rank over 9 sets"
    assert not prepare("correlation_matrix", everything)["series"].str.contains("Fog").any()


def test_before_and_after_are_of_the_same_images() -> None:
    rows = []
    for i in range(4):
        card = {"model": f"m{i}", "group": "supervised-in1k", "dataset": "val", "role": "id"}
        rows += [
            ResultRow(metric="top1", value=0.5 + i / 10, **card),
            ResultRow(metric="ece", value=0.9, **card),
            ResultRow(metric="ece", value=0.1, subset="held-out", **card),
            ResultRow(metric="ece", value=0.05, calibrator="temperature", id_dataset="val", **card),
        ]
    frame = prepare("calibration", to_frame(rows)).filter(pl.col("kind") == "point")
    by_panel = dict(frame.group_by("panel").agg(pl.col("y").unique()).rows())
    assert by_panel == {"Val: ECE before": [0.1], "Val: ECE after": [0.05]}


@pytest.mark.parametrize("name", [n for n, s in FIGURES.items() if s.needs == "results"])
def test_a_table_without_the_numbers_says_so(name: str) -> None:
    with pytest.raises(UserError):
        prepare(name, to_frame([ResultRow(model="a", dataset="d", metric="nothing", value=0.5, role="id")]))


def test_labels_cover_neither_points_nor_one_another(everything: pl.DataFrame) -> None:
    page = compose("shape_bias", prepare("shape_bias", everything))
    ax = page.axes[1]
    renderer = page.canvas.get_renderer()
    from matplotlib.text import Text

    boxes = [Text.get_window_extent(t, renderer).extents for t in ax.texts if t.get_gid() == LABEL and t.get_visible()]
    points = np.concatenate(
        [
            ax.transData.transform(np.asarray(c.get_offsets()))
            for c in ax.collections
            if str(c.get_gid()).startswith("points:")
        ]
    )
    assert len(boxes) >= 4
    for a, b in itertools.combinations(boxes, 2):
        assert not overlap(tuple(np.add(a, (1, 1, -1, -1))), tuple(b))
    for x0, y0, x1, y1 in boxes:
        assert not ((points[:, 0] > x0) & (points[:, 0] < x1) & (points[:, 1] > y0) & (points[:, 1] < y1)).any()


def visible_texts(page: Figure) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Return the titles, axis names and legend entries of a page with their boxes in pixels."""
    texts = [text for legend in page.legends for text in legend.get_texts()]
    for ax in page.axes:
        if ax.axison:
            texts += [ax.title, ax.xaxis.label, ax.yaxis.label]
    shown = [text for text in texts if text.get_text() and text.get_visible()]
    return [(text.get_text(), tuple(text.get_window_extent().extents)) for text in shown]


def tick_texts(ax: Any, axis: str) -> list[tuple[float, float, float, float]]:
    """Return the boxes of an axis's tick labels that lie within its limits, for upright or level ones."""
    low, high = sorted(getattr(ax, f"get_{axis}lim")())
    ticks = zip(getattr(ax, f"get_{axis}ticks")(), getattr(ax, f"get_{axis}ticklabels")(), strict=True)
    found = [label for at, label in ticks if low <= at <= high and label.get_text() and label.get_rotation() % 90 == 0]
    return [tuple(label.get_window_extent().extents) for label in found]


@pytest.mark.parametrize(
    ("name", "width"),
    [(name, "icml-column") for name in FIGURES]
    + [(name, "neurips") for name in ("ood", "calibration", "correlation_matrix", "roc")],
)
def test_nothing_collides_or_is_cut_off(
    name: str, width: str, everything: pl.DataFrame, drawn_curves: pl.DataFrame
) -> None:
    page = compose(name, frame_of(name, everything, drawn_curves), width=width)
    page.canvas.draw()
    texts = visible_texts(page)
    for (text, a), (other, b) in itertools.combinations(texts, 2):
        assert not overlap(a, b), f"{text!r} over {other!r}"
    for text, (x0, y0, x1, y1) in texts:
        assert x0 >= -1, text
        assert y0 >= -1, text
        assert x1 <= page.bbox.width + 1, text
        assert y1 <= page.bbox.height + 1, text
    for ax in page.axes:
        frame = tuple(ax.get_window_extent().extents)
        for legend in page.legends:
            assert not overlap(frame, tuple(legend.get_window_extent().extents))
        for axis in "xy" if ax.axison else "":
            for a, b in itertools.pairwise(sorted(tick_texts(ax, axis), key=lambda box: box["xy".index(axis)])):
                assert not overlap(a, b), f"tick labels of {axis} in {ax.get_title()!r}"


@pytest.mark.parametrize("width", ["icml-column", "neurips", "icml"])
@pytest.mark.parametrize("name", FIGURES)
def test_rows_hold_every_panel_once_and_one_axis_each(
    name: str, width: str, everything: pl.DataFrame, drawn_curves: pl.DataFrame
) -> None:
    data, spec = frame_of(name, everything, drawn_curves), FIGURES[name]
    inches = width_in_inches(width)
    rows = layout(data, spec, inches)
    assert [panel for row in rows for panel in row] == data["panel"].unique(maintain_order=True).to_list()
    assert max(map(len, rows)) == 1 or inches / max(map(len, rows)) >= spec.least
    if not spec.columns:
        stated = dict(data.select("panel", "y_title").unique().rows())
        assert all(len({stated[panel] for panel in row}) == 1 for row in rows)


def test_a_series_looks_the_same_in_every_panel() -> None:
    rows = [
        {"curve": "roc", "model": model, "dataset": dataset, "series": "msp", "x": x, "y": x}
        for model, dataset in (("b", "sun"), ("a", "places"), ("b", "places"))
        for x in (0.0, 1.0)
    ]
    looks = set()
    for _, ax in drawn_panels("roc", prepare("roc", pl.DataFrame(rows, schema=CURVE_SCHEMA))):
        looks |= {(line.get_gid(), line.get_color()) for line in ax.lines if str(line.get_gid()).startswith("line:b")}
    assert len(looks) == 1


def test_what_is_drawn_is_explained(everything: pl.DataFrame, drawn_curves: pl.DataFrame) -> None:
    stated = {}
    for name in ("factor_accuracy", "reliability", "roc", "score_histograms", "ranks", "factor_heatmap"):
        page = compose(name, frame_of(name, everything, drawn_curves))
        stated[name] = {text.get_text() for legend in page.legends for text in legend.get_texts()}
    assert {"zero-shot CLIP", "laion-2b", "y = x", "95 % interval of the fit"} <= stated["factor_accuracy"]
    assert {"after temperature scaling", "share of images", "y = x"} <= stated["reliability"]
    assert {"a · MSP", "b · MSP", "95 % of ID accepted"} <= stated["roc"]
    assert stated["score_histograms"] == {"Val", "SUN"}
    assert "not distinguished from the best (Nemenyi, 5 %)" in stated["ranks"]
    assert set(GROUPS.values()) - {"unknown"} >= stated["factor_heatmap"] >= {"zero-shot CLIP", "supervised IN-1k"}


def test_crowded_matrices_say_less(results_maker: Callable[..., pl.DataFrame]) -> None:
    large = results_maker(300)
    matrix = compose("correlation_matrix", prepare("correlation_matrix", large), width="icml-column").axes[0]
    assert [label.get_text() for label in matrix.get_xticklabels()][:2] == ["1", "2"]
    assert matrix.get_yticklabels()[1].get_text().endswith("  2")
    heat = compose("factor_heatmap", prepare("factor_heatmap", large), width="icml-column").axes[0]
    assert not heat.get_yticklabels()
    (dashes,) = [marks for marks in heat.collections if marks.get_gid() == "negative"]
    cells = prepare("factor_heatmap", large)
    assert dashes.get_visible()
    assert len(dashes.get_offsets()) == int((cells["y"] < 0).sum())
