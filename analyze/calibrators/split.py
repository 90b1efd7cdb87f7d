"""The seeded half of the in-distribution set on which calibrators and conformal sets are fitted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.errors import UserError


def fit_rows(
    labels: NDArray[np.integer[Any]],
    *,
    usable: NDArray[np.bool_] | None = None,
    fraction: float = 0.5,
    seed: int = 0,
    stratified: bool = True,
) -> NDArray[np.bool_]:
    """Choose the rows to fit on; the other usable rows are the test rows.

    Parameters
    ----------
    labels
        (n,) labels.
    usable
        (n,) rows that may be chosen; those with a label >= 0 when None.
    fraction
        Share of rows to fit on, in (0, 1).
    seed
        Of the permutation. The same labels, fraction and seed give the same rows everywhere.
    stratified
        Take the share from every class (odd rows are rounded by chance, so that the total is kept in the
        mean).

    Returns
    -------
    ndarray of bool, shape (n,)

    Raises
    ------
    UserError
        Where the fraction is not in (0, 1), or one of the two parts would be empty.
    """
    if not 0.0 < fraction < 1.0:
        raise UserError(f"the fraction of rows to fit on must be between 0 and 1, not {fraction}")
    labels = np.asarray(labels)
    can = labels >= 0 if usable is None else np.asarray(usable) & (labels >= 0)
    rows = np.flatnonzero(can)
    generator = np.random.default_rng(seed)
    shuffled = rows[generator.permutation(rows.size)]
    chosen = np.zeros(labels.size, np.bool_)
    if not stratified:
        chosen[shuffled[: round(fraction * rows.size)]] = True
    elif rows.size:
        order = shuffled[np.argsort(labels[shuffled], kind="stable")]
        classes, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
        take = fraction * counts
        quota = np.floor(take).astype(np.int64) + (generator.random(classes.size) < take % 1.0)
        within = np.arange(order.size) - np.repeat(starts, counts)
        chosen[order[within < np.repeat(quota, counts)]] = True
    if not chosen.any() or chosen.sum() == rows.size:
        raise UserError(f"a share of {fraction} of {rows.size} labelled rows leaves nothing to fit on or to test on")
    return chosen
