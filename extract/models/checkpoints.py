"""Training checkpoints: the one set of weights in a file that is a model's, however it was wrapped, or why none is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from closerlook_common.errors import UserError
from extract.models.pickles import load_torch_file, nested_tensors

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
        """Return whether they are an exponential moving average, by what they are called."""
        words = ".".join((*self.keys, self.prefix)).lower().replace("_", ".").split(".")
        return "ema" in words or "averaged" in words

    @property
    def title(self) -> str:
        """Return what they are called in the file."""
        return ".".join((*self.keys, self.prefix.removesuffix("."))).strip(".") or "the top level"


def read_checkpoint(path: Path) -> Any:
    """Return what a weight file holds, on the CPU: tensors by name, or whatever a training script wrapped them in.

    Raises
    ------
    UserError
        It cannot be read safely; see `extract.models.pickles.load_torch_file`.
    """
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        return load_torch_file(path)
    except UserError as error:
        raise UserError(f"the weights in {path} cannot be used: {error}") from error.__cause__


def fill(module: torch.nn.Module, model: str, path: Path, content: Any, *, average: bool) -> None:
    """Load the weights of a checkpoint into a module; see :func:`fitting_state`, which says what fits."""
    own = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    module.load_state_dict(fitting_state(model, path, content, own, average=average), strict=True)


def fitting_state(
    model: str, path: Path, content: Any, own: Shapes, *, average: bool = True
) -> dict[str, torch.Tensor]:
    """Return the weights of a checkpoint that have a model's names and shapes.

    Training scripts save weights under a key (``model_state_dict``, ``ema``), with a prefix (Lightning's ``model.``),
    and with other things (an optimiser, a loss's buffers). Weights count where *all* of the model's tensors are
    there, with their shapes, under one key and one prefix.

    Parameters
    ----------
    model
        Name of the architecture, for messages.
    path
        The file, for messages.
    content
        What it holds; see :func:`read_checkpoint`.
    own
        Names and shapes of the model's tensors.
    average
        Which to take where both the weights and their exponential moving average are there.

    Raises
    ------
    UserError
        None fits, with what is missing; or several do.
    """
    tables = list(nested_tensors(content))
    found = [weights for keys, tensors in tables for weights in _fitting(keys, tensors, own)]
    kinds = {weights.is_average for weights in found}
    if len(kinds) == 2:
        found = [weights for weights in found if weights.is_average == average]
    if len(found) > 1:
        names = ", ".join(weights.title for weights in found)
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
        if not isinstance(content, Mapping):
            kind = "one tensor without a name" if isinstance(content, torch.Tensor) else f"a {type(content).__name__}"
            return f"it holds {kind}, not tensors by name; save model.state_dict()"
        return f"it holds no tensors but {_some(map(str, content))}" if content else "it holds nothing"

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
    problems = []
    if missing:
        problems.append(f"{len(missing)} of {len(own)} tensors are missing ({_some(missing)})")
    if missing and all(name.rpartition(".")[2] in ("weight", "bias") for name in missing) and len(missing) <= 2:
        problems.append("a backbone without its classifier gives no predictions")
    if other:
        name = other[0]
        shapes = f"{name} is {tuple(tensors[prefix + name].shape)} there and {own[name]} in the model"
        problems.append(f"{len(other)} have other shapes ({shapes})")
    return "; ".join(problems)


def _prefixes(tensors: Mapping[str, torch.Tensor]) -> set[str]:
    """Return prefixes that names may have to lose: none, the first word, the first two."""
    words = [name.split(".") for name in tensors]
    return {"", *(w[0] + "." for w in words if len(w) > 1), *(f"{w[0]}.{w[1]}." for w in words if len(w) > 2)}


def _some(names: Any) -> str:
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (" ..." if len(listed) > _SHOWN else "")
