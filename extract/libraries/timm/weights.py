"""Where the weights of a timm model lie: in the hub cache, in torch's cache, in a folder; and what a file
holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from timm.models import clean_state_dict

from closerlook_common.errors import UserError
from extract.models.shapes import WRAPPERS
from extract.models.spec import ModelSpec
from extract.models.torch_hub import fetched, hub_file
from extract.models.weights import cached_on_hub, checkpoint_file, fetched_from_hub

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
    url, name = url if isinstance(url, (tuple, list)) else (url, "")
    return url, hub_file(url, name)


def has_source(spec: ModelSpec, config: Mapping[str, Any]) -> bool:
    """Return whether timm knows where to get weights for a line without a checkpoint."""
    return spec.name.startswith("local-dir:") or _hub(spec, config) is not None or _url_file(config) is not None


def locate(spec: ModelSpec, config: Mapping[str, Any]) -> Path | None:
    """Return the weight file of a line without a checkpoint, if it is on this machine; asks no network."""
    if spec.name.startswith("local-dir:"):
        folder = Path(spec.name.removeprefix("local-dir:"))
        files = [folder / name for name in LOCAL_FILES]
        files += sorted(folder.glob("*.safetensors")) + sorted(folder.glob("*.pth")) + sorted(folder.glob("*.bin"))
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            raise UserError(f"{spec.where}: no weights in {folder}; it needs one of {', '.join(LOCAL_FILES)}")
        return checkpoint_file(found, spec.where)
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
    return fetched(*address)


def published_state(content: Any, *, average: bool) -> dict[str, torch.Tensor] | None:
    """Return the weights under the keys that timm's own scripts use, or at the top level; None where there are none.

    Parameters
    ----------
    content
        What a file holds.
    average
        Whether the moving average of the weights is preferred.
    """
    if not isinstance(content, Mapping):
        return None
    wrappers = WRAPPERS if average else WRAPPERS[2:]
    state = next((content[key] for key in wrappers if content.get(key) is not None), content)
    if not isinstance(state, Mapping) or not any(isinstance(value, torch.Tensor) for value in state.values()):
        return None
    cleaned: dict[str, torch.Tensor] = clean_state_dict({str(name): value for name, value in state.items()})
    return cleaned
