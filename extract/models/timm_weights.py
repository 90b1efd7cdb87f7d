"""Where the weights of a timm model lie: in the hub cache, in torch's cache, in a folder; and what a file
holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from safetensors import safe_open

from cache_schema.errors import UserError
from extract.models.checkpoints import nested_tensors, torch_file
from extract.models.weights import cached_on_hub, fetched_from_hub
from extract.zoo.model_list import ModelSpec

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
LOCAL_FILES = (
    *HUB_FILES,
    "pytorch_model.pth",
    "model.pth",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
"""In the order in which timm looks for them."""

_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
_PREFIXES = ("_orig_mod.", "module.", "_orig_mod.")


def _hub(spec: ModelSpec, config: Mapping[str, Any]) -> tuple[str, str | None, tuple[str, ...]] | None:
    """Return repository, revision and candidate files, or None where the weights are not on the hub."""
    name = spec.name.removeprefix("hf-hub:") if spec.name.startswith("hf-hub:") else config.get("hf_hub_id")
    if not name:
        return None
    repository, _, revision = str(name).partition("@")
    file = config.get("hf_hub_filename")
    if not file:
        return repository, revision or None, HUB_FILES
    safe = (f"{file[:-4]}.safetensors",) if file.endswith(".bin") else ()
    return repository, revision or None, (*safe, file)


def _url_file(config: Mapping[str, Any]) -> tuple[str, Path] | None:
    url = config.get("url")
    if not url:
        return None
    url, name = url if isinstance(url, (tuple, list)) else (url, Path(urlparse(url).path).name)
    return url, Path(torch.hub.get_dir()) / "checkpoints" / name


def has_source(spec: ModelSpec, config: Mapping[str, Any]) -> bool:
    """Say whether timm knows where to get weights for a line without a checkpoint."""
    return (
        spec.name.startswith("local-dir:") or _hub(spec, config) is not None or _url_file(config) is not None
    )


def locate(spec: ModelSpec, config: Mapping[str, Any]) -> Path | None:
    """Return the weight file of a line without a checkpoint, if it is on this machine; asks no network."""
    if spec.name.startswith("local-dir:"):
        folder = Path(spec.name.removeprefix("local-dir:"))
        files = [folder / name for name in LOCAL_FILES]
        files += (
            sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.pth")) + sorted(folder.glob("*.bin"))
        )
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            raise UserError(f"{spec.where}: no weights in {folder}; it needs one of {', '.join(LOCAL_FILES)}")
        return found
    if (hub := _hub(spec, config)) is not None:
        return cached_on_hub(hub[0], hub[2], hub[1])
    address = _url_file(config)
    return address[1] if address is not None and address[1].is_file() else None


def fetch(spec: ModelSpec, config: Mapping[str, Any]) -> Path:
    """Download the weight file into the library's usual cache and return it."""
    if (hub := _hub(spec, config)) is not None:
        return fetched_from_hub(hub[0], hub[2], hub[1])
    address = _url_file(config)
    if address is None:
        raise FileNotFoundError("no address is known for these weights")
    url, target = address
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(target), progress=False)
    return target


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all tensors in a checkpoint, by name without wrappers' prefixes; little of it is
    read.
    """
    if path.suffix in (".npz", ".npy"):
        return {}
    if path.suffix == ".safetensors":
        with safe_open(str(path), framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118  # no mapping
    else:
        tables = list(nested_tensors(torch_file(path)))
        known = [tensors for wrapper in _WRAPPERS for keys, tensors in tables if keys == (wrapper,)]
        # Wrappers that timm does not know come after those it does; see `checkpoints.fitting_state`.
        found = {
            name: tuple(value.shape)
            for tensors in (known or [tensors for _, tensors in tables])[::-1]
            for name, value in tensors.items()
        }
    return {_bare(name): shape for name, shape in found.items()}


def _bare(name: str) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def classifier_width(path: Path, classifier: str | Sequence[str] | None) -> int | None:
    """Return the number of classes of a checkpoint from the shape of its classifier, or None if it has none
    by that name.
    """
    if classifier is None:
        return None
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    held = shapes(path)
    for name in names:
        if shape := held.get(f"{name}.weight"):
            return shape[0]
        # Under a prefix of a training framework (Lightning's "model.") the width is told if only one is there.
        widths = {shape[0] for key, shape in held.items() if key.endswith(f".{name}.weight") and shape}
        if len(widths) == 1:
            return widths.pop()
    return None
