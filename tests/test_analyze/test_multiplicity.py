"""Adjusted p-values equal brute force and scipy's, and count what one command asked."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analyze.results.quantities import Quantity
from analyze.tables.trends import MOST, strongest
from analyze.trends.multiplicity import adjusted, benjamini_hochberg, holm
from analyze.trends.tied import tied
from closerlook_common.errors import UserError

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def stepwise(p: list[float], alpha: float) -> set[int]:
    """Return what Holm's procedure rejects at a level, step by step as it is defined."""
    rejected: set[int] = set()
    for step, place in enumerate(np.argsort(p, kind="stable")):
        if p[place] > alpha / (len(p) - step):
            break
        rejected.add(int(place))
    return rejected


@given(P_VALUES, st.floats(0.001, 0.5))
def test_holm_rejects_what_the_procedure_does(p: list[float], alpha: float) -> None:
    found = holm(p)
    steps = np.sort(p) * np.arange(len(p), 0, -1)
    if np.abs(steps - alpha).min() > 1e-9:  # at the level itself rounding decides
        assert {i for i, value in enumerate(found) if value <= alpha} == stepwise(p, alpha)
    assert (found >= np.array(p)).all()
    assert (found <= 1).all()


@given(P_VALUES)
def test_benjamini_hochberg_equals_scipy(p: list[float]) -> None:
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))


@given(P_VALUES, st.integers(0, 5))
def test_missing_p_values_are_no_tests(p: list[float], gaps: int) -> None:
    with_gaps = [*p, *[float("nan")] * gaps]
    for adjust in (holm, benjamini_hochberg):
        assert adjust(with_gaps)[: len(p)] == pytest.approx(adjust(p))
        assert np.isnan(adjust(with_gaps)[len(p) :]).all()
    assert (benjamini_hochberg(p) <= holm(p) + 1e-12).all()


def test_values_outside_0_and_1_are_refused() -> None:
    with pytest.raises(UserError, match="between 0 and 1"):
        holm([0.1, 1.2])


def test_all_tests_of_all_tables_count_once() -> None:
    correlations = pl.DataFrame(
        {
            "x": ["x"] * 6,
            "y": ["a", "a", "a", "b", "b", "b"],
            "among": ["all"] * 6,
            "method": ["pearson", "r2", "weighted_kendall"] * 2,
            "p_value": [0.01, 0.01, float("nan"), 0.04, 0.04, float("nan")],
            "tied": ["", "", "", "holds it", "holds it", "holds it"],
        }
    )
    lines = pl.DataFrame({"p_value": [0.02], "slope_p_value": [0.5], "offset_p_value": [0.03]})
    tables = adjusted({"correlations": correlations, "line_tests": lines, "fits": lines})
    assert tables["correlations"]["tests"].to_list() == [4] * 6
    by_hand = holm([0.01, 0.02, 0.5, 0.03])
    assert tables["correlations"]["p_holm"].to_list() == [by_hand[0], by_hand[0], None, None, None, None]
    assert tables["line_tests"].select("p_holm", "slope_p_holm", "offset_p_holm").row(0) == pytest.approx(
        tuple(by_hand[1:])
    )
    assert tables["line_tests"]["p_bh"][0] == pytest.approx(stats.false_discovery_control([0.01, 0.02, 0.5, 0.03])[1])
    assert tables["fits"].equals(lines)


@pytest.mark.parametrize(
    ("x", "y", "is_tied"),
    [
        ("top1@v", "mean_class_accuracy@v", True),
        ("top1@v", "brier@v", True),
        ("top1@v", "aurc@v", True),
        ("top1@v", "top1@v[subset=classes:a]", True),
        ("top1@imagenet-val", "multi_label_accuracy@imagenet-real", True),
        ("top1@v", "brier@w", False),
        ("top1@v", "ece@v", False),
        ("top1@v", "ece_p@v", False),
        ("top1@v", "temperature@v", False),
        ("top1@v", "e_aurc@v", False),
        ("top1@v", "correctness_auroc@v", False),
        ("top1@v", "factor_accuracy@v[factor=pose]", False),
        ("ece@v", "smece@v", True),
        ("ece@v", "nll@v", False),
        ("auroc@sun", "fpr95_id@sun", True),
        ("auroc@sun", "auroc@places", False),
    ],
)
def test_what_is_tied_by_construction(x: str, y: str, is_tied: bool) -> None:
    assert bool(tied(Quantity.parse(x), Quantity.parse(y))) is is_tied


def test_quantities_tied_to_x_are_not_among_the_strongest() -> None:
    rows = [
        {"x": "top1@val", "y": f"q{i}", "among": "all", "method": method, "tied": why, "value": sign * value}
        for i, (value, why) in enumerate([(0.99, "the same answers"), *((i / 40, "") for i in range(30))])
        for method, sign in (("pearson", 1.0), ("spearman", (-1.0) ** i))
    ]
    kept, hidden = strongest(pl.DataFrame(rows))
    assert kept["y"].unique(maintain_order=True).to_list() == [f"q{i}" for i in range(30, 30 - MOST, -1)]
    assert hidden == 31 - MOST
    few = pl.DataFrame(rows[:20])
    assert strongest(few)[0].equals(few)
