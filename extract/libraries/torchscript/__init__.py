"""Networks saved with ``torch.jit.save``: ``torchscript:FILE``.

A TorchScript file holds code. torch runs it in an interpreter of its own, which knows torch's operations and no Python;
some of these operations read and write files. So such a line is a request to run the file, as one of ``python:`` is.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.libraries.exported import ExportedLibrary

if TYPE_CHECKING:
    import torch

__all__ = ["LIBRARY", "TorchScriptLibrary"]


class TorchScriptLibrary(ExportedLibrary):
    """Files of TorchScript."""

    name = "torchscript"
    ending = ".pt"
    own_examples = (
        (
            "torchscript:net.pt input_size=224 mean=0.5 std=0.5 interpolation=bicubic resize_mode=squash",
            "a file of torch.jit.save; features=NAME where it returns a dict, features=1 where a tuple",
        ),
    )

    def module(self, file: Path, device: str) -> torch.nn.Module:
        """Return the network of a file; see `ExportedLibrary.module`."""
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer versions of torch advise another format for new files
            inner: Any = torch.jit.load(str(file), map_location=device)

        class Named(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
                return _by_name(self.inner(images))

        return Named().eval()


def _by_name(outputs: Any) -> dict[str, Any]:
    """Return outputs by name; those of a tuple by their number."""
    if isinstance(outputs, Mapping):
        return {str(name): value for name, value in outputs.items()}
    many = outputs if isinstance(outputs, (tuple, list)) else (outputs,)
    return {str(number): value for number, value in enumerate(many)}


LIBRARY = TorchScriptLibrary()
