"""Independent definitions of every metric of the result table: scikit-learn, scipy, or loops word by word."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import integrate, stats
from scipy.optimize import brentq
from scipy.special import log_softmax, logit
from sklearn import metrics as sk

from closerlook_common.errors import UserError


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


def whole_groups(right: NDArray[Any], anchors: NDArray[Any]) -> float:
    names = sorted(set(anchors.tolist()))
    return sum(all(r for r, a in zip(right, anchors, strict=True) if a == name) for name in names) / len(names)


def shapes(predicted: NDArray[Any], shape: NDArray[Any], texture: NDArray[Any]) -> float:
    decided = [p == s for p, s, t in zip(predicted, shape, texture, strict=True) if s != t and (p in (s, t))]
    if not decided:
        raise UserError("undefined")
    return float(np.mean(decided))


def kappa(a: NDArray[Any], b: NDArray[Any]) -> float:
    return 1.0 if (a == b).all() else float(sk.cohen_kappa_score(a, b))


def success_counts(rates: NDArray[Any]) -> NDArray[np.float64]:
    return stats.poisson_binom(rates).pmf(np.arange(rates.size + 1))


def error_if_calibrated(c: NDArray[Any], groups: list[NDArray[np.bool_]]) -> float:
    return sum(success_counts(c[g]) @ np.abs(np.arange(g.sum() + 1) - c[g].sum()) for g in groups) / c.size


def drawn_p(c: NDArray[Any], y: NDArray[Any]) -> float:
    """Consistency resampling, image by image."""
    rng, draws = np.random.default_rng(5), 20_000
    totals = np.zeros(draws)
    for g in by_width(c):
        totals += np.abs((rng.random((draws, g.sum())) < c[g]).sum(axis=1) - c[g].sum())
    return float(np.mean(totals / c.size >= binned(c, y, by_width(c)) - 1e-12))


def debiased(c: NDArray[Any], y: NDArray[Any]) -> float:
    total = 0.0
    for g in by_width(c):
        gap, scale = abs(c[g].mean() - y[g].mean()), np.sqrt(y[g].mean() * (1 - y[g].mean()) / g.sum())
        folded = stats.foldnorm(gap / scale, scale=scale).mean() if scale else gap
        total += (2 * gap - folded) * g.mean()
    return max(float(total), 0.0)


def brier_z(c: NDArray[Any], y: NDArray[Any]) -> float:
    variance = sum((1 - 2 * p) ** 2 * p * (1 - p) for p in c)
    if variance == 0:
        raise UserError("undefined")
    return float(sum((right - p) * (1 - 2 * p) for p, right in zip(c, y, strict=True)) / np.sqrt(variance))


def running(c: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    if not (c * (1 - c)).any():
        raise UserError("undefined")
    return np.array([(y - c)[c <= cut].sum() for cut in np.unique(c)]) / np.sqrt((c * (1 - c)).sum())


def size_tail(size: float) -> float:
    """P(max abs(B) >= size) by reflections."""
    k = np.arange(-50, 51)
    cdf = stats.norm.cdf
    return float(1 - ((-1.0) ** np.abs(k) * (cdf((2 * k + 1) * size) - cdf((2 * k - 1) * size))).sum())


def range_tail(size: float) -> float:
    """P(range of B >= size): the density of the maximum where the minimum stays within ``size`` below it."""
    odd = np.arange(1, 400, 2)

    def stays(below: float, above: float) -> float:
        wide = below + above
        return float(
            (4 / (odd * np.pi) * np.sin(odd * np.pi * below / wide) * np.exp(-((odd * np.pi / wide) ** 2) / 2)).sum()
        )

    def density(above: float) -> float:
        step = 1e-5
        return (stays(size - above, above + step) - stays(size - above, above - step)) / (2 * step)

    return float(1 - integrate.quad(density, 2e-5, size - 2e-5, limit=200)[0])


def widest(c: NDArray[Any], y: NDArray[Any]) -> float:
    cuts = [-1.0, *np.unique(c)]
    return float(max(abs((y - c)[(c > low) & (c <= high)].sum()) for low in cuts for high in cuts)) / c.size


def within_predictions(c: NDArray[Any], y: NDArray[Any], predicted: NDArray[Any]) -> float:
    shares = [(predicted == k).mean() for k in np.unique(predicted)]
    own = [binned(c[predicted == k], y[predicted == k], by_width(c[predicted == k])) for k in np.unique(predicted)]
    return float(np.dot(shares, own))


def skill(losses: NDArray[Any], y: NDArray[Any], null: Callable[[NDArray[Any]], float]) -> float:
    shares = np.unique(y, return_counts=True)[1] / y.size
    if shares.size == 1:
        raise UserError("undefined")
    return float(1 - losses.mean() / null(shares))


def squares(p: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    return ((p - (y[:, None] == np.arange(p.shape[1]))) ** 2).sum(axis=1)


def lowest_risk(c: NDArray[Any], right: NDArray[Any]) -> float:
    """Integrate the least risk that a mixture of two thresholds reaches, coverage by coverage."""
    joint = [(0.0, 0.0), *((v, v * risk) for v, risk in points(c, right))]
    x, y = (np.array(column) for column in zip(*joint, strict=True))

    def risk(coverage: float) -> float:
        a, b = np.flatnonzero(x <= coverage), np.flatnonzero(x >= coverage)
        wide = np.maximum(x[b][:, None] - x[a], 1e-300)
        lines = y[a] + (y[b][:, None] - y[a]) * (coverage - x[a]) / wide
        return float(np.where(x[b][:, None] > x[a], lines, y[b][:, None]).min() / coverage)

    return float(integrate.quad(risk, 0, 1, points=x[1:-1][:40], limit=2000, epsabs=1e-7)[0])


def crossing(inside: NDArray[Any], outside: NDArray[Any]) -> float:
    fpr, tpr, _ = sk.roc_curve(*detection(inside, outside, "id"), drop_intermediate=False)
    along = np.append(0.0, np.cumsum(np.diff(fpr) + np.diff(tpr)))
    place = brentq(lambda s: np.interp(s, along, fpr) + np.interp(s, along, tpr) - 1, 0, along[-1], xtol=1e-13)
    return float(np.interp(place, along, fpr))


def soft(z: NDArray[Any], q: NDArray[Any]) -> float:
    return float(np.mean([-(q[i] @ log_softmax(z[i])) for i in range(len(z))]))


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
    "ece_debiased": debiased,
    "ece_if_calibrated": lambda c, y: error_if_calibrated(c, by_width(c)),
    "ece_p": drawn_p,
    "spiegelhalter_z": brier_z,
    "spiegelhalter_p": lambda c, y: float(2 * stats.norm.sf(abs(brier_z(c, y)))),
    "ks_p": lambda c, y: size_tail(float(np.abs(running(c, y)).max())),
    "kuiper_error": widest,
    "kuiper_p": lambda c, y: range_tail(float(np.ptp(np.append(running(c, y), 0.0)))),
    "smece": smooth,
    "smece_logit": lambda c, y: smooth(c, y, "logit"),
    "classwise_ece": classwise,
    "ace": adaptive,
    "tace": lambda p, y: adaptive(p, y, 0.01),
    "nll": lambda z, y: float(-log_softmax(z, axis=1)[np.arange(len(y)), y].mean()),
    "brier": lambda p, y: float(((p - (y[:, None] == np.arange(p.shape[1]))) ** 2).sum(axis=1).mean()),
    "top_label_ece": within_predictions,
    "d2_log_loss": lambda z, y: skill(-log_softmax(z, axis=1)[np.arange(len(y)), y], y, stats.entropy),
    "d2_brier": lambda p, y: skill(squares(p, y), y, lambda q: float((q * (1 - q)).sum())),
    "soft_nll": soft,
    "soft_brier": lambda p, q: float(np.mean([np.sum((a - b) ** 2) for a, b in zip(p, q, strict=True)])),
    "e_augrc": lambda c, right: generalised(c, right) - (1 - right.mean()) ** 2 / 2,
    "achievable_aurc": lowest_risk,
    "partial_auroc10": lambda i, o: float(sk.roc_auc_score(*detection(i, o, "id"), max_fpr=0.1)),
    "eer": crossing,
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
    "anchor_accuracy": whole_groups,
    "error_consistency": kappa,
}
