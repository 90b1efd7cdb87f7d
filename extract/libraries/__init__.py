"""Model libraries, each in a folder of its own behind one `Library`: names, cards, weights, building, preprocessing.

Imports models, datasets and classes. ``zoo`` reads lines through it, ``planning`` and ``passes`` prepare and build.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from closerlook_common.errors import CloserlookError, UserError
from extract.libraries.base import Entry, Library, Line, ModelSpec
from extract.libraries.registry import get, names, register

if TYPE_CHECKING:
    from extract.models.base import Built, LoadedModel, Prepared

__all__ = ["Entry", "Library", "Line", "ModelSpec", "build", "get", "load", "names", "prepare", "register"]


def prepare(spec: ModelSpec) -> Prepared:
    """Return what is known of a model without building it: card, preprocessing, weight file.

    Raises
    ------
    UserError
        The line cannot be used: no such checkpoint, no preprocessing known, QuickGELU mismatch ...
    """
    try:
        return get(spec.library).prepare(spec)
    except (CloserlookError, ModuleNotFoundError):
        raise
    except Exception as error:  # a configuration may be wrong in more ways than are checked one by one
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{spec.where}: {spec.id} cannot be used: {type(error).__name__}: {reason}") from error


def build(prepared: Prepared) -> Built:
    """Build a model and load its weights, all in the machine's memory; safe to do in a thread while a device works.

    Raises
    ------
    WeightsUnavailable
        The weights are not here and cannot be fetched.
    UserError
        The weights do not fit.
    """
    return get(prepared.spec.library).build(prepared)


def load(prepared: Prepared, *, device: str = "cpu", precision: str = "fp32") -> LoadedModel:
    """Build a model and put it on a device in evaluation mode; see `build` for what it raises."""
    return build(prepared).on(device, precision)
