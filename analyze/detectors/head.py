"""The last layer as detectors see it: logits = weight @ f + bias, f at unit length first where a head says so."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.detectors.products import Right
from analyze.metrics._arrays import numbers
from closerlook_common.errors import UserError


@dataclass(frozen=True, eq=False)
class Head:
    """A classifier's last layer, or a CLIP text classifier.

    Attributes
    ----------
    weight
        (C, D) float32, a zero-shot head's scale multiplied in.
    bias
        (C,) float32.
    normalize
        Whether features are scaled to unit length first.
    scale
        Multiplier of the cosine (already in ``weight``); None for a linear layer.
    reason
        Why it is not affine, so that detectors that use its weights cannot run; empty where it is.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    normalize: bool = False
    scale: float | None = None
    reason: str = ""

    @staticmethod
    def of(head: Any) -> Head:
        """Return a head from ``(weight, bias)``, a ``HeadStore``, or anything with ``weight`` and ``bias``.

        Raises
        ------
        UserError
            Where shapes do not fit each other.
        """
        if isinstance(head, Head):
            return head
        scale, normalize, reason = None, False, ""
        if isinstance(head, np.ndarray):
            raise UserError("a head is (weight, bias) or a store; got one array")
        if isinstance(head, (tuple, list)):
            if len(head) != 2:
                raise UserError(f"a head is (weight, bias); got {len(head)} arrays")
            weight, bias = head
        else:
            weight, bias = head.weight, head.bias
            normalize = bool(getattr(head, "normalize_features", False))
            scale = getattr(head, "logit_scale", None)
            if not getattr(head, "affine", True):
                residual = getattr(head, "residual", None)
                by = "" if residual is None else f" (its logits differ from the model's by {residual:.2g})"
                reason = f"the head is not affine{by}"
        weight = numbers("head weight", weight, 2).astype(np.float32, copy=False)
        bias = np.zeros(len(weight)) if bias is None else numbers("head bias", bias, 1)
        bias = bias.astype(np.float32, copy=False)
        if bias.shape != weight.shape[:1] or 0 in weight.shape:
            raise UserError(f"a head is weight (C, D) and bias (C,); got {weight.shape} and {bias.shape}")
        for name, values in (("weight", weight), ("bias", bias)):
            if not np.isfinite(values).all():
                raise UserError(f"head {name} holds NaN or infinity")
        if scale is not None:
            weight = weight * np.float32(scale)
        return Head(weight, bias, normalize, None if scale is None else float(scale), reason)

    @cached_property
    def columns(self) -> Right:
        """(D, C): the right side of ``features @ columns``."""
        return Right.of(self.weight.T)

    @property
    def n_classes(self) -> int:
        """C."""
        return len(self.weight)

    @property
    def width(self) -> int:
        """D."""
        return int(self.weight.shape[1])
