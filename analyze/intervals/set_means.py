"""Means of a detection number over OOD sets: intervals that know of the ID images which all sets share."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyze.intervals.detection_intervals import detection_interval
from analyze.intervals.detection_pairs import SortedScores
from analyze.intervals.influences import Influence, detection_influence, variance_of_mean
from analyze.metrics.proportions import Interval
from closerlook_common.errors import UserError

OTHER_ROWS = "no interval: the sets are compared with different ID rows"


class Bounded(NamedTuple):
    """A detection number on one OOD set: what its rows add to it, and its interval."""

    influence: Influence
    interval: Interval


Part = Bounded | str
"""A number on one OOD set, or why it has no interval."""


def part_of(metric: str, inside: SortedScores, outside: SortedScores, *, level: float = 0.95) -> Part:
    """Return a detection number by its name in the result table, or why it has no interval."""
    try:
        interval = detection_interval(metric, inside, outside, level=level)
    except UserError as error:
        return str(error).removeprefix("no interval: ")
    return Bounded(detection_influence(metric, inside, outside), interval)


class SetMean:
    """The mean of one detection number over OOD sets that share their ID rows.

    Each set has an interval. The distances of its ends from the number are combined as the errors of the numbers are:
    those of the OOD rows are independent, the influences of an ID row on all sets are added before they are squared
    (the method of variance estimates recovery, for correlated numbers).
    """

    def __init__(self) -> None:
        self._values: list[float] = []
        self._inside: NDArray[np.float64] | None = None
        self._outside = np.zeros(2)
        self._levels: set[tuple[float, bool]] = set()

    def add(self, found: Bounded) -> None:
        """Add a set.

        Raises
        ------
        UserError
            Where its ID rows are not as many as those of the sets before, or no row has any influence.
        """
        influence, interval = found
        of_inside, of_outside = (variance_of_mean(side) for side in influence[1:])
        error = math.sqrt(of_inside + of_outside)
        if error == 0:
            raise UserError("no interval: the scores have no variance")
        distances = np.array([influence.value - interval.low, interval.high - influence.value]) / error
        moved = distances[:, None] * influence.inside
        if self._inside is None:
            self._inside = moved
        elif self._inside.shape != moved.shape:
            raise UserError(OTHER_ROWS)
        else:
            self._inside += moved
        self._outside = self._outside + distances**2 * of_outside
        self._values.append(influence.value)
        self._levels.add((interval.level, interval.at_least))

    def merged(self, other: SetMean) -> SetMean:
        """Return the mean over the sets of both, which share their ID rows; errors as of ``add``."""
        found = SetMean()
        for part in (self, other):
            if part._inside is None:
                continue
            if found._inside is not None and found._inside.shape != part._inside.shape:
                raise UserError(OTHER_ROWS)
            found._inside = part._inside if found._inside is None else found._inside + part._inside
            found._outside = found._outside + part._outside
            found._values += part._values
            found._levels |= part._levels
        return found

    def interval(self) -> Interval:
        """Return the interval of the mean, of the level of the sets' intervals.

        Returns
        -------
        Interval
            ``method`` is ``shared-id-mover``; of one set it has the ends of that set's own interval.

        Raises
        ------
        UserError
            Where no set was added, or intervals of different levels.

        References
        ----------
        Zou, Toward using confidence intervals to compare correlations, Psychological Methods 12, 2007. DeLong, DeLong
        and Clarke-Pearson, Biometrics 44, 1988: the covariance of areas over shared rows.
        """
        if self._inside is None or len(self._levels) != 1:
            raise UserError("no interval: no sets, or intervals of different levels")
        value, count = float(np.mean(self._values)), len(self._values)
        shared = np.array([variance_of_mean(side) for side in self._inside])
        below, above = (float(reach) / count for reach in np.sqrt(shared + self._outside))
        ((level, at_least),) = self._levels
        return Interval(max(0.0, value - below), min(1.0, value + above), level, "shared-id-mover", at_least)


class SetMeans:
    """The means of several metrics over the near, the far and all OOD sets."""

    def __init__(self) -> None:
        self._means: dict[tuple[str, str], SetMean] = {}
        self._reasons: dict[tuple[str, str], str] = {}

    def add(self, metric: str, distance: str, dataset: str, part: Part) -> None:
        """Add what is known of a metric on a set of some distance."""
        key = (metric, distance)
        if isinstance(part, str):
            self._reasons.setdefault(key, f"{dataset}: {part}")
            return
        try:
            self._means.setdefault(key, SetMean()).add(part)
        except UserError as error:
            self._reasons.setdefault(key, str(error).removeprefix("no interval: "))

    def interval(self, metric: str, subset: str) -> Interval:
        """Return the interval of a mean over ``near``, ``far`` or ``all`` sets.

        Raises
        ------
        UserError
            Where a set has no interval of its own, and as `SetMean.interval` does.
        """
        distances = {d for name, d in (*self._means, *self._reasons) if name == metric and subset in ("all", d)}
        for distance in sorted(distances):
            if (metric, distance) in self._reasons:
                raise UserError(f"no interval: {self._reasons[metric, distance]}")
        found = SetMean()
        for distance in sorted(distances):
            found = found.merged(self._means[metric, distance])
        return found.interval()
