"""Conformal sets with a quantile for each class, or each cluster of classes, as fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from analyze.fits.base import Columns, Fit, Fitted, LogitBlock, Rows, Target
from analyze.fits.conformal import ALL_METHODS, unscaled_softmax
from analyze.metrics.conformal import ConformalSets, score_rule
from analyze.metrics.conformal_classes import ClassConformalSets, class_sets, clustered_sets
from analyze.reading.fitted_rows import fitted_rows
from analyze.reading.views import ClassView
from analyze.settings import Settings
from cache_schema.format.records import DatasetCard

if TYPE_CHECKING:
    from cache_schema.reading.store import PredictionStore

_BLOCK_ROWS = 1024


@dataclass(frozen=True, eq=False)
class FittedClassSets(Fitted):
    """Quantiles of the classes, by kind of sets.

    Attributes
    ----------
    rules
        Method -> how classes are scored.
    quantiles
        Method -> (C,) largest score with which a class is in the set, by column of the logits; NaN for classes that do
        not compete on the ID set.
    card
        Of the ID set.
    n
        Images they come from.
    settings
        Options of ``[conformal]``, and the seed.
    """

    rules: Mapping[str, ConformalSets]
    quantiles: Mapping[str, NDArray[np.float64]]
    card: DatasetCard
    n: int
    settings: Mapping[str, Any]
    name = "conformal-class"
    prefix: ClassVar[str] = "class_sets_"

    def why_not(self, target: Target) -> str:
        """Compare the classes of the ID set with those of the target."""
        known = next(iter(self.quantiles.values()))
        where = f"the quantiles of classes were fitted on {self.card.id}"
        if known.size != target.n_columns or target.card.class_space != self.card.class_space:
            return f"{where}, whose classes are others than those of {target.card.id}"
        if target.view.groups is not None:
            return f"{where}; those of {target.card.id} are groups of them"
        unknown = target.view.columns[np.isnan(known[target.view.columns])]
        if unknown.size:
            return f"{where}, which leaves out class {int(unknown[0])} of {target.card.id}"
        return ""

    def columns(self, block: LogitBlock) -> Columns:
        """Return whether the label is in each kind of set, and the sizes of the sets: -1 where there is no number."""
        m, kept = len(block), block.view.columns
        inside, sizes = np.full((m, len(ALL_METHODS)), -1, np.int8), np.full((m, len(ALL_METHODS)), -1, np.int32)
        for rows in _slices(np.flatnonzero(block.valid)):
            mass, total = unscaled_softmax(block, rows)
            probabilities = mass / total[:, None]
            places = block.places[rows]
            for method, rule in self.rules.items():
                column = ALL_METHODS.index(method)
                sets = rule.block_scores(probabilities) <= self.quantiles[method][kept]
                sizes[rows, column] = sets.sum(axis=1)
                own = np.take_along_axis(sets, np.maximum(places, 0)[:, None], axis=1)[:, 0]
                inside[rows, column] = np.where(places >= 0, own, -1)
        return {f"{self.prefix}inside": inside, f"{self.prefix}sizes": sizes}

    def facts(self, card: DatasetCard) -> dict[str, Any]:
        """Return the options, and how many classes are in every set because they have too few images."""
        every = {method: int(np.isposinf(values).sum()) for method, values in self.quantiles.items()}
        return {self.name: {"dataset": self.card.id, "n": self.n, "always_in": every, "options": dict(self.settings)}}


@dataclass(frozen=True, eq=False)
class FittedClusteredSets(FittedClassSets):
    """Quantiles of clusters of classes."""

    name = "conformal-clustered"
    prefix: ClassVar[str] = "clustered_sets_"


class ClassSets(Fit):
    """A quantile for each class: the coverage holds within each class."""

    name = "conformal-class"
    sections = ("split", "conformal")
    gives = (FittedClassSets.prefix,)
    fact = "conformal-class"
    roles = ("id", "shift")
    calibrates = False
    absent = "needs the big stores: no such sets in this summary ([conformal] quantiles)"
    asked: ClassVar[str] = "class"
    fitted: ClassVar[type[FittedClassSets]] = FittedClassSets

    def is_asked(self, settings: Settings) -> bool:
        """Look for the kind of quantiles in ``[conformal] quantiles``."""
        return self.asked in settings["conformal"]["quantiles"]

    def fit(self, source: Any, rows: Rows, settings: Settings, threads: int = 1) -> FittedClassSets:
        """Fit the quantiles on labelled rows of a store."""
        options = settings["conformal"]
        rules = {
            method: score_rule(
                method,
                alpha=options["alpha"],
                penalty=options["raps_penalty"],
                free_ranks=options["raps_k"],
                weight=options["saps_weight"],
            )
            for method in options["methods"]
        }
        view, scores, classes = _label_scores(source, rows, rules)
        quantiles = {}
        for method, rule in rules.items():
            make: Callable[..., ClassConformalSets] = class_sets
            if self.asked == "clustered":
                make = partial(clustered_sets, seed=settings["split"]["seed"])
            wide = np.full(source.n_classes, np.nan)
            wide[view.columns] = make(rule, scores[method], classes, view.n_classes).quantiles
            quantiles[method] = wide
        return self.fitted(rules, quantiles, source.dataset, classes.size, _own(settings))

    def made_otherwise(self, facts: Mapping[str, Any], settings: Settings) -> str:
        """Compare the options."""
        same = facts[self.fact]["options"] == _own(settings)
        return "" if same else "the summary's sets were fitted under other options: summarize again"


class ClusteredSets(ClassSets):
    """A quantile for each cluster of classes whose scores are alike."""

    name = "conformal-clustered"
    gives = (FittedClusteredSets.prefix,)
    fact = "conformal-clustered"
    asked = "clustered"
    fitted = FittedClusteredSets


def _own(settings: Settings) -> dict[str, Any]:
    names = ("alpha", "methods", "raps_penalty", "raps_k", "saps_weight")
    return {name: settings["conformal"][name] for name in names}


def _slices(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [rows[start : start + _BLOCK_ROWS] for start in range(0, len(rows), _BLOCK_ROWS)]


def _label_scores(
    store: PredictionStore, rows: Rows, rules: Mapping[str, ConformalSets]
) -> tuple[ClassView, dict[str, NDArray[np.float64]], NDArray[np.int64]]:
    """Return the classes that compete, the scores of the labels of some rows by method, and their places.

    Raises
    ------
    UserError
        No logits, groups of classes, or no labelled row.
    """
    view, places, chosen_rows = fitted_rows(store, rows, "a quantile for each class", of_classes=True)
    use = np.flatnonzero(chosen_rows)
    scores = {method: np.empty(use.size) for method in rules}
    done = 0
    for start in range(0, len(store), _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, len(store))
        chosen = use[(use >= start) & (use < stop)]
        if not chosen.size:
            continue
        logits = store.centred_logits(start, stop)
        n = stop - start
        block = LogitBlock(view, logits, np.zeros(n, np.float32), places[start:stop], np.ones(n, np.bool_))
        mass, total = unscaled_softmax(block, chosen - start)
        probabilities, own = mass / total[:, None], places[chosen, None]
        for method, rule in rules.items():
            found = np.take_along_axis(rule.block_scores(probabilities), own, axis=1)[:, 0]
            scores[method][done : done + chosen.size] = found
        done += chosen.size
    return view, scores, places[use].astype(np.int64)
