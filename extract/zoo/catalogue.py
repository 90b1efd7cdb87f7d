"""What the installed libraries say of a model without building it: input size, licence; and its parameters,
built on no memory.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from cache_schema.records import UNKNOWN
from extract.zoo.cards import derive

NON_COMMERCIAL = frozenset(
    {"cc-by-nc-4.0", "fair-noncommercial-research-license", "apple-amlr", "seer-license"}
)
"""Licences that forbid commercial use, or allow research alone."""
OPEN = frozenset({"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0"})
"""Licences that allow it; anything else has terms of its own."""

_DISTRIBUTION = {"timm": "timm", "open_clip": "open_clip_torch"}


@dataclass(frozen=True)
class Entry:
    """One model that can be named.

    Attributes
    ----------
    library, name
        As in a model list.
    input_size
        Side of the test-time input in pixels.
    licence
        Of the weights; ``unknown`` where the libraries do not say.
    card
        Card fields derived from the name.
    """

    library: str
    name: str
    input_size: int | None
    licence: str
    card: Mapping[str, Any] = field(default_factory=dict)

    @property
    def architecture(self) -> str:
        """The name without the tag."""
        return self.name.partition("/" if self.library == "open_clip" else ".")[0]


def entries() -> Iterator[Entry]:
    """Yield every pretrained model of the installed timm and open_clip."""
    import open_clip
    import timm

    for name in timm.list_models(pretrained=True):
        config = _timm_config(name)
        size = (config.test_input_size or config.input_size)[-1] if config else None
        yield Entry("timm", name, size, _timm_licence(name), derive("timm", name))
    for architecture, tag in open_clip.list_pretrained():
        name = f"{architecture}/{tag}"
        config = open_clip.get_model_config(architecture) or {}
        size = config.get("vision_cfg", {}).get("image_size")
        side = size[0] if isinstance(size, list | tuple) else size
        # open_clip states no licence; most of its weights lie in a timm repository, whose tag does.
        hub = str((open_clip.get_pretrained_cfg(architecture, tag) or {}).get("hf_hub", "")).strip("/")
        licence = _timm_licence(hub.removeprefix("timm/")) if hub.startswith("timm/") else UNKNOWN
        yield Entry("open_clip", name, side, licence, derive("open_clip", name))


def _timm_config(name: str) -> Any:
    from timm.models import get_pretrained_cfg

    try:
        return get_pretrained_cfg(name)
    except RuntimeError:  # the name is not in this timm
        return None


def _timm_licence(name: str) -> str:
    config = _timm_config(name)
    return (config.license if config else None) or UNKNOWN


def count_parameters(wanted: Iterable[Entry]) -> Iterator[int | None]:
    """Yield each model's number of parameters: of the image tower for open_clip, of the whole model for timm.

    Models are built on the meta device, which allocates nothing, and the counts are remembered by library
    version. None where an architecture cannot be built that way.
    """
    from cache_schema.user_cache import user_cache, write_whole

    files = {
        library: user_cache() / "parameters" / f"{library}-{version(distribution)}.json"
        for library, distribution in _DISTRIBUTION.items()
    }
    known: dict[str, dict[str, int | None]] = {library: _read(path) for library, path in files.items()}
    changed: set[str] = set()
    try:
        for entry in wanted:
            counts = known[entry.library]
            if entry.architecture not in counts:
                counts[entry.architecture] = _count(entry.library, entry.architecture)
                changed.add(entry.library)
            yield counts[entry.architecture]
    finally:
        for library in changed:
            with contextlib.suppress(OSError):  # it can be computed again
                write_whole(files[library], json.dumps(known[library]).encode())


def _read(path: Any) -> dict[str, int | None]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _count(library: str, architecture: str) -> int | None:
    import torch

    logging.getLogger("timm").setLevel(logging.ERROR)
    try:
        with torch.device("meta"):
            model = _image_tower(architecture) if library == "open_clip" else _whole(architecture)
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError, ImportError):
        return None
    return int(sum(parameter.numel() for parameter in model.parameters()))


def _whole(architecture: str) -> Any:
    import timm

    return timm.create_model(architecture, pretrained=False)


def _image_tower(architecture: str) -> Any:
    import open_clip
    from open_clip.model import _build_vision_tower

    config = open_clip.get_model_config(architecture)
    return _build_vision_tower(config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False))
