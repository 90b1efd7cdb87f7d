"""Models built without memory and without random numbers, then filled: exact where every tensor comes from the file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from closerlook_common.errors import UserError

EXPANSION = 8
"""A file of weights in 8 bits takes a quarter of the model in memory; more says that they are not this model's."""
SLACK = 256 << 20
"""Bytes that any model may take."""
RANDOM = 64 << 30
"""Bytes that a model of random weights may take."""

_DEPTH = 3


def fits(module: nn.Module, state: Mapping[str, torch.Tensor]) -> bool:
    """Return whether a state has exactly a module's names and shapes."""
    own = module.state_dict()
    return state.keys() == own.keys() and all(state[key].shape == own[key].shape for key in own)


def filled_from_meta(
    create: Callable[[], nn.Module], state: Mapping[str, torch.Tensor], file_bytes: int
) -> nn.Module | None:
    """Return a model built on the meta device and filled with a state.

    Building a model the usual way draws random numbers for every weight, only to overwrite them: seconds for a large
    one. On the meta device nothing is computed, so whatever a constructor computes and does not save is lost.

    Parameters
    ----------
    create
        Builds the model.
    state
        Its weights.
    file_bytes
        Size of the file that the weights are from.

    Returns
    -------
    Module or None
        On the CPU, the same bit for bit as one built the usual way; None where that cannot be promised: names or
        shapes differ, there are buffers that are not saved (relative positions, rotary tables), tensors that are
        neither parameters nor buffers, parameters shared between layers, or a constructor that needs values.

    Raises
    ------
    UserError
        The model would take far more memory than the file can fill.
    """
    module = _without_memory(create)
    if module is None:
        return None
    needed = _bytes(module)
    if needed > EXPANSION * file_bytes + SLACK:
        raise UserError(f"the model takes {needed / 1e9:,.1f} GB, its weight file holds {file_bytes / 1e9:,.3f} GB")
    if not fits(module, state) or any(layer._non_persistent_buffers_set for layer in module.modules()):
        return None
    if _n_tensors(module) != len(module.state_dict()) or any(_strays(layer) for layer in module.modules()):
        return None
    module.to_empty(device="cpu")
    module.load_state_dict(state, strict=True)
    return module


def check_random(create: Callable[[], nn.Module]) -> None:
    """Raise UserError where a model of random weights, whose size no file bounds, would take too much memory."""
    module = _without_memory(create)
    if module is not None and (needed := _bytes(module)) > RANDOM:
        raise UserError(f"the model takes {needed / 1e9:,.1f} GB, one of random weights at most {RANDOM / 1e9:,.0f} GB")


def _without_memory(create: Callable[[], nn.Module]) -> nn.Module | None:
    try:
        with torch.device("meta"):
            return create()
    except Exception:  # noqa: BLE001  # a constructor that computes with values; the usual way reports real errors
        return None


def _bytes(module: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))


def _n_tensors(module: nn.Module) -> int:
    """Count distinct parameters and buffers; fewer than names where some are shared."""
    return sum(1 for _ in module.parameters()) + sum(1 for _ in module.buffers())


def _strays(layer: nn.Module) -> bool:
    own = {"_parameters", "_buffers", "_modules"}
    return any(True for _ in _tensors((value for name, value in vars(layer).items() if name not in own), _DEPTH))


def _tensors(values: Iterable[Any], depth: int) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif depth and isinstance(value, (list, tuple, set, dict)):
            yield from _tensors(value.values() if isinstance(value, dict) else value, depth - 1)
