"""A torchvision classifier: prepared from its weights' own description, built by torchvision's own function."""

from __future__ import annotations

import inspect
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import nn
from torchvision.models import get_model_builder

from closerlook_common.errors import UserError
from extract.libraries.torchvision.names import card_fields, weights_named, weights_of
from extract.models import checkpoints
from extract.models.base import Built, Prepared
from extract.models.cards import model_card
from extract.models.finite import check_finite
from extract.models.meta import check_random
from extract.models.modules import ModuleModel
from extract.models.outputs import output_space
from extract.models.shapes import classifier_width
from extract.models.spec import ModelSpec
from extract.models.torch_hub import fetched, hub_file
from extract.models.transforms import line_preprocessing, preprocessing_of
from extract.models.weights import checkpoint_file, explaining, file_digest, known_digest
from extract.preprocess import Preprocessing

_filling = threading.Lock()  # torchvision reads weights through a method of a class


def _stated(spec: ModelSpec) -> Any:
    """Return the weights that a line names, or None."""
    architecture, _, tag = spec.name.partition(".")
    name = tag or spec.options.get("weights", "none")
    return None if name == "none" else weights_named(architecture, name, spec.where)


def _own(spec: ModelSpec) -> bool:
    """Return whether the weights are not torchvision's."""
    return spec.checkpoint is not None or bool(spec.flag("allow_random"))


def _preprocessing(spec: ModelSpec) -> Preprocessing:
    """Return the preprocessing of the weights that a line names, with what the line says.

    Raises
    ------
    UserError
        The line names none, and the architecture's weights use different preprocessing.
    """
    stated = _stated(spec)
    if stated is None and "weights" not in spec.options:
        known = weights_of(spec.name.partition(".")[0])
        if len({repr(weights.transforms()) for weights in known}) > 1 and not spec.flag("allow_random"):
            raise UserError(
                f"{spec.where}: the published weights of {spec.name} ({', '.join(w.name for w in known)}) use"
                " different preprocessing; name those that yours were trained from or like with weights=NAME, or give"
                " weights=none input_size= mean= std= interpolation= resize_mode="
            )
        stated = known[0]
    return line_preprocessing(spec, None if stated is None else preprocessing_of(stated.transforms()))


def _n_classes(spec: ModelSpec, weights: Path | None) -> int:
    if not _own(spec):
        return len(_stated(spec).meta["categories"])
    if (stated := spec.number("num_classes")) is not None:
        return stated
    if weights is not None:
        with explaining(spec.id, "", weights):
            if (width := classifier_width(weights, _classifier(spec))) is not None:
                return width
    return 1000


def _classifier(spec: ModelSpec) -> str:
    """Return the name of an architecture's final layer."""
    builder = get_model_builder(spec.name.partition(".")[0])
    with torch.device("meta"):
        module = builder(weights=None, **({"init_weights": False} if _normalises_again(builder) else {}))
    kinds = (nn.Linear, nn.Conv2d)
    names: list[str] = [
        name for name, layer in module.named_modules()
        if isinstance(layer, kinds) and layer.weight.shape[0] == 1000 and "aux" not in name.lower()
    ]  # fmt: skip
    return names[-1]


def prepare(spec: ModelSpec) -> Prepared:
    """Return what is known of a torchvision model without building it."""
    preprocessing = _preprocessing(spec)
    random = bool(spec.flag("allow_random"))
    if spec.checkpoint is not None:
        weights: Path | None = checkpoint_file(spec.checkpoint, spec.where)
    else:
        found = None if random else hub_file(_stated(spec).url)
        weights = found if found is not None and found.is_file() else None
    n_classes = _n_classes(spec, weights)
    names = () if _own(spec) else tuple(_stated(spec).meta["categories"])
    space, class_names = output_space(spec, n_classes, names)
    architecture, _, tag = spec.name.partition(".")
    extra: dict[str, Any] = {"n_classes": n_classes, "architecture": architecture}
    if architecture.startswith("squeezenet"):  # it classifies every place, and averages after a ReLU
        extra["logits_only"] = True
    if weights is None and random:
        extra["random_weights"] = True
    if spec.checkpoint is not None:
        extra["checkpoint"] = spec.checkpoint.name
    card = model_card(
        spec,
        tag=tag,
        input_size=preprocessing.geometry.output_size[0],
        class_space=space,
        preprocessing=preprocessing.to_record(),
        weights_digest=known_digest(weights) if weights else f"random-{spec.number('seed') or 0}" if random else "",
        extra=extra,
        **card_fields(spec.name),
    )
    return Prepared(spec, card, preprocessing, weights, class_names=class_names)


def build(prepared: Prepared) -> Built:
    """Build a torchvision model on the CPU and load its weights."""
    spec, weights = prepared.spec, prepared.weights
    if not _own(spec):
        with explaining(spec.name, "torchvision's server", None):
            weights = fetched(_stated(spec).url, hub_file(_stated(spec).url))
    with explaining(spec.id, "", weights):
        module = _published(spec, weights) if not _own(spec) and weights is not None else _own_module(prepared, weights)
        check_finite(module)
    digest = file_digest(weights) if weights is not None else prepared.card.weights_digest
    filled = replace(prepared, card=replace(prepared.card, weights_digest=digest))
    return Built(filled, module, lambda device, precision: ModuleModel(filled, module, device, precision))


def _published(spec: ModelSpec, file: Path) -> nn.Module:
    """Build a model with torchvision's weights exactly as torchvision does, except that the file is read safely."""
    stated, state = _stated(spec), checkpoints.read_checkpoint(file)
    builder = get_model_builder(spec.name.partition(".")[0])
    with _filling, patch.object(type(stated), "get_state_dict", lambda *_, **__: state):
        module: nn.Module = builder(weights=stated)
    return module


def _normalises_again(builder: Any) -> bool:
    """Return whether torchvision's own weights of an architecture see images normalised once more, in the model."""
    return "transform_input" in inspect.getsource(builder)


def _own_module(prepared: Prepared, file: Path | None) -> nn.Module:
    spec = prepared.spec
    builder = get_model_builder(prepared.card.extra["architecture"])
    options: dict[str, Any] = {"num_classes": int(prepared.card.extra["n_classes"])}
    height, _ = prepared.preprocessing.geometry.output_size
    if "_vision_transformer" in inspect.getsource(builder):
        options["image_size"] = height
    if again := _normalises_again(builder):
        if "weights" not in spec.options and file is not None:
            raise UserError(
                f"say weights=NAME where yours were trained from torchvision's (which normalise images once more), or"
                f" weights=none where {prepared.card.extra['architecture']} was trained from scratch"
            )
        options |= {"transform_input": _stated(spec) is not None}

    def create(**more: Any) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(spec.number("seed") or 0)
            module: nn.Module = builder(weights=None, **options, **more)
            return module

    if file is None:
        check_random(create)
    if not again:
        return _filled(create(), prepared, file)
    # Their auxiliary classifiers are used in training alone, and often not saved.
    last: UserError | None = None
    for auxiliary in (True, False):
        try:
            return _filled(create(init_weights=file is None, aux_logits=auxiliary), prepared, file)
        except UserError as error:
            last = last or error
    assert last is not None
    raise last


def _filled(module: nn.Module, prepared: Prepared, file: Path | None) -> nn.Module:
    if file is None:
        return module
    average = prepared.spec.flag("ema") is not False
    checkpoints.fill(module, prepared.card.name, file, checkpoints.read_checkpoint(file), average=average)
    return module
