"""Zero-shot prompt ensembling: weights of templates from how far the top class stands out, without labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Blocks = Callable[[], Iterable[Float32]]
"""Called for rows of features at unit length, block by block."""


def mean_row(blocks: Iterable[Float32]) -> Float64:
    """Return the mean of rows."""
    total, count = np.float64(0), 0
    for block in blocks:
        total = total + block.sum(axis=0, dtype=np.float64)
        count += len(block)
    return np.asarray(total / max(count, 1), np.float64)


def template_scores(blocks: Blocks, texts: NDArray[Any], scale: float, pretraining: Float64 | None = None) -> Float64:
    """Return the score of every template (Allingham et al. 2023): the mean over images of the largest debiased logit.

    The logits of an image under a template are ``scale * f . t_c`` over the classes. The mean logit of each class and
    template over the images is subtracted; with a pretraining set the mean of that and of the same over the set. As
    logits are linear in the features, the mean feature is subtracted in their place.

    The formula was compared with the notebook that the authors published (google/uncertainty-baselines,
    experimental/multimodal: ``get_weights`` with ``debias_mode`` ``test`` and ``both``).

    Parameters
    ----------
    blocks
        Gives (b, D) features at unit length; called twice.
    texts
        (P, C, D) unit text embeddings of P templates and the C classes that compete.
    scale
        Multiplier of the cosines.
    pretraining
        (D,) mean feature, at unit length each, of the pretraining set; None without one.
    """
    away = mean_row(blocks())
    if pretraining is not None:
        away = (away + pretraining) / 2
    total, count = np.zeros(len(texts)), 0
    for block in blocks():
        moved = (block - away).astype(np.float32)
        for number, template in enumerate(texts):
            logits = moved @ template.astype(np.float32).T
            total[number] += logits.max(axis=1).sum(dtype=np.float64)
        count += len(block)
    return scale * total / max(count, 1)


def softmax(scores: Float64) -> Float64:
    """Return weights that sum to 1."""
    shares = np.exp(scores - scores.max())
    return np.asarray(shares / shares.sum(), np.float64)
