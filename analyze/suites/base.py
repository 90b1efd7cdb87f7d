"""What a suite of metrics is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from analyze.intervals.ranking import Ranking
from analyze.predictions.summaries import Summary
from analyze.settings import Settings
from cache_schema.errors import CloserlookError


@dataclass(frozen=True, kw_only=True)
class Number:
    """One row of the result table before it knows its model: see ``results.ResultRow`` for the fields.

    ``dataset`` is None for the dataset of the case; ``options`` is turned into canonical JSON.
    """

    metric: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    dataset: str | None = None
    id_dataset: str = ""
    score: str = ""
    calibrator: str = ""
    subset: str = ""
    factor: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    stores: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """One model on one dataset, ready for metrics.

    Attributes
    ----------
    summary
        Per-image statistics.
    settings
        All options.
    held_out
        (n,) rows that no calibrator saw: the test half of the ID set, every row of another set.
    calibrated_on
        Id of the set that the calibrators were fitted on; empty where there is none.
    no_calibrator
        Why there is none.
    no_temperature, no_vector
        Why there is no temperature, and no vector scaling.
    resampling
        Shared bootstrap weights (``suites.resampling.Resampling``); None for no bootstrap.
    fit_columns
        (confidence, correct) of the rows that calibrators are fitted on.
    shared
        What several suites need of the case, once it is computed.
    """

    summary: Summary
    settings: Settings
    held_out: NDArray[np.bool_]
    calibrated_on: str = ""
    no_calibrator: str = ""
    no_temperature: str = ""
    no_vector: str = ""
    resampling: Any = None
    fit_columns: tuple[NDArray[Any], NDArray[np.bool_]] | None = None
    shared: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_fit_set(self) -> bool:
        """Whether a part of this set was fitted on."""
        return self.calibrated_on == self.summary.dataset.id

    def labelled(self) -> Summary:
        """Return the summary of valid rows with a label."""
        # Of another view of the case (``replace(case, summary=...)``) the rows are others.
        known = self.shared.get("labelled")
        if known is None or known[0] is not self.summary:
            known = self.shared["labelled"] = (self.summary, self.summary.rows(self.summary.labelled))
        rows: Summary = known[1]
        return rows

    def ranking(self) -> Ranking:
        """Return the predictions' own confidences, sorted with right and wrong.

        Raises
        ------
        UserError
            Where a confidence is missing, NaN or outside [0, 1].
        """
        rows = self.labelled()
        known = self.shared.get("ranking")
        if known is None or known[0] is not rows:
            found = Ranking(confidences_of(rows["confidence"]), rows["label_rank"] == 0)
            known = self.shared["ranking"] = (rows, found)
        ranking: Ranking = known[1]
        return ranking


@dataclass
class ModelCase:
    """All datasets of one model.

    Attributes
    ----------
    cases
        Dataset id -> case.
    settings
        All options.
    subsets
        (ID set, other set) -> statistics of the ID set on the other's classes, or why there are none.
    problems
        Dataset -> why it has no case.
    """

    cases: dict[str, Case]
    settings: Settings
    subsets: dict[tuple[str, str], Summary | str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)

    def of_role(self, *roles: str) -> list[Case]:
        """Return the cases whose dataset has one of the roles, sorted by id."""
        return [self.cases[name] for name in sorted(self.cases) if self.cases[name].summary.dataset.role in roles]


@dataclass(frozen=True)
class Suite:
    """A group of metrics.

    Attributes
    ----------
    name
        As in ``--only``.
    version
        Moves whenever the same stores would give other numbers.
    level
        ``dataset`` (called once per model and dataset) or ``model`` (once per model).
    sections
        Sections of the settings that it reads.
    metrics
        Names in the result table that it can give.
    roles
        Datasets that it is for (level ``dataset``).
    uses
        Roles of the datasets that its numbers depend on, besides the one they are about.
    named
        Beginning of the names of those datasets; empty for any name. Without such datasets there are no numbers.
    run
        Case or ModelCase -> numbers.
    """

    name: str
    version: int
    level: Literal["dataset", "model"]
    sections: tuple[str, ...]
    metrics: tuple[str, ...]
    run: Callable[[Any], Iterable[Number]]
    roles: tuple[str, ...] = ("id", "shift")
    uses: tuple[str, ...] = ()
    named: str = ""


def confidences_of(column: NDArray[Any]) -> NDArray[Any]:
    """Return confidences held to 1, which a sum of rounded probabilities may pass by a hair."""
    held: NDArray[Any] = np.minimum(column, column.dtype.type(1))
    return held


def bounded(number: Number, case: Case, replicates: Callable[[Any], NDArray[np.float64]], n: int, **how: Any) -> Number:
    """Return a number with its bootstrap interval, if a bootstrap is asked for and there is a value.

    Parameters
    ----------
    number
        The number.
    case
        Whose dataset's weights are used.
    replicates
        Weights (n, R) -> the number on each resample, (R,).
    n
        Rows it rests on.
    how
        ``low``, ``high``, ``basic`` of ``Resampling.interval``.
    """
    if case.resampling is None or number.value is None or n < 2:
        return number
    weights = case.resampling.weights(case.summary.dataset.id, n)
    try:
        low, high = case.resampling.interval(number.value, replicates(weights), **how)
    except CloserlookError:
        return number
    return replace(number, low=low, high=high)


def attempt(metric: str, compute: Callable[[], Number | float], **variant: Any) -> Number:
    """Return the number that a call gives, or a row that says why there is none."""
    try:
        found = compute()
    except CloserlookError as error:
        return Number(metric=metric, reason=str(error), **variant)
    except (ValueError, ZeroDivisionError, FloatingPointError) as error:
        return Number(metric=metric, reason=f"{type(error).__name__}: {error}", **variant)
    if isinstance(found, Number):
        return replace(found, **variant)
    return Number(metric=metric, value=float(found), **variant)


def without(metrics: Iterable[str], reason: str, **variant: Any) -> Iterator[Number]:
    """Yield a row with the reason for each metric that cannot be had."""
    for metric in metrics:
        yield Number(metric=metric, reason=reason, **variant)
