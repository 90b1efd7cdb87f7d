"""What timm knows of a name before a model is built: architecture, pretrained configuration, saved arguments.

A folder or a hub repository brings a configuration of its own. It may describe a model; it may not say where weights
are read from, or how.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import timm
from timm.models import PretrainedCfg, build_model_with_cfg, get_pretrained_cfg, load_model_config_from_hf

from closerlook_common.errors import UserError, nearest
from closerlook_common.input_files import read_json_file
from extract.models.spec import ModelSpec
from extract.models.weights import content_digest, explaining

_LARGEST_CONFIG = 4 << 20
LARGEST_HEAD = 10_000_000
"""Classes; the largest published head has some 22,000."""
_LARGEST_SIDE = 8192
_LOADING = ("feature_cls", "features_only", "out_indices", "pruned")
"""What timm takes out of a model's arguments in its own code, not by name."""


@dataclass(frozen=True)
class Source:
    """What timm knows of a name: architecture, pretrained config, and arguments saved with a checkpoint."""

    architecture: str
    config: Mapping[str, Any]
    arguments: Mapping[str, Any]


def source_of(spec: ModelSpec) -> Source:
    """Return what timm knows of a line's name, from its registry, a folder, or the hub.

    Raises
    ------
    UserError
        timm has no such model, or a saved configuration cannot be used.
    """
    if spec.name.startswith("local-dir:"):
        config, architecture, arguments = _saved_config(spec)
    elif spec.name.startswith("hf-hub:"):
        with explaining(spec.name, "the hub", None):
            config, architecture, arguments = load_model_config_from_hf(spec.name.removeprefix("hf-hub:"))
        _check_saved(f"{spec.where}: the configuration of {spec.name}", config, architecture, arguments)
    else:
        found: Any = get_pretrained_cfg(spec.name)
        if found is None:
            raise UserError(f"{spec.where}: timm has no model {spec.name!r}{nearest(spec.name, timm.list_models())}")
        config, architecture, arguments = found.to_dict(), spec.name.partition(".")[0], {}
    if not timm.is_model(architecture):
        raise UserError(
            f"{spec.where}: timm has no architecture {architecture!r}{nearest(architecture, timm.list_models())}"
        )
    config.pop("source", None)
    return Source(architecture, config, arguments)


def _saved_config_file(spec: ModelSpec) -> Path:
    return Path(spec.name.removeprefix("local-dir:")) / "config.json"


def saved_config_digest(spec: ModelSpec) -> str:
    """Return the SHA-256 of the ``config.json`` of a ``local-dir:`` model; empty for any other line."""
    return content_digest(_saved_config_file(spec)) if spec.name.startswith("local-dir:") else ""


def _saved_config(spec: ModelSpec) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Read the ``config.json`` that timm saves beside weights."""
    file = _saved_config_file(spec)
    try:
        saved = read_json_file(file, "configuration", limit=_LARGEST_CONFIG)
    except UserError as error:
        raise UserError(f"{spec.where}: {error}") from None
    at = f"{spec.where}: {file}"
    described = isinstance(saved, dict) and isinstance(saved.get("pretrained_cfg"), dict)
    if not described or not isinstance(saved.get("architecture"), str):
        raise UserError(f"{at} is not timm's description of a saved model: it needs architecture and pretrained_cfg")
    known = {field.name for field in fields(PretrainedCfg)} - {"state_dict"}
    config = {key: value for key, value in saved["pretrained_cfg"].items() if key in known}
    if "num_classes" in saved:
        config["num_classes"] = saved["num_classes"]
    arguments = saved.get("model_args") or {}
    _check_saved(at, config, saved["architecture"], arguments)
    return config, saved["architecture"], dict(arguments)


@cache
def _loading_arguments() -> frozenset[str]:
    """Return the arguments of timm's factory that choose files, or how they are read, rather than a network."""
    taken = {*inspect.signature(timm.create_model).parameters, *inspect.signature(build_model_with_cfg).parameters}
    return frozenset({*taken, *_LOADING} - {"kwargs"})


def _check_saved(at: str, config: Any, architecture: Any, arguments: Any) -> None:
    if not isinstance(config, dict) or not isinstance(architecture, str) or not isinstance(arguments, Mapping):
        raise UserError(f"{at} is not timm's description of a saved model")
    if refused := sorted(_loading_arguments().intersection(arguments)):
        raise UserError(f"{at}: model_args may not set {refused[0]}, which says how timm loads a model")
    classes = config.get("num_classes", 1000)
    if not isinstance(classes, int) or not 0 <= classes <= LARGEST_HEAD:
        raise UserError(f"{at}: num_classes is {_shown(classes)}, not a number of classes")
    for key in ("input_size", "test_input_size"):
        size = config.get(key)
        if size is None:
            continue
        if not isinstance(size, (list, tuple)) or len(size) != 3 or not all(_is_side(side) for side in size):
            raise UserError(f"{at}: {key} is {_shown(size)}, not channels, height and width up to {_LARGEST_SIDE}")
    for key in ("mean", "std"):
        numbers = config.get(key, [0.5])
        if not isinstance(numbers, (list, tuple)) or not all(_is_number(number) for number in numbers):
            raise UserError(f"{at}: {key} is {_shown(numbers)}, not a list of numbers")
    for key, value in arguments.items():
        if not _is_reasonable(value):
            raise UserError(f"{at}: model_args says {key} = {_shown(value)}, which no model has")


def _is_side(value: Any) -> bool:
    return isinstance(value, int) and 0 < value <= _LARGEST_SIDE


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_reasonable(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(_is_reasonable(inner) for inner in value.values())
    if isinstance(value, (list, tuple)):
        return all(_is_reasonable(inner) for inner in value)
    if isinstance(value, (int, float)):
        return math.isfinite(value) and abs(value) <= LARGEST_HEAD
    return value is None or isinstance(value, str)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."
