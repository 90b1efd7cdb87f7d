"""The inner values of timm's vision transformers: which models have them."""

from __future__ import annotations

import functools
import json
from typing import Any

import timm
import torch
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

from extract.libraries.timm.sources import source_of
from extract.models.base import Prepared
from extract.models.inner import four_blocks

TRANSFORMERS = (VisionTransformer, Eva, Beit)
"""Whose ``forward_features`` gives all tokens, the class token first."""


def why_without(prepared: Prepared, array: str) -> str:
    """Return why a model cannot give an array, see `Library.why_without`."""
    if array not in ("tokens", "blocks"):
        return "models of timm do not give them"
    source = source_of(prepared.spec)
    reason, depth = _tokens_of(source.architecture, json.dumps(source.arguments, sort_keys=True, default=str))
    if not reason and array == "blocks" and not four_blocks(depth):
        return f"{source.architecture} has only {depth} blocks"
    return reason


@functools.lru_cache(1024)
def _tokens_of(architecture: str, arguments: str) -> tuple[str, int]:
    """Return why an architecture has no class token, empty where it has one, and the number of its blocks."""
    given: dict[str, Any] = json.loads(arguments)
    try:
        with torch.device("meta"):
            module = timm.create_model(architecture, pretrained=False, **given)
    except (RuntimeError, NotImplementedError, TypeError, ValueError, AssertionError):
        return "", 4  # found when it is built
    return why_module_has_no_tokens(architecture, module), len(getattr(module, "blocks", ()))


def why_module_has_no_tokens(architecture: str, module: torch.nn.Module) -> str:
    """Return why a module has no class token, empty where it has one."""
    if not isinstance(module, TRANSFORMERS):
        return f"{architecture} is not a vision transformer whose tokens timm gives"
    return f"{architecture} has no class token" if getattr(module, "cls_token", None) is None else ""
