"""What a suite of metrics is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from analyze.annotations.clips import clips_of, has_clips
from analyze.fits.base import Fitted, Reason
from analyze.fits.registry import FITS, sections_of
from analyze.intervals.ranking import Ranking, weighted_means
from analyze.metrics.proportions import Interval
from analyze.metrics.registry import version
from analyze.predictions.summaries import Summary
from analyze.settings import Settings, UndeclaredSectionError
from cache_schema.format.records import DatasetCard
from closerlook_common.errors import CloserlookError


@dataclass(frozen=True, kw_only=True)
class Number:
    """One row of the result table before it knows its model: see ``results.ResultRow`` for the fields.

    ``dataset`` is None for the dataset of the case; ``options`` is turned into canonical JSON.
    """

    metric: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    interval: str = ""
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
        (n,) rows that no calibrator saw: the test half of the ID set; of another set every row but those made from
        images that were fitted on (``evaluate.originals``).
    calibrated_on
        Id of the set that the calibrators were fitted on; empty where there is none.
    unfitted
        Why nothing was fitted for this set at all; empty where something could be. Why a single fit is missing,
        ``summary.reason`` says.
    maps
        Fits that need the confidences of the ID set (``Fit.needs``) by name, or why there is none.
    resampling
        Shared bootstrap weights (``intervals.resampling.Resampling``); None for no bootstrap.
    shared
        What several suites need of the case, once it is computed.
    """

    summary: Summary
    settings: Settings
    held_out: NDArray[np.bool_]
    calibrated_on: str = ""
    unfitted: str = ""
    maps: Mapping[str, Fitted | Reason] = field(default_factory=dict)
    resampling: Any = None
    shared: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_fit_set(self) -> bool:
        """Whether a part of this set was fitted on."""
        return self.calibrated_on == self.summary.dataset.id

    @property
    def is_tested_in_part(self) -> bool:
        """Whether some rows are no test, so that plain numbers of the same rows are given with the calibrated ones."""
        return not bool(self.held_out.all())

    def labelled(self) -> Summary:
        """Return the summary of valid rows with a label."""
        # Of another view of the case (``replace(case, summary=...)``) the rows are others.
        known = self.shared.get("labelled")
        if known is None or known[0] is not self.summary.columns:
            first = self.summary.rows(self.summary.labelled)
            known = self.shared["labelled"] = (self.summary.columns, {self.summary.declared: first})
        views: dict[frozenset[str] | None, Summary] = known[1]
        if self.summary.declared not in views:
            # The same rows, cut once, for a suite that may read other statistics of them.
            cut = next(iter(views.values())).columns
            views[self.summary.declared] = replace(self.summary, columns=cut)
        return views[self.summary.declared]

    def weights(self, n: int) -> NDArray[np.uint8] | None:
        """Return the bootstrap weights of n rows, (n, R); None where there is no bootstrap for them.

        Of frames of videos whole clips are drawn. Where ``n`` is neither the number of all rows nor that of the
        labelled ones, their clips are not known, and an interval of independent frames would be too narrow.
        """
        if self.resampling is None:
            return None
        name, summary = self.summary.dataset.id, self.summary
        if not has_clips(summary.metadata):
            found: NDArray[np.uint8] = self.resampling.weights(name, n)
            return found
        rows = summary if n == len(summary) else self.labelled()
        clips = clips_of(rows.metadata) if n == len(rows) else None
        if clips is None:
            return None
        drawn: NDArray[np.uint8] = self.resampling.weights(name, int(clips.max()) + 1)[clips]
        return drawn

    def ranking(self) -> Ranking:
        """Return the predictions' own confidences, sorted with right and wrong.

        Raises
        ------
        UserError
            Where a confidence is missing, NaN or outside [0, 1].
        """
        rows = self.labelled()
        known = self.shared.get("ranking")
        if known is None or known[0] is not rows.columns:
            found = Ranking(confidences_of(rows["confidence"]), rows["label_rank"] == 0)
            known = self.shared["ranking"] = (rows.columns, found)
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
    datasets
        Cards of all datasets, those without a case among them.
    """

    cases: dict[str, Case]
    settings: Settings
    subsets: dict[tuple[str, str], Summary | str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    datasets: dict[str, DatasetCard] = field(default_factory=dict)

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
    level
        ``dataset`` (called once per model and dataset) or ``model`` (once per model).
    sections
        Sections of the settings that it reads, besides those of its fits.
    metrics
        Names in the result table that it can give.
    optional
        Metrics that it gives only where an option asks for them.
    fits
        Returns the names of the fits whose columns it reads.
    statistics
        What it needs beyond the plain statistics: ``gen``, ``classwise``, ``subsets``, ``image_keys``.
    roles
        Datasets that it is for (level ``dataset``).
    uses
        Roles of the datasets that its numbers depend on, besides the one they are about.
    named
        Beginning of the names of those datasets; empty for any name. Without such datasets there are no numbers.
    by_default
        Whether it runs where ``--only`` names nothing.
    run
        Case or ModelCase -> numbers; given by ``restricted`` what the declared sections allow.
    """

    name: str
    level: Literal["dataset", "model"]
    sections: tuple[str, ...]
    metrics: tuple[str, ...]
    run: Callable[[Any], Iterable[Number]]
    optional: tuple[str, ...] = ()
    fits: Callable[[], tuple[str, ...]] = tuple
    statistics: tuple[str, ...] = ()
    roles: tuple[str, ...] = ("id", "shift")
    uses: tuple[str, ...] = ()
    named: str = ""
    by_default: bool = True

    @property
    def declared(self) -> tuple[str, ...]:
        """Sections of the settings that the key of its numbers holds."""
        return tuple(dict.fromkeys((*self.sections, *sections_of(self.fits()), *ALWAYS)))

    @property
    def versions(self) -> dict[str, int]:
        """Versions of the metrics and of the fits that its numbers depend on, by name."""
        fits = {f"fit {name}": FITS[name].version for name in self.fits()}
        return {metric: version(metric) for metric in (*self.metrics, *self.optional)} | fits

    def numbers(self, given: Case | ModelCase) -> Iterable[Number]:
        """Return the numbers of a case or a model; what depends on a section that is not declared is refused."""
        return self.run(restricted(given, frozenset(self.declared)))


@dataclass(frozen=True)
class Wanted:
    """What some suites need of the cases.

    Attributes
    ----------
    fits
        Names of fits.
    statistics
        See ``Suite.statistics``.
    split
        Whether the rows of the ID sets are divided into those that are fitted on and the others.
    """

    fits: tuple[str, ...] = ()
    statistics: frozenset[str] = frozenset()
    split: bool = False

    @classmethod
    def of(cls, suites: Iterable[Suite], *statistics: str) -> Wanted:
        """Return what suites need, and some further statistics."""
        chosen = list(suites)
        return cls(
            tuple(dict.fromkeys(name for suite in chosen for name in suite.fits())),
            frozenset(statistics).union(*(suite.statistics for suite in chosen)),
            any("split" in suite.declared for suite in chosen),
        )


NEEDS_BOOTSTRAP = "needs a bootstrap over images ([bootstrap] replicates)"

ALWAYS = ("bootstrap", "classes")
"""Sections of the settings that every suite's numbers depend on."""


class _Undeclared:
    """Stands for the split's rows where a suite does not declare the split: any use is an error."""

    __array_ufunc__ = None

    def _refuse(self, *_: Any) -> Any:
        raise UndeclaredSectionError("the rows of the split depend on [split], which was not declared")

    __getattr__ = __getitem__ = __iter__ = __len__ = __invert__ = __and__ = __rand__ = __bool__ = _refuse


def restricted(given: Any, declared: frozenset[str]) -> Any:
    """Return a case, or all cases of a model, without what depends on other sections of the settings."""
    if isinstance(given, ModelCase):
        return replace(
            given,
            settings=given.settings.only(*declared),
            cases={name: restricted(case, declared) for name, case in given.cases.items()},
            subsets={
                key: found if isinstance(found, str) else found.for_sections(declared)
                for key, found in given.subsets.items()
            },
        )
    split = {} if "split" in declared else {"held_out": _Undeclared(), "maps": _Undeclared()}
    return replace(
        given, settings=given.settings.only(*declared), summary=given.summary.for_sections(declared), **split
    )


def within(number: Number, make: Callable[[], Interval]) -> Number:
    """Return a number with its interval, or with the reason why it has none; a missing number is left alone."""
    if number.value is None:
        return number
    try:
        found = make()
    except CloserlookError as error:
        return without_interval(number, str(error).removeprefix("no interval: "))
    return with_interval(number, found)


def independent(
    number: Number, case: Case, make: Callable[[], Interval], column: Callable[[], NDArray[Any]] | None = None
) -> Number:
    """Return a number with an interval that takes the images for independent of each other.

    Frames of one clip are not: a mean of ``column``, (n,), over such frames has the bootstrap over clips, where there
    is one, and other numbers have no interval.
    """
    if not has_clips(case.summary.metadata):
        return within(number, make)
    if column is None:
        return without_interval(number, "frames of one clip are not independent")
    return bounded(number, case, lambda weights: weighted_means(column(), weights), number.n or 0)


def with_interval(number: Number, found: Interval) -> Number:
    """Return a number with an interval."""
    return replace(number, low=found.low, high=found.high, interval=found.described())


def without_interval(number: Number, reason: str) -> Number:
    """Return a number whose row says why it has no interval."""
    return number if number.value is None else replace(number, low=None, high=None, interval=f"none: {reason}")


def confidences_of(column: NDArray[Any]) -> NDArray[Any]:
    """Return confidences held to 1, which a sum of rounded probabilities may pass by a hair."""
    held: NDArray[Any] = np.minimum(column, column.dtype.type(1))
    return held


def bounded(number: Number, case: Case, replicates: Callable[[Any], NDArray[np.float64]], n: int) -> Number:
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
    """
    if number.value is None:
        return number
    weights = case.weights(n) if n >= 2 else None
    if weights is None:
        return without_interval(number, NEEDS_BOOTSTRAP if n >= 2 else "one row")
    try:
        low, high = case.resampling.interval(number.value, replicates(weights))
    except CloserlookError as error:
        return without_interval(number, str(error))
    return replace(number, low=low, high=high, interval=case.resampling.described())


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
