"""KL-matching from a store: the mean softmax of each predicted class over the fit half of the ID set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analyze.detectors.base import Fitted
from analyze.detectors.klm import KLMatching, softmax_sums
from analyze.reading.views import ClassView
from cache_schema.errors import UserError

if TYPE_CHECKING:
    from cache_schema.store import PredictionStore

_BLOCK_ROWS = 4096


def fit_kl_matching_store(store: PredictionStore, rows: NDArray[np.bool_]) -> Fitted:
    """Fit KL-matching to some rows of a store, block by block; labels are not used.

    Parameters
    ----------
    store
        With logits.
    rows
        (n,) rows to fit on.

    Returns
    -------
    Fitted
        Scores logits of the classes that compete on the dataset (``ClassView.reduce``).

    Raises
    ------
    UserError
        Where the store holds no logits, or none of the rows could be read.
    """
    what = f"{store.model.id} on {store.dataset.id}"
    if not store.has_logits or store.n_classes is None:
        raise UserError(f"{what}: the store holds no logits")
    view = ClassView.of(store.dataset, store.n_classes)
    use = np.asarray(rows) & np.asarray(store.valid)
    if not use.any():
        raise UserError(f"{what}: no row to fit KL-matching on")
    sums = np.zeros((view.n_classes, view.n_classes))
    counts = np.zeros(view.n_classes, np.int64)
    for start in range(0, len(store), _BLOCK_ROWS):
        chosen = np.flatnonzero(use[start : start + _BLOCK_ROWS])
        if chosen.size:
            stop = min(start + _BLOCK_ROWS, len(store))
            more, n = softmax_sums(view.reduce(store.centred_logits(start, stop)[chosen]))
            sums += more
            counts += n
    return KLMatching.of_sums(sums, counts)
