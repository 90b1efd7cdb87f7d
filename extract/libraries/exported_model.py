"""An exported network at work: its named outputs as features and logits, always in float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from closerlook_common.errors import UserError, nearest
from extract.models.base import Outputs, Prepared
from extract.models.classifier import ClassifierModel
from extract.models.heads import AffineHead
from extract.models.pixels import true_float32
from extract.models.spec import ModelSpec


class ExportedModel(ClassifierModel):
    """A network from a file; its head is inside, so that logits are the truth and no weights are stored.

    Parameters
    ----------
    prepared
        Card and preprocessing.
    module
        See `extract.libraries.exported.ExportedLibrary.module`.
    device
        As torch names it.
    """

    def __init__(self, prepared: Prepared, module: nn.Module, device: str) -> None:
        noise = self._place(prepared, module, device, "fp32")
        self._spec, self._tower = prepared.spec, self._run
        with torch.inference_mode(), true_float32(self.device):
            features, logits = self._run(self._normalize(noise))
        width = 0 if features is None else int(features.shape[1])
        classes = int(logits.shape[1])
        weight, bias = np.zeros((classes, width), dtype=np.float32), np.zeros(classes, dtype=np.float32)
        unusable = float("inf") if bool(logits.isfinite().all()) else float("nan")
        self._adopt(prepared, module, AffineHead((), weight, bias, unusable), width)
        self.card = replace(self.card, parameters=self.card.parameters or None)

    def _run(self, images: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        return outputs_of(self._spec, self.module, images)

    @torch.inference_mode()
    def forward(self, pixels: torch.Tensor) -> Outputs:
        """Return the named outputs; see `LoadedModel.forward`."""
        with true_float32(self.device):
            features, logits = self._tower(self._normalize(pixels))
        return self._checked(None if features is None else features.float(), logits.float())


def outputs_of(
    spec: ModelSpec, module: torch.nn.Module, images: torch.Tensor
) -> tuple[torch.Tensor | None, torch.Tensor]:
    """Return (B, D) features, None where the line names none, and (B, C) logits.

    Raises
    ------
    UserError
        The network does not run on such images, or has no such outputs.
    """
    size = " x ".join(map(str, images.shape[2:]))
    try:
        with torch.inference_mode():
            outputs: Mapping[str, torch.Tensor] = module(images)
    except Exception as error:  # whatever a runtime raises
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{spec.where}: {spec.id} cannot run on an image of {size} ({type(error).__name__}: {reason})"
        ) from error
    return _output(spec, outputs, "features"), _required(spec, outputs)


def _required(spec: ModelSpec, outputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    found = _output(spec, outputs, "logits", next(iter(outputs), ""))
    assert found is not None
    return found


def _output(
    spec: ModelSpec, outputs: Mapping[str, torch.Tensor], option: str, default: str = ""
) -> torch.Tensor | None:
    name = spec.options.get(option, default)
    if not name and option == "features":
        return None
    if name not in outputs:
        known = ", ".join(outputs)
        raise UserError(f"{spec.where}: {spec.id} has no output {name!r}{nearest(name, outputs)}; there are {known}")
    found = outputs[name]
    if found.ndim != 2 and not (option == "features" and found.ndim > 2 and set(found.shape[2:]) == {1}):
        shape = tuple(found.shape)
        raise UserError(f"{spec.where}: the output {name} of {spec.id} has the shape {shape}, not (images, N)")
    return found.flatten(1)
