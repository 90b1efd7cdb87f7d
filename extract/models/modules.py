"""Any torch module as a classifier: its logits, and the input of its final linear layer as features.

The final layer is found by watching two images of noise pass through: the last linear layer whose weights give the
model's logits back. A module without one keeps its logits as the truth, and its head is marked as not affine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from closerlook_common.errors import UserError, nearest
from extract.models.base import Outputs, Prepared
from extract.models.classifier import ClassifierModel
from extract.models.heads import AffineHead, affine_map, checked_head
from extract.models.pixels import body_precision, true_float32

MOST_TRIED = 8
"""Final layers that are tried: a model ends in one, or in a few that are averaged."""


class Call(NamedTuple):
    """One call of a layer: what it was given and what it gave, both (B, N)."""

    layer: nn.Module
    inputs: torch.Tensor
    outputs: torch.Tensor


class Found(NamedTuple):
    """The final layer of a module; None where there is none, and then there are no features."""

    layer: nn.Module | None
    head: AffineHead


def logits_of(output: Any) -> torch.Tensor:
    """Return the (B, C) logits in what a module gave: a tensor, or ``logits`` of an object or a mapping.

    Raises
    ------
    UserError
        It is something else; the message begins with "it".
    """
    found = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
    if isinstance(found, (tuple, list)) and len(found) == 1:
        found = found[0]
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise UserError(f"it returns {shape}; a classifier returns (images, classes), or an object with such logits")
    return found


def find_head(module: nn.Module, images: torch.Tensor, name: str = "") -> Found:
    """Return the final linear layer of a module, and what it is given as features.

    Parameters
    ----------
    module
        In evaluation mode.
    images
        (B, 3, H, W) float32, normalised.
    name
        Of the final layer, as in ``named_modules()``; empty to find it.

    Raises
    ------
    UserError
        There is no layer of that name, or it is not called once; the message begins with "it".
    """
    layers = _named(module, name) if name else [layer for layer in module.modules() if _is_linear(layer)]
    with _watching(layers) as calls:
        logits = logits_of(module(images)).float()
    once = [call for call in calls if sum(other.layer is call.layer for other in calls) == 1]
    rows = [call for call in reversed(once) if len(call.inputs) == len(images)]
    if name and not rows:
        raise UserError(
            f"it calls {name} {len(calls)} times for a batch; name the layer that is called once, the final one"
        )
    # The last calls first: a final layer is followed by nothing that has weights.
    tried = [Found(call.layer, _head_of(call, logits)) for call in rows[:MOST_TRIED]]
    affine = next((found for found in tried if found.head.affine), None)
    if affine is not None:
        return affine
    return tried[0] if tried else Found(None, _empty(0, logits))


def _whole(layer: nn.Module, inputs: torch.Tensor) -> bool:
    """Return whether a linear layer sees a whole image at once, not places or tokens one by one."""
    width = getattr(layer, "in_features", None) or getattr(layer, "in_channels", None)
    return not _is_linear(layer) or inputs.flatten(1).shape[1] == width


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1))


def _named(module: nn.Module, name: str) -> list[nn.Module]:
    layers = dict(module.named_modules())
    if name not in layers:
        raise UserError(f"it has no layer {name!r}{nearest(name, [key for key in layers if key])}")
    return [layers[name]]


@contextmanager
def _watching(layers: list[nn.Module]) -> Iterator[list[Call]]:
    calls: list[Call] = []

    def keep(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        given = inputs[0] if inputs else None
        if isinstance(given, torch.Tensor) and isinstance(output, torch.Tensor) and _whole(layer, given):
            calls.append(Call(layer, given.flatten(1), output.flatten(1)))

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _head_of(call: Call, logits: torch.Tensor) -> AffineHead:
    if call.outputs.shape == logits.shape:
        try:
            weight, bias = affine_map(call.layer)
        except (ValueError, RuntimeError, TypeError):
            return _empty(call.inputs.shape[1], logits)
        if weight.shape == (logits.shape[1], call.inputs.shape[1]):
            return checked_head((call.layer,), weight, bias, call.inputs.float(), logits)
    return _empty(call.inputs.shape[1], logits)


def _empty(width: int, logits: torch.Tensor) -> AffineHead:
    """Return a head without weights: the logits stay the truth."""
    classes = logits.shape[1]
    finite = bool(logits.isfinite().all())
    weight, bias = np.zeros((classes, width), dtype=np.float32), np.zeros(classes, dtype=np.float32)
    return AffineHead((), weight, bias, float("inf") if finite else float("nan"))


class ModuleModel(ClassifierModel):
    """A torch module in evaluation mode that takes normalised images.

    Parameters
    ----------
    prepared
        Card and preprocessing.
    module
        (B, 3, H, W) float32 in, (B, C) logits out; see `logits_of`.
    device, precision
        As for every model.
    head
        Name of the final layer; empty to find it.
    gives_features
        The module gives (B, D) features and has no classifier.
    """

    def __init__(
        self,
        prepared: Prepared,
        module: nn.Module,
        device: str,
        precision: str,
        *,
        head: str = "",
        gives_features: bool = False,
    ) -> None:
        noise = self._place(prepared, module, device, precision)
        self._gives_features = gives_features
        self._seen: list[torch.Tensor] = []
        with torch.inference_mode(), true_float32(self.device):
            images = self._normalize(noise)
            try:
                if gives_features:
                    width, found = int(logits_of(module(images)).shape[1]), None
                else:
                    found = find_head(module, images, head)
                    width = found.head.weight.shape[1]
            except UserError as error:
                raise UserError(f"{prepared.card.id}: {error}") from error
        if found is not None and found.layer is not None:
            found.layer.register_forward_pre_hook(self._keep)
        self._has_features = width > 0
        self._tower = self._run
        self._adopt(prepared, module, None if found is None else found.head, width)

    def _keep(self, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self._seen.append(inputs[0].flatten(1))

    def _run(self, images: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        self._seen.clear()
        logits = logits_of(self.module(images))
        features = self._seen.pop() if self._seen else None
        return features, logits

    @torch.inference_mode()
    def forward(self, pixels: torch.Tensor) -> Outputs:
        """Return features and logits; see `LoadedModel.forward`."""
        images = self._normalize(pixels)
        with body_precision(self.device, self.precision):
            features, logits = self._tower(images)
        logits = logits.float()
        if self._gives_features:
            return Outputs(logits, None)
        if features is None:
            return self._checked(None, logits)
        features = features.float()
        if self.precision != "fp32" and self._affine is not None and self._affine.affine:
            with true_float32(self.device):  # a head is computed in float32, whatever the rest runs in
                logits = torch.addmm(self._bias, features, self._weight.T)
            return Outputs(features, logits)
        with true_float32(self.device):
            return self._checked(features, logits)
