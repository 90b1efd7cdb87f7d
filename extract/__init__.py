"""Stage 1: models and images in, sealed stores out; importing this never imports torch.

A run is put together in one direction; each imports only what is listed before it (a contract in ``pyproject.toml``):

    classes, preprocess                 what columns of logits stand for, what is done to an image
    datasets, zoo                       images in order with their labels; models by name
    models                              names made models: weights, heads, precision
    studies, planning                   what is asked for, what of it is left to do, what it costs
    passes                              images once through many models, into stores
    engines                             who runs the pieces of work
    commands, api                       the ways in: a command line, a script
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extract.api import DatasetSpec as DatasetSpec
    from extract.api import Extraction as Extraction
    from extract.api import ModelSpec as ModelSpec
    from extract.api import load_model as load_model
    from extract.api import run as run
else:
    from closerlook_common.lazy import lazy_names

    __getattr__, __dir__ = lazy_names(
        __name__, {"extract.api": ("DatasetSpec", "Extraction", "ModelSpec", "load_model", "run")}
    )

__all__ = ["DatasetSpec", "Extraction", "ModelSpec", "load_model", "run"]
