"""Several acceptable labels an image (ReaL): read from metadata columns, and used to say what is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closerlook_common.errors import UserError

OWN = "label_set"
"""Metadata column of a dataset whose own notion of right is "any of these" (``imagenet-real``)."""

NO_LIKELIHOOD = "images with several acceptable labels have no likelihood of the label"
"""Why such a dataset has no NLL, no Brier score, and nothing that is fitted by them."""


def parse(column: NDArray[Any], name: str) -> list[tuple[int, ...]]:
    """Return the class numbers of each text (``"207 208"``), none for an empty one.

    Raises
    ------
    UserError
        Where a text is not a list of whole numbers; the row is named.
    """
    found = []
    for row, text in enumerate(column.tolist()):
        try:
            found.append(tuple(int(word) for word in str(text).split()))
        except ValueError:
            raise UserError(f"metadata column {name!r}, row {row}: {text!r} is not a list of class numbers") from None
    return found


def rank_of_set(top: NDArray[np.integer[Any]], rank: NDArray[np.integer[Any]], sets: Sequence[Sequence[int]]) -> Any:
    """Return the place of the best acceptable class among the sorted logits, as far as it is known.

    Parameters
    ----------
    top
        (n, k) classes with the largest logits, the prediction first.
    rank
        (n,) place of one of the acceptable classes, -1 where there is none.
    sets
        Acceptable classes of each row.

    Returns
    -------
    ndarray of shape (n,)
        Below k it is exact; where none of the top k is acceptable, ``rank`` (which is then k or more).
    """
    best = rank.copy()
    for row, acceptable in enumerate(sets):
        if rank[row] > 0:
            hits = np.flatnonzero(np.isin(top[row], acceptable))
            best[row] = hits[0] if hits.size else rank[row]
    return best
