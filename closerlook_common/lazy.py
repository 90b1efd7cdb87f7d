"""Load the names of a package when they are first used, so that importing the package is fast."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: str, modules: Mapping[str, tuple[str, ...]]) -> tuple[Callable[[str], Any], Callable[[], Any]]:
    """Return ``__getattr__`` and ``__dir__`` of a package whose names live in other modules (PEP 562).

    Parameters
    ----------
    package
        ``__name__`` of the package.
    modules
        Module -> names that it has. Modules of the package itself are reached by their own name as well.
    """
    where = {name: module for module, names in modules.items() for name in names}
    own = {module.removeprefix(f"{package}."): module for module in modules if module.startswith(f"{package}.")}

    def load(name: str) -> Any:
        if name in where:
            value = getattr(importlib.import_module(where[name]), name)
        elif name in own:
            value = importlib.import_module(own[name])
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *where, *own})

    return load, names
