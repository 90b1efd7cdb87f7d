"""A session of onnxruntime as a torch module: images in, outputs by name, on the device that the images are on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from closerlook_common.errors import UserError


class Session(nn.Module):
    """A network of onnxruntime with one input.

    Parameters
    ----------
    session
        Of onnxruntime.

    Raises
    ------
    UserError
        It has several inputs, or takes something else than float32 images.
    """

    def __init__(self, session: Any) -> None:
        super().__init__()
        inputs = session.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)":
            described = ", ".join(f"{entry.name}: {entry.type}" for entry in inputs)
            raise UserError(f"an ONNX model of images has one input of float32, this one has {described}")
        self._session, self._input = session, inputs[0].name
        self._outputs = [output.name for output in session.get_outputs()]
        rows = inputs[0].shape[0] if inputs[0].shape else None
        self._rows = rows if isinstance(rows, int) and rows > 0 else 0
        """Of a batch, where the file fixes it; else 0."""

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return every output by name, each with a row an image."""
        array = np.ascontiguousarray(images.detach().cpu().numpy())
        step = self._rows or len(array)
        parts = [self._run(array[start : start + step]) for start in range(0, len(array), step)]
        joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
        return {
            name: torch.from_numpy(column).to(images.device) for name, column in zip(self._outputs, joined, strict=True)
        }

    def _run(self, rows: Any) -> list[Any]:
        """Run a batch; one of a fixed size is filled up with zeros, whose outputs are dropped."""
        missing = max(self._rows - len(rows), 0)
        batch = np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)]) if missing else rows
        return [output[: len(rows)] for output in self._session.run(None, {self._input: batch})]
