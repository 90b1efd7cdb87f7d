"""The best patch of an image: the one that a zero-shot head is surest of."""

from __future__ import annotations

import torch

from extract.models.pixels import true_float32

PATCHES = "patches"
"""In a model's outputs: the embeddings of all patches."""

TEMPERATURE = 1.0
"""That divides cosines before the softmax, as L-MCM and GL-MCM do by default."""

DETAILS = {"tokens": "values of the last block", "temperature": TEMPERATURE}
"""What a store's details say of it."""

MOST_COSINES = 1 << 26
"""Cosines of patches and classes that are held at a time."""


def best_patches(patches: torch.Tensor, weight: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the patch of each image with the largest softmax probability of any class.

    Parameters
    ----------
    patches : Tensor of shape (B, P, D)
        Embeddings in the space of the texts, not normalised.
    weight : Tensor of shape (C, D)
        Unit embeddings of the classes.

    Returns
    -------
    dict
        ``patch_features`` (B, D), as the model gives them; ``patch_score`` (B,), the largest softmax of their cosines;
        ``patch_index`` (B,), which patch it is, row by row from the upper left; the first of several.
    """
    rows, count, _ = patches.shape
    step = max(1, MOST_COSINES // (count * len(weight)))
    scores = []
    with true_float32(patches.device):
        for start in range(0, rows, step):
            unit = torch.nn.functional.normalize(patches[start : start + step].float(), dim=-1)
            cosines = unit @ weight.T / TEMPERATURE
            # The largest probability is exp(0) over the sum of exp(cosine - largest cosine).
            top = cosines.amax(dim=-1, keepdim=True)
            scores.append(1 / (cosines - top).exp().sum(dim=-1))
    score = torch.cat(scores)
    index = score.argmax(dim=1)
    row = torch.arange(rows, device=patches.device)
    return {"patch_features": patches[row, index].float(), "patch_score": score[row, index], "patch_index": index}
