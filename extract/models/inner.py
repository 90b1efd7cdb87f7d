"""What goes into an inner layer of a model while the model runs as always."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def inputs_of(layer: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect the first input of each call of a layer; nothing else of the model is changed.

    Parameters
    ----------
    layer
        Any module within a model that is not compiled.

    Yields
    ------
    list of Tensor
        Filled as the layer is called.
    """
    seen: list[torch.Tensor] = []

    def note(_layer: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(args[0] if args else next(iter(kwargs.values())))

    handle = layer.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def own_mask(tokens: int, device: torch.device) -> torch.Tensor:
    """Return the (T, T) attention mask with which each token attends to itself alone: its value is not mixed."""
    mask = torch.full((tokens, tokens), float("-inf"), device=device)
    return mask.fill_diagonal_(0.0)
