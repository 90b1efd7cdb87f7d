"""Whether an error says that memory ran out, whoever says it."""

from __future__ import annotations

import torch

_WORDS = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUDA out of memory")
"""torch's allocator for the CPU and the libraries below it have no exception of their own for it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that less at a time might work."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def free_cached(device: torch.device) -> None:
    """Give memory that torch holds in reserve back to the device.

    To be called after the ``except`` clause: an exception keeps the tensors of the calls that it ended alive.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
