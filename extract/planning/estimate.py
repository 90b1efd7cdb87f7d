"""What a plan would cost: disk and time, each with what the estimate rests on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from cache_schema.format.schema import parts_of
from closerlook_common.console.terminal import counted
from closerlook_common.errors import CloserlookError
from extract.classes.words import is_words
from extract.models import view_recipe
from extract.planning.jobs import HeadJob, Job, keeps_statistics
from extract.planning.mismatches import gives_features_alone, is_zero_shot
from extract.planning.operations import count_operations, text_operations
from extract.planning.plan import MISSING, Plan

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache
    from extract.classes.prompts import PromptSet
    from extract.classes.spaces import ClassSpace
    from extract.models.base import Prepared

OPERATIONS_PER_SECOND = 70e12
"""What a model does of its arithmetic on an RTX 4090 in half precision: public measurements of five (ResNet-50,
ConvNeXt-B, ViT-B/16, EVA-02-L at 448 pixels, a SigLIP SO400M at 384) lie between 35e12 and 103e12, their median at
75e12."""

FASTEST_RATE = 10_000.0
"""Images a second that no model is thought to exceed: below some size, arithmetic is not what bounds it."""

TYPICAL_RATE = 3600.0
"""Images a second of the median model of timm's table for an RTX 5090 with autocast, for models whose operations cannot
be counted; half of the table's models are between 2,000 and 6,000."""

TYPICAL_WIDTH = 1024
"""Median feature width of timm's ImageNet classifiers, for models whose width is not known before they are built."""

TOKEN_WIDTH = 768
"""Of a ViT-B, for towers whose width is not known before they are built."""

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
    texts
        Prompts and captions times models.
    gigabytes
        Of disk, 10^9 bytes: stores and heads.
    hours
        Of one device.
    basis
        What the hours rest on.
    """

    images: int
    texts: int
    gigabytes: float
    hours: float
    basis: str


def store_bytes(job: Job, feature_bytes: int = 2, arrays: Sequence[str] = ()) -> float:
    """Return the expected size of a job's store, its captions' embeddings and the arrays asked for included."""
    width = job.model.card.feature_width or TYPICAL_WIDTH
    space = job.dataset.class_space
    classes = 0 if space is None else len(space)
    if gives_features_alone(job.model):
        classes = 0
    if keeps_statistics(job):
        rows = int(job.dataset.card.extra.get("bank_per_class", 50)) * max(classes, 1)
        scaled = "unit" in arrays and not is_zero_shot(job.model)
        unit = 8.0 * (classes * width + width**2) * scaled + 8.0 * rows * ("unit" in arrays)
        return (
            rows * (classes * LOGIT_BYTES + width * feature_bytes)
            + 8.0 * (2 * classes**2 + 2 * classes * width + width**2)
            + unit
        )
    texts = _captions(job) * width * 4
    more = (width * feature_bytes + 8) * ("patches" in arrays) + TOKEN_WIDTH * feature_bytes * (
        2 * ("tokens" in arrays) + 4 * ("blocks" in arrays)
    )
    more += view_recipe.CHOSEN * (width * feature_bytes + 6) * (view_recipe.ARRAY in arrays)
    return texts + len(job.dataset) * (classes * LOGIT_BYTES + width * feature_bytes + ROW_BYTES + more)


def head_bytes(head: HeadJob, arrays: Sequence[str] = ()) -> float:
    """Return the expected size of a head: weights, and for a text head the sums that unions need and what is asked."""
    size = len(head.class_space) * (head.model.card.feature_width or TYPICAL_WIDTH)
    if head.prompts is None or is_words(head.class_space):
        return size * 4.0
    templates = max(map(len, head.prompts.texts(head.class_space))) if "texts" in arrays else 0
    return size * (8.0 + 2.0 * templates)


def count_texts(jobs: Iterable[Job], heads: Iterable[HeadJob]) -> dict[str, int]:
    """Return model -> distinct prompts and captions that its text tower is given."""
    wanted: dict[str, set[tuple[ClassSpace, PromptSet]]] = {}
    for head in heads:
        if head.prompts is not None:
            wanted.setdefault(head.model.card.id, set()).add((head.class_space, head.prompts))
    counted: dict[frozenset[tuple[ClassSpace, PromptSet]], int] = {}
    found: dict[str, int] = {}
    for model, pairs in wanted.items():
        key = frozenset(pairs)
        if key not in counted:
            counted[key] = len({text for space, prompts in pairs for texts in prompts.texts(space) for text in texts})
        found[model] = counted[key]
    for job in jobs:
        if _captions(job):
            found[job.model.card.id] = found.get(job.model.card.id, 0) + _captions(job)
    return found


def _captions(job: Job) -> int:
    return 0 if job.dataset.captions is None else sum(map(len, job.dataset.captions))


def _forwards(arrays: Sequence[str]) -> int:
    """Return how many forward passes an image takes for a store with some arrays."""
    return 1 + view_recipe.VIEWS * (view_recipe.ARRAY in arrays)


def measured_rates(cache: Cache | None) -> dict[str, float]:
    """Return model -> images a second, as its stores in the cache recorded them: the median over datasets."""
    found: dict[str, list[float]] = {}
    if cache is not None:
        for store in cache.stores("predictions"):
            rate = store.record.get("images_per_second")
            # A pass serves several models at once; each had its share of it.
            if rate:
                held = [part for part, arrays in parts_of(store.kind, store.array_names).items() if arrays]
                shared = float(rate) * int(store.record.get("models_in_pass", 1)) * _forwards(held)
                found.setdefault(store.model.id, []).append(shared)
    return {model: median(rates) for model, rates in found.items()}


def estimate(
    plan: Plan,
    cache: Cache | None,
    *,
    rate: float | None = None,
    feature_bytes: int = 2,
    arrays: Sequence[str] = (),
    progress: Callable[[Sequence[Prepared]], Iterable[Prepared]] = iter,
) -> Estimate:
    """Estimate what is left to do.

    Parameters
    ----------
    plan
        Of the study.
    cache
        Where rates of sealed stores are looked up; None where there is no cache yet.
    rate
        Images a second and model, for models without a measured rate; None goes by each model's arithmetic.
    feature_bytes
        2 for float16, 4 for float32.
    arrays
        What heads hold besides.
    progress
        Wraps the models whose operations are counted.
    """
    jobs = [job for job in plan.jobs if job.state == MISSING]
    heads = [head for head in plan.heads if head.state == MISSING]
    owing = [*(job.model for job in jobs), *(head.model for head in heads)]
    models = {model.card.id: model for model in owing}
    measured = measured_rates(cache)
    others = [model for name, model in models.items() if name not in measured]
    rates = {name: measured[name] for name in models if name in measured}
    texts = count_texts(jobs, heads)
    counted = [model for model in models.values() if model.card.id in texts or (rate is None and model in others)]
    operations = dict(zip((m.card.id for m in counted), count_operations(progress(counted)), strict=True))
    for model in others:
        arithmetic = operations.get(model.card.id)
        guess = OPERATIONS_PER_SECOND / arithmetic if arithmetic else TYPICAL_RATE
        rates[model.card.id] = rate or min(guess, FASTEST_RATE)
    uncounted = sum(operations.get(model.card.id) is None for model in others)
    seconds = sum(len(job.dataset) * _forwards(job.arrays) / rates[job.model.card.id] for job in jobs)
    for name, count in texts.items():
        # A text takes its tower as long as the ratio of the two towers' arithmetic says; as an image where unknown.
        image, text = operations[name], text_operations(models[name])
        seconds += count / rates[name] * (text / image if text and image else 1)
    size = sum(store_bytes(job, feature_bytes, job.arrays) for job in jobs)
    return Estimate(
        sum(len(job.dataset) for job in jobs),
        sum(texts.values()),
        (size + sum(head_bytes(head, arrays) for head in heads)) / 1e9,
        seconds / 3600,
        _basis(len(models), len(others), rate, uncounted),
    )


def _basis(models: int, others: int, rate: float | None, uncounted: int) -> str:
    """Return what the rates of the models rest on, in one sentence."""
    if not models:
        return "nothing is left to do"
    parts = [f"rates measured in this cache ({counted(models - others, 'model')})"] if others < models else []
    if others and rate is not None:
        parts.append(f"{rate:,.0f} images/s as given by --rate ({others})")
    elif others > uncounted:
        arithmetic = f"{OPERATIONS_PER_SECOND / 1e12:.0f} TFLOP/s, as on one RTX 4090, give or take a factor of two"
        parts.append(f"each model's arithmetic at {arithmetic} ({others - uncounted}); measure a few to know better")
    if uncounted and rate is None:
        parts.append(f"timm's median of {TYPICAL_RATE:,.0f} images/s ({uncounted} whose arithmetic cannot be counted)")
    return "; ".join(parts)


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
