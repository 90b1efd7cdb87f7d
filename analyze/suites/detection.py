"""OOD detection from per-image statistics: every in-distribution set against every OOD set, by score."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze import metrics
from analyze.intervals.detection_pairs import SortedScores, detection_numbers, detection_replicates
from analyze.suites.base import Case, ModelCase, Number, attempt, without
from analyze.suites.scores import score_of, spec_of
from cache_schema.errors import UserError

METRICS = ("auroc", "fpr95_id", "fpr95_ood", "aupr_in", "aupr_out")

def default_score(case: Case) -> str:
    """Return the study's score of a model: MCM for zero-shot CLIP, MSP for linear heads (both are
    options).
    """
    zero_shot = case.summary.model.head_kind == "zero-shot"
    options = case.settings["ood"]
    return str(options["default_zero_shot"] if zero_shot else options["default_linear"])


def score_options(case: Case, name: str) -> dict[str, Any]:
    """Return the options of a score that are not the study's default."""
    own = spec_of(name).options
    options = case.settings.changed("ood", *own) if own else {}
    if name == "klm":
        # Rows of other commands are of detectors that were fitted elsewhere.
        options["fit"] = f"validation:{case.calibrated_on}:{case.settings['split']['fraction']:g}"
        options |= case.settings.changed("split", "seed", "stratified")
    return {**options, **case.settings.changed("ood", "class_masks")}


def scored_rows(case: Case, name: str) -> NDArray[np.bool_]:
    """Return the rows that a score is taken of, (n,): rows that it was fitted on are no test."""
    valid = case.summary["valid"]
    return valid & case.held_out if "validation" in spec_of(name).needs else valid


def run(model: ModelCase) -> Iterator[Number]:
    """Yield every ID x OOD pair by score, and the near, far and all means."""
    outside = model.of_role("ood")
    for inside in model.of_role("id"):
        for name in model.settings["ood"]["scores"]:
            yield from _one_score(model, inside, outside, name)
    for dataset, reason in sorted(model.problems.items()):
        yield from without(METRICS, reason, dataset=dataset)


def _one_score(model: ModelCase, inside: Case, outside: list[Case], name: str) -> Iterator[Number]:
    if "logit scale" in spec_of(name).needs and inside.summary.model.logit_scale is None:
        return  # not a missing number: the score is for zero-shot models
    variant: dict[str, Any] = {"id_dataset": inside.summary.dataset.id, "score": name}
    options = score_options(inside, name)
    found: dict[str, list[tuple[str, Number, NDArray[Any] | None]]] = {}
    known: dict[int, tuple[NDArray[Any], SortedScores]] = {}
    for case in outside:
        card = case.summary.dataset
        here = {**variant, "dataset": card.id, "stores": (inside.summary.digest, case.summary.digest)}
        try:
            id_scores, ood_scores = _scores(model, inside, case, name)
        except ValueError as error:
            numbers: list[tuple[Number, NDArray[Any] | None]] = [
                (n, None) for n in without(METRICS, str(error), options=options)
            ]
        else:
            numbers = list(compare(id_scores, ood_scores, inside, case, known))
        for number, replicates in numbers:
            told = replace(number, **{**here, "options": {**number.options, **options}})
            yield told
            found.setdefault(number.metric, []).append((card.distance, told, replicates))
    yield from means(found, variant, inside)


def _scores(model: ModelCase, inside: Case, outside: Case, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the scores of the ID rows and of the OOD rows that count."""
    summary = inside.summary
    card = outside.summary.dataset
    if model.settings["ood"]["class_masks"] and card.class_mask is not None:
        subset = model.subsets.get((summary.dataset.id, card.id), f"no summary on the classes of {card.id}")
        if isinstance(subset, str):
            raise UserError(subset)
        if "validation" in spec_of(name).needs:
            raise UserError(f"{name} was fitted on all classes of {summary.dataset.id}, not on those of {card.id}")
        summary = subset
    used = scored_rows(replace(inside, summary=summary), name)
    return score_of(name, summary)[used], score_of(name, outside.summary)[outside.summary["valid"]]


def compare(
    id_scores: NDArray[Any],
    ood_scores: NDArray[Any],
    inside: Case,
    outside: Case,
    known: dict[int, tuple[NDArray[Any], SortedScores]],
) -> Iterator[tuple[Number, NDArray[Any] | None]]:
    """Yield the detection numbers of two sets of scores, each with its bootstrap replicates.

    ``known`` keeps the ID scores of an earlier pair in order: most often they are those of this one.
    """
    options = inside.settings["ood"]
    n = id_scores.size + ood_scores.size
    threshold = inside.settings.changed("ood", "threshold")
    method = inside.settings.changed("ood", "aupr")
    replicates: dict[str, NDArray[Any]] = {}
    found: list[Number] | None = None
    if _plain(id_scores, ood_scores):
        kept = known.get(0)
        if kept is None or not np.array_equal(kept[0], id_scores):
            kept = known[0] = (id_scores, SortedScores.of(id_scores))
        ordered, other = kept[1], SortedScores.of(ood_scores)
        replicates = _replicates(ordered, other, inside, outside)
        if not (threshold or method):
            found = [Number(metric=k, value=v, n=n) for k, v in detection_numbers(ordered, other).items()]
    if found is None:
        found = _one_by_one(id_scores, ood_scores, options, threshold, method)
    for number in found:
        # The weighted passes know the default conventions only: no interval is better than another number's.
        drawn = replicates.get(number.metric) if not number.options else None
        yield _bounded(number, drawn, inside), drawn


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


def _replicates(
    ordered: SortedScores, other: SortedScores, inside: Case, outside: Case
) -> dict[str, NDArray[Any]]:
    shared = inside.resampling
    n, m = ordered.rows.size, other.rows.size
    if shared is None or min(n, m) < 2:
        return {}
    return dict(
        detection_replicates(
            ordered,
            other,
            shared.weights(inside.summary.dataset.id, n),
            shared.weights(outside.summary.dataset.id, m),
        )
    )


def _bounded(number: Number, replicates: NDArray[Any] | None, inside: Case) -> Number:
    if replicates is None or number.value is None:
        return number
    low, high = inside.resampling.interval(number.value, replicates, low=0.0, high=1.0)
    return replace(number, low=low, high=high)


def means(
    found: dict[str, list[tuple[str, Number, NDArray[Any] | None]]], variant: dict[str, Any], inside: Case
) -> Iterator[Number]:
    """Yield unweighted means over the near, the far and all OOD sets; a set without a number takes the
    mean away.
    """
    for metric, numbers in found.items():
        for subset in ("near", "far", "all"):
            chosen = [(number, drawn) for distance, number, drawn in numbers if subset in ("all", distance)]
            if not chosen:
                continue
            here = {**variant, "subset": subset, "dataset": "", "options": chosen[0][0].options}
            here["stores"] = tuple(sorted({digest for number, _ in chosen for digest in number.stores}))
            missing = [str(number.dataset) for number, _ in chosen if number.value is None]
            if missing:
                yield Number(metric=metric, reason=f"no {metric} on {', '.join(missing)}", **here)
                continue
            value = float(np.mean([number.value for number, _ in chosen if number.value is not None]))
            number = Number(metric=metric, value=value, n=sum(number.n or 0 for number, _ in chosen), **here)
            drawn = [replicates for _, replicates in chosen if replicates is not None]
            mean = np.mean(drawn, axis=0) if len(drawn) == len(chosen) else None
            yield _bounded(number, mean, inside)
