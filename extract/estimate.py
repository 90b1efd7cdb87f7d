"""What a plan would cost: disk and time, each with what the estimate rests on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from cache_schema.errors import CloserlookError
from extract.plan import MISSING, Job, Plan

if TYPE_CHECKING:
    from cache_schema.cache import Cache

TYPICAL_RATE = 3600.0
"""Images a second of the median model of timm's table for an RTX 5090 with autocast; half of them are between 2,000 and
6,000. A place to start from while nothing has been measured."""

TYPICAL_WIDTH = 1024
"""Median feature width of timm's ImageNet classifiers, for models whose width is not known before they are built."""

LOGIT_BYTES = 2 / 1.35
"""Of a centred float16 logit after compression."""

ROW_BYTES = 60
"""Labels, centre, validity and name of an image."""


@dataclass(frozen=True)
class Estimate:
    """Cost of what is left to do.

    Attributes
    ----------
    images
        Images times models.
    gigabytes
        Of disk, 10^9 bytes.
    hours
        Of one device.
    basis
        What the hours rest on.
    """

    images: int
    gigabytes: float
    hours: float
    basis: str


def store_bytes(job: Job, feature_bytes: int = 2) -> float:
    """Return the expected size of a job's store."""
    width = job.model.card.feature_width or TYPICAL_WIDTH
    space = job.dataset.class_space
    classes = 0 if space is None else len(space)
    if job.dataset.card.role == "reference":
        rows = int(job.dataset.card.extra.get("bank_per_class", 50)) * max(classes, 1)
        return rows * (classes * LOGIT_BYTES + width * feature_bytes) + 8.0 * (
            2 * classes**2 + 2 * classes * width + width**2
        )
    return len(job.dataset) * (classes * LOGIT_BYTES + width * feature_bytes + ROW_BYTES)


def measured_rates(cache: Cache | None) -> dict[str, float]:
    """Return model -> images a second, as its stores in the cache recorded them: the median over datasets."""
    found: dict[str, list[float]] = {}
    if cache is not None:
        for store in cache.stores("predictions"):
            rate = store.record.get("images_per_second")
            # A pass serves several models at once; each had its share of it.
            if rate:
                shared = float(rate) * int(store.record.get("models_in_pass", 1))
                found.setdefault(store.model.id, []).append(shared)
    return {model: median(rates) for model, rates in found.items()}


def estimate(plan: Plan, cache: Cache | None, *, rate: float | None = None, feature_bytes: int = 2) -> Estimate:
    """Estimate what is left to do.

    Parameters
    ----------
    plan
        Of the study.
    cache
        Where rates of sealed stores are looked up; None where there is no cache yet.
    rate
        Images a second and model, for models without a measured rate; None takes the median of the measured ones, else
        ``TYPICAL_RATE``.
    feature_bytes
        2 for float16, 4 for float32.
    """
    jobs = [job for job in plan.jobs if job.state == MISSING]
    rates = measured_rates(cache)
    other = rate or (median(rates.values()) if rates else TYPICAL_RATE)
    seconds = sum(len(job.dataset) / rates.get(job.model.card.id, other) for job in jobs)
    known = {job.model.card.id for job in jobs} & set(rates)
    told = {job.model.card.id for job in jobs}
    basis = f"{other:,.0f} images/s a model, {_source(rate, rates)}"
    if told and known == told:
        basis = f"the measured rates of all {len(told)} models"
    elif known:
        basis = f"measured rates of {len(known)} of {len(told)} models; for the others {basis}"
    return Estimate(
        sum(len(job.dataset) for job in jobs),
        sum(store_bytes(job, feature_bytes) for job in jobs) / 1e9,
        seconds / 3600,
        basis,
    )


def _source(rate: float | None, rates: dict[str, float]) -> str:
    if rate:
        return "as told by --rate"
    if rates:
        return f"the median of the {len(rates)} models measured in this cache"
    return "the median of timm's published table for one RTX 5090: measure a few models first to know better"


def count_states(jobs: Iterable[Job]) -> dict[str, int]:
    """Return how many jobs are in each state."""
    counts: dict[str, int] = {}
    for job in jobs:
        counts[job.state] = counts.get(job.state, 0) + 1
    return counts


def open_if_there(path: object) -> Cache | None:
    """Open a cache, or return None where there is none yet."""
    import cache_schema

    try:
        return cache_schema.open_cache(str(path))
    except CloserlookError:
        return None
