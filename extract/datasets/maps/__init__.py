"""Many-to-one maps from ImageNet-1k to the coarser classes of other datasets, kept as ranges of class
indices.
"""

from __future__ import annotations

import json
import tomllib
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path


def expand(text: str) -> tuple[int, ...]:
    """Return the indices of a text of single numbers and ranges.

    Examples
    --------
    >>> expand("8 10-12")
    (8, 10, 11, 12)
    """
    indices: list[int] = []
    for part in text.split():
        first, _, last = part.partition("-")
        indices += range(int(first), int(last or first) + 1)
    return tuple(indices)


@cache
def class_map(name: str) -> dict[str, tuple[int, ...]]:
    """Return coarse class -> ImageNet-1k indices, in the order of the coarse classes' own indices.

    Parameters
    ----------
    name
        ``objectnet`` (keys are folder names), ``vid-robust``, ``ytbb`` (some classes have no member) or
        ``cue-conflict``.
    """
    text = files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    return {key: expand(value) for key, value in tomllib.loads(text).items()}


@cache
def index_list(name: str) -> tuple[int, ...]:
    """Return the ImageNet-1k indices of ``a`` (ImageNet-A) or ``r`` (ImageNet-R), as timm ships them."""
    return tuple(int(line) for line in _timm_info(f"imagenet_{name}_indices.txt").split())


@cache
def real_labels() -> tuple[tuple[int, ...], ...]:
    """Return the ReaL labels of ImageNet-val by file number minus one, as timm ships them; some are empty."""
    return tuple(tuple(labels) for labels in json.loads(_timm_info("imagenet_real_labels.json")))


def _timm_info(name: str) -> str:
    """Read a file of timm's wheel without importing timm, which would import torch."""
    package = find_spec("timm")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("timm is not installed", name="timm")
    return (Path(package.origin).parent / "data" / "_info" / name).read_text(encoding="utf-8")
