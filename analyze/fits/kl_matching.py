"""KL-matching as a fit: the mean softmax of each predicted class over the fit rows of the ID set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analyze.detectors.base import Fitted as FittedDetector
from analyze.detectors.klm import KLMatching, softmax_sums
from analyze.fits.base import Columns, Fit, Fitted, LogitBlock, Target
from analyze.reading.views import ClassView
from analyze.settings import Settings
from closerlook_common.errors import UserError

if TYPE_CHECKING:
    from cache_schema.reading.store import PredictionStore

_BLOCK_ROWS = 4096


@dataclass(frozen=True, eq=False)
class FittedKLMatching(Fitted):
    """KL-matching of one ID set; scores logits of the classes that compete on it.

    Attributes
    ----------
    detector
        The fitted detector.
    dataset, n_columns
        Of the ID set: its id, and the width of its logits.
    """

    detector: FittedDetector
    dataset: str = ""
    n_columns: int | None = None
    name = "klm"

    def why_not(self, target: Target) -> str:
        """Compare the widths of the logits."""
        if self.n_columns == target.n_columns:
            return ""
        return f"KL-matching was fitted on {self.dataset}, whose classes are others than those of {target.card.id}"

    def columns(self, block: LogitBlock) -> Columns:
        """Return minus the divergence from the nearest typical softmax."""
        return {"klm": self.detector.score(logits=block.view.reduce(block.logits))}


class KLMatchingFit(Fit):
    """The typical softmax of each predicted class; labels are not used."""

    name = "klm"
    sections = ("split", "ood")
    gives = ("klm",)
    roles = ("id", "ood")
    calibrates = False
    absent = "needs the big stores: this summary holds no KL-matching ([ood] scores)"

    def is_asked(self, settings: Settings) -> bool:
        """Look for the score in ``[ood] scores``."""
        return self.name in settings["ood"]["scores"]

    def fit(self, source: Any, rows: NDArray[np.bool_], settings: Settings, threads: int = 1) -> FittedKLMatching:
        """Sum the softmax of the rows by predicted class."""
        return FittedKLMatching(fit_kl_matching_store(source, rows), source.dataset.id, source.n_classes)

    def options(self, settings: Settings, dataset: str) -> dict[str, Any]:
        """Return where it was fitted: rows of 'analyze ood' are of detectors that were fitted elsewhere."""
        where = f"validation:{dataset}:{settings['split']['fraction']:g}"
        return {"fit": where, **settings.changed("split", "seed", "stratified")}


def fit_kl_matching_store(store: PredictionStore, rows: NDArray[np.bool_]) -> FittedDetector:
    """Fit KL-matching to some rows of a store, block by block; labels are not used.

    Parameters
    ----------
    store
        With logits.
    rows
        (n,) rows to fit on.

    Returns
    -------
    detectors.base.Fitted
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
