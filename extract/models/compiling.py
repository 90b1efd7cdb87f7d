"""A loaded model compiled by torch for batches of one size, or left as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from extract.preprocess import Preprocessing

if TYPE_CHECKING:
    import torch

MOST_COMPILED = 1024
"""Versions of one function that torch keeps; its own limits are meant for one model, here many of a class may be
resident. Beyond the limit a model fails: it would otherwise silently run uncompiled.
"""


class CompileError(RuntimeError):
    """A model cannot be compiled here; it still runs as it is."""


class HasTower(Protocol):
    """What of a `LoadedModel` compiling needs, with the same meaning."""

    preprocessing: Preprocessing
    device: torch.device
    compiled_rows: int
    _tower: Callable[[torch.Tensor], Any]

    def forward(self, pixels: torch.Tensor) -> Any:
        """Run the model once."""


def compile_tower(model: HasTower, rows: int, backend: str) -> None:
    """Do what `LoadedModel.compile` says."""
    import torch
    import torch._dynamo.config as limits

    from extract.models.memory import free_cached, is_out_of_memory

    limits.recompile_limit = limits.accumulated_recompile_limit = MOST_COMPILED
    limits.fail_on_recompile_limit_hit = True
    plain = model._tower
    height, width = model.preprocessing.geometry.output_size
    try:
        model._tower = torch.compile(plain, backend=backend, dynamic=False)
        while True:
            try:
                model.forward(torch.zeros((rows, 3, height, width), dtype=torch.uint8, device=model.device))
                break
            except Exception as error:
                if rows == 1 or not is_out_of_memory(error):
                    raise
            free_cached(model.device)
            rows //= 2
    except Exception as error:
        # torch raises whatever its compiler, the C++ compiler or a model's own code does.
        model._tower = plain
        # Of its pages of text the first two lines name the compiler and its complaint.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()][:2]
        raise CompileError(f"{type(error).__name__}: {' '.join(lines)[:300]}") from error
    model.compiled_rows = rows
