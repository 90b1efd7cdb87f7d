"""What goes into and comes out of an inner layer of a model while the model runs as always."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
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


@contextmanager
def outputs_of(layer: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect the output of each call of a layer; nothing else of the model is changed."""
    seen: list[torch.Tensor] = []

    def note(_layer: torch.nn.Module, _args: tuple[Any, ...], output: torch.Tensor) -> None:
        seen.append(output)

    handle = layer.register_forward_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def class_and_mean(tokens: torch.Tensor, prefix: int) -> dict[str, torch.Tensor]:
    """Return the class token and the mean of the patches.

    Parameters
    ----------
    tokens : Tensor of shape (B, T, W)
        The class token comes first.
    prefix
        Tokens before the patches: class, distillation and register tokens.

    Returns
    -------
    dict
        ``token_class`` and ``token_mean``, (B, W) float32.
    """
    tokens = tokens.float()
    return {"token_class": tokens[:, 0].contiguous(), "token_mean": tokens[:, prefix:].mean(dim=1)}


def four_blocks(depth: int) -> tuple[int, ...]:
    """Return the numbers of four evenly spaced blocks, the last one among them; none where there are fewer.

    Examples
    --------
    >>> four_blocks(12), four_blocks(3)
    ((2, 5, 8, 11), ())
    """
    return tuple(depth * quarter // 4 - 1 for quarter in range(1, 5)) if depth >= 4 else ()


@contextmanager
def class_tokens_of(
    blocks: Sequence[torch.nn.Module], *, batch_first: bool = True
) -> Iterator[Callable[[], torch.Tensor]]:
    """Watch some blocks that give all tokens, (B, T, W) or else (T, B, W), the class token first.

    Yields
    ------
    callable
        Gives the class tokens after these blocks, (B, len(blocks), W) float32, once the model has run.
    """
    with ExitStack() as stack:
        seen = [stack.enter_context(outputs_of(block)) for block in blocks]
        tokens = (slice(None), 0) if batch_first else (0,)
        yield lambda: torch.stack([outputs[0][tokens].float() for outputs in seen], dim=1)


def own_mask(tokens: int, device: torch.device) -> torch.Tensor:
    """Return the (T, T) attention mask with which each token attends to itself alone: its value is not mixed."""
    mask = torch.full((tokens, tokens), float("-inf"), device=device)
    return mask.fill_diagonal_(0.0)
