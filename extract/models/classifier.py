"""A classifier of any library: outputs in the order of its class space, its head checked on every batch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError
from extract.classes.prompts import PromptSet
from extract.classes.spaces import ClassSpace
from extract.models.base import (
    AFFINE_TOLERANCE,
    Head,
    HeadUnavailable,
    LoadedModel,
    Outputs,
    Prepared,
    Preprocessing,
)
from extract.models.heads import AffineHead, deviation
from extract.models.pixels import Normalizer, check_precision, to_channels_last

CHECKED_ROWS = 4
"""Rows of each batch whose logits are compared with features times head."""


class ClassifierModel(LoadedModel):
    """A model with a classifier of its own, or with none.

    A subclass calls `_place` first, finds its head on images of noise, and calls `_adopt`; its `forward` ends in
    `_checked`.
    """

    _affine: AffineHead | None
    _order: torch.Tensor | None

    def _place(self, prepared: Prepared, module: Any, device: str, precision: str) -> torch.Tensor:
        """Put the module on the device; return two images of noise there, (2, H, W, 3) uint8."""
        self.device, self.precision = torch.device(device), check_precision(precision)
        self.preprocessing: Preprocessing = prepared.preprocessing
        self.module: Any = module.eval().to(self.device)
        if self.device.type == "cuda":
            to_channels_last(self.module)
        self._normalize = Normalizer(prepared.preprocessing, self.device)
        height, width = prepared.preprocessing.geometry.output_size
        noise = torch.randint(
            0, 256, (2, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
        return noise.to(self.device)

    def _adopt(self, prepared: Prepared, module: Any, affine: AffineHead | None, feature_width: int) -> None:
        """Take a head, its outputs in the order of the class space, and complete the card.

        Raises
        ------
        UserError
            The logits of noise are NaN, or the class space has another number of classes.
        """
        if affine is not None and math.isnan(affine.residual):
            raise UserError(f"{prepared.card.id}: its logits of an image of noise are NaN or infinite")
        self._affine, self._order, self.feature_width = affine, None, feature_width
        if affine is not None and prepared.output_order:
            order = list(prepared.output_order)
            if sorted(order) != list(range(len(affine.bias))):
                raise UserError(f"{prepared.card.id} has {len(affine.bias)} outputs, not {len(order)}")
            self._order = torch.tensor(order, device=self.device)
            affine = self._affine = replace(affine, weight=affine.weight[order], bias=affine.bias[order])
        if affine is not None:
            self._weight = torch.from_numpy(affine.weight).to(self.device)
            self._bias = torch.from_numpy(affine.bias).to(self.device)
            self._worst = torch.tensor(affine.residual, dtype=torch.float32, device=self.device)
        kind = "unknown" if affine is None else "linear" if affine.affine else "non-affine"
        self.card = replace(
            prepared.card,
            feature_width=feature_width or None,
            parameters=sum(parameter.numel() for parameter in module.parameters()),
            head_kind=kind,
        )

    def _checked(self, features: torch.Tensor | None, logits: torch.Tensor) -> Outputs:
        """Return outputs in the order of the class space; keep the largest deviation of an affine head."""
        if self._order is not None:
            logits = logits[:, self._order]
        if features is not None and self._affine is not None and self._affine.affine:
            # A few rows of every batch suffice, for a fraction of the head's own cost.
            some = slice(None, None, max(len(logits) // CHECKED_ROWS, 1))
            found = deviation(features[some], logits[some], self._weight, self._bias)
            # Rows that overflowed are not evidence about the head.
            self._worst = torch.maximum(self._worst, torch.where(found.isnan(), self._worst, found))
        return Outputs(features, logits)

    def head(self, class_space: ClassSpace, prompts: PromptSet | None = None) -> Head:
        """Return the model's classifier, with the largest residual of all batches seen; see `LoadedModel.head`."""
        if self._affine is None:
            raise HeadUnavailable(f"{self.card.id} has no classifier, only features")
        if self.card.class_space != class_space.id:
            space = (
                self.card.class_space
                or f"{counted(len(self._affine.bias), 'class', 'classes')} without names (add classes=NAME to its line)"
            )
            raise HeadUnavailable(f"{self.card.id} answers in {space}, not in {class_space.id}")
        if len(class_space.names) != len(self._affine.bias):
            raise HeadUnavailable(
                f"{self.card.id} has {counted(len(self._affine.bias), 'class', 'classes')},"
                f" {class_space.id} has {len(class_space)}"
            )
        residual = max(float(self._worst), self._affine.residual)
        return Head(
            class_space=class_space.id,
            class_names=class_space.names,
            weight=self._affine.weight,
            bias=self._affine.bias,
            affine=residual <= AFFINE_TOLERANCE,
            residual=residual,
        )
