"""Which plug-ins this stage uses, and where each kind is registered."""

from __future__ import annotations

from collections.abc import Mapping

REGISTRIES: Mapping[str, str] = {
    "datasets": "extract.datasets.recipes",
    "libraries": "extract.libraries.registry",
}
"""Kind of plug-in -> module that takes it; imported where a file offers some."""
