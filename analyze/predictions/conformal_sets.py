"""Conformal sets over stores: quantiles from the fit half of the ID set, then coverage and sizes
everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analyze.kernels.sets import set_rows
from analyze.kernels.statistics import as_rows, spread_rows
from analyze.reading.views import ClassView
from cache_schema.errors import UserError

if TYPE_CHECKING:
    from cache_schema.store import PredictionStore

METHODS = ("lac", "aps", "raps")


@dataclass(frozen=True)
class SetQuantiles:
    """Largest scores that are let into the sets.

    Attributes
    ----------
    alpha
        Allowed share of images whose set misses the label.
    quantiles
        Method -> quantile; inf where there were too few images, and then every class is let in.
    penalty, free_ranks
        Of RAPS.
    n
        Images they come from.
    """

    alpha: float
    quantiles: Mapping[str, float]
    penalty: float
    free_ranks: int
    n: int


class SetStatistics:
    """Per-image statistics of conformal sets, gathered block by block.

    Attributes
    ----------
    label_mass
        (n,) float32: probability of the classes at least as probable as the label.
    label_count
        (n,) int32: how many these are.
    sizes
        (3, n) int32: classes in the LAC, APS, RAPS set; -1 where no quantile is known.
    """

    def __init__(self, n: int, fitted: SetQuantiles | None = None) -> None:
        self.fitted = fitted
        self.label_mass = np.full(n, np.nan, np.float32)
        self.label_count = np.full(n, -1, np.int32)
        self.sizes = np.full((3, n), -1, np.int32)

    def add(
        self,
        view: ClassView,
        block: NDArray[Any],
        places: NDArray[np.int32],
        use: NDArray[np.bool_],
        offset: int,
        threads: int = 1,
    ) -> None:
        """Add a block of logits whose first row is row ``offset``."""
        logits = as_rows(view.reduce(block))
        fitted = self.fitted
        quantiles = np.array([fitted.quantiles.get(m, np.nan) if fitted else np.nan for m in METHODS])
        penalty, free_ranks = (fitted.penalty, fitted.free_ranks) if fitted else (0.0, 0)

        def work(start: int, stop: int) -> int:
            set_rows(
                logits, places, use, 1.0, quantiles, float(penalty), int(free_ranks),
                self.label_mass, self.label_count, self.sizes, offset, start, stop,
            )  # fmt: skip
            return -1

        spread_rows(work, len(use), threads)


def label_scores(
    method: str,
    label_log_probability: NDArray[Any],
    label_mass: NDArray[Any],
    label_count: NDArray[Any],
    *,
    penalty: float,
    free_ranks: int,
) -> NDArray[np.float64]:
    """Return the score of each image's label: the lower, the sooner it enters the set."""
    if method == "lac":
        return 1.0 - np.exp(label_log_probability.astype(np.float64))
    mass = label_mass.astype(np.float64)
    if method == "aps":
        return mass
    if method == "raps":
        return mass + penalty * np.maximum(label_count.astype(np.float64) - free_ranks, 0.0)
    raise UserError(f"no conformal method {method!r}; there are {', '.join(METHODS)}")


def quantile(scores: NDArray[np.float64], alpha: float) -> float:
    """Return the ceil((n + 1)(1 - alpha))-th smallest score, inf where there are too few."""
    n = scores.size
    rank = int(np.ceil((n + 1) * (1 - alpha) - 1e-9))
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank <= n else float("inf")


def fit_quantiles(
    store: PredictionStore,
    rows: NDArray[np.bool_],
    *,
    alpha: float = 0.1,
    methods: Sequence[str] = METHODS,
    penalty: float = 0.01,
    free_ranks: int = 5,
    block_rows: int = 4096,
    threads: int = 1,
) -> SetQuantiles:
    """Fit the quantiles of conformal sets on some rows of a store.

    Parameters
    ----------
    store
        With logits and labels.
    rows
        (n,) rows to fit on.
    alpha, methods, penalty, free_ranks
        As in ``metrics.fit_conformal``.

    Raises
    ------
    UserError
        Where no chosen row has a label, or alpha is not in (0, 1).
    """
    if not 0.0 < alpha < 1.0:
        raise UserError(f"alpha of the conformal sets must be between 0 and 1, not {alpha}")
    if not store.has_logits or store.n_classes is None:
        raise UserError(f"{store.model.id} on {store.dataset.id}: the store holds no logits")
    view = ClassView.of(store.dataset, store.n_classes)
    places = view.places(store.labels)
    use = np.asarray(rows) & np.asarray(store.valid) & (places >= 0)
    if not use.any():
        raise UserError(f"{store.model.id} on {store.dataset.id}: no labelled row to fit conformal sets on")
    found = SetStatistics(len(store))
    log_probability = np.full(len(store), np.nan)
    for start in range(0, len(store), block_rows):
        here = slice(start, min(start + block_rows, len(store)))
        if use[here].any():
            block = store.centred_logits(here.start, here.stop)
            found.add(view, block, places[here], use[here], start, threads)
            log_probability[here] = _log_probabilities(view, block, places[here], use[here], threads)
    scores = {
        method: label_scores(
            method, log_probability[use], found.label_mass[use], found.label_count[use],
            penalty=penalty, free_ranks=free_ranks,
        )
        for method in methods
    }  # fmt: skip
    return SetQuantiles(alpha, {m: quantile(s, alpha) for m, s in scores.items()}, penalty, free_ranks, int(use.sum()))


def _log_probabilities(
    view: ClassView,
    block: NDArray[Any],
    places: NDArray[np.int32],
    use: NDArray[np.bool_],
    threads: int,
) -> NDArray[np.float32]:
    from analyze.kernels import statistics as kernels

    found = kernels.image_statistics(view.reduce(block), labels=places, valid=use, gen=None, threads=threads)
    own: NDArray[np.float32] = found.scaled[0, kernels.LABEL_LOG_PROBABILITY]
    return own
