"""A linear probe and scikit-learn's LogisticRegression: the same rows, the same penalty, the same minimum.

    python benchmarks/probe.py                                       5,000 rows, 100 classes, 384 features
    python benchmarks/probe.py --rows 20000 --classes 200 --width 768

Both run in float64 until their own criterion ends them, alternately, on as many threads as BLAS takes. "difference" is
the largest one of the probabilities of the rows, "loss" how far the mean loss lies above the smaller of the two.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from record import Recorder
from sklearn.linear_model import LogisticRegression

from analyze.probes.banks import bank_of
from analyze.probes.logistic import fit_logistic


def rows(n: int, classes: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return features of unlike scale, as encoders give them, and labels."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, n)
    features = rng.normal(size=(classes, width))[labels] * 0.35 + rng.normal(size=(n, width))
    return features * np.geomspace(0.1, 3, width) + 1, labels


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities."""
    values = np.exp(logits - logits.max(axis=1, keepdims=True))
    return values / values.sum(axis=1, keepdims=True)


def clock(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return seconds and result."""
    begun = time.perf_counter()
    found = call()
    return time.perf_counter() - begun, found


def main() -> None:
    """Print a row for each penalty."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=5_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--l2", type=float, nargs="+", default=[1.0, 100.0])
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    record = Recorder("probe", parser, args, sizes={"rows": (), "classes": (), "width": (), "l2": ()})
    features, labels = rows(args.rows, args.classes, args.width)
    print(
        f"{platform.machine()}, numpy {np.__version__}; {args.rows:,} rows, {args.classes} classes, {args.width} wide"
    )
    print(
        f"{'L2':>8} {'ours, s':>9} {'scikit-learn, s':>16} {'ratio':>6} {'iterations':>11} {'difference':>11}"
        f" {'loss':>18}"
    )
    for l2 in args.l2:
        own: list[float] = []
        peer: list[float] = []
        for _ in range(args.runs):
            seconds, probe = clock(lambda l2=l2: fit_logistic(bank_of(features, labels, args.classes), l2))
            own.append(seconds)
            model = LogisticRegression(C=1 / l2, tol=1e-6, max_iter=1_000)
            seconds, fitted = clock(lambda model=model: model.fit(features, labels))
            peer.append(seconds)
        ours, theirs = softmax(probe.logits(features)), fitted.predict_proba(features)
        losses = [loss(ours, labels, probe.weight, l2), loss(theirs, labels, fitted.coef_, l2)]
        ratio = statistics.median(peer) / statistics.median(own)
        above = " ".join(f"{one - min(losses):.1e}" for one in losses)
        gap = np.abs(ours - theirs).max()
        print(
            f"{l2:8g} {statistics.median(own):9.2f} {statistics.median(peer):16.2f} {ratio:6.1f}"
            f" {probe.iterations:5d} {int(fitted.n_iter_[0]):5d} {gap:11.1e} {above:>18}"
        )
        if l2 in (1.0, 100.0):  # those of the table
            record.add(f"L2 {l2:g}/Closerlook", statistics.median(own), ratio=ratio)
            record.add(f"L2 {l2:g}/scikit-learn", statistics.median(peer))
            record.add(f"L2 {l2:g}/iterations", [probe.iterations, int(fitted.n_iter_[0])])
            record.add(f"L2 {l2:g}/difference", float(gap))
            record.add(f"L2 {l2:g}/loss", [one - min(losses) for one in losses])
    record.write()


def loss(probabilities: np.ndarray, labels: np.ndarray, weight: np.ndarray, l2: float) -> float:
    """Return the mean of what both minimise."""
    own = probabilities[np.arange(len(labels)), labels]
    return float((-np.log(own).sum() + l2 / 2 * (weight**2).sum()) / len(labels))


if __name__ == "__main__":
    main()
