"""Which rows of a store calibrators and conformal sets are fitted on, and the places of their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analyze.reading.views import ClassView
from closerlook_common.errors import UserError

if TYPE_CHECKING:
    from cache_schema.reading.store import PredictionStore


class FittedRows(NamedTuple):
    """The rows of a store that something is fitted on.

    Attributes
    ----------
    view
        The classes that compete on the dataset.
    places
        (n,) place of each row's label among them, negative where there is none.
    use
        (n,) whether a row is fitted on.
    """

    view: ClassView
    places: NDArray[np.int32]
    use: NDArray[np.bool_]


def fitted_rows(
    store: PredictionStore,
    rows: NDArray[np.bool_],
    what: str,
    *,
    view: ClassView | None = None,
    of_classes: bool = False,
) -> FittedRows:
    """Return which of the chosen rows have logits and a label that competes.

    Parameters
    ----------
    store
        With logits and labels.
    rows
        (n,) rows to choose from.
    what
        What is fitted, for errors.
    view
        Class view; the dataset's own when None.
    of_classes
        Whether what is fitted has numbers for each class of the model, so that a dataset of groups of classes has none.

    Raises
    ------
    UserError
        The store holds no logits, or none of the rows has a label; with `of_classes`, the dataset's classes are groups.
    """
    where = f"{store.model.id} on {store.dataset.id}"
    if not store.has_logits or store.n_classes is None:
        raise UserError(f"{where}: the store holds no logits")
    view = view or ClassView.of(store.dataset, store.n_classes)
    if of_classes and view.groups is not None:
        raise UserError(f"{where}: {what} is of the model's classes, the dataset's are groups of them")
    places = view.own_places(store.labels)
    use = np.asarray(rows) & np.asarray(store.valid) & (places >= 0)
    if not use.any():
        raise UserError(f"{where}: no labelled row for the fit of {what}")
    return FittedRows(view, places, use)
