"""Model libraries by name, each behind the same two functions: prepare without building, and load."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from extract.models.base import LoadedModel, Prepared

if TYPE_CHECKING:
    from extract.model_list import ModelSpec

__all__ = ["ADAPTERS", "load", "prepare"]

ADAPTERS = {
    "timm": "extract.models.timm_models",
    "open_clip": "extract.models.open_clip_models",
}
"""Library -> the module that has its ``prepare`` and ``load``; imported when first used."""


def _adapter(library: str) -> Any:
    return importlib.import_module(ADAPTERS[library])


def prepare(spec: ModelSpec) -> Prepared:
    """Return what is known of a model without building it: card, preprocessing, weight file.

    Raises
    ------
    UserError
        The line cannot be honoured: no such checkpoint, no preprocessing known, QuickGELU mismatch ...
    """
    prepared: Prepared = _adapter(spec.library).prepare(spec)
    return prepared


def load(prepared: Prepared, *, device: str = "cpu", precision: str = "fp32") -> LoadedModel:
    """Build a model, load its weights, and put it on a device in evaluation mode.

    Raises
    ------
    WeightsUnavailable
        The weights are not here and cannot be fetched.
    UserError
        The weights do not fit.
    """
    chosen = prepared.spec.options.get("precision", precision)
    loaded: LoadedModel = _adapter(prepared.spec.library).load(prepared, device=device, precision=chosen)
    return loaded
