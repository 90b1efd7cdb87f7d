"""Models against each other on the same images: paired differences, agreement, error consistency, ensembles."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from analyze import metrics
from analyze.annotations.label_sets import NO_LIKELIHOOD, OWN
from analyze.evaluate.cells import cell_key
from analyze.evaluate.comparisons import Comparison, KeptComparisons
from analyze.evaluate.engine import Cell, Computed, Running
from analyze.evaluate.pairing import paired_summaries
from analyze.evaluate.spread import run_plan
from analyze.evaluate.whole_cache import choose
from analyze.intervals import PairedDifference, paired_difference
from analyze.intervals.means import mean_interval
from analyze.metrics.diversity import DiversityTotals
from analyze.predictions import BLOCK_ROWS
from analyze.predictions.summaries import SUMMARY_VERSION, Summary
from analyze.reading.class_options import class_view
from analyze.reading.sources import LABELLED, Source, sources_of
from analyze.reading.views import ClassView
from analyze.settings import Settings
from analyze.suites.calibration import brier_each
from closerlook_common.errors import CloserlookError, UserError

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache

DIVERSITY = ("mutual_information", "ambiguity", "disagreement")
"""What is measured of the members of an ensemble, of each image."""


COMPARE_VERSION = 1
"""Moves whenever a comparison would give another number for the same stores and options."""


@dataclass(frozen=True)
class ComparePlan:
    """Models compared on every labelled dataset that all of them have; see ``engine.Plan``.

    Attributes
    ----------
    models
        Ids or patterns of two models or more, in the order of the result.
    settings
        Options.
    datasets
        Ids or patterns.
    replicates, seed
        Of the bootstrap of paired differences.
    ensemble
        Also read the logits for the mean-probability ensemble.
    diversity
        Also measure how much its members differ (`metrics.ensemble_diversity`).
    pair_by_row
        Pair row i with row i where a store holds no image names, instead of refusing the dataset.
    """

    models: tuple[str, ...]
    settings: Settings
    datasets: Sequence[str] | None = None
    replicates: int = 10_000
    seed: int = 0
    ensemble: bool = True
    diversity: bool = False
    pair_by_row: bool = False
    memory: ClassVar[int] = 1 << 30

    def works(self, cache: Cache, names: Collection[str] | None = None) -> list[CompareWork]:
        """Return one work a dataset.

        Raises
        ------
        UserError
            Where fewer than two models are chosen, or a name is not known.
        """
        sources = [s for s in sources_of(cache) if s.role in LABELLED]
        known = {s.model for s in sources}
        models = list(dict.fromkeys(name for word in self.models for name in choose(known, [word], "model")))
        if len(models) < 2:
            raise UserError(f"name two different models or more to compare; only {models[0]} is chosen")
        own: dict[str, dict[str, Source]] = {}
        for source in sources:
            own.setdefault(source.dataset, {})[source.model] = source
        chosen = choose(own, self.datasets, "dataset")
        return [CompareWork(name, models, own[name], self) for name in chosen if names is None or name in names]


@dataclass
class CompareWork:
    """Models on one dataset; see ``engine.Work``.

    Attributes
    ----------
    name
        The dataset.
    models
        Ids, in the order of the result.
    sources
        Model -> its store on the dataset.
    plan
        Options.
    problems
        See ``engine.Work``; what goes wrong is of the whole dataset.
    """

    name: str
    models: Sequence[str]
    sources: dict[str, Source]
    plan: ComparePlan
    problems: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def cells(self) -> list[Cell]:
        """Return the only cell; its key holds the stores and every option."""
        missing = [name for name in self.models if name not in self.sources]
        if missing:
            raise UserError(f"no store of {', '.join(missing)}")
        plan, chosen = self.plan, [self.sources[name] for name in self.models]
        key = cell_key(
            compare=COMPARE_VERSION,
            summary=SUMMARY_VERSION,
            inputs=[[s.model, s.digest, s.card_key] for s in chosen],
            options=dict(plan.settings.sections),
            asked=[plan.replicates, plan.seed, plan.ensemble, plan.diversity, plan.pair_by_row],
        )
        return [Cell(key, chosen)]

    def compute(self, missing: Sequence[Cell], threads: int) -> Iterator[Computed]:
        """Yield the comparison."""
        for cell in missing:
            yield Computed(cell, [_compare(cell.of, self.plan, threads)])


def compare_models(
    cache: Cache,
    models: Sequence[str],
    *,
    kept: KeptComparisons | None = None,
    running: Running | None = None,
    **options: Any,
) -> tuple[list[Comparison], dict[str, str]]:
    """Compare models on every labelled dataset that all of them have.

    Parameters
    ----------
    cache
        An open cache.
    models
        Ids or patterns of two models or more, in the order of the result.
    kept
        Comparisons of earlier runs; new ones are put there.
    running
        How the run goes; the numbers do not depend on it.
    **options
        The other fields of ``ComparePlan``.

    Returns
    -------
    tuple
        One comparison a dataset, and dataset -> why it cannot be compared.
    """
    kept = kept if kept is not None else KeptComparisons()
    found = run_plan(ComparePlan(tuple(models), **options), cache, kept, running)
    return [kept[key] for key in found.keys], found.failures


def _compare(sources: list[Source], plan: ComparePlan, threads: int) -> Comparison:
    dataset, level = sources[0].dataset, plan.settings["bootstrap"]["confidence_level"]
    paired = paired_summaries(sources, plan.settings, pair_by_row=plan.pair_by_row, threads=threads)
    summaries = paired.summaries
    use = np.logical_and.reduce([s.labelled for s in summaries])
    n = int(use.sum())
    if n == 0:
        raise UserError(f"no labelled image of {dataset} could be read by all")
    columns = [_columns(s.rows(use)) for s in summaries]
    # A table of answers has no log-likelihood: compare what all models have.
    shared = [metric for metric in columns[0] if all(metric in c for c in columns)]
    ensemble, spread, reason = _ensemble(sources, use, plan, paired.orders)
    correct = np.stack([c["top1"] > 0 for c in columns])
    low, high = _consistency_intervals(correct, level)
    return Comparison(
        dataset=dataset,
        n=n,
        models=tuple(s.model for s in sources),
        values={metric: [float(c[metric].mean(dtype=np.float64)) for c in columns] for metric in shared},
        differences=_differences([{m: c[m] for m in shared} for c in columns], plan, level),
        agreement=metrics.agreement_matrix(np.stack([s.prediction[use] for s in summaries])),
        consistency=metrics.error_consistency_matrix(correct),
        consistency_low=low,
        consistency_high=high,
        ensemble=ensemble,
        no_ensemble=reason,
        diversity={name: _mean_with_ends(column[use], level) for name, column in spread.items()},
        paired_by=paired.by,
    )


def _differences(
    columns: Sequence[dict[str, NDArray[np.float64]]], plan: ComparePlan, level: float
) -> dict[str, PairedDifference]:
    """Return the differences of two models by metric; none of more than two."""
    if len(columns) != 2:
        return {}
    first, second = columns
    return {
        metric: paired_difference(
            first[metric],
            second[metric],
            rng=np.random.default_rng(plan.seed),
            replicates=plan.replicates,
            level=level,
        )
        for metric in first
    }


def _ensemble(
    sources: Sequence[Source],
    use: NDArray[np.bool_],
    plan: ComparePlan,
    orders: Sequence[NDArray[np.int64] | None],
) -> tuple[dict[str, float], dict[str, NDArray[np.float64]], str]:
    """Return the ensemble's numbers, how much its members differ by image, and why there is none."""
    spread: dict[str, NDArray[np.float64]] = {}
    if not plan.ensemble:
        return {}, spread, "not asked for"
    try:
        found = ensemble_numbers(sources, use, plan.settings, orders, spread if plan.diversity else None)
    except CloserlookError as error:
        return {}, spread, str(error)
    return found, spread, ""


def _mean_with_ends(column: NDArray[np.float64], level: float) -> tuple[float, float, float]:
    """Return a mean over images and the ends of its interval, NaN where it has none."""
    mean = float(column.mean())
    try:
        found = mean_interval(column, bounded=True, level=level)
    except UserError:
        return mean, math.nan, math.nan
    return mean, found.low, found.high


def _consistency_intervals(correct: NDArray[np.bool_], level: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the ends of every pair's interval, (models, models) each; NaN where there is none."""
    low, high = np.full((2, len(correct), len(correct)), np.nan)
    for i, j in itertools.combinations(range(len(correct)), 2):
        with contextlib.suppress(UserError):
            found = metrics.error_consistency_interval(correct[i], correct[j], level=level)
            low[i, j] = low[j, i] = found.low
            high[i, j] = high[j, i] = found.high
    return low, high


def _columns(rows: Summary) -> dict[str, NDArray[np.float64]]:
    found = {"top1": (rows["label_rank"] == 0).astype(np.float64)}
    if rows.has("label_log_probability"):
        own = rows["label_log_probability"].astype(np.float64)
        if np.isfinite(own).all():
            found["nll"] = -own
        if rows.has("sum_squares"):
            found["brier"] = brier_each(rows["sum_squares"], rows["label_log_probability"])
    return found


def ensemble_numbers(
    sources: Sequence[Source],
    use: NDArray[np.bool_],
    settings: Settings,
    orders: Sequence[NDArray[np.int64] | None] = (),
    spread: dict[str, NDArray[np.float64]] | None = None,
) -> dict[str, float]:
    """Return top-1, NLL, Brier score and ECE of the mean probability of models, block by block.

    Parameters
    ----------
    sources
        Prediction stores of the models on one dataset.
    use
        (n,) rows that count.
    settings
        Options: which classes compete.
    orders
        Of each store, its rows in the order of the first; None for the same order, and so when left out.
    spread
        Filled with how much the members differ on each image, (n,) by name of the metric; None leaves that out.
    """
    if any(source.is_summary for source in sources):
        raise UserError("an ensemble needs all probabilities: the big stores")
    if OWN in sources[0].store.metadata:
        raise UserError(NO_LIKELIHOOD)
    stores = [source.store for source in sources]
    views = [class_view(store.dataset, store.n_classes, settings) for store in stores]
    if len({view.n_classes for view in views}) != 1:
        raise UserError("the models answer in different numbers of classes")
    labels = views[0].places(stores[0].labels)
    n = len(stores[0])
    orders = orders or [None] * len(stores)
    confidence, own, squares = np.zeros(n), np.zeros(n), np.zeros(n)
    correct = np.zeros(n, np.bool_)
    for start in range(0, n, BLOCK_ROWS):
        here = slice(start, min(start + BLOCK_ROWS, n))
        # One member at a time: memory does not grow with their number.
        mean = np.zeros((here.stop - here.start, views[0].n_classes))
        totals = None if spread is None else DiversityTotals((mean.shape[0], mean.shape[1]))
        for store, view, order in zip(stores, views, orders, strict=True):
            member = _probabilities(store, view, here, order)
            mean += member
            if totals is not None:
                totals.add(member)
        mean /= len(stores)
        if spread is not None and totals is not None:
            found = totals.result()
            for name in DIVERSITY:
                spread.setdefault(f"ensemble_{name}", np.zeros(n))[here] = getattr(found, name)
        rows = np.arange(mean.shape[0])
        prediction = mean.argmax(axis=1)
        confidence[here] = mean[rows, prediction]
        own[here] = mean[rows, np.maximum(labels[here], 0)]
        squares[here] = (mean**2).sum(axis=1)
        correct[here] = prediction == labels[here]
    with np.errstate(divide="ignore"):
        nll = -float(np.log(own[use]).mean())
    return {
        "top1": float(correct[use].mean()),
        "nll": nll,
        "brier": float((squares - 2 * own + 1)[use].mean()),
        "ece": metrics.expected_calibration_error(
            np.minimum(confidence[use], 1.0), correct[use], n_bins=int(settings["calibration"]["bins"])
        ),
    }


def _probabilities(
    store: Any, view: ClassView, here: slice, order: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    rows = store.centred_logits(here.start, here.stop) if order is None else _rows_of(store, order[here])
    logits = view.reduce(rows).astype(np.float64)
    logits = np.nan_to_num(logits, nan=0.0, neginf=-1e30)
    logits -= logits.max(axis=1, keepdims=True)
    p: NDArray[np.float64] = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    return p


def _rows_of(store: Any, rows: NDArray[np.int64]) -> NDArray[np.float16]:
    """Return centred logits of rows in any order, reading the blocks that they lie in one by one."""
    blocks = rows // BLOCK_ROWS
    found = np.empty((rows.size, store.n_classes), np.float16)
    for block in np.unique(blocks):
        start = int(block) * BLOCK_ROWS
        here = blocks == block
        found[here] = store.centred_logits(start, min(start + BLOCK_ROWS, len(store)))[rows[here] - start]
    return found
