"""How much arithmetic a model's image tower is: counted on a model without memory, before any weight is there."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from typing import Any

from extract.models.base import Prepared

_DISTRIBUTION = {"timm": "timm", "open_clip": "open_clip_torch"}


def count_operations(models: Iterable[Prepared]) -> Iterator[int | None]:
    """Yield each model's floating-point operations an image; a multiplication and an addition are two.

    Models are built on the meta device, which allocates nothing, and run on one image there. The counts of published
    architectures are remembered by library version. None where an architecture cannot be built or run that way.
    """
    from cache_schema.user_cache import user_cache, write_whole

    files = {
        library: user_cache() / "operations" / f"{library}-{version(distribution)}.json"
        for library, distribution in _DISTRIBUTION.items()
    }
    known = {library: _read(path) for library, path in files.items()}
    changed: set[str] = set()
    try:
        for model in models:
            spec, (height, width) = model.spec, model.preprocessing.geometry.output_size
            if "config" in spec.options or spec.name.startswith(("local-dir:", "hf-hub:")):
                yield _count(model, height, width)
                continue
            key = f"{_architecture(model)}@{height}x{width}"
            counts = known[spec.library]
            if key not in counts:
                counts[key] = _count(model, height, width)
                changed.add(spec.library)
            yield counts[key]
    finally:
        for library in changed:
            with contextlib.suppress(OSError):  # it can be computed again
                write_whole(files[library], json.dumps(known[library]).encode())


def text_operations(model: Prepared) -> int | None:
    """Return the floating-point operations of a zero-shot model's text tower for one text, from its config.

    Of open_clip's own transformers; None for a tower of Hugging Face's, whose size the config does not tell.
    """
    from extract.models.open_clip_configs import source_of

    text = source_of(model.spec).model.get("text_cfg", {})
    if "hf_model_name" in text:
        return None
    tokens, width = int(text.get("context_length", 77)), int(text.get("width", 512))
    layer = tokens * (3 + 1 + 2 * float(text.get("mlp_ratio", 4))) * width**2 + 2 * tokens**2 * width
    return int(2 * int(text.get("layers", 12)) * layer)


def _architecture(model: Prepared) -> str:
    return model.spec.name.partition("/" if model.spec.library == "open_clip" else ".")[0]


def _read(path: Any) -> dict[str, int | None]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _count(model: Prepared, height: int, width: int) -> int | None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    logging.getLogger("timm").setLevel(logging.ERROR)
    try:
        with torch.device("meta"):
            tower = _tower(model).eval().requires_grad_(False)
            counter: Any = FlopCounterMode(display=False)
            with counter, torch.no_grad():
                tower(torch.empty(1, 3, height, width))
        return int(counter.get_total_flops()) or None
    except Exception:  # noqa: BLE001  # an estimate is made without it; loading the model tells what is wrong
        return None


def _tower(model: Prepared) -> Any:
    if model.spec.library == "timm":
        import timm

        return timm.create_model(_architecture(model), pretrained=False)
    from open_clip.model import _build_vision_tower

    from extract.models.open_clip_configs import source_of

    config = source_of(model.spec).model
    return _build_vision_tower(config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False))
