"""OOD detection from per-image statistics: every in-distribution set against every OOD set, by score."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze import metrics
from analyze.suites.base import Case, ModelCase, Number, attempt, without
from analyze.summaries import Summary
from cache_schema.errors import UserError, nearest

METRICS = ("auroc", "fpr95_id", "fpr95_ood", "aupr_in", "aupr_out")
SCORES = ("msp", "mls", "energy", "entropy", "variance", "gen", "margin", "tempscale", "mcm")


def score_of(name: str, rows: Summary) -> NDArray[Any]:
    """Return a score of every row, higher = more in-distribution.

    Parameters
    ----------
    name
        One of ``SCORES``. ``variance`` is that of the C probabilities, ``entropy`` and ``gen`` are negated,
        ``tempscale`` is the confidence at the fitted temperature, ``mcm`` that on unscaled cosines.
    rows
        Statistics.
    """
    if name in ("mls", "energy") and rows.facts.get("logits_kind", "logits") != "logits":
        raise UserError(f"{name} needs logits; the store holds {rows.facts['logits_kind'].replace('_', '-')}")
    if name == "msp":
        return rows["confidence"]
    if name == "mls":
        return rows["max_logit"]
    if name == "energy":
        return rows["energy"] if rows.facts.get("energy_temperature", 1.0) != 1.0 else rows["log_sum_exp"]
    if name == "entropy":
        return -rows["entropy"]
    if name == "variance":
        # sum p^2 / C - 1 / C^2: an increasing function of the sum of squares.
        return (rows["sum_squares"].astype(np.float64) - 1.0 / rows.n_classes) / rows.n_classes
    if name == "gen":
        return -rows["gen"]
    if name == "margin":
        return rows["margin"]
    if name == "tempscale":
        return rows["scaled_confidence"]
    if name == "mcm":
        return rows["mcm"]
    raise UserError(f"no score {name!r}{nearest(name, SCORES)}; there are {', '.join(SCORES)}")


def default_score(case: Case) -> str:
    """Return the study's score of a model: MCM for zero-shot CLIP, MSP for linear heads (both are
    options).
    """
    zero_shot = case.summary.model.head_kind == "zero-shot"
    options = case.settings["ood"]
    return str(options["default_zero_shot"] if zero_shot else options["default_linear"])


def score_options(case: Case, name: str) -> dict[str, Any]:
    """Return the options of a score that are not the study's default."""
    own = {"mcm": ("mcm_tau",), "energy": ("energy_temperature",), "gen": ("gen_m", "gen_gamma")}.get(
        name, ()
    )
    options = case.settings.changed("ood", *own) if own else {}
    return {**options, **case.settings.changed("ood", "class_masks")}


def compare(id_scores: NDArray[Any], ood_scores: NDArray[Any], case: Case) -> Iterator[Number]:
    """Yield the detection numbers of two sets of scores."""
    options = case.settings["ood"]
    n = id_scores.size + ood_scores.size
    threshold = case.settings.changed("ood", "threshold")
    method = case.settings.changed("ood", "aupr")
    yield attempt("auroc", lambda: metrics.auroc(id_scores, ood_scores), n=n)
    for positive in ("id", "ood"):
        yield attempt(
            f"fpr95_{positive}",
            lambda positive=positive: metrics.fpr_at_tpr(  # type: ignore[misc]
                id_scores, ood_scores, positive=positive, threshold=options["threshold"]
            ),
            n=n,
            options=threshold,
        )
    for name, positive in (("aupr_in", "id"), ("aupr_out", "ood")):
        yield attempt(
            name,
            lambda positive=positive: metrics.aupr(  # type: ignore[misc]
                id_scores, ood_scores, positive=positive, method=options["aupr"]
            ),
            n=n,
            options=method,
        )


def run(model: ModelCase) -> Iterator[Number]:
    """Yield every ID x OOD pair by score, and the near, far and all means."""
    outside = model.of_role("ood")
    for inside in model.of_role("id"):
        for name in model.settings["ood"]["scores"]:
            yield from _one_score(inside, outside, name)


def _one_score(inside: Case, outside: list[Case], name: str) -> Iterator[Number]:
    if name not in SCORES:
        raise UserError(f"no score {name!r}{nearest(name, SCORES)}; there are {', '.join(SCORES)}")
    if name == "mcm" and inside.summary.model.logit_scale is None:
        return  # not a missing number: the score is for zero-shot models
    variant: dict[str, Any] = {"id_dataset": inside.summary.dataset.id, "score": name}
    options = score_options(inside, name)
    used = inside.summary["valid"]
    if name == "tempscale":
        # The rows that the temperature was fitted on are no test.
        used = used & inside.held_out
        options = options | inside.settings.changed("split")
    found: dict[str, list[tuple[str, Number]]] = {}
    for case in outside:
        rows = case.summary.rows(case.summary["valid"])
        here = {
            **variant,
            "dataset": case.summary.dataset.id,
            "stores": (inside.summary.digest, case.summary.digest),
        }
        try:
            id_scores = score_of(name, inside.summary)[used]
            ood_scores = score_of(name, rows)
        except ValueError as error:
            yield from without(METRICS, str(error), options=options, **here)
            continue
        for number in compare(id_scores, ood_scores, inside):
            yield _with(number, options, here)
            found.setdefault(number.metric, []).append(
                (case.summary.dataset.distance, _with(number, options, here))
            )
    yield from means(found, variant)


def _with(number: Number, options: dict[str, Any], variant: dict[str, Any]) -> Number:
    return replace(number, options={**number.options, **options}, **variant)


def means(found: dict[str, list[tuple[str, Number]]], variant: dict[str, Any]) -> Iterator[Number]:
    """Yield unweighted means over the near, the far and all OOD sets; a set without a number takes the
    mean away.
    """
    for metric, numbers in found.items():
        for subset in ("near", "far", "all"):
            chosen = [number for distance, number in numbers if subset in ("all", distance)]
            if not chosen:
                continue
            here = {**variant, "subset": subset, "dataset": "", "options": chosen[0].options}
            missing = [number.dataset for number in chosen if number.value is None]
            stores = tuple(sorted({digest for number in chosen for digest in number.stores}))
            if missing:
                reason = f"no {metric} on {', '.join(str(name) for name in missing)}"
                yield Number(metric=metric, reason=reason, stores=stores, **here)
                continue
            value = float(np.mean([number.value for number in chosen if number.value is not None]))
            yield Number(
                metric=metric, value=value, n=sum(number.n or 0 for number in chosen), stores=stores, **here
            )
