"""The seeded half of the in-distribution set on which calibrators and conformal sets are fitted."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from closerlook_common.errors import UserError


def fit_rows(
    labels: ArrayLike,
    *,
    usable: ArrayLike | None = None,
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
        Where the fraction is not in (0, 1), labels are not (n,) whole numbers, ``usable`` is not (n,) booleans, or
        one of the two parts would be empty.
    """
    fraction = _checks.fraction("fraction", fraction, open_ends=True)
    seed = _checks.whole_number("seed", seed, least=0, most=2**63 - 1)
    stratified = _checks.switch("stratified", stratified)
    classes = _checks.whole_numbers("labels", labels)
    can = classes >= 0
    if usable is not None:
        can &= _checks.correct(usable, classes.size, name="usable", other="labels")
    rows = np.flatnonzero(can)
    generator = np.random.default_rng(seed)
    shuffled = rows[generator.permutation(rows.size)]
    chosen = np.zeros(classes.size, np.bool_)
    if not stratified:
        chosen[shuffled[: round(fraction * rows.size)]] = True
    elif rows.size:
        order = shuffled[np.argsort(classes[shuffled], kind="stable")]
        present, starts, counts = np.unique(classes[order], return_index=True, return_counts=True)
        take = fraction * counts
        quota = np.floor(take).astype(np.int64) + (generator.random(present.size) < take % 1.0)
        within = np.arange(order.size) - np.repeat(starts, counts)
        chosen[order[within < np.repeat(quota, counts)]] = True
    if not chosen.any() or chosen.sum() == rows.size:
        raise UserError(f"a share of {fraction} of {rows.size} labelled rows leaves nothing to fit on or to test on")
    return chosen
