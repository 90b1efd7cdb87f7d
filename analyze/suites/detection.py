"""OOD detection from per-image statistics: every in-distribution set against every OOD set, by score."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze import metrics
from analyze.annotations.clips import has_clips
from analyze.fits.registry import FITS
from analyze.intervals.detection_pairs import SortedScores, detection_numbers
from analyze.intervals.detection_points import point_part
from analyze.intervals.set_means import Part, SetMeans, part_of
from analyze.reading.class_spaces import other_classes, other_view
from analyze.suites.base import (
    Case,
    ModelCase,
    Number,
    attempt,
    with_interval,
    within,
    without,
    without_interval,
)
from analyze.suites.scores import score_of, spec_of
from closerlook_common.errors import UserError

METRICS = ("auroc", "fpr95_id", "fpr95_ood", "aupr_in", "aupr_out")
FURTHER: Mapping[str, Callable[[NDArray[Any], NDArray[Any]], float]] = {
    "partial_auroc10": partial(metrics.partial_auroc, max_fpr=0.1),
    "eer": metrics.equal_error_rate,
}
"""Metrics that ``[ood] further`` asks for."""
OTHER_CONVENTION = "of another convention than the default"
OF_CLIPS = "frames of one clip are not independent"


def score_options(case: Case, name: str) -> dict[str, Any]:
    """Return the options of a score that are not the study's default."""
    own = spec_of(name).options
    options = case.settings.changed("ood", *own) if own else {}
    if fit := spec_of(name).fit:
        options |= FITS[fit].options(case.settings, case.calibrated_on)
    return {**options, **case.settings.changed("ood", "class_masks")}


def scored_rows(case: Case, name: str) -> NDArray[np.bool_]:
    """Return the rows that a score is taken of, (n,): rows that it was fitted on are no test."""
    valid = case.summary["valid"]
    return valid & case.held_out if spec_of(name).fit else valid


def run(model: ModelCase) -> Iterator[Number]:
    """Yield every ID x OOD pair by score, and the near, far and all means."""
    outside = model.of_role("ood")
    for inside in model.of_role("id"):
        for name in model.settings["ood"]["scores"]:
            yield from _one_score(model, inside, outside, name)
    for dataset, reason in sorted(model.problems.items()):
        if _role(model, dataset) == "id":
            yield from without(METRICS, reason, dataset=dataset)


def _role(model: ModelCase, dataset: str) -> str:
    return model.datasets[dataset].role if dataset in model.datasets else ""


def _one_score(model: ModelCase, inside: Case, outside: list[Case], name: str) -> Iterator[Number]:
    if "logit scale" in spec_of(name).needs and inside.summary.model.logit_scale is None:
        return  # not a missing number: the score is for zero-shot models
    variant: dict[str, Any] = {"id_dataset": inside.summary.dataset.id, "score": name}
    options = score_options(inside, name)
    found: dict[str, list[tuple[str, Number]]] = {}
    sums = SetMeans()
    known: dict[int, tuple[NDArray[Any], SortedScores]] = {}
    for case in outside:
        card = case.summary.dataset
        here = {**variant, "dataset": card.id, "stores": (inside.summary.digest, case.summary.digest)}
        try:
            id_scores, ood_scores = _scores(model, inside, case, name)
        except ValueError as error:
            names = (*METRICS, *inside.settings["ood"]["further"])
            numbers: list[tuple[Number, Part]] = [(n, "") for n in without(names, str(error), options=options)]
        else:
            numbers = list(compare(id_scores, ood_scores, inside, case, known))
        for number, part in numbers:
            given = replace(number, **{**here, "options": {**number.options, **options}})
            yield given
            found.setdefault(number.metric, []).append((card.distance, given))
            sums.add(number.metric, card.distance, card.id, part)
    for dataset, reason in sorted(model.problems.items()):
        if _role(model, dataset) == "ood":  # the means are not of fewer sets because one cannot be used
            names = (*METRICS, *inside.settings["ood"]["further"])
            for number in without(names, reason, dataset=dataset, options=options, **variant):
                yield number
                found.setdefault(number.metric, []).append((model.datasets[dataset].distance, number))
    yield from means(found, sums, variant)


def _scores(model: ModelCase, inside: Case, outside: Case, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the scores of the ID rows and of the OOD rows that count."""
    summary = inside.summary
    card = outside.summary.dataset
    if reason := not_comparable(inside, outside):
        raise UserError(reason)
    if spec_of(name).fit and outside.calibrated_on != inside.calibrated_on:
        # The two sides would be scored with fits of different sets.
        if outside.calibrated_on:
            fitted = f"of {card.id} is computed with what was fitted on {outside.calibrated_on}, its shift_of"
        else:
            decides = f"'python -m cache_schema dataset CACHE {card.id} --shift-of {summary.dataset.id}'"
            fitted = f"of {card.id} needs to know which of several in-distribution sets it goes with: {decides}"
        raise UserError(f"{name} {fitted}")
    if model.settings["ood"]["class_masks"] and card.class_mask is not None:
        subset = model.subsets.get((summary.dataset.id, card.id), f"no summary on the classes of {card.id}")
        if isinstance(subset, str):
            raise UserError(subset)
        if spec_of(name).fit:
            raise UserError(f"{name} was fitted on all classes of {summary.dataset.id}, not on those of {card.id}")
        summary = subset
    used = scored_rows(replace(inside, summary=summary), name)
    return score_of(name, summary)[used], score_of(name, outside.summary)[outside.summary["valid"]]


def not_comparable(inside: Case, outside: Case) -> str:
    """Return why no score can be compared; numbers of columns are known where all of them compete."""
    cards = [case.summary.dataset for case in (inside, outside)]
    whole = all(card.class_mask is None and card.class_map is None for card in cards)
    sizes = [case.summary.n_classes if whole else 0 for case in (inside, outside)]
    return other_classes(*cards, n_inside=sizes[0], n_outside=sizes[1]) or other_view(*cards)


def compare(
    id_scores: NDArray[Any],
    ood_scores: NDArray[Any],
    inside: Case,
    outside: Case,
    known: dict[int, tuple[NDArray[Any], SortedScores]],
) -> Iterator[tuple[Number, Part]]:
    """Yield the detection numbers of two sets of scores, each with what its rows add to it.

    ``known`` keeps the ID scores of an earlier pair in order: most often they are those of this one.
    """
    options = inside.settings["ood"]
    n = id_scores.size + ood_scores.size
    threshold = inside.settings.changed("ood", "threshold")
    method = inside.settings.changed("ood", "aupr")
    plain = _plain(id_scores, ood_scores)
    found: list[Number] | None = None
    if plain:
        kept = known.get(0)
        if kept is None or not np.array_equal(kept[0], id_scores):
            kept = known[0] = (id_scores, SortedScores.of(id_scores))
        ordered, other = kept[1], SortedScores.of(ood_scores)
        if not (threshold or method):
            found = [Number(metric=k, value=v, n=n) for k, v in detection_numbers(ordered, other).items()]
    if found is None:
        found = _one_by_one(id_scores, ood_scores, options, threshold, method)
    level = inside.settings["bootstrap"]["confidence_level"]
    clips = any(has_clips(case.summary.metadata) for case in (inside, outside))
    for name in options["further"]:
        number = attempt(name, partial(FURTHER[name], id_scores, ood_scores), n=n)
        if number.value is None:
            yield number, number.reason
            continue
        part = OF_CLIPS if clips else point_part(name, ordered, other, level=level)
        yield bounded_by(number, part), part
    for number in found:
        if number.options or not plain:  # the intervals are of the default conventions
            yield without_interval(number, OTHER_CONVENTION), OTHER_CONVENTION
            continue
        part = OF_CLIPS if clips else part_of(number.metric, ordered, other, level=level)
        yield bounded_by(number, part), part


def bounded_by(number: Number, part: Part) -> Number:
    """Return a number with the interval of its part, or with the reason why it has none."""
    return without_interval(number, part) if isinstance(part, str) else with_interval(number, part.interval)


def _plain(id_scores: NDArray[Any], ood_scores: NDArray[Any]) -> bool:
    """Whether both sides have rows, all finite; otherwise the metrics themselves say what is wrong."""
    return bool(id_scores.size and ood_scores.size and np.isfinite(id_scores).all() and np.isfinite(ood_scores).all())


def _one_by_one(
    id_scores: NDArray[Any],
    ood_scores: NDArray[Any],
    options: Mapping[str, Any],
    threshold: dict[str, Any],
    method: dict[str, Any],
) -> list[Number]:
    n = id_scores.size + ood_scores.size

    def fpr(positive: Any) -> float:
        return metrics.fpr_at_tpr(id_scores, ood_scores, positive=positive, threshold=options["threshold"])

    def aupr(positive: Any) -> float:
        return metrics.aupr(id_scores, ood_scores, positive=positive, method=options["aupr"])

    return [
        attempt("auroc", lambda: metrics.auroc(id_scores, ood_scores), n=n),
        attempt("fpr95_id", lambda: fpr("id"), n=n, options=threshold),
        attempt("fpr95_ood", lambda: fpr("ood"), n=n, options=threshold),
        attempt("aupr_in", lambda: aupr("id"), n=n, options=method),
        attempt("aupr_out", lambda: aupr("ood"), n=n, options=method),
    ]


def means(found: dict[str, list[tuple[str, Number]]], sums: SetMeans, variant: dict[str, Any]) -> Iterator[Number]:
    """Yield unweighted means over the near, the far and all OOD sets; a set without a number takes the
    mean away.
    """
    for metric, numbers in found.items():
        for subset in ("near", "far", "all"):
            chosen = [number for distance, number in numbers if subset in ("all", distance)]
            if not chosen:
                continue
            here = {**variant, "subset": subset, "dataset": "", "options": chosen[0].options}
            here["stores"] = tuple(sorted({digest for number in chosen for digest in number.stores}))
            missing = [str(number.dataset) for number in chosen if number.value is None]
            if missing:
                yield Number(metric=metric, reason=f"no {metric} on {', '.join(missing)}", **here)
                continue
            value = float(np.mean([number.value for number in chosen if number.value is not None]))
            number = Number(metric=metric, value=value, n=sum(number.n or 0 for number in chosen), **here)
            yield within(number, partial(sums.interval, metric, subset))
