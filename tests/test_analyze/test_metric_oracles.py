"""Every metric of the result table against an independent implementation, on the same awkward inputs.

The oracles are scikit-learn, scipy, or float64 loops that follow the definition word by word; a metric joins the
registry only with its oracle here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import log_softmax, logit, softmax
from sklearn import metrics as sk

from analyze.metrics import METRICS
from cache_schema.errors import UserError

Columns = dict[str, Any]


def _columns(n: int, n_classes: int, spread: float, digits: int | None = None, one_class: bool = False) -> Columns:
    """Everything that a metric may need, of one made-up model."""
    rng = np.random.default_rng(n + n_classes)
    logits = rng.normal(0, spread, (n, n_classes))
    if digits is not None:
        logits = np.round(logits, digits)
    labels = np.where(rng.random(n) < 0.6, logits.argmax(axis=1), rng.integers(0, n_classes, n))
    if one_class:
        labels[:] = 0
    probabilities = softmax(logits, axis=1)
    confidences = np.minimum(probabilities.max(axis=1), 1.0)
    if digits is not None:
        confidences = np.round(confidences, 1)
    scores = rng.normal(0, spread, (2, n))
    names = np.array(["cat", "dog", "car"])
    correct = logits.argmax(axis=1) == labels
    return {
        "logits": logits,
        "labels": labels,
        "probabilities": probabilities,
        "confidences": confidences,
        "correct": correct,
        "id_scores": np.round(scores[0] + spread, digits) if digits is not None else scores[0] + spread,
        "ood_scores": np.round(scores[1], digits) if digits is not None else scores[1],
        "member": np.arange(n) % 3 == 0,
        "predicted_category": names[np.arange(n) % 3],
        "shape": names[rng.integers(0, 3, n)],
        "texture": names[(np.arange(n) + rng.integers(0, 2, n)) % 3],
        "correct_a": correct,
        "correct_b": rng.random(n) < 0.5,
    }


CASES: dict[str, Columns] = {
    "random": _columns(240, 8, 2.0),
    "saturated": _columns(240, 8, 60.0),
    "tied": _columns(240, 8, 2.0, digits=0),
    "one row": _columns(1, 4, 1.0),
    "two rows": _columns(2, 4, 1.0),
    "labels of one class": _columns(150, 6, 2.0, one_class=True),
    "a model of one class": _columns(40, 1, 1.0),
    "thousand classes": _columns(120, 1000, 4.0),
}


def by_width(confidences: NDArray[Any], n_bins: int = 15) -> list[NDArray[np.bool_]]:
    """Rows by bin (lo, hi]; 0 belongs to the first."""
    edges = [float(Fraction(k, n_bins)) for k in range(n_bins + 1)]
    masks = [(confidences > low) & (confidences <= high) for low, high in itertools.pairwise(edges)]
    masks[0] |= confidences == 0
    return [mask for mask in masks if mask.any()]


def by_mass(confidences: NDArray[Any], n_bins: int = 15) -> list[NDArray[np.bool_]]:
    """Rows by about equal count; equal confidences stay together, in the lower group."""
    parts = np.array_split(np.sort(confidences), min(n_bins, confidences.size))
    edges = [-np.inf, *sorted({(a[-1] + b[0]) / 2 for a, b in itertools.pairwise(parts)}), np.inf]
    masks = [(confidences > low) & (confidences <= high) for low, high in itertools.pairwise(edges)]
    return [mask for mask in masks if mask.any()]


def binned(c: NDArray[Any], y: NDArray[Any], groups: list[NDArray[np.bool_]], norm: str = "l1") -> float:
    gaps = [abs(c[g].mean() - y[g].mean()) for g in groups]
    shares = [g.mean() for g in groups]
    if norm == "max":
        return float(max(gaps))
    if norm == "l2":
        return float(np.sqrt(np.dot(np.square(gaps), shares)))
    if norm == "debiased":
        squares = [
            (c[g].mean() - y[g].mean()) ** 2 - y[g].mean() * (1 - y[g].mean()) / (g.sum() - 1) if g.sum() > 1 else 0.0
            for g in groups
        ]
        return float(np.sqrt(max(np.dot(squares, shares), 0.0)))
    return float(np.dot(gaps, shares))


def ks(c: NDArray[Any], y: NDArray[Any]) -> float:
    return float(max(abs(np.where(c <= cut, c - y, 0.0).sum()) for cut in np.unique(c)) / c.size)


def smooth(c: NDArray[Any], y: NDArray[Any], kernel: str = "reflected") -> float:
    """The fixed point of the smoothed error, integrated image by image."""
    surplus = (c - y) / c.size

    def at(sigma: float) -> float:
        if kernel == "logit":
            axis = np.linspace(-14, 14, 8001)
            wide, places = 4 * sigma, [logit(np.clip(c, 1e-3, 1 - 1e-3))]
        else:
            axis, wide = np.linspace(0, 1, 4001), sigma
            reach = int(np.ceil(4 * sigma)) + 1
            places = [image - 2 * k for k in range(-reach, reach + 1) for image in (c, -c)]
        total = np.zeros(axis.size)
        for place in places:
            total += np.exp(-0.5 * ((axis[:, None] - place) / wide) ** 2) @ surplus / (wide * np.sqrt(2 * np.pi))
        return float(np.trapezoid(np.abs(total), axis))

    if not surplus.any():
        return 0.0
    if at(1.0) >= 1.0:
        return 1.0
    return float(brentq(lambda sigma: at(sigma) - sigma, 2e-3, 1.0, xtol=1e-7))


def classwise(p: NDArray[Any], y: NDArray[Any]) -> float:
    return float(np.mean([binned(p[:, c], y == c, by_width(p[:, c])) for c in range(p.shape[1])]))


def adaptive(p: NDArray[Any], y: NDArray[Any], threshold: float = 0.0) -> float:
    gaps = []
    for c in range(p.shape[1]):
        kept = p[:, c] > threshold if threshold else np.ones(len(p), bool)
        if kept.any():
            column, own = p[kept, c], y[kept] == c
            gaps += [abs(column[g].mean() - own[g].mean()) for g in by_mass(column)]
    return float(np.mean(gaps))


def points(c: NDArray[Any], right: NDArray[Any]) -> list[tuple[float, float]]:
    """Coverage and risk at every threshold, the most confident first."""
    cuts = np.unique(c)[::-1]
    return [((c >= cut).mean(), 1 - right[c >= cut].mean()) for cut in cuts]


def area_under_risk(c: NDArray[Any], right: NDArray[Any]) -> float:
    area, last = 0.0, (0.0, points(c, right)[0][1])
    for point in points(c, right):
        area += (point[0] - last[0]) * (point[1] + last[1]) / 2
        last = point
    return area


def excess(c: NDArray[Any], right: NDArray[Any]) -> float:
    error = 1 - right.mean()
    best = error + (1 - error) * np.log(1 - error) if error < 1 else 1.0
    return area_under_risk(c, right) - best


def generalised(c: NDArray[Any], right: NDArray[Any]) -> float:
    area, last = 0.0, (0.0, 0.0)
    for coverage, risk in points(c, right):
        area += (coverage - last[0]) * (coverage * risk + last[1]) / 2
        last = (coverage, coverage * risk)
    return area


def ranking(c: NDArray[Any], right: NDArray[Any]) -> float:
    if right.all() or not right.any():
        raise UserError("undefined")
    return float(sk.roc_auc_score(right, c))


def constraint(c: NDArray[Any], right: NDArray[Any]) -> float:
    late = [coverage for coverage, risk in points(c, right) if 1 - risk >= 0.99 and coverage * c.size > 200.5]
    return float(max(late, default=0.0))


def detection(inside: NDArray[Any], outside: NDArray[Any], positive: str) -> tuple[NDArray[Any], NDArray[Any]]:
    truth = np.repeat([True, False], [inside.size, outside.size])
    scores = np.concatenate([inside, outside])
    return (truth, scores) if positive == "id" else (~truth, -scores)


def false_rate(inside: NDArray[Any], outside: NDArray[Any], positive: str) -> float:
    fpr, tpr, _ = sk.roc_curve(*detection(inside, outside, positive), drop_intermediate=False)
    return float(fpr[np.argmax(tpr >= 0.95)])


def precision(inside: NDArray[Any], outside: NDArray[Any], positive: str) -> float:
    return float(sk.average_precision_score(*detection(inside, outside, positive)))


def harder(right: NDArray[Any], member: NDArray[Any]) -> float:
    if right.all():
        raise UserError("undefined")
    return float((~right[member]).mean() / (~right).mean())


def shapes(predicted: NDArray[Any], shape: NDArray[Any], texture: NDArray[Any]) -> float:
    decided = [
        p == s for p, s, t in zip(predicted, shape, texture, strict=True) if s != t and (p in (s, t))
    ]
    if not decided:
        raise UserError("undefined")
    return float(np.mean(decided))


def kappa(a: NDArray[Any], b: NDArray[Any]) -> float:
    return 1.0 if (a == b).all() else float(sk.cohen_kappa_score(a, b))


ORACLES: dict[str, Callable[..., float]] = {
    "top1": lambda right: float(np.mean(right)),
    "top5": lambda z, y: float(
        np.mean([y[i] in sorted(range(z.shape[1]), key=lambda c: (-z[i, c], c))[:5] for i in range(len(y))])
    ),
    "ece": lambda c, y: binned(c, y, by_width(c)),
    "ece_mass": lambda c, y: binned(c, y, by_mass(c)),
    "ece_mass100": lambda c, y: binned(c, y, by_mass(c, 100)),
    "ece_l2": lambda c, y: binned(c, y, by_width(c), "l2"),
    "ece_l2_debiased": lambda c, y: binned(c, y, by_mass(c), "debiased"),
    "mce": lambda c, y: binned(c, y, by_width(c), "max"),
    "calibration_gap": lambda c, y: float(c.mean() - y.mean()),
    "ks_error": ks,
    "smece": smooth,
    "smece_logit": lambda c, y: smooth(c, y, "logit"),
    "classwise_ece": classwise,
    "ace": adaptive,
    "tace": lambda p, y: adaptive(p, y, 0.01),
    "nll": lambda z, y: float(-log_softmax(z, axis=1)[np.arange(len(y)), y].mean()),
    "brier": lambda p, y: float(((p - (y[:, None] == np.arange(p.shape[1]))) ** 2).sum(axis=1).mean()),
    "aurc": area_under_risk,
    "e_aurc": excess,
    "augrc": generalised,
    "correctness_auroc": ranking,
    "coverage_at_risk5": lambda c, y: float(max((v for v, risk in points(c, y) if risk <= 0.05), default=0.0)),
    "risk_at_coverage80": lambda c, y: next(risk for v, risk in points(c, y) if v >= 0.8),
    "sac99": constraint,
    "auroc": lambda i, o: float((i[:, None] > o).mean() + 0.5 * (i[:, None] == o).mean()),
    "fpr95_id": lambda i, o: false_rate(i, o, "id"),
    "fpr95_ood": lambda i, o: false_rate(i, o, "ood"),
    "aupr_in": lambda i, o: precision(i, o, "id"),
    "aupr_out": lambda i, o: precision(i, o, "ood"),
    "factor_accuracy": lambda right, member: float(right[member].mean()),
    "error_ratio": harder,
    "shape_bias": shapes,
    "error_consistency": kappa,
}

# A direct integral over a grid, against cosine series; the others differ by rounding.
LOOSE = {"smece": 1e-4, "smece_logit": 1e-4}


def test_every_metric_has_an_oracle() -> None:
    assert set(ORACLES) == set(METRICS)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", METRICS)
def test_equals_its_oracle(name: str, case: str) -> None:
    spec = METRICS[name]
    given = [CASES[case][column] for column in spec.needs]
    try:
        wanted = ORACLES[name](*given)
    except UserError:
        with pytest.raises(UserError):
            spec.function(*given)
        return
    got = spec.function(*given)
    assert type(got) is float
    assert got == pytest.approx(wanted, rel=1e-9, abs=LOOSE.get(name, 1e-9))


def test_the_cases_are_what_they_are_called() -> None:
    assert (CASES["saturated"]["confidences"] == 1).mean() > 0.3
    assert np.unique(CASES["tied"]["confidences"]).size < 12
    assert np.unique(CASES["tied"]["id_scores"]).size < 15
    assert [len(CASES[name]["labels"]) for name in ("one row", "two rows")] == [1, 2]
    assert CASES["thousand classes"]["logits"].shape[1] == 1000
    assert not CASES["labels of one class"]["labels"].any()
