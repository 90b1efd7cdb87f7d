"""What a function of the user's own returns for a model: the module, and whatever it knows besides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from closerlook_common.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class OwnModel:
    """A model of one's own; a mapping with the same keys will do, and a module alone where the line says the rest.

    Attributes
    ----------
    module
        Takes (B, 3, H, W) float32 images, resized, cropped and normalised by ``preprocessing``; returns (B, C) logits,
        or an object or a mapping that has them as ``logits``. With ``encode_text``, or ``outputs="features"``, it
        returns (B, D) embeddings instead, not normalised.
    preprocessing
        What is done to an RGB image: an `extract.preprocess.Preprocessing`, a mapping (``input_size``, ``mean``,
        ``std``, ``interpolation``, and optionally ``resize``, ``resize_mode``, ``crop_pct``, ``fill``), or a transform
        of torchvision, timm or open_clip. None leaves all of it to the model's line.
    classes
        Names of the outputs by index; None where the line says ``classes=``, or where there are ImageNet's 1,000.
    head
        Name of the final linear layer, as in ``module.named_modules()``: its input is stored as features. Empty to
        have it found: the last linear layer that gives the logits back.
    outputs
        What the module returns: ``logits``, or ``features`` of an encoder without a classifier.
    encode_text
        Texts in, (m, D) embeddings out, in the space of the module's; with it the model is a zero-shot one. Called in
        evaluation mode, on the module's device.
    logit_scale, logit_bias
        Of a zero-shot model: logits are ``logit_scale * cosine + logit_bias``; the scale is exponentiated.
    """

    module: nn.Module
    preprocessing: Any = None
    classes: Sequence[str] | None = None
    head: str = ""
    outputs: Literal["logits", "features"] = "logits"
    encode_text: Callable[[list[str]], Tensor] | None = None
    logit_scale: float | None = None
    logit_bias: float | None = None


def own_model(returned: Any) -> OwnModel:
    """Return what a function returned as an `OwnModel`.

    Raises
    ------
    UserError
        It is something else; the message begins with "it returns".
    """
    from torch import nn

    if isinstance(returned, nn.Module):
        return OwnModel(module=returned)
    if isinstance(returned, Mapping):
        keys = [field.name for field in fields(OwnModel)]
        if strange := [str(key) for key in returned if key not in keys]:
            raise UserError(
                f"it returns the key {strange[0]!r}{nearest(strange[0], keys)}; there are {', '.join(keys)}"
            )
        if "module" not in returned:
            raise UserError("it returns a mapping without the key 'module'")
        returned = OwnModel(**returned)
    if not isinstance(returned, OwnModel) or not isinstance(returned.module, nn.Module):
        kind = type(returned.module if isinstance(returned, OwnModel) else returned).__name__
        raise UserError(f"it returns {kind}, not a torch module, a mapping or an extract.models.own.OwnModel")
    if returned.outputs not in ("logits", "features"):
        raise UserError(f"it returns outputs={returned.outputs!r}, neither 'logits' nor 'features'")
    if returned.encode_text is not None and returned.logit_scale is None:
        raise UserError("it returns encode_text without logit_scale, the factor of the cosines")
    return returned
