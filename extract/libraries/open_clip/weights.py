"""Weights as open_clip publishes them, put into its model; the file is read by this package, never by open_clip."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from open_clip.convert import convert_state_dict
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

_POSITION_IDS = "text.transformer.embeddings.position_ids"


def load_published(model: Any, content: Any) -> None:
    """Load weights as ``open_clip.load_checkpoint`` does, from what a file holds.

    Parameters
    ----------
    model
        open_clip's; changed in place.
    content
        Tensors by name, or an object that has them under ``state_dict``.

    Raises
    ------
    RuntimeError, LookupError, AttributeError, TypeError, ValueError, AssertionError
        The content is not of that kind, or does not fit.
    """
    state = content["state_dict"] if isinstance(content, Mapping) and "state_dict" in content else content
    if not isinstance(state, Mapping) or not state:
        raise TypeError("no weights by name")
    state = {str(name): value for name, value in state.items()}
    if next(iter(state)).startswith("module"):
        state = {name[len("module.") :]: value for name, value in state.items()}
    state = convert_state_dict(model, state)
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for scalar in ("logit_scale", "logit_bias"):
        own = getattr(model, scalar, None)
        if scalar in state and own is not None and own.ndim != state[scalar].ndim:
            state[scalar] = state[scalar].reshape(own.shape)
    if "logit_bias" not in state and model.logit_bias is not None:
        state["logit_bias"] = torch.zeros_like(state["logit_scale"])
    state.pop(_POSITION_IDS, None)  # transformers has computed them since 4.31
    resize_pos_embed(state, model)
    resize_text_pos_embed(state, model)
    model.load_state_dict(state, strict=True)
