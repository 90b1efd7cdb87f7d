"""What is fitted on a part of an in-distribution set: the rows are chosen, then every fit is made on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.annotations.label_sets import NO_LIKELIHOOD, OWN
from analyze.calibrators.split import fit_rows
from analyze.fits.base import Fit, Fitted, Reason
from analyze.reading.sources import Source
from analyze.settings import Settings
from cache_schema.format.records import DatasetCard
from closerlook_common.errors import CloserlookError, UserError, is_unreadable


@dataclass(frozen=True, eq=False)
class IdSet:
    """An in-distribution set, the rows of it that fits are made on, and the fits.

    Attributes
    ----------
    dataset
        Its id.
    rows
        (n,) rows that were fitted on, or why the set could not be divided.
    fits
        Name -> fit, or why there is none; of those that the settings ask for. Empty for a summary: its fits were made
        with it.
    """

    dataset: str
    rows: NDArray[np.bool_] | Reason
    fits: Mapping[str, Fitted | Reason] = field(default_factory=dict)

    @property
    def reason(self) -> str:
        """Why nothing could be fitted; empty where something could be."""
        return self.rows.text if isinstance(self.rows, Reason) else ""

    @property
    def passing(self) -> bool:
        """Whether something is missing because a store could not be read: another run may find it readable."""
        return any(isinstance(found, Reason) and found.passing for found in (self.rows, *self.fits.values()))


def fit_id_set(source: Source, settings: Settings, fits: Iterable[Fit], threads: int = 1) -> IdSet:
    """Fit on a part of an in-distribution set.

    Parameters
    ----------
    source
        The set. Of a summary only the rows are chosen.
    settings
        Options; each fit sees the sections that it declares.
    fits
        What to fit; those that need confidences are left out, for these are not known yet.
    threads
        Threads over the rows.
    """
    try:
        rows = chosen_rows(source, settings)
    except (CloserlookError, OSError) as error:
        return IdSet(source.dataset, Reason(str(error), is_unreadable(error)))
    found: dict[str, Fitted | Reason] = {}
    for fit in () if source.is_summary else fits:
        if fit.needs == "logits" and fit.is_asked(settings.only(*fit.sections)):
            found[fit.name] = attempt_fit(fit, source.store, rows, settings, threads)
    return IdSet(source.dataset, rows, found)


def attempt_fit(
    fit: Fit, source: Any, rows: NDArray[np.bool_], settings: Settings, threads: int = 1
) -> Fitted | Reason:
    """Return the fit, or why there is none."""
    try:
        return fit.fit(source, rows, settings.only(*fit.sections), threads)
    except (CloserlookError, OSError, ValueError) as error:
        return Reason(str(error), is_unreadable(error))


def chosen_rows(source: Source, settings: Settings) -> NDArray[np.bool_]:
    """Return the rows of an in-distribution set to fit on, (n,)."""
    store = source.store
    labels = store.column("label") if source.is_summary else store.labels
    if not source.is_summary:
        valid = store.valid
    elif "valid" in store.columns():
        valid = store.column("valid")
    else:  # an imported table holds only rows of images that could be read
        valid = np.ones(len(labels), np.bool_)
    if _several_labels(source):
        raise UserError(NO_LIKELIHOOD)
    return fit_rows(labels, usable=np.asarray(valid), **settings["split"])


def _several_labels(source: Source) -> bool:
    if source.is_summary:
        return bool(source.store.record.get("facts", {}).get("several_labels"))
    return OWN in source.store.metadata


def id_set_of(card: DatasetCard, id_sets: list[str]) -> str:
    """Return the ID set whose fits are applied to a dataset: its ``shift_of``, else the only one there is."""
    if card.id in id_sets:
        return card.id
    if card.shift_of in id_sets:
        return card.shift_of
    return id_sets[0] if len(id_sets) == 1 else ""
