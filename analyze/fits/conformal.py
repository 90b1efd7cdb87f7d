"""Conformal sets as a fit: quantiles from the fit rows of the ID set, sizes of the sets everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analyze.fits.base import Columns, Fit, Fitted, LogitBlock, Rows
from analyze.kernels.sets import set_rows
from analyze.kernels.statistics import as_rows, spread_rows
from analyze.reading.fitted_rows import fitted_rows
from analyze.settings import Settings
from cache_schema.format.records import DatasetCard
from closerlook_common.errors import UserError

_NUMBERS = 1 << 20
"""Numbers of a block that are sorted at a time."""

if TYPE_CHECKING:
    from cache_schema.reading.store import PredictionStore

METHODS = ("lac", "aps", "raps")
"""Kinds of sets in the order of the column ``set_sizes``."""
ALL_METHODS = (*METHODS, "saps")


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
    weight
        Of SAPS.
    """

    alpha: float
    quantiles: Mapping[str, float]
    penalty: float
    free_ranks: int
    n: int
    weight: float = 0.02


def set_statistics(
    block: LogitBlock, use: Rows, fitted: SetQuantiles | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int32]]:
    """Return per-image statistics of conformal sets.

    Parameters
    ----------
    block
        Logits and places of the labels.
    use
        (m,) rows that are wanted.
    fitted
        Quantiles; None leaves the sizes out.

    Returns
    -------
    tuple of ndarray
        ``label_mass`` (m,) float32, the probability of the classes at least as probable as the label;
        ``label_count`` (m,) int32, how many these are; ``sizes`` (3, m) int32, classes in the LAC, APS and RAPS set,
        -1 where no quantile is known.
    """
    m = len(block)
    mass, count = np.full(m, np.nan, np.float32), np.full(m, -1, np.int32)
    sizes = np.full((3, m), -1, np.int32)
    logits = as_rows(block.view.reduce(block.logits))
    quantiles = np.array([fitted.quantiles.get(name, np.nan) if fitted else np.nan for name in METHODS])
    penalty, free_ranks = (fitted.penalty, fitted.free_ranks) if fitted else (0.0, 0)

    def work(start: int, stop: int) -> int:
        set_rows(
            logits, block.places, use, 1.0, quantiles, float(penalty), int(free_ranks),
            mass, count, sizes, 0, start, stop,
        )  # fmt: skip
        return -1

    spread_rows(work, m, block.threads)
    return mass, count, sizes


def saps_statistics(
    block: LogitBlock, use: Rows, weight: float, largest: float = np.nan
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Return the SAPS score of each label, NaN without one, and the sizes of the sets, -1 without a quantile.

    Parameters
    ----------
    block, use
        As of `set_statistics`.
    weight
        Of the ranks.
    largest
        Quantile: largest score that is let in.
    """
    scores, sizes = np.full(len(block), np.nan), np.full(len(block), -1, np.int32)
    for rows in _slices(np.flatnonzero(use), block.view.n_classes):
        mass, total = unscaled_softmax(block, rows)
        top = 1 / total
        places = block.places[rows]
        own = np.take_along_axis(mass, np.maximum(places, 0)[:, None], axis=1)
        ranks = np.count_nonzero(mass >= own, axis=1)
        scores[rows] = np.where(places >= 0, top + weight * (ranks - 1), np.nan)
        if not np.isnan(largest):
            ordered = -np.sort(-mass, axis=1)
            # Equal probabilities enter together: the last of them speaks for all.
            last = _last_ranks(ordered)
            sizes[rows] = np.count_nonzero(top[:, None] + weight * (last - 1) <= largest, axis=1)
    return scores, sizes


def unscaled_softmax(block: LogitBlock, rows: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return exp(logit - largest logit) of the classes that compete, (b, k) float64, and the sums of its rows."""
    logits = block.view.reduce(block.logits[rows]).astype(np.float64)
    mass = np.exp(logits - logits.max(axis=1, keepdims=True))
    return mass, mass.sum(axis=1)


def _slices(rows: NDArray[np.int64], n_classes: int) -> list[NDArray[np.int64]]:
    size = max(1, _NUMBERS // n_classes)
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _last_ranks(ordered: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the rank, from 1, of the last of those that equal each number of falling rows."""
    k = ordered.shape[1]
    ends = np.ones(ordered.shape, np.bool_)
    ends[:, :-1] = ordered[:, :-1] != ordered[:, 1:]
    ranks = np.where(ends, np.arange(1, k + 1), k)
    found: NDArray[np.int64] = np.minimum.accumulate(ranks[:, ::-1], axis=1)[:, ::-1]
    return found


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
    weight: float = 0.02,
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
    alpha, methods, penalty, free_ranks, weight
        As in ``metrics.fit_conformal``.

    Raises
    ------
    UserError
        Where no chosen row has a label, or alpha is not in (0, 1).
    """
    if not 0.0 < alpha < 1.0:
        raise UserError(f"alpha of the conformal sets must be between 0 and 1, not {alpha}")
    view, places, use = fitted_rows(store, rows, "conformal sets")
    mass, count = np.full(len(store), np.nan, np.float32), np.full(len(store), -1, np.int32)
    log_probability, saps = np.full(len(store), np.nan), np.full(len(store), np.nan)
    for start in range(0, len(store), block_rows):
        here = slice(start, min(start + block_rows, len(store)))
        if use[here].any():
            logits, centers = store.centred_logits(here.start, here.stop), np.zeros(here.stop - start, np.float32)
            block = LogitBlock(view, logits, centers, places[here], use[here], threads=threads)
            mass[here], count[here], _ = set_statistics(block, use[here])
            log_probability[here] = _log_probabilities(block)
            if "saps" in methods:
                saps[here], _ = saps_statistics(block, use[here], weight)
    own = log_probability[use], mass[use], count[use]
    plain = [name for name in methods if name != "saps"]
    scores = {name: label_scores(name, *own, penalty=penalty, free_ranks=free_ranks) for name in plain}
    scores |= {"saps": saps[use]} if "saps" in methods else {}
    quantiles = {name: quantile(own_scores, alpha) for name, own_scores in scores.items()}
    return SetQuantiles(alpha, quantiles, penalty, free_ranks, int(use.sum()), weight)


def _log_probabilities(block: LogitBlock) -> NDArray[np.float32]:
    from analyze.kernels import statistics as kernels

    logits, valid = block.view.reduce(block.logits), block.valid
    found = kernels.image_statistics(logits, labels=block.places, valid=valid, gen=None, threads=block.threads)
    own: NDArray[np.float32] = found.scaled[0, kernels.LABEL_LOG_PROBABILITY]
    return own


@dataclass(frozen=True, eq=False)
class FittedSets(Fitted):
    """Quantiles of the kinds of sets."""

    solution: SetQuantiles
    name = "conformal"

    def columns(self, block: LogitBlock) -> Columns:
        """Return what the sets of each image are counted from, and their sizes."""
        fit = self.solution
        mass, count, sizes = set_statistics(block, block.valid, fit)
        found: Columns = {"label_mass": mass, "label_count": count, "set_sizes": sizes.T}
        if "saps" in fit.quantiles:
            scores, of_saps = saps_statistics(block, block.valid, fit.weight, fit.quantiles["saps"])
            found |= {"saps_score": scores, "saps_size": of_saps}
        return found

    def facts(self, card: DatasetCard) -> dict[str, Any]:
        """Return the quantiles, as text because JSON has no infinity, and the options."""
        fit = self.solution
        quantiles = {method: repr(value) for method, value in fit.quantiles.items()}
        options: dict[str, Any] = {"alpha": fit.alpha, "penalty": fit.penalty, "free_ranks": fit.free_ranks, "n": fit.n}
        options |= {"weight": fit.weight} if "saps" in quantiles else {}
        return {"conformal": {**options, "quantiles": quantiles}}


class ConformalSets(Fit):
    """Quantiles of the labels' scores, so that sets hold the label with the chosen probability."""

    name = "conformal"
    sections = ("split", "conformal")
    gives = ("label_mass", "label_count", "set_sizes", "saps_")
    fact = "conformal"
    calibrates = False
    absent = "needs the big stores: no sets in this summary"

    def is_asked(self, settings: Settings) -> bool:
        """Conformal sets are always asked for."""
        return True

    def fit(self, source: Any, rows: Rows, settings: Settings, threads: int = 1) -> FittedSets:
        """Fit the quantiles on labelled rows of a store."""
        options = settings["conformal"]
        found = fit_quantiles(
            source,
            rows,
            alpha=options["alpha"],
            methods=options["methods"],
            penalty=options["raps_penalty"],
            free_ranks=options["raps_k"],
            weight=options["saps_weight"],
            threads=threads,
        )
        return FittedSets(found)

    def made_otherwise(self, facts: Mapping[str, Any], settings: Settings) -> str:
        """Compare alpha and the options of RAPS and SAPS."""
        made, wanted = facts["conformal"], settings["conformal"]
        same = (made["alpha"], made["penalty"], made["free_ranks"]) == (
            wanted["alpha"],
            wanted["raps_penalty"],
            wanted["raps_k"],
        )
        same &= "weight" not in made or made["weight"] == wanted["saps_weight"]
        return "" if same else "the summary's sets were fitted under other options: summarize again"
