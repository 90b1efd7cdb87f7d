"""What is known of a metric in one row: name, title, unit, direction, range, columns and function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Direction = Literal["higher", "lower", "none"]
Unit = Literal["share", "fraction", "number", "count", "index"]

TOP_LABEL = ("confidences", "correct")
SCORE_PAIR = ("id_scores", "ood_scores")
PROBABILITY_ROWS = ("probabilities", "labels")
INFINITY = float("inf")


@dataclass(frozen=True)
class Evidence:
    """How a number is defined, where its definition comes from, and what the tests compare it with.

    Attributes
    ----------
    formula
        One line of mathematics. c_i is the confidence, y_i the label or whether row i is right, z logits, p
        probabilities, f features; a_b and c_b are the accuracy and the mean confidence of bin b.
    source
        Paper that defines it: authors, venue or journal, year.
    oracle
        What the test compares it with: other programs by name, or the definition written a second time.
    test
        ``FILE::FUNCTION`` below ``tests/test_analyze``.
    unverified
        What could not be compared with the source; empty where nothing is left.
    """

    formula: str
    source: str
    oracle: str
    test: str = "test_metric_oracles.py::test_equals_its_oracle"
    unverified: str = ""


@dataclass(frozen=True)
class Metric:
    """One metric of the result table.

    Attributes
    ----------
    name
        In the result table and in ``--only``. ``{}`` stands for a number in the name of a family of metrics
        (``coverage_at_risk{}``).
    title
        As a paper prints it; ``{}`` as in the name.
    direction
        Which way is better; ``none`` where neither is.
    unit
        ``share``: a share of images, printed in percent; probit and logit axes are meant for it.
        ``fraction``: in -1 to 1 and printed in percent, but no share of images (ECE, AUROC).
        ``number``: printed as it is. ``count``: of images. ``index``: names something.
    low, high
        Range of the values.
    columns
        What ``function`` takes, in this order: ``confidences`` and ``correct`` (n,), ``logits`` or ``probabilities``
        (n, C), ``labels`` (n,), ``id_scores`` and ``ood_scores``, ``member`` (n,), ``predicted_category``,
        ``shape``, ``texture``, ``correct_a``, ``correct_b``, ``anchors``.
    function
        Arrays in, a float out; None where the number comes from more than such columns (several sets, a fit).
    headline
        Place among the metrics that a table shows first; 0 for the others, which follow in the table's own order.
    footnote
        Whether tables show it after all others.
    version
        Raised whenever the same stores would give another value or another interval: it is the ``metric_version`` of
        the metric's rows, and part of the key under which they are kept.
    evidence
        Formula, source and oracle; None for a plug-in that states none.
    """

    name: str
    title: str
    direction: Direction
    unit: Unit = "number"
    low: float = 0.0
    high: float = 1.0
    columns: tuple[str, ...] = ()
    function: Callable[..., Any] | None = None
    headline: int = 0
    footnote: bool = False
    version: int = 1
    evidence: Evidence | None = None

    @property
    def in_percent(self) -> bool:
        """Whether papers print it in percent."""
        return self.unit in ("share", "fraction")
