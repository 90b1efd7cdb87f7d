"""A function's model: described by calling the function once, run by calling it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from closerlook_common.errors import UserError
from extract.libraries.python.loading import Loaded, load_own
from extract.models.base import Built, LoadedModel, Prepared
from extract.models.cards import model_card
from extract.models.modules import ModuleModel, find_head, logits_of
from extract.models.outputs import output_space
from extract.models.own import OwnModel
from extract.models.pixels import Normalizer, true_float32
from extract.models.spec import ModelSpec
from extract.models.transforms import line_preprocessing, preprocessing_of
from extract.models.zero_shot import FunctionModel
from extract.preprocess import Preprocessing

Load = Callable[[ModelSpec], Loaded]
"""A line of a model list -> the model as a function made it."""


def prepare(spec: ModelSpec, load: Load = load_own) -> Prepared:
    """Return what is known of a function's model; the module that it returns is let go of again."""
    loaded = load(spec)
    own = loaded.own
    try:
        brought = None if own.preprocessing is None else preprocessing_of(own.preprocessing)
    except UserError as error:
        raise UserError(f"{spec.where}: {spec.id}: {error}") from error
    preprocessing = line_preprocessing(spec, brought)
    place, _, function = spec.name.rpartition(":")
    known: dict[str, Any] = {
        "input_size": preprocessing.geometry.output_size[0],
        "preprocessing": preprocessing.to_record(),
        "weights_digest": loaded.weights_digest,
    }
    extra: dict[str, Any] = {"code": loaded.code_digest, "function": spec.name}
    if spec.checkpoint is not None:
        extra["checkpoint"] = spec.checkpoint.name
    names: tuple[str, ...] = ()
    width, has_features = _widths(spec, own, preprocessing)
    if own.encode_text is not None:
        known |= {"head_kind": "zero-shot", "feature_width": width}
    elif own.outputs == "features":
        known |= {"feature_width": width}
        extra["n_classes"] = 0
    else:
        stated = spec.number("num_classes")
        if stated is not None and stated != width:
            raise UserError(f"{spec.where}: num_classes={stated}, but {spec.id} gives {width} logits")
        known["class_space"], names = output_space(spec, width, own.classes or ())
        extra["n_classes"] = width
        if not has_features:
            extra["logits_only"] = True
    card = model_card(spec, extra=extra, **known)
    if place:  # the same file is the same model wherever it lies
        card = replace(card, name=f"{place.rpartition('/')[2]}:{function}")
    return Prepared(spec, card, preprocessing, None, files_digest=loaded.code_digest, class_names=names)


@torch.inference_mode()
def _widths(spec: ModelSpec, own: OwnModel, preprocessing: Preprocessing) -> tuple[int, bool]:
    """Return how many numbers a module gives for an image, and whether a classifier has features."""
    size = preprocessing.geometry.output_size
    images = Normalizer(preprocessing, torch.device("cpu"))(torch.zeros((1, *size, 3), dtype=torch.uint8))
    try:
        with true_float32(torch.device("cpu")):
            if own.encode_text is not None or own.outputs == "features":
                return int(logits_of(own.module(images)).shape[1]), True
            found = find_head(own.module, images, spec.options.get("head", own.head))
            return len(found.head.bias), found.layer is not None
    except UserError as error:
        raise UserError(f"{spec.where}: {spec.id}: {error}") from error
    except Exception as error:  # whatever the user's module raises
        reason = " ".join(str(error).split())[:300]
        on = f"an image of {size[0]} x {size[1]}"
        raise UserError(f"{spec.where}: {spec.id} cannot run on {on} ({type(error).__name__}: {reason})") from error


def build(prepared: Prepared, load: Load = load_own) -> Built:
    """Call the function again.

    Raises
    ------
    UserError
        It returns other weights than when it was described.
    """
    spec = prepared.spec
    loaded = load(spec)
    if loaded.weights_digest != prepared.card.weights_digest:
        raise UserError(
            f"{spec.id}: its function returns other weights each time, or its file of weights has changed meanwhile;"
            " load saved weights, or draw random ones from torch's generator alone"
        )
    return Built(prepared, loaded.own.module, lambda device, precision: _placed(prepared, loaded, device, precision))


def _placed(prepared: Prepared, loaded: Loaded, device: str, precision: str) -> LoadedModel:
    own = loaded.own
    if own.encode_text is not None:
        return FunctionModel(prepared, own, device, precision)
    head = prepared.spec.options.get("head", own.head)
    features = own.outputs == "features"
    return ModuleModel(prepared, own.module, device, precision, head=head, gives_features=features)
