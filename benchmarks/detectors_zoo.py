"""All detectors of one model in one pass, in products of the queries with the bank; a part of ``detectors.py``."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
from detectors_peers import peak, timed

ROWS = 2016
"""Queries that are scored at a time: product and zoo are timed in turn, so that both meet the same machine."""
OPTIONS: dict[str, dict[str, Any]] = {"gmm": {"covariance": "tied"}, "tempscale": {"temperature": 1.5}}
"""Of detectors whose defaults these arrays do not allow: 1,000 full covariances, and a temperature of logits that are
all right."""


def names() -> list[str]:
    """Return the detectors that a model with a linear head, a reference and no text embeddings can be scored with."""
    from analyze.detectors import DETECTORS

    return [
        name
        for name, kind in DETECTORS.items()
        if not (kind.zero_shot_only or kind.needs.patches or kind.needs.negatives)
    ]


def zoo(a: Any, chosen: list[str], n: int) -> dict[str, Any]:
    """Score the first n rows by all detectors in one pass.

    Returns
    -------
    dict
        Besides the seconds of fitting and scoring, ``products``: the median over blocks of queries of the time of all
        detectors over the time of one product of the block with the bank, by numpy's BLAS or this project's kernel,
        whichever is faster.
    """
    from analyze.detectors import Reference, get, score_all
    from analyze.detectors.products import Right, multiply

    warm = Reference.from_arrays(a.train[:2000], a.train_logits[:2000], a.labels[:2000])
    for name in chosen:  # compile
        small = {**OPTIONS.get(name, {}), **({"k": 5} if name in ("knn", "nnguide") else {})}
        get(name, **small).fit(reference=warm, head=(a.weight, a.bias)).score(
            features=a.query[:1200], logits=a.logits[:1200]
        )
    columns = np.ascontiguousarray((a.train / np.linalg.norm(a.train, axis=1, keepdims=True)).T)
    prepared, scratch = Right.of(columns), np.zeros(ROWS * len(a.train), np.float32)
    base = peak()
    reading, reference = timed(lambda: Reference.from_arrays(a.train, a.train_logits, a.labels))
    fitting, fitted = timed(
        lambda: [
            get(name, **OPTIONS.get(name, {})).fit(reference=reference, head=(a.weight, a.bias)) for name in chosen
        ]
    )
    scoring, ratios = 0.0, []
    for start in range(0, n, ROWS):
        f, z = a.query[start : min(start + ROWS, n)], a.logits[start : min(start + ROWS, n)]
        out = scratch[: len(f) * len(a.train)].reshape(len(f), -1)
        products = [
            timed(lambda f=f, out=out: np.matmul(f, columns, out=out))[0],
            timed(lambda f=f: multiply(f, prepared, scratch=scratch))[0],
        ]
        seconds, _ = timed(lambda f=f, z=z: score_all(fitted, features=f, logits=z))
        ratios.append(seconds / min(products))
        scoring += seconds
    return {
        "reference": reading, "fit": fitting, "score": scoring, "mb": peak() - base,
        "products": statistics.median(ratios),
    }  # fmt: skip
