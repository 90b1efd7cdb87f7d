"""A model of transformers on the CPU with the weights of its safetensors files, every one of them set."""

from __future__ import annotations

from dataclasses import replace

import transformers

from extract.libraries import saved
from extract.libraries.saved_module import saved_module
from extract.libraries.transformers.encoders import ENCODERS, FeatureModule
from extract.libraries.transformers.model import TransformersZeroShot
from extract.libraries.transformers.preparing import ZERO_SHOT, clean_of, kind_of
from extract.models.base import Built, LoadedModel, Prepared
from extract.models.finite import check_finite
from extract.models.modules import ModuleModel
from extract.models.remote_code import OPTION, remote_code
from extract.models.weights import explaining


def build(prepared: Prepared) -> Built:
    """Build a model of transformers and load its weights."""
    spec = prepared.spec
    source = saved.source_of(spec)
    files = saved.weight_files(spec, source)
    if not files:
        source = saved.source_of(spec, fetch=True)
        files = saved.weight_files(spec, source)
    kind = kind_of(spec, source)
    name, arguments = "AutoModelForImageClassification", {}
    if kind == "zero-shot":
        name = ZERO_SHOT[source.model_type]
    elif kind == "encoder":
        name, arguments = ENCODERS[source.architecture].name, dict(ENCODERS[source.architecture].arguments)
    with explaining(spec.id, "the hub", files[0] if files else None):
        if not files:
            raise FileNotFoundError(f"the repository has no {saved.WEIGHTS}")
        with remote_code(bool(spec.flag(OPTION)), spec.where, f"the model {spec.id}"):
            module = saved_module(spec, source, getattr(transformers, name), files, **arguments)
        check_finite(module)
    card = replace(prepared.card, weights_digest=saved.weights_digest(files, known=False))
    filled = replace(prepared, card=card, weights=files[0] if len(files) == 1 else None)
    if kind == "classifier":
        return Built(filled, module, lambda device, precision: ModuleModel(filled, module, device, precision))
    if kind == "encoder":
        tower = FeatureModule(module, token=ENCODERS[source.architecture].token)
        return Built(
            filled, tower, lambda device, precision: ModuleModel(filled, tower, device, precision, gives_features=True)
        )
    clean = clean_of(spec, source)

    def placed(device: str, precision: str) -> LoadedModel:
        return TransformersZeroShot(filled, source, module, clean, device, precision)

    return Built(filled, module, placed)
