"""Constants of a package from the one file that holds them: importing open_clip whole takes seconds."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from pathlib import Path
from typing import Any


@cache
def constants_of(package: str, file: str) -> Any:
    """Return a module of a package that imports nothing itself, without importing the package.

    Parameters
    ----------
    package
        Top-level package.
    file
        Name of the module's file in it, without ``.py``.

    Returns
    -------
    module
        The package itself where it was imported already, or has no such file; it holds the same names.
    """
    spec = None if package in sys.modules else importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        path = Path(folder) / f"{file}.py"
        found = importlib.util.spec_from_file_location(f"_{package}_{file}", path) if path.is_file() else None
        if found is not None and found.loader is not None:
            module = importlib.util.module_from_spec(found)
            found.loader.exec_module(module)
            return module
    return importlib.import_module(package)
