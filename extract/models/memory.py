"""Recognise out-of-memory errors of every library, and free memory after one."""

from __future__ import annotations

import torch

_WORDS = (
    "can't allocate memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # no room for the library's own workspace
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "DEVICE_ALLOCATION_FAILED",
    "unable to find an engine to execute this computation",  # none whose workspace there is room for
    "invalid configuration argument",  # of a kernel that takes no more rows
    "canUse32BitIndexMath",  # more elements than a kernel can count
)
"""What torch's allocator for the CPU, the libraries below it and kernels with a limit say, all as RuntimeError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that less at a time might work."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _WORDS)


def without_traceback(error: Exception) -> Exception:
    """Return an error without the tracebacks of itself and of what led to it, which keep the calls' tensors alive."""
    chain: list[BaseException] = [error]
    while chain:
        link = chain.pop()
        if link.__traceback__ is not None:
            link.__traceback__ = None
            chain += [other for other in (link.__cause__, link.__context__) if other is not None]
    return error


def free_cached(device: torch.device) -> None:
    """Give memory that torch holds in reserve back to the device.

    To be called after the ``except`` clause: an exception keeps the tensors of the calls that it ended alive.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()
