"""The script that builds the documentation site, as a module."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).resolve().parents[1] / "docs"


def site_builder() -> ModuleType:
    """Return ``docs/build.py``."""
    sys.path.insert(0, str(DOCS))  # it imports its neighbours
    try:
        return importlib.import_module("build")
    finally:
        sys.path.remove(str(DOCS))
