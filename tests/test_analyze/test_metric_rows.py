"""Each metric has one row: names, titles, direction and range of every number derive from it."""

from __future__ import annotations

import numpy as np
import pytest

from analyze.api import evaluate
from analyze.metrics.registry import METRICS, collect, direction, find_metric
from analyze.metrics.spec import Metric
from analyze.results.titles import in_percent, is_share_of_images, metric_title
from analyze.suites.registry import SUITES
from analyze.tables.reading_order import HEADLINES

NAMES = sorted({metric for suite in SUITES.values() for metric in suite.metrics})


@pytest.mark.parametrize("name", NAMES)
def test_every_number_of_a_suite_has_a_row(name):
    row = find_metric(name)
    assert row is not None
    assert row.title != name
    assert row.direction == direction(name)


@pytest.mark.parametrize("row", METRICS.values(), ids=METRICS)
def test_rows_are_consistent(row):
    assert row.direction in ("higher", "lower", "none")
    assert row.low < row.high
    assert row.name.count("{}") == row.title.count("{}") <= 1
    assert (row.function is None) == (not row.columns)
    if row.in_percent:
        assert row.low >= -1
        assert row.high <= 1


@pytest.mark.parametrize(
    ("name", "title", "way"),
    [
        ("coverage_at_risk1", "Coverage at 1 % risk", "higher"),
        ("coverage_at_risk2.5", "Coverage at 2.5 % risk", "higher"),
        ("risk_at_coverage90", "Risk at 90 % coverage", "lower"),
        ("sac95", "Coverage at 95 % accuracy", "higher"),
        ("ece_mass30", "ECE (30 equal-mass bins)", "lower"),
        ("image_to_text_recall@5", "Image-to-text recall@5", "higher"),
    ],
)
def test_a_family_gives_its_members_their_title(name, title, way):
    assert metric_title(name) == title
    assert direction(name) == way
    assert in_percent(name)


def test_a_name_from_elsewhere_is_shown_as_it_is_and_has_no_direction():
    assert find_metric("my_metric") is None
    assert metric_title("my_metric") == "my metric"
    assert direction("my_metric") == "none"
    assert not in_percent("my_metric")
    assert not is_share_of_images("my_metric")


def test_two_rows_of_one_name_are_refused():
    row = Metric("x", "X", "lower")
    with pytest.raises(ValueError, match="two metrics are called 'x'"):
        collect([row, row])


def test_the_headlines_stand_in_their_order():
    assert HEADLINES == ("top1", "top5", "ece", "nll", "brier", "auroc", "fpr95_id", "fpr95_ood", "aurc")


@pytest.mark.parametrize("bad", [0, 3])
def test_invalid_images_are_counted(toy_store, tmp_path, bad):
    valid = np.ones(60, dtype=bool)
    valid[:bad] = False
    toy_store(cache=tmp_path / "cache", n=60, valid=valid)
    table = evaluate(tmp_path / "cache", only="invalid_images").frame
    assert set(table["value"]) == {float(bad)}
