"""Image and text embeddings of a cache in, rows of retrieval recall out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from analyze.intervals import wilson_interval
from analyze.metrics.retrieval import retrieval_recall
from analyze.results import ResultRow, card_cells, store_digests
from cache_schema.errors import CloserlookError, UserError

if TYPE_CHECKING:
    from cache_schema.cache import Cache
    from cache_schema.kinds.texts import TextStore
    from cache_schema.store import PredictionStore


def retrieval_rows(cache: Cache, ks: Sequence[int]) -> tuple[list[ResultRow], dict[str, str]]:
    """Return recall at each k, both ways, of every model with text embeddings; and what failed, with the reason.

    The rows' metrics are ``image_to_text_recall@k`` and ``text_to_image_recall@k``, with Wilson intervals.
    """
    rows: list[ResultRow] = []
    failures = {}
    for texts in cache.stores("texts"):
        where = f"{texts.model.id} on {texts.dataset.id}"
        try:
            images = cache.store(texts.model.id, texts.dataset.id)
            rows += _rows(images, texts, ks)  # type: ignore[arg-type]
        except CloserlookError as error:
            failures[where] = str(error)
    return rows, failures


def _rows(images: PredictionStore, texts: TextStore, ks: Sequence[int]) -> list[ResultRow]:
    if not images.has_features:
        raise UserError("the store of the images holds no embeddings")
    keep = np.flatnonzero(images.valid)
    place = np.full(len(images), -1)
    place[keep] = np.arange(len(keep))
    # A caption of an image that could not be read has nothing to find.
    index = place[texts.image_index]
    there = index >= 0
    found = retrieval_recall(images.features()[keep], np.asarray(texts.embeddings)[there], index[there], ks=ks)
    card = images.model
    rows = []
    for way, recalls, n in (
        ("image_to_text", found.image_to_text, found.n_images),
        ("text_to_image", found.text_to_image, found.n_texts),
    ):
        for k, value in recalls.items():
            interval = wilson_interval(round(value * n), n)
            rows.append(
                ResultRow(
                    model=card.id,
                    dataset=images.dataset.id,
                    metric=f"{way}_recall@{k}",
                    value=value,
                    low=interval.low,
                    high=interval.high,
                    n=n,
                    store=store_digests(images.digest, texts.digest),
                    command="retrieval",
                    role=images.dataset.role,
                    **card_cells(card),
                )
            )
    return rows
