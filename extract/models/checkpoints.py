"""Training checkpoints: the one set of weights in a file that is a model's, however it was wrapped, or why none is."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cache_schema.errors import UserError

_DEPTH = 3
_SHOWN = 2

Shapes = Mapping[str, tuple[int, ...]]
Tables = list[tuple[tuple[str, ...], dict[str, torch.Tensor]]]


class _Found(NamedTuple):
    """Weights of a checkpoint: the keys that lead to them, the prefix of their names, and the tensors by full name."""

    keys: tuple[str, ...]
    prefix: str
    tensors: Mapping[str, torch.Tensor]

    @property
    def is_average(self) -> bool:
        """Tell whether they are an exponential moving average, by what they are called."""
        words = ".".join((*self.keys, self.prefix)).lower().replace("_", ".").split(".")
        return "ema" in words or "averaged" in words

    @property
    def said(self) -> str:
        """Return what they are called in the file."""
        return ".".join((*self.keys, self.prefix.removesuffix("."))).strip(".") or "the top level"


def torch_file(path: Path) -> Any:
    """Return what a file of ``torch.save`` holds, on the CPU; nothing in it is executed."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            # Files from before torch 1.6 cannot be mapped into memory.
            if "mmap" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)


def nested_tensors(
    content: Any, keys: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, torch.Tensor]]]:
    """Yield every mapping of names to tensors in a checkpoint, with the keys that lead to it."""
    if not isinstance(content, Mapping):
        return
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    if tensors := {name: value for name, value in named.items() if isinstance(value, torch.Tensor)}:
        yield keys, tensors
    if len(keys) < _DEPTH:
        for name, value in named.items():
            yield from nested_tensors(value, (*keys, name))


def fill(module: torch.nn.Module, model: str, path: Path, *, average: bool) -> None:
    """Load the weights of a checkpoint into a module; see :func:`fitting_state`, which says what fits."""
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    module.load_state_dict(fitting_state(model, path, own, average=average), strict=True)


def fitting_state(model: str, path: Path, own: Shapes, *, average: bool = True) -> dict[str, torch.Tensor]:
    """Return the weights of a checkpoint that have a model's names and shapes.

    Training scripts save weights under a key (``model_state_dict``, ``ema``), with a prefix (Lightning's ``model.``),
    and beside other things (an optimiser, a loss's buffers). Weights count where *all* of the model's tensors are
    there, with their shapes, under one key and one prefix.

    Parameters
    ----------
    model
        Name of the architecture, for messages.
    path
        The file.
    own
        Names and shapes of the model's tensors.
    average
        Which to take where both the weights and their exponential moving average are there.

    Raises
    ------
    UserError
        None fits, with what is missing; or several do.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        content: Any = load_file(path)
    else:
        content = torch_file(path)
    tables = list(nested_tensors(content))
    found = [weights for keys, tensors in tables for weights in _fitting(keys, tensors, own)]
    kinds = {weights.is_average for weights in found}
    if len(kinds) == 2:
        found = [weights for weights in found if weights.is_average == average]
    if len(found) > 1:
        names = ", ".join(weights.said for weights in found)
        raise UserError(f"{path} holds several sets of weights that fit {model} ({names}): save one of them alone")
    if not found:
        raise UserError(f"{path} does not hold the weights of {model}: {_misfit(model, content, tables, own)}")
    return {name: found[0].tensors[found[0].prefix + name] for name in own}


def _fitting(keys: tuple[str, ...], tensors: Mapping[str, torch.Tensor], own: Shapes) -> Iterator[_Found]:
    first = next(iter(own))
    for prefix in sorted({name.removesuffix(first) for name in tensors if name.endswith(first)}):
        if prefix and not prefix.endswith("."):
            continue
        if all(prefix + name in tensors and tuple(tensors[prefix + name].shape) == own[name] for name in own):
            yield _Found(keys, prefix, tensors)


def _misfit(model: str, content: Any, tables: Tables, own: Shapes) -> str:
    if not tables:
        keys = f" but {_some(map(str, content))}" if isinstance(content, Mapping) and content else ""
        return f"it holds no tensors{keys}"

    def shared(item: tuple[str, dict[str, torch.Tensor]]) -> int:
        return sum(item[0] + name in item[1] for name in own)

    guesses = [(prefix, tensors) for _, tensors in tables for prefix in _prefixes(tensors)]
    prefix, tensors = max(guesses, key=shared)
    missing = [name for name in own if prefix + name not in tensors]
    if len(missing) == len(own):
        return (
            f"none of its {len(tensors)} tensors ({_some(tensors)}) is one of the model's {len(own)} ({_some(own)});"
            " are they of another architecture?"
        )
    other = [name for name in own if name not in missing and tuple(tensors[prefix + name].shape) != own[name]]
    told = []
    if missing:
        told.append(f"{len(missing)} of {len(own)} tensors are missing ({_some(missing)})")
    if missing and all(name.rpartition(".")[2] in ("weight", "bias") for name in missing) and len(missing) <= 2:
        told.append("a backbone without its classifier gives no predictions")
    if other:
        name = other[0]
        shapes = f"{name} is {tuple(tensors[prefix + name].shape)} there and {own[name]} in the model"
        told.append(f"{len(other)} have other shapes ({shapes})")
    return "; ".join(told)


def _prefixes(tensors: Mapping[str, torch.Tensor]) -> set[str]:
    """Return prefixes that names may have to lose: none, the first word, the first two."""
    words = [name.split(".") for name in tensors]
    return {"", *(w[0] + "." for w in words if len(w) > 1), *(f"{w[0]}.{w[1]}." for w in words if len(w) > 2)}


def _some(names: Any) -> str:
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (" ..." if len(listed) > _SHOWN else "")
