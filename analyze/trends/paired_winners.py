"""Which models cannot be distinguished from the best one, by paired tests on the same images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import cache_schema
from analyze.annotations.clips import has_clips
from analyze.evaluate.pairing import paired_summaries
from analyze.intervals import paired_difference
from analyze.intervals.detection_pairs import NAMES, SortedScores
from analyze.intervals.influences import check_comparable, detection_influence, paired_detection
from analyze.intervals.winners import as_good_by_test
from analyze.metrics.registry import direction
from analyze.predictions.summaries import Summary
from analyze.reading.sources import sources_of
from analyze.results import store_digests
from analyze.results.quantities import Quantity, answers
from analyze.settings import Settings, study_defaults
from analyze.suites.calibration import brier_each
from analyze.suites.scores import score_of, spec_of
from closerlook_common.errors import UserError

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache

TESTED = ("top1", "nll", "brier")
"""Means over images, for which a paired test compares two models."""


def as_good_on_the_same_images(
    cache: Cache,
    metric: str,
    dataset: str,
    models: Sequence[str],
    *,
    settings: Settings | None = None,
    pair_by_row: bool = False,
    seed: int = 0,
) -> dict[str, bool]:
    """Return which models cannot be distinguished from the best on the images that all of them have.

    Parameters
    ----------
    cache
        An open cache with predictions or summaries of the models.
    metric
        One of ``TESTED``.
    dataset, models
        What is compared; models without predictions on the dataset, or on other images, are not in the result.
    settings
        The conventions; the study's when None.
    pair_by_row
        Pair row i with row i where a store holds no image names.
    seed
        Of the resamples that small sets need.

    Raises
    ------
    UserError
        Another metric, or fewer than two models with comparable predictions.
    """
    if metric not in TESTED:
        raise UserError(f"a paired test compares {', '.join(TESTED)}; {metric} is not a mean over images")
    sources = [s for s in sources_of(cache) if s.dataset == dataset and s.model in set(models)]
    if len(sources) < 2:
        raise UserError(
            f"{cache.title} holds predictions on {dataset} of {len(sources)} of these models: two are needed"
        )
    paired = paired_summaries(sources, settings or study_defaults(), pair_by_row=pair_by_row, leave_out=True)
    _refuse_clips(paired.summaries, dataset)
    use = np.logical_and.reduce([s.labelled for s in paired.summaries])
    if len(paired.sources) < 2 or not use.any():
        raise UserError(f"no two models can be paired on {dataset}: {next(iter(paired.left_out.values()), 'no label')}")
    columns = [_column(s.rows(use), metric) for s in paired.summaries]

    def p_value(best: int, other: int) -> float:
        return paired_difference(columns[best], columns[other], rng=np.random.default_rng(seed)).p_value

    means = [float(column.mean()) for column in columns]
    kept = as_good_by_test(means, p_value, higher=metric == "top1")
    return {source.model: bool(k) for source, k in zip(paired.sources, kept, strict=True)}


def as_good_at_detection(
    cache: Cache,
    metric: str,
    dataset: str,
    models: Sequence[str],
    *,
    id_dataset: str,
    scores: Mapping[str, str] | str = "msp",
    settings: Settings | None = None,
    pair_by_row: bool = False,
) -> dict[str, bool]:
    """Return which models cannot be distinguished from the best at OOD detection, on the images that all have.

    Parameters
    ----------
    cache
        An open cache with predictions or summaries of the models.
    metric
        One of ``intervals.detection_pairs.NAMES``: DeLong's test for AUROC, influences of the rows for the others.
    dataset, id_dataset
        The OOD set and the in-distribution set.
    models
        What is compared; models without predictions on both sets, or on other images, are not in the result.
    scores
        Score of every model, or of each; of those that need no fit.
    settings, pair_by_row
        As of `as_good_on_the_same_images`.

    Raises
    ------
    UserError
        Another metric or score, other conventions than the defaults, or fewer than two models to compare.
    """
    chosen = settings or study_defaults()
    named = dict.fromkeys(models, scores) if isinstance(scores, str) else dict(scores)
    fitted = sorted({score for score in named.values() if spec_of(score).fit})
    if metric not in NAMES or fitted:
        what = f"score {fitted[0]}, which is fitted" if fitted else metric
        raise UserError(
            f"there is no paired test of {what}; there is one of {', '.join(NAMES)} by scores without a fit"
        )
    if chosen.changed("ood", "threshold", "aupr", "class_masks"):
        raise UserError("the paired tests are of the default [ood] threshold, aupr and class_masks")
    sides: list[dict[str, NDArray[Any]]] = []
    for name in (id_dataset, dataset):
        sources = [s for s in sources_of(cache) if s.dataset == name and s.model in named]
        if len(sources) < 2:
            raise UserError(
                f"{cache.title} holds predictions on {name} of {len(sources)} of these models: two are needed"
            )
        paired = paired_summaries(
            sources, chosen, pair_by_row=pair_by_row, leave_out=True, statistics=frozenset({"gen"})
        )
        _refuse_clips(paired.summaries, name)
        use = np.logical_and.reduce([summary["valid"] for summary in paired.summaries])
        sides.append(
            {
                source.model: score_of(named[source.model], summary)[use]
                for source, summary in zip(paired.sources, paired.summaries, strict=True)
            }
        )
    inside, outside = sides
    common = [model for model in inside if model in outside]
    if len(common) < 2:
        raise UserError(f"no two models can be paired on {id_dataset} and {dataset}")
    pairs = [(SortedScores.of(inside[model]), SortedScores.of(outside[model])) for model in common]
    influences = [detection_influence(metric, *pair) for pair in pairs]

    def p_value(best: int, other: int) -> float:
        try:
            for place in (best, other):
                check_comparable(metric, *pairs[place])
        except UserError:
            return math.nan
        return paired_detection(influences[best], influences[other]).p_value

    kept = as_good_by_test([found.value for found in influences], p_value, higher=direction(metric) == "higher")
    return {model: bool(k) for model, k in zip(common, kept, strict=True)}


def _refuse_clips(summaries: Sequence[Summary], dataset: str) -> None:
    if any(has_clips(summary.metadata) for summary in summaries):
        raise UserError(f"the paired tests take images for independent; frames of one clip of {dataset} are not")


def _same_stores(rows: pl.DataFrame, cache: Cache) -> list[str]:
    """Return the models whose stores in the cache are those that their rows were computed from."""
    held = {(s.model, s.dataset): store_digests(s.digest) for s in sources_of(cache)}
    kept = []
    for model, dataset, id_dataset, stores in rows.select("model", "dataset", "id_dataset", "store").iter_rows():
        needed = {held.get((model, name), "none") for name in (dataset, id_dataset) if name}
        if needed <= set((stores or "").split(",")):
            kept.append(model)
    if len(kept) < 2:
        raise UserError(
            f"{cache.title} holds the stores that the table's numbers are of for {len(kept)} of {len(rows)} models: two"
            " are needed"
        )
    return kept


def _column(rows: Summary, metric: str) -> NDArray[np.float64]:
    if metric == "top1":
        column: NDArray[np.float64] = (rows["label_rank"] == 0).astype(np.float64)
    elif metric == "nll":
        column = np.asarray(-rows["label_log_probability"], dtype=np.float64)
    else:
        column = np.asarray(brier_each(rows["sum_squares"], rows["label_log_probability"]), dtype=np.float64)
    return column


def as_good_in_table(
    table: pl.DataFrame, wanted: Quantity, models: Sequence[str], cache: Cache | str | Path
) -> dict[str, bool]:
    """Return which models of a result table cannot be distinguished from the best by a quantity, on the same images.

    Parameters
    ----------
    table
        A result table: which score a number of OOD detection is of, and against which in-distribution set.
    wanted
        A mean over images (``TESTED``), or a number of OOD detection.
    models
        What is compared.
    cache
        Where predictions lie. Models whose stores there are not those that the table names are not in the result.

    Raises
    ------
    UserError
        A variant that is not of these, and as `as_good_on_the_same_images` and `as_good_at_detection` do.
    """
    opened = cache_schema.open_cache(cache) if isinstance(cache, str | Path) else cache
    if wanted.metric not in NAMES:
        if wanted.variants:
            raise UserError(f"{wanted} names a variant; on the same images the plain {wanted.metric} is compared")
        rows = answers(table, wanted).filter(pl.col("model").is_in(list(models)))
        return as_good_on_the_same_images(opened, wanted.metric, wanted.dataset, _same_stores(rows, opened))
    if not wanted.dataset or {key for key, _ in wanted.variants} - {"score", "id_dataset"}:
        raise UserError(f"{wanted}: on the same images plain numbers of one OOD set are compared")
    rows = answers(table, wanted).filter(pl.col("model").is_in(list(models)), pl.col("value").is_not_null())
    others = rows.filter(pl.col("command") == "ood")["score"].to_list()
    if others:
        raise UserError(f"{wanted}: {others[0]} is of 'analyze ood'; 'analyze compare --detectors' tests it")
    inside = rows["id_dataset"].unique().to_list()
    if len(inside) != 1:
        raise UserError(f"{wanted}: the models are compared with several in-distribution sets")
    scores = dict(rows.select("model", "score").iter_rows())
    kept = _same_stores(rows, opened)
    return as_good_at_detection(opened, wanted.metric, wanted.dataset, kept, id_dataset=inside[0], scores=scores)
