"""The inner values of open_clip's own vision transformers: which towers have them, and what they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from extract.libraries.open_clip import configs
from extract.models.base import Prepared
from extract.models.inner import four_blocks, own_mask
from extract.models.pixels import true_float32


def why_without(prepared: Prepared, array: str) -> str:
    """Return why a model cannot give an array, see `Library.why_without`."""
    if array not in ("patches", "tokens", "blocks"):
        return "models of open_clip do not give them"
    tower = configs.source_of(prepared.spec).model["vision_cfg"]
    if name := tower.get("timm_model_name"):
        patches = ", whose patches have no place in the space of the texts" if array == "patches" else ""
        return f"its image tower is timm's {name}{patches}"
    if isinstance(tower.get("layers", 12), (list, tuple)):
        return "its image tower is a ResNet, which has no patches"
    depth = int(tower.get("layers", 12))
    if array == "blocks" and not four_blocks(depth):
        return f"its image tower has only {depth} blocks"
    if array != "blocks" and tower.get("attentional_pool"):
        return "its image tower pools by attention, without a class token"
    if array == "patches" and tower.get("pool_type", "tok") != "tok":
        return "its image tower pools all patches, so that a single one has no place in the space of the texts"
    return ""


def patch_embeddings(
    visual: Any, inputs: torch.Tensor, project: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """Return the embeddings of all patches (B, P, D) float32, not normalised.

    The last block runs once more with each token attending to itself alone, so that a patch keeps its own value; then
    come the last norm and the projection, as for the class token.

    Parameters
    ----------
    visual
        The image tower.
    inputs
        What went into its last block.
    project
        What is left to do where the tower's projection was taken out of it, see `float32_projection`.
    """
    first = bool(getattr(visual.transformer, "batch_first", True))
    mask = own_mask(inputs.shape[1 if first else 0], inputs.device)
    tokens = visual.transformer.resblocks[-1](inputs, attn_mask=mask)
    patches = visual.ln_post(tokens if first else tokens.transpose(0, 1))[:, 1:]
    if visual.proj is None:
        return project(patches)
    with true_float32(patches.device):
        projected: torch.Tensor = patches.float() @ visual.proj
    return projected
