"""Image and text embeddings of a cache in, rows of retrieval recall and ranks out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from analyze.intervals import Interval, proportion_interval
from analyze.intervals.medians import median_interval
from analyze.metrics.registry import direction
from analyze.metrics.retrieval import retrieval_recall
from analyze.results import ResultRow, card_cells, store_digests
from analyze.settings import Settings, canonical
from cache_schema.reading.kinds.texts import TextStore
from closerlook_common.errors import CloserlookError, UserError

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache
    from cache_schema.reading.store import PredictionStore


def retrieval_rows(cache: Cache, ks: Sequence[int], settings: Settings) -> tuple[list[ResultRow], dict[str, str]]:
    """Return recall at each k, both ways, of every model with text embeddings; and what failed, with the reason.

    The rows' metrics are ``image_to_text_recall@k`` and ``text_to_image_recall@k``, with the intervals of
    ``[accuracy]``, and the mean and median rank of the first right answer both ways.
    """
    rows: list[ResultRow] = []
    failures = {}
    for texts in cache.stores("texts"):
        where = f"{texts.model.id} on {texts.dataset.id}"
        try:
            images = cache.store(texts.model.id, texts.dataset.id)
            assert isinstance(texts, TextStore)
            rows += _rows(images, texts, ks, settings)
        except CloserlookError as error:
            failures[where] = str(error)
    return rows, failures


def _rows(images: PredictionStore, texts: TextStore, ks: Sequence[int], settings: Settings) -> list[ResultRow]:
    if not images.has_features:
        raise UserError("the store of the images holds no embeddings")
    keep = np.flatnonzero(images.valid)
    place = np.full(len(images), -1)
    place[keep] = np.arange(len(keep))
    # A caption of an image that could not be read has nothing to find.
    index = place[texts.image_index]
    there = index >= 0
    found = retrieval_recall(images.features()[keep], np.asarray(texts.embeddings)[there], index[there], ks=ks)
    card, how = images.model, settings["accuracy"]
    level = how["confidence_level"]
    rows = []

    def add(metric: str, value: float, n: int, make: Callable[[], Interval], options: dict[str, Any]) -> None:
        try:
            interval, described = make(), ""
        except CloserlookError as error:
            interval, described = None, f"none: {str(error).removeprefix('no interval: ')}"
        rows.append(
            ResultRow(
                model=card.id,
                dataset=images.dataset.id,
                metric=metric,
                value=value,
                low=None if interval is None else interval.low,
                high=None if interval is None else interval.high,
                interval=described if interval is None else interval.described(),
                n=n,
                direction=direction(metric),
                store=store_digests(images.digest, texts.digest),
                command="retrieval",
                options=canonical(options),
                role=images.dataset.role,
                **card_cells(card),
            )
        )

    levels = settings.changed("accuracy", "confidence_level")
    for way, recalls, ranks in (
        ("image_to_text", found.image_to_text, found.image_ranks),
        ("text_to_image", found.text_to_image, found.text_ranks),
    ):
        n = ranks.size
        for k, value in recalls.items():
            share = partial(proportion_interval, round(value * n), n, level=level, method=how["interval"])
            add(f"{way}_recall@{k}", value, n, share, settings.changed("accuracy", "interval", "confidence_level"))
        add(f"{way}_mean_rank", float(ranks.mean()), n, _no_mean_interval, levels)
        of_median = partial(median_interval, ranks, level=level)
        add(f"{way}_median_rank", float(np.median(ranks)), n, of_median, levels)
    return rows


def _no_mean_interval() -> Interval:
    raise UserError("a few lost queries decide a mean rank: see the median")
