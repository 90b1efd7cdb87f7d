"""Two numbers a model, ready for a line: which images x is of, which models are left out, which are marked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import polars as pl

from analyze.intervals import wilson_interval
from analyze.results.quantities import Quantity, SeveralNumbersError, joined, values
from analyze.trends.chance import LEVEL, models_at_chance
from analyze.trends.dependence import FLIPS
from analyze.trends.families import BY_DEFAULT, Families, families_of
from analyze.trends.marks import AGAINST, CHANCE, mark_of

ALL_CLASSES = "all classes"
SAME_CLASSES = "same classes"
OTHER_IMAGES = "other images"
SHARED_IMAGES = "shares images with y"
FEWER_CLASSES = ("imagenet-a", "imagenet-r", "objectnet", "imagenet-vid-robust", "ytbb-robust", "imagenet-d")
"""Sets that are known to keep some of ImageNet's classes alone."""
_MATCHED = ("top1", "top5", "mean_class_accuracy", "nll")


@dataclass(frozen=True, kw_only=True)
class Choices:
    """Which models and which images statistics over models take.

    Attributes
    ----------
    dependence
        What makes models a family: ``backbone``, ``run`` or ``checkpoint`` of the lineage, a column of the cards, or
        ``none`` for ordinary statistics of models that are taken as independent.
    same_classes
        Sets of fewer classes are paired with the in-distribution accuracy on the same classes, where the table has it.
    other_images
        A factor is paired with the accuracy on the images without the factor.
    keep_chance, chance_level, classes
        Whether models at chance stay in fits; level of the test; classes of in-distribution sets that do not say it.
    keep_built_against
        Whether models that a set was built against stay in its fits.
    flips, seed
        Signs of families drawn for a p-value, and their seed.
    """

    dependence: str = BY_DEFAULT
    same_classes: bool = True
    other_images: bool = True
    keep_chance: bool = False
    chance_level: float = LEVEL
    classes: Mapping[str, int] = field(default_factory=dict)
    keep_built_against: bool = False
    flips: int = FLIPS
    seed: int = 0


DEFAULT = Choices()


@dataclass(frozen=True, eq=False)
class PairOfNumbers:
    """Two numbers a model.

    Attributes
    ----------
    everyone
        Models that have both: ``model``, the cards, ``0 0_low 0_high 1 1_low 1_high``, and ``mark`` (why a reader
        should look twice, else empty).
    fitted
        The rows that lines and correlations take: without models at chance and those that the set was built against.
    x, y
        What was set against what; x as it was taken, on the same classes for instance.
    axis
        Which images x is of: ``all classes``, ``same classes``, ``other images``, ``shares images with y``; empty where
        there is no choice.
    left_out
        Model -> why it is in ``everyone`` and not in ``fitted``, or in neither.
    """

    everyone: pl.DataFrame
    fitted: pl.DataFrame
    x: Quantity
    y: Quantity
    axis: str
    left_out: Mapping[str, str]

    def families(self, by: str) -> Families:
        """Return the families of the fitted models."""
        return families_of(self.fitted, by)


def pair_of(
    results: pl.DataFrame,
    x: Quantity,
    y: Quantity,
    choices: Choices = DEFAULT,
    *,
    score: str = "",
    chance: Mapping[str, str] | None = None,
) -> PairOfNumbers:
    """Return two numbers a model, on the images that the choices say.

    Parameters
    ----------
    results
        A result table.
    x, y
        What is set against what.
    choices
        Of axes and models.
    score
        OOD score, where a quantity leaves it open.
    chance
        Of :func:`analyze.trends.chance.models_at_chance`, where it is known already.

    Raises
    ------
    UserError
        Where a quantity is not there, or means several numbers of a model.
    """
    taken, axis, left_out = _matched(results, x, y, score) if choices.same_classes else (x, "", {})
    if not axis and _has_fewer_classes(results, x, y):
        axis = ALL_CLASSES
    frame = joined(results, [taken, y], score=score)
    if _contains(x, y):
        frame, axis = _without_own_images(results, frame, taken, y) if choices.other_images else (frame, SHARED_IMAGES)
    if chance is None:
        chance = models_at_chance(results, level=choices.chance_level, classes=choices.classes)
    marks = [
        CHANCE if model in chance else mark_of(model, lineage or "", group, y.dataset)
        for model, lineage, group in frame.select("model", "lineage", "group").rows()
    ]
    frame = frame.with_columns(pl.Series("mark", marks, dtype=pl.String))
    out = [CHANCE] * (not choices.keep_chance) + [AGAINST] * (not choices.keep_built_against)
    kept = frame.filter(~pl.col("mark").is_in(out))
    reasons = {m: chance.get(m, AGAINST) for m in frame.filter(pl.col("mark").is_in(out))["model"]}
    return PairOfNumbers(frame, kept, taken, y, axis, {**left_out, **reasons})


def _matched(results: pl.DataFrame, x: Quantity, y: Quantity, score: str) -> tuple[Quantity, str, dict[str, str]]:
    """Return x on y's classes, where enough models have it, and the models that have not."""
    own = x.with_variants(subset=f"classes:{y.dataset}")
    if x.metric not in _MATCHED or x.variants or y.dataset in ("", x.dataset):
        return x, "", {}
    if results.filter(
        pl.col("metric") == own.metric,
        pl.col("dataset") == own.dataset,
        pl.col("subset") == own.variant("subset"),
        pl.col("value").is_not_null(),
    ).is_empty():
        return x, "", {}
    try:
        having = set(values(results, own)["model"])
        wanted = set(values(results, y, score=score)["model"]) & set(values(results, x)["model"])
    except SeveralNumbersError:
        return x, "", {}
    lost = wanted - having
    if 2 * len(lost) > len(wanted):
        return x, "", {}
    return own, SAME_CLASSES, dict.fromkeys(sorted(lost), f"no {own}")


def _has_fewer_classes(results: pl.DataFrame, x: Quantity, y: Quantity) -> bool:
    if x.metric not in _MATCHED or x.variants or y.dataset in ("", x.dataset):
        return False
    if y.dataset in FEWER_CLASSES:
        return True
    rows = results.filter(pl.col("subset") == "", pl.col("classes").is_not_null())
    counts = dict(rows.group_by("dataset").agg(pl.col("classes").max()).iter_rows())
    return int(counts.get(y.dataset, 0)) < int(counts.get(x.dataset, 0)) and y.dataset in counts


def _contains(x: Quantity, y: Quantity) -> bool:
    """Return whether x's images contain those of the factor that y is of."""
    return bool(
        x.metric == "top1" and y.metric == "factor_accuracy" and x.dataset == y.dataset and not dict(x.variants)
    )


def _without_own_images(
    results: pl.DataFrame, frame: pl.DataFrame, x: Quantity, y: Quantity
) -> tuple[pl.DataFrame, str]:
    """Replace the accuracy on all images by that on those without the factor, from both accuracies and their n."""
    counted = frame
    for place, quantity in enumerate((x, y)):
        own = values(results, quantity).select("model", pl.col("n").alias(f"n{place}"))
        counted = counted.join(own, on="model", how="left", maintain_order="left")
    n_all, n_own = (counted[f"n{i}"].cast(pl.Float64).to_numpy() for i in (0, 1))
    rest = n_all - n_own
    hits = np.round(n_all * counted["0"].to_numpy()) - np.round(n_own * counted["1"].to_numpy())
    if not (np.isfinite(rest).all() and (rest > 0).all() and (hits >= 0).all() and (hits <= rest).all()):
        return frame, SHARED_IMAGES
    ends = [_wilson(int(h), int(r)) for h, r in zip(hits, rest, strict=True)]
    return (
        frame.with_columns(
            pl.Series("0", hits / rest),
            pl.Series("0_low", [low for low, _ in ends]),
            pl.Series("0_high", [high for _, high in ends]),
        ),
        OTHER_IMAGES,
    )


@lru_cache(maxsize=8192)
def _wilson(hits: int, n: int) -> tuple[float, float]:
    found = wilson_interval(hits, n)
    return found.low, found.high
