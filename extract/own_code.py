"""Functions of the user's own, by file or module: imported, called, and their errors reported in one line."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from closerlook_common.errors import UserError, nearest

importing = threading.Lock()
"""The path of imports belongs to the process."""


def function_at(place: str, name: str, where: str) -> Any:
    """Return a function of ``FILE.py`` or of a module; its file may import its neighbours.

    Raises
    ------
    UserError
        The file or module is missing, its code fails, or it has no such function.
    """
    if place.endswith(".py") and not Path(place).is_file():
        raise UserError(f"{where}: there is no file {place}")
    with importing, neighbours_of(place):
        with explaining(where, f"importing {place}"):
            module = module_at(place)
        function = getattr(module, name, None)
        if not callable(function):
            raise UserError(f"{where}: {place} has no function {name!r}{nearest(name, function_names(module))}")
    return function


@contextmanager
def explaining(where: str, what: str) -> Iterator[None]:
    """Turn whatever the user's code raises into one line."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{where}: {what} fails: {type(error).__name__}: {reason}") from error


def function_names(module: ModuleType) -> list[str]:
    """Return the names of a module's functions."""
    return [name for name, value in vars(module).items() if inspect.isfunction(value)]


def module_at(place: str) -> ModuleType:
    """Import a module by the path of its file, or by its name."""
    if not place.endswith(".py"):
        return importlib.import_module(place)
    file = Path(place)
    name = f"closerlook_own_{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}_{file.stem}"
    if (known := sys.modules.get(name)) is not None:
        return known
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextmanager
def neighbours_of(place: str) -> Iterator[None]:
    """Let a file import its neighbours, as a script can; another folder's neighbours of the same names stay apart."""
    if not place.endswith(".py"):
        yield
        return
    folder, before = Path(place).resolve().parent, set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            source = getattr(sys.modules[name], "__file__", None)
            if source and Path(source).resolve().is_relative_to(folder) and not name.startswith("closerlook_own_"):
                del sys.modules[name]
