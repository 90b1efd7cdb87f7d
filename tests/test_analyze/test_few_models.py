"""Figures of somebody's own few models, which belong to none of the study's groups."""

from __future__ import annotations

import pytest

from analyze.figures.labels import LABEL
from analyze.figures.pages import compose, prepare
from analyze.results import ResultRow, to_frame


def drawn_names(n: int, group: str) -> set[str]:
    rows = []
    for i in range(n):
        given = {"model": f"own-model_{i}", "group": group, "id_dataset": "val"}
        rows.append(ResultRow(dataset="val", metric="top1", value=0.5 + 0.04 * i, role="id", **given))
        rows += [
            ResultRow(dataset="far", metric=metric, value=0.4 + 0.05 * i, role="ood", score="msp", **given)
            for metric in ("auroc", "fpr95_id")
        ]
    figure = compose("ood", prepare("ood", to_frame(rows)))
    return {text.get_text() for ax in figure.axes for text in ax.texts if text.get_gid() == LABEL}


@pytest.mark.parametrize("n", [2, 6])
def test_their_points_bear_names(n: int) -> None:
    assert drawn_names(n, "unknown") == {f"own-model_{i}" for i in range(n)}


def test_many_models_and_groups_with_a_legend_do_not() -> None:
    assert drawn_names(7, "unknown") == set()
    assert drawn_names(3, "supervised-in1k") == set()
