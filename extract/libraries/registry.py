"""Which libraries there are: those of this package, those of installed packages, those that a run registers."""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from closerlook_common.errors import UserError, nearest
from closerlook_common.plugins import Plugin, attach, digest_of
from extract.libraries.base import Library

BUILT_IN = {
    "timm": "extract.libraries.timm",
    "open_clip": "extract.libraries.open_clip",
    "torchvision": "extract.libraries.torchvision",
    "transformers": "extract.libraries.transformers",
    "vlm": "extract.libraries.vlm",
    "torchscript": "extract.libraries.torchscript",
    "onnx": "extract.libraries.onnx",
    "python": "extract.libraries.python",
}
"""Library -> its module with ``LIBRARY``; imported when first used."""

GROUP = "closerlook.libraries"
"""Entry points of installed packages: the name of a library = its module, or the `Library` in it."""

_registered: dict[str, Library] = {}


def register(library: Library) -> None:
    """Add a library to this process, so that model lists can name it.

    Parameters
    ----------
    library
        An instance; registering the same one again does nothing.

    Raises
    ------
    UserError
        Its name is taken, or cannot stand before the colon of a line.
    """
    name = str(getattr(library, "name", ""))
    if not isinstance(library, Library) or not name.replace("_", "").replace("-", "").isalnum():
        raise UserError(f"a library of models is an extract.libraries.Library with a name of letters, not {library!r}")
    known = _registered.get(name)
    if known is library:
        return
    if name in BUILT_IN or known is not None:
        raise UserError(f"the library {name} exists already; give yours another name")
    _registered[name] = library


@cache
def _installed() -> dict[str, EntryPoint]:
    """Return the libraries of installed packages, none of them loaded."""
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in BUILT_IN}


def names() -> tuple[str, ...]:
    """Return the names of all libraries; no library is imported."""
    return tuple(dict.fromkeys((*BUILT_IN, *_installed(), *_registered)))


def get(name: str) -> Library:
    """Return a library by name.

    Raises
    ------
    UserError
        There is none of that name, or the package that offers it cannot be loaded.
    """
    if name in _registered:
        return _registered[name]
    if name in BUILT_IN:
        library: Library = importlib.import_module(BUILT_IN[name]).LIBRARY
        return library
    if name in _installed():
        return _load(_installed()[name])
    raise UserError(f"no library {name!r}; there are {', '.join(names())}{nearest(name, names())}")


@cache
def _load(point: EntryPoint) -> Library:
    package = f"the package {point.dist.name}" if point.dist is not None else "a package"
    try:
        found: Any = point.load()
    except Exception as error:  # whatever the code of a package raises
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the library {point.name} of {package} cannot be loaded ({type(error).__name__}: {reason});"
            " update or remove that package"
        ) from error
    found = getattr(found, "LIBRARY", found)
    found = found() if isinstance(found, type) else found
    if not isinstance(found, Library):
        raise UserError(f"the library {point.name} of {package} is not an extract.libraries.Library but {found!r}")
    return found


def every() -> tuple[list[Library], list[str]]:
    """Return all libraries, and why others cannot be loaded, one line each."""
    libraries, problems = [], []
    for name in names():
        try:
            libraries.append(get(name))
        except UserError as error:
            problems.append(str(error))
    return libraries, problems


def _add(plugin: Plugin) -> None:
    """Take a library of a file of plug-ins: an instance, or a class that takes nothing."""
    register(plugin.item() if isinstance(plugin.item, type) else plugin.item)


def code_digest(name: str) -> str:
    """Return what identifies the code of a library from outside the package; empty for a built-in one."""
    found = digest_of("libraries", name)
    if found or name not in _installed():
        return found
    package = _installed()[name].dist
    return "" if package is None else f"{package.name}-{package.version}"


attach("libraries", _add, installed=False)  # packages' libraries are loaded when a line names them
