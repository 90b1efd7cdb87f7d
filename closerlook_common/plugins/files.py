"""Files of plug-ins: run once, known by their content, and loaded again in every worker process."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from closerlook_common.errors import CloserlookError, UserError
from closerlook_common.input_files import read_text_file
from closerlook_common.plugins import registry
from closerlook_common.plugins.registry import KINDS, Plugin, offer

PACKAGE = "closerlook_common.plugins"
INHERITED = "_CLOSERLOOK_PLUGIN_FILES"
"""Environment variable from a process to the workers that it starts: its id, and the files that they load too."""


_FILES: dict[str, PluginFile] = {}
"""Module -> file, of all files that this process may load."""


@dataclass(frozen=True)
class PluginFile:
    """A file of plug-ins.

    Attributes
    ----------
    path
        Absolute path on the machine where it was named.
    source
        Its text.
    """

    path: str
    source: str

    @property
    def digest(self) -> str:
        """First 16 hexadecimal digits of the text's SHA-256."""
        return hashlib.sha256(self.source.encode()).hexdigest()[:16]

    @property
    def module(self) -> str:
        """Name of the module that the file becomes."""
        return f"{PACKAGE}.file_{self.digest}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Make the module known where the file is unpickled: what follows in a pickle may be of its classes."""
        return _known_file, (self.path, self.source)


def _known_file(path: str, source: str) -> PluginFile:
    file = PluginFile(path, source)
    return _FILES.setdefault(file.module, file)


_OFFERED: dict[str, PluginFile] = {}
"""Module -> file, of all files whose items were added in this process."""


def loaded_files() -> tuple[PluginFile, ...]:
    """Return the files that were loaded, for ``adopt`` in a process on another machine."""
    return tuple(_OFFERED.values())


def load_files(paths: Sequence[str | Path], registries: Mapping[str, str]) -> None:
    """Run files of plug-ins and add what they offer; a file that was loaded already is left alone.

    Parameters
    ----------
    paths
        Python files.
    registries
        Kind -> module of its registry, of the kinds that this stage uses; imported where a file offers some.

    Raises
    ------
    UserError
        A file cannot be read or run, offers nothing, or offers what a registry refuses. The message names the file.
    """
    for path in paths:
        shown = Path(path).expanduser().absolute()
        file = PluginFile(str(shown), read_text_file(shown, "plug-in"))
        _offer(file, registries)
    _tell_workers()


def adopt(files: Sequence[PluginFile]) -> None:
    """Load files of another process, perhaps on another machine, from their text."""
    for file in files:
        _offer(file, {})
    _tell_workers()


def clear_inherited() -> None:
    """Forget the files of the process that started this one: a command line names its own."""
    os.environ.pop(INHERITED, None)


def _offer(file: PluginFile, registries: Mapping[str, str]) -> None:
    if file.module in _OFFERED:
        return
    module = _run(file)
    found = [
        Plugin(kind, item, Path(file.path).name, file.digest)
        for kind in KINDS
        for item in _items(module, kind, file.path)
    ]
    if not found:
        names = ", ".join(kind.upper() for kind in KINDS)
        raise UserError(f"plug-in {file.path} offers nothing: it defines none of {names} as a tuple of items")
    for kind in {plugin.kind for plugin in found} & set(registries):
        importlib.import_module(registries[kind])
    offer(found)
    _OFFERED[file.module] = file


def _items(module: ModuleType, kind: str, path: str) -> Sequence[Any]:
    items = getattr(module, kind.upper(), ())
    if not isinstance(items, tuple | list):
        raise UserError(f"plug-in {path}: {kind.upper()} is a tuple of items, not {type(items).__name__}")
    return items


def _run(file: PluginFile) -> ModuleType:
    """Import a file as a submodule of this package."""
    _FILES[file.module] = file
    try:
        return importlib.import_module(file.module)
    except CloserlookError as error:
        raise UserError(f"plug-in {file.path}: {error}") from error
    except Exception as error:  # whatever the file raises
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file.path]
        number = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
        line = f", line {number}" if number else ""
        reason = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())[:200]
        raise UserError(f"plug-in {file.path}{line}: {type(error).__name__}: {reason}") from error


class _Finder:
    """Finds the modules of plug-in files, by the digest in their names.

    It has the methods of a finder and a loader without their base classes: importing those costs a tenth of ``--help``.
    """

    def create_module(self, spec: ModuleSpec) -> None:
        """Have an ordinary module made."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if not fullname.startswith(f"{PACKAGE}.file_"):
            return None
        if fullname not in _FILES:
            _remember_inherited()
        if fullname not in _FILES:
            return None
        loader: Any = self
        return ModuleSpec(fullname, loader, origin=_FILES[fullname].path)

    def exec_module(self, module: ModuleType) -> None:
        file = _FILES[module.__name__]
        module.__file__ = file.path
        exec(compile(file.source, file.path, "exec"), module.__dict__)


sys.meta_path.append(_Finder())


def _tell_workers() -> None:
    if _OFFERED:
        files = {file.path: file.digest for file in _OFFERED.values()}
        os.environ[INHERITED] = json.dumps([os.getpid(), files])


def _remember_inherited() -> list[PluginFile]:
    """Return the files of the process that started this one, if that is a process of Closerlook."""
    text = os.environ.get(INHERITED, "")
    if not text:
        return []
    owner, files = json.loads(text)
    if owner != os.getppid():
        return []
    found = []
    for path, digest in files.items():
        file = _FILES.get(f"{PACKAGE}.file_{digest}") or PluginFile(path, read_text_file(path, "plug-in"))
        if file.digest != digest:
            raise UserError(f"plug-in {path} has changed since this run began; start the run again")
        _FILES[file.module] = file
        found.append(file)
    return found


_adopting: list[str] = []


def attach(kind: str, add: Callable[[Plugin], None], *, installed: bool = True) -> None:
    """Name the registry of a kind, see ``registry.attach``; in a worker process, load first what its parent loaded."""
    if os.environ.get(INHERITED) and not _adopting:
        _adopting.append(kind)
        adopt(_remember_inherited())
    registry.attach(kind, add, installed=installed)
