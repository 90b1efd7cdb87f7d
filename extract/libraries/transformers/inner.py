"""The inner values of CLIP-like models of transformers: which have them, and what they are."""

from __future__ import annotations

from typing import Any

import torch

from extract.models.base import Prepared
from extract.models.inner import own_mask

WITH_PATCHES = ("altclip", "chinese_clip", "clip", "metaclip_2")
"""Types of models whose image embedding is the class token, normed and projected by a matrix."""


def why_without(prepared: Prepared, array: str) -> str:
    """Return why a model cannot give an array, see `Library.why_without`."""
    if array != "patches":
        return "models of transformers do not give them"
    if prepared.card.head_kind != "zero-shot":
        return "it has no text tower, so that there is no space of texts that patches could be in"
    if prepared.card.extra.get("model_type") not in WITH_PATCHES:
        return (
            "its image embedding is no projected class token, so that patches have no place in the space of the texts"
        )
    return ""


def patch_embeddings(module: Any, inputs: torch.Tensor) -> torch.Tensor:
    """Return the embeddings of all patches (B, P, D) float32, not normalised.

    The last layer runs once more with each token attending to itself alone, so that a patch keeps its own value; then
    come the last norm and the projection, as for the class token.

    Parameters
    ----------
    module
        The model of two towers.
    inputs
        What went into the last layer of its image tower.
    """
    vision = module.vision_model
    mask = own_mask(inputs.shape[1], inputs.device).to(inputs.dtype)[None, None]
    tokens = vision.encoder.layers[-1](inputs, attention_mask=mask)
    tokens = tokens if isinstance(tokens, torch.Tensor) else tokens[0]
    projected: torch.Tensor = module.visual_projection(vision.post_layernorm(tokens)[:, 1:])
    return projected.float()
