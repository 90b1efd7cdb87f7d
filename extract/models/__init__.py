"""Model libraries by name, each behind the same two functions: prepare without building, and load.

Imports the zoo, classes and what datasets say of class spaces; what a run is, models do not know.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from extract.models.base import LoadedModel, Prepared

if TYPE_CHECKING:
    from extract.models.base import Built
    from extract.zoo.model_list import ModelSpec

__all__ = ["ADAPTERS", "build", "load", "prepare"]

ADAPTERS = {
    "timm": "extract.models.timm_models",
    "open_clip": "extract.models.open_clip_models",
}
"""Library -> the module that has its ``prepare`` and ``build``; imported when first used."""


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


def build(prepared: Prepared) -> Built:
    """Build a model and load its weights, all in the machine's memory; safe to do in a thread beside a device at work.

    Raises
    ------
    WeightsUnavailable
        The weights are not here and cannot be fetched.
    UserError
        The weights do not fit.
    """
    built: Built = _adapter(prepared.spec.library).build(prepared)
    return built


def load(prepared: Prepared, *, device: str = "cpu", precision: str = "fp32") -> LoadedModel:
    """Build a model and put it on a device in evaluation mode; see `build` for what it raises."""
    return build(prepared).on(device, precision)
