"""A function of the user's own, found in a file or a module and called; what it returns, and what that rests on."""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn

from closerlook_common.errors import UserError, nearest
from extract.models import checkpoints
from extract.models.finite import check_finite
from extract.models.own import OwnModel, own_model
from extract.models.spec import ModelSpec
from extract.models.state_digest import state_digest
from extract.models.weights import checkpoint_file, content_digest, explaining
from extract.own_code import explaining as explaining_code
from extract.own_code import function_names, importing, module_at, neighbours_of


class Loaded(NamedTuple):
    """A model as its function returned it.

    Attributes
    ----------
    own
        In evaluation mode, on the CPU.
    weights_digest
        Of all its parameters and buffers, and of the module behind ``encode_text``.
    code_digest
        Of the function's file, and of files beside it that it imports.
    """

    own: OwnModel
    weights_digest: str
    code_digest: str


def load_own(spec: ModelSpec) -> Loaded:
    """Call a line's function.

    The function takes nothing, or the path of the line's ``checkpoint`` where it has a parameter of that name; without
    such a parameter the file's weights are loaded into the module that it returns. torch's random numbers begin at
    the line's ``seed`` (0), so that a module with random weights is the same one each time.

    Raises
    ------
    UserError
        The code fails, or returns something that is no model.
    """
    place, _, name = spec.name.rpartition(":")
    weights = None if spec.checkpoint is None else checkpoint_file(spec.checkpoint, spec.where)
    with importing, neighbours_of(place):
        with explaining_code(spec.where, f"importing {place}"):
            module = module_at(place)
        function = getattr(module, name, None)
        if not callable(function):
            raise UserError(f"{spec.where}: {place} has no function {name!r}{nearest(name, function_names(module))}")
        takes_checkpoint = "checkpoint" in inspect.signature(function).parameters
        with explaining_code(spec.where, f"{name}()"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.number("seed") or 0)
            returned = function(checkpoint=weights) if takes_checkpoint else function()
        files = _files(place, module)
    code = json.dumps({file: content_digest(path) for file, path in sorted(files.items())})
    own = finished(spec, returned, fill=not takes_checkpoint)
    return Loaded(own, _weights_digest(own), hashlib.sha256(code.encode()).hexdigest())


def load_made(spec: ModelSpec, make: Callable[[str], Any]) -> Loaded:
    """Call a function of a model's name, with torch's random numbers at the line's ``seed`` (0).

    Raises
    ------
    UserError
        The code fails, or returns something that is no model.
    """
    with explaining_code(spec.where, f"making {spec.name}"), torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.number("seed") or 0)
        returned = make(spec.name)
    own = finished(spec, returned, fill=True)
    return Loaded(own, _weights_digest(own), "")


def finished(spec: ModelSpec, returned: Any, *, fill: bool) -> OwnModel:
    """Return what a function returned in evaluation mode, with the weights of the line's ``checkpoint`` filled in."""
    try:
        own = own_model(returned)
    except UserError as error:
        raise UserError(f"{spec.where}: {spec.id}: {error}") from error
    weights = None if spec.checkpoint is None else checkpoint_file(spec.checkpoint, spec.where)
    if weights is not None and fill:
        with explaining(spec.id, "", weights):
            content = checkpoints.read_checkpoint(weights)
            checkpoints.fill(own.module, spec.id, weights, content, average=spec.flag("ema") is not False)
    own.module.eval()
    with explaining(spec.id, "", Path(spec.name.rpartition(":")[0] or spec.name)):
        check_finite(own.module)
    return own


def _weights_digest(own: OwnModel) -> str:
    digest = state_digest(own.module)
    owner = own.encode_text if isinstance(own.encode_text, nn.Module) else getattr(own.encode_text, "__self__", None)
    if isinstance(owner, nn.Module) and owner is not own.module:
        digest = hashlib.sha256(f"{digest} {state_digest(owner)}".encode()).hexdigest()
    return digest


def _files(place: str, module: ModuleType) -> dict[str, Path]:
    """Return the files that a model's code is in, by name: its own, and neighbours that it imports."""
    if not place.endswith(".py"):
        source = getattr(module, "__file__", None)
        return {place: Path(source)} if source and Path(source).is_file() else {}
    file, folder = Path(place), Path(place).resolve().parent
    found = {file.name: file}
    waiting: list[ModuleType] = [module]
    while waiting:
        for value in list(vars(waiting.pop()).values()):
            other = value if isinstance(value, ModuleType) else sys.modules.get(str(getattr(value, "__module__", "")))
            path = Path(getattr(other, "__file__", None) or "/").resolve()
            if other is None or not path.is_relative_to(folder) or path.suffix != ".py":
                continue
            name = path.relative_to(folder).as_posix()
            if name not in found:
                found[name] = path
                waiting.append(other)
    return found
