"""How much arithmetic a model's image tower is: counted on a model without memory, before any weight is there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from extract.libraries import registry
from extract.libraries.base import Library
from extract.libraries.counts import Counts
from extract.models.base import Prepared


def count_operations(models: Iterable[Prepared]) -> Iterator[int | None]:
    """Yield each model's floating-point operations an image; a multiplication and an addition are two.

    Models are built on the meta device, which allocates nothing, and run on one image there. The counts of published
    architectures are remembered by library version. None where an architecture cannot be built or run that way.
    """
    with Counts("operations") as counts:
        for model in models:
            library, (height, width) = registry.get(model.spec.library), model.preprocessing.geometry.output_size
            if architecture := library.architecture(model.spec):
                key = f"{architecture}@{height}x{width}"
                yield counts.of(library, key, partial(_count, library, model, height, width))
            else:
                yield _count(library, model, height, width)


def text_operations(model: Prepared) -> int | None:
    """Return the floating-point operations of a zero-shot model's text tower for one text; None where not known."""
    return registry.get(model.spec.library).text_operations(model)


def _count(library: Library, model: Prepared, height: int, width: int) -> int | None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    try:
        with torch.device("meta"):
            tower = library.image_tower(model).eval().requires_grad_(False)
            counter: Any = FlopCounterMode(display=False)
            with counter, torch.no_grad():
                tower(torch.empty(1, 3, height, width))
        return int(counter.get_total_flops()) or None
    except Exception:  # noqa: BLE001  # an estimate is made without it; loading the model reports what is wrong
        return None
