"""Which weights are finished, from the stamps in their files' headers; light, for it runs on every build."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from safetensors import SafetensorError, safe_open

from examples.miniature.recipes import ZOO_VERSION, Recipe


def weights_stamp(recipe: Recipe, datasets: Mapping[str, str], start: str = "") -> str:
    """Return what a run's weights depend on, as a digest: recipe, datasets' stamps, its start's stamp."""
    record = [ZOO_VERSION, asdict(recipe), {name: datasets[name] for name in recipe.data}, start]
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def stored_stamp(path: Path) -> str:
    """Return the stamp in a weight file's header; empty where there is no whole file."""
    try:
        with safe_open(path, framework="np") as file:
            return str((file.metadata() or {}).get("stamp", ""))
    except (OSError, SafetensorError):
        return ""


def is_trained(folder: Path, recipe: Recipe, stamp: str) -> bool:
    """Return whether all of a run's models are on disk with this stamp."""
    return all(stored_stamp(folder / f"{name}.safetensors") == stamp for name in recipe.models())
