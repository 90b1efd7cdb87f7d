"""uint8 pixels on a device in, the numbers the first layer sees out; and the precision the body runs in."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from closerlook_common.errors import UserError, nearest
from extract.models.base import PRECISIONS
from extract.preprocess import Preprocessing

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Normalizer:
    """``(x / 255 - mean) / std`` in float32, bit for bit as torchvision's ToTensor and Normalize do it."""

    def __init__(self, preprocessing: Preprocessing, device: torch.device) -> None:
        self._mean = torch.tensor(preprocessing.mean, dtype=torch.float32, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocessing.std, dtype=torch.float32, device=device).view(1, 3, 1, 1)
        # A tensor, for a GPU multiplies by the rounded reciprocal of a number.
        self._full = torch.tensor(255.0, dtype=torch.float32, device=device)

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (B, 3, H, W) float32 of (B, H, W, 3) or (B, 3, H, W) uint8."""
        if pixels.dtype != torch.uint8 or pixels.ndim != 4:
            raise ValueError(f"pixels must be uint8 of four dimensions, not {pixels.dtype} {tuple(pixels.shape)}")
        if pixels.shape[1] != 3:
            pixels = pixels.permute(0, 3, 1, 2)
        if pixels.is_cuda:  # as GPUs like them, and always the same, so that nothing is compiled twice
            scaled = pixels.to(torch.float32, memory_format=torch.channels_last).div_(self._full)
        else:
            scaled = pixels.contiguous().to(torch.float32).div_(self._full)
        return scaled.sub_(self._mean).div_(self._std)


def to_channels_last(module: torch.nn.Module) -> None:
    """Lay a module's weights of convolutions out as GPUs like them.

    Only those of four dimensions: ``Module.to`` takes five for a volume's, which fails for positions of lambda layers.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)


def check_precision(precision: str) -> str:
    """Return the precision, or say which there are."""
    if precision not in PRECISIONS:
        raise UserError(
            f"precision {precision!r} is not one of {', '.join(PRECISIONS)}{nearest(precision, PRECISIONS)}"
        )
    return precision


@contextlib.contextmanager
def body_precision(device: torch.device, precision: str) -> Iterator[None]:
    """Run what is within in the given precision: autocast for bf16 and fp16, true float32 for fp32."""
    if precision in _AUTOCAST:
        with torch.autocast(device.type, dtype=_AUTOCAST[precision]):
            yield
    else:
        with true_float32(device):
            yield


@contextlib.contextmanager
def true_float32(device: torch.device) -> Iterator[None]:
    """Switch off autocast and TensorFloat-32, which torch uses for convolutions by default."""
    with torch.autocast(device.type, enabled=False):
        if device.type != "cuda":
            yield
            return
        saved = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        try:
            yield
        finally:
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = saved
