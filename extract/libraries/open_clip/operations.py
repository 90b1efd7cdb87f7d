"""How much arithmetic an open_clip model is: its image tower on the meta device, its text tower from the config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import open_clip
from open_clip.model import _build_vision_tower

from extract.libraries.open_clip.configs import source_of
from extract.models.spec import ModelSpec

if TYPE_CHECKING:
    import torch


def published_tower(architecture: str) -> torch.nn.Module:
    """Return the image tower of one of open_clip's configs."""
    return _tower(open_clip.get_model_config(architecture))


def image_tower(spec: ModelSpec) -> torch.nn.Module:
    """Return the image tower of a line's model."""
    return _tower(source_of(spec).model)


def _tower(config: Any) -> torch.nn.Module:
    tower: torch.nn.Module = _build_vision_tower(
        config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False)
    )
    return tower


def text_operations(spec: ModelSpec) -> int | None:
    """Return the floating-point operations of the text tower for one text, from its config.

    Of open_clip's own transformers; None for a tower of Hugging Face's, whose size the config does not give.
    """
    text = source_of(spec).model.get("text_cfg", {})
    if "hf_model_name" in text:
        return None
    tokens, width = int(text.get("context_length", 77)), int(text.get("width", 512))
    layer = tokens * (3 + 1 + 2 * float(text.get("mlp_ratio", 4))) * width**2 + 2 * tokens**2 * width
    return int(2 * int(text.get("layers", 12)) * layer)
