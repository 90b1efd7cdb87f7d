"""A metadata column as factors: each value is one, or each range between quantiles where the column is continuous."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from closerlook_common.errors import UserError

MOST_WORDS = 1000
"""Distinct words of a column beyond which they name images, not factors."""


class Grouped(NamedTuple):
    """The factors of a column.

    Attributes
    ----------
    members
        ``COLUMN=VALUE`` or ``COLUMN=LOW to HIGH`` -> (n,) rows that have it, in order.
    quantiles
        Ranges that the column was cut into; 0 where each value is a factor.
    """

    members: dict[str, NDArray[np.bool_]]
    quantiles: int


def grouped(column: str, values: NDArray[Any], *, most_values: int, quantiles: int) -> Grouped:
    """Return the factors of a column.

    Parameters
    ----------
    column
        Its name.
    values
        Of all images of the dataset, so that the ranges are those of every model. NaN is no value.
    most_values
        A column of numbers with more distinct values is cut into ranges.
    quantiles
        How many, of about equal numbers of images; values above the lower end, up to the upper one. 0 refuses the
        column instead.

    Raises
    ------
    UserError
        Where a column of words names nearly every image, and where one of numbers may not be cut.
    """
    if values.dtype.kind not in "iuf":
        names = [str(value) for value in values.tolist()]
        distinct = sorted(set(names))
        if len(distinct) > MOST_WORDS:
            raise UserError(f"column {column!r} has {len(distinct)} distinct values, too many for factors")
        text = np.array(names, dtype=object)
        return Grouped({f"{column}={name}": text == name for name in distinct}, 0)
    present = values[np.isfinite(values)]
    numbers = np.unique(present)
    if numbers.size <= most_values:
        return Grouped({f"{column}={_shown(number)}": values == number for number in numbers}, 0)
    if quantiles < 1:
        raise UserError(
            f"column {column!r} holds {numbers.size} different numbers: it is cut at quantiles with [factors]"
            " quantiles = 4, or taken value by value with a larger most_values"
        )
    # Ends are values that occur, so that ties stay together on one side.
    shares = np.linspace(0, 1, quantiles + 1)
    ends = np.unique(np.quantile(present, shares, method="inverted_cdf"))
    members = {}
    for low, high in itertools.pairwise(ends):
        above = values >= low if low == ends[0] else values > low
        members[f"{column}={_shown(low)} to {_shown(high)}"] = above & (values <= high)
    return Grouped(members, quantiles)


def _shown(number: Any) -> str:
    """Return a number as a name: no two are alike."""
    value = number.item()
    short = f"{value:.6g}"
    return short if float(short) == float(value) else repr(value)
