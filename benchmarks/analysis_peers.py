"""The peers of benchmarks/analysis.py: for each number what is installed, timed on the same arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Timed = dict[str, tuple[float, float, int]]


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        return None
    return torch


def peers(
    logits: Any, labels: Any, ood: Any, median: Callable[..., tuple[float, Any]]
) -> Iterator[tuple[str, Timed, tuple[str, str, str, str]]]:
    """Yield number, {peer: (seconds, value, times the card needs it)}, and the key of our row.

    The key is metric, score, calibrator, subset.
    """
    from scipy.special import softmax
    from sklearn import metrics as sk

    torch = _torch()
    p = softmax(logits, axis=1)
    confidence, prediction = p.max(axis=1), p.argmax(axis=1)
    right = prediction == labels
    t_logits = torch.from_numpy(logits) if torch else None
    t_labels = torch.from_numpy(labels.astype(np.int64)) if torch else None

    def timed(work: Callable[[], Any], count: int, repeats: int = 3) -> tuple[float, float, int]:
        seconds, value = median(work, repeats)
        return seconds, float(value), count

    top: Timed = {"scikit-learn": timed(lambda: sk.accuracy_score(labels, logits.argmax(axis=1)), 1)}
    if torch:
        top["torch"] = timed(lambda: (t_logits.argmax(1) == t_labels).double().mean(), 1)
    yield "top-1", top, ("top1", "", "", "")
    five: Timed = {
        "scikit-learn": timed(lambda: sk.top_k_accuracy_score(labels, logits, k=5, labels=np.arange(p.shape[1])), 1)
    }
    if torch:
        five["torch"] = timed(lambda: (t_logits.topk(5, 1).indices == t_labels[:, None]).any(1).double().mean(), 1)
    yield "top-5", five, ("top5", "", "", "")
    # Five calibration errors before and five after the temperature; each peer starts from logits, as ours does.
    yield "ECE-like error", _ece(logits, labels, t_logits, t_labels, timed), ("ece", "", "", "")
    yield "smooth ECE", _smooth(confidence, right, timed), ("smece", "", "", "")
    yield "classwise ECE", _classwise(p, labels, timed), ("classwise_ece", "", "", "")
    nll: Timed = {"scikit-learn": timed(lambda: sk.log_loss(labels, p, labels=np.arange(p.shape[1])), 2)}
    if torch:
        nll["torch"] = timed(lambda: torch.nn.functional.cross_entropy(t_logits, t_labels), 2)
    yield "NLL", nll, ("nll", "", "", "")
    brier: Timed = {"scikit-learn": timed(lambda: _sk_brier(sk, labels, p), 2)}
    if torch:
        brier["torch"] = timed(
            lambda: (
                ((t_logits.softmax(1) - torch.nn.functional.one_hot(t_labels, p.shape[1])) ** 2).sum(1).double().mean()
            ),
            2,
        )
    yield "Brier", brier, ("brier", "", "", "")
    yield "temperature (half)", _temperature(logits, labels, timed), ("temperature", "", "temperature", "")
    yield "AURC, AUGRC", _aurc(confidence, right, timed), ("aurc", "", "", "")
    yield from _scores(logits, ood, timed)
    yield from _auroc(confidence, softmax(ood, axis=1).max(axis=1), sk, timed)


def _sk_brier(sk: Any, labels: Any, p: Any) -> float:
    return float(sk.brier_score_loss(labels, p, labels=np.arange(p.shape[1]), scale_by_half=False))


def _ece(logits: Any, labels: Any, t_logits: Any, t_labels: Any, timed: Any) -> Timed:
    found: Timed = {}
    if t_logits is not None:
        try:
            from torchmetrics.functional.classification import multiclass_calibration_error as tm

            n_classes = logits.shape[1]
            found["torchmetrics"] = timed(lambda: tm(t_logits, t_labels, n_classes, n_bins=15), 10)
        except ImportError:
            pass
    try:
        from netcal.metrics import ECE
        from scipy.special import softmax

        found["netcal"] = timed(lambda: ECE(15).measure(softmax(logits, axis=1), labels), 10)
    except ImportError:
        pass
    return found


def _smooth(confidence: Any, right: Any, timed: Any) -> Timed:
    try:
        import relplot
    except ImportError:
        return {"not installed": (0.0, float("nan"), 2)}
    return {"relplot": timed(lambda: relplot.smECE(confidence.astype(float), right.astype(float)), 2)}


def _classwise(p: Any, labels: Any, timed: Any) -> Timed:
    def numpy_loop() -> float:
        total = 0.0
        for c in range(p.shape[1]):
            place = np.clip(np.ceil(p[:, c] * 15).astype(int) - 1, 0, 14)
            gap = np.bincount(place, p[:, c] - (labels == c), 15)
            total += np.abs(gap).sum() / len(labels)
        return total / p.shape[1]

    def flat() -> float:
        n, n_classes = p.shape
        gap = np.zeros(15 * n_classes)
        columns = 15 * np.arange(n_classes)
        for start in range(0, n, 4096):
            block = p[start : start + 4096].copy()
            place = np.clip(np.ceil(block * 15).astype(np.int64) - 1, 0, 14) + columns
            block[np.arange(len(block)), labels[start : start + 4096]] -= 1
            gap += np.bincount(place.ravel(), block.ravel(), gap.size)
        return float(np.abs(gap).sum() / n / n_classes)

    return {"numpy, class by class": timed(numpy_loop, 2, 1), "numpy, flat bincount": timed(flat, 2)}


def _temperature(logits: Any, labels: Any, timed: Any) -> Timed:
    half, own = logits[::2], labels[::2]
    found: Timed = {}
    try:
        from sklearn.calibration import _TemperatureScaling

        found["scikit-learn"] = timed(lambda: 1 / _TemperatureScaling().fit(half, own).beta_, 1, 1)
    except ImportError:
        pass
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    picked = half[np.arange(len(own)), own]
    found["scipy, bounded search"] = timed(
        lambda: 1 / minimize_scalar(
            lambda b: float(np.mean(logsumexp(b * half, axis=1) - b * picked)), bounds=(0.1, 10), method="bounded"
        ).x, 1, 1,
    )  # fmt: skip
    return found


def _aurc(confidence: Any, right: Any, timed: Any) -> Timed:
    def numpy_curve() -> float:
        order = np.argsort(-confidence, kind="stable")
        errors = np.cumsum(~right[order])
        answered = np.arange(1, right.size + 1)
        _augrc = (errors / right.size).mean()  # a part of the time; what is compared is the AURC
        return float((errors / answered).mean())

    return {"numpy": timed(numpy_curve, 1)}


def _scores(logits: Any, ood: Any, timed: Any) -> Iterator[tuple[str, Timed, tuple[str, str, str, str]]]:
    from scipy.special import entr, logsumexp, softmax

    torch = _torch()
    both = np.concatenate([logits, ood])
    t_both = torch.from_numpy(both) if torch else None

    def gen_numpy() -> float:
        q = np.partition(softmax(both, axis=1), -100, axis=1)[:, -100:]
        return float(-(q**0.1 * (1 - q) ** 0.1).sum(axis=1).mean())

    def gen_torch() -> float:
        q = t_both.softmax(1).topk(100, 1, sorted=False).values
        return float(-(q**0.1 * (1 - q) ** 0.1).sum(1).mean())

    works: dict[str, dict[str, Callable[[], float]]] = {
        "msp": {"scipy": lambda: softmax(both, axis=1).max(axis=1).mean()},
        "mls": {"numpy": lambda: both.max(axis=1).mean()},
        "energy": {"scipy": lambda: logsumexp(both, axis=1).mean()},
        "entropy": {"scipy": lambda: entr(softmax(both, axis=1)).sum(axis=1).mean()},
        "variance": {"scipy": lambda: softmax(both, axis=1).var(axis=1).mean()},
        "gen": {"numpy": gen_numpy},
    }
    if torch:
        works["msp"]["torch"] = lambda: t_both.softmax(1).max(1).values.mean()
        works["mls"]["torch"] = lambda: t_both.max(1).values.mean()
        works["energy"]["torch"] = lambda: t_both.logsumexp(1).mean()
        works["entropy"]["torch"] = lambda: torch.distributions.Categorical(logits=t_both).entropy().mean()
        works["variance"]["torch"] = lambda: t_both.softmax(1).var(1).mean()
        works["gen"]["torch (as OpenOOD)"] = gen_torch
    for score, candidates in works.items():
        yield f"OOD score {score}", {name: timed(work, 1) for name, work in candidates.items()}, ("", score, "", "")


def _auroc(inside: Any, outside: Any, sk: Any, timed: Any) -> Iterator[tuple[str, Timed, tuple[str, str, str, str]]]:
    truth = np.concatenate([np.ones(inside.size), np.zeros(outside.size)])
    scores = np.concatenate([inside, outside])

    def all_five() -> float:
        sk.average_precision_score(truth, scores)
        sk.average_precision_score(1 - truth, -scores)
        sk.roc_curve(truth, scores)
        return float(sk.roc_auc_score(truth, scores))

    found: Timed = {"scikit-learn": timed(all_five, 6)}
    try:
        from pytorch_ood.utils import OODMetrics
    except ImportError:
        pass
    else:
        torch = _torch()
        t_scores = torch.from_numpy(-scores.astype(np.float32))  # an outlier score; outliers are labelled below 0
        t_truth = torch.from_numpy(np.where(truth == 1, 0, -1))

        def ood_metrics() -> float:
            metric = OODMetrics()
            metric.update(t_scores, t_truth)
            return float(metric.compute()["AUROC"])

        found["pytorch-ood"] = timed(ood_metrics, 6)
    yield "AUROC, FPR, AUPR of six scores", found, ("auroc", "msp", "", "")
