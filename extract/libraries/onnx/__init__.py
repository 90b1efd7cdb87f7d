"""Networks in the ONNX format, run by onnxruntime: ``onnx:FILE``.

An ONNX file holds a graph of known operations and no code. Custom operators are not loaded, and weights in files of
their own are read only where they lie beside the model, as onnxruntime does by itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from closerlook_common.distribution import install_line
from closerlook_common.errors import UserError
from extract.libraries.exported import ExportedLibrary

if TYPE_CHECKING:
    import torch

__all__ = ["LIBRARY", "OnnxLibrary"]


class OnnxLibrary(ExportedLibrary):
    """Files of ONNX."""

    name = "onnx"
    distribution = "onnxruntime"
    ending = ".onnx"
    own_examples = (
        (
            "onnx:net.onnx input_size=224 mean=0.5 std=0.5 interpolation=bicubic resize_mode=squash",
            "an exported network; features=NAME names another output of it (extra onnx)",
        ),
    )

    def module(self, file: Path, device: str) -> torch.nn.Module:
        """Return the network of a file; see `ExportedLibrary.module`."""
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(f"onnx: needs onnxruntime: {install_line('onnx')}") from error
        from extract.libraries.onnx.session import Session

        providers = ["CUDAExecutionProvider"] if device.startswith("cuda") else []
        known = onnxruntime.get_available_providers()
        available = [name for name in (*providers, "CPUExecutionProvider") if name in known]
        options: Any = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        return Session(onnxruntime.InferenceSession(str(file), options, providers=available))


LIBRARY = OnnxLibrary()
