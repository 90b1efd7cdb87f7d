"""Models against each other on the same images: paired differences, agreement, error consistency, ensembles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analyze import metrics
from analyze.annotations.label_sets import NO_LIKELIHOOD, OWN
from analyze.evaluate.cases import build_cases
from analyze.evaluate.whole_cache import choose
from analyze.intervals import PairedDifference, paired_difference
from analyze.predictions import BLOCK_ROWS
from analyze.predictions.summaries import Summary
from analyze.reading.class_options import class_view
from analyze.reading.sources import LABELLED, Source, sources_of
from analyze.reading.views import ClassView
from analyze.settings import Settings
from analyze.suites.calibration import brier_each
from cache_schema.errors import CloserlookError, UserError

if TYPE_CHECKING:
    from cache_schema.cache import Cache


@dataclass(frozen=True, eq=False)
class Comparison:
    """Models on one dataset, over the images that all of them could read.

    Attributes
    ----------
    dataset, n
        Its id and the images compared.
    models
        Ids, in the order asked for.
    values
        Metric -> number of each model on these images.
    differences
        Metric -> first less second model, with interval and p-value; empty for more than two.
    agreement, consistency
        (models, models): share of equal predictions; Cohen's kappa of being right.
    ensemble
        Metric -> number of the mean probability; empty where the big stores are not at hand.
    no_ensemble
        Why there is none.
    """

    dataset: str
    n: int
    models: tuple[str, ...]
    values: dict[str, list[float]]
    differences: dict[str, PairedDifference]
    agreement: NDArray[np.float64]
    consistency: NDArray[np.float64]
    ensemble: dict[str, float]
    no_ensemble: str = ""


def compare_models(
    cache: Cache,
    models: Sequence[str],
    *,
    settings: Settings,
    datasets: Sequence[str] | None = None,
    replicates: int = 1000,
    permutations: int = 10_000,
    seed: int = 0,
    ensemble: bool = True,
) -> tuple[list[Comparison], dict[str, str]]:
    """Compare models on every labelled dataset that all of them have.

    Parameters
    ----------
    cache
        An open cache.
    models
        Ids or patterns of two models or more, in the order of the result.
    settings
        Options.
    datasets
        Ids or patterns.
    replicates, permutations, seed
        Of the interval and the p-value of paired differences.
    ensemble
        Also read the logits for the mean-probability ensemble.

    Returns
    -------
    tuple
        One comparison a dataset, and dataset -> why it cannot be compared.
    """
    sources = [s for s in sources_of(cache) if s.role in LABELLED]
    known = {s.model for s in sources}
    models = list(dict.fromkeys(name for word in models for name in choose(known, [word], "model")))
    if len(models) < 2:
        raise UserError(f"name two different models or more to compare; only {models[0]} is chosen")
    wanted = choose({s.dataset for s in sources}, datasets, "dataset")
    found: list[Comparison] = []
    problems: dict[str, str] = {}
    for dataset in wanted:
        own = {s.model: s for s in sources if s.dataset == dataset}
        missing = [name for name in models if name not in own]
        if missing:
            problems[dataset] = f"no store of {', '.join(missing)}"
            continue
        try:
            found.append(_compare([own[name] for name in models], settings, replicates, permutations, seed, ensemble))
        except CloserlookError as error:
            problems[dataset] = str(error)
    return found, problems


def _compare(
    sources: list[Source], settings: Settings, replicates: int, permutations: int, seed: int, ensemble: bool
) -> Comparison:
    dataset = sources[0].dataset
    summaries = [_summary(source, settings) for source in sources]
    keys = [s["image_key"] if s.has("image_key") else s["label"] for s in summaries]
    if any(len(s) != len(summaries[0]) for s in summaries) or any(not np.array_equal(key, keys[0]) for key in keys):
        raise UserError(f"the stores on {dataset} hold other images, or in another order")
    if any(not np.array_equal(s["label"], summaries[0]["label"]) for s in summaries):
        raise UserError(f"the stores on {dataset} disagree about the labels")
    use = np.logical_and.reduce([s.labelled for s in summaries])
    n = int(use.sum())
    if n == 0:
        raise UserError(f"no labelled image of {dataset} could be read by all")
    columns = [_columns(s.rows(use)) for s in summaries]
    values = {metric: [float(c[metric].mean(dtype=np.float64)) for c in columns] for metric in columns[0]}
    differences = {}
    if len(sources) == 2:
        for metric in columns[0]:
            generator = np.random.default_rng(seed)
            differences[metric] = paired_difference(
                columns[0][metric],
                columns[1][metric],
                rng=generator,
                replicates=replicates,
                permutations=permutations,
            )
    combined: dict[str, float] = {}
    reason = "" if ensemble else "not asked for"
    if ensemble:
        try:
            combined = ensemble_numbers(sources, use, settings)
        except CloserlookError as error:
            reason = str(error)
    correct = np.stack([c["top1"] > 0 for c in columns])
    return Comparison(
        dataset=dataset,
        n=n,
        models=tuple(s.model for s in sources),
        values=values,
        differences=differences,
        agreement=metrics.agreement_matrix(np.stack([s.prediction[use] for s in summaries])),
        consistency=metrics.error_consistency_matrix(correct),
        ensemble=combined,
        no_ensemble=reason,
    )


def _summary(source: Source, settings: Settings) -> Summary:
    built = build_cases([source], settings, {"comparison"})
    if source.dataset in built.problems:
        raise UserError(built.problems[source.dataset])
    return built.cases[source.dataset].summary


def _columns(rows: Summary) -> dict[str, NDArray[np.float64]]:
    found = {"top1": (rows["label_rank"] == 0).astype(np.float64)}
    if rows.has("label_log_probability"):
        own = rows["label_log_probability"].astype(np.float64)
        if np.isfinite(own).all():
            found["nll"] = -own
        if rows.has("sum_squares"):
            found["brier"] = brier_each(rows["sum_squares"], rows["label_log_probability"])
    return found


def ensemble_numbers(sources: Sequence[Source], use: NDArray[np.bool_], settings: Settings) -> dict[str, float]:
    """Return top-1, NLL, Brier score and ECE of the mean probability of models, block by block.

    Parameters
    ----------
    sources
        Prediction stores of the models on one dataset.
    use
        (n,) rows that count.
    settings
        Options: which classes compete.
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
    confidence, own, squares = np.zeros(n), np.zeros(n), np.zeros(n)
    correct = np.zeros(n, np.bool_)
    for start in range(0, n, BLOCK_ROWS):
        here = slice(start, min(start + BLOCK_ROWS, n))
        # One member at a time: memory does not grow with their number.
        mean = _probabilities(stores[0], views[0], here)
        for store, view in zip(stores[1:], views[1:], strict=True):
            mean += _probabilities(store, view, here)
        mean /= len(stores)
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
        "ece": metrics.expected_calibration_error(np.minimum(confidence[use], 1.0), correct[use]),
    }


def _probabilities(store: Any, view: ClassView, here: slice) -> NDArray[np.float64]:
    logits = view.reduce(store.centred_logits(here.start, here.stop)).astype(np.float64)
    logits = np.nan_to_num(logits, nan=0.0, neginf=-1e30)
    logits -= logits.max(axis=1, keepdims=True)
    p: NDArray[np.float64] = np.exp(logits)
    p /= p.sum(axis=1, keepdims=True)
    return p
