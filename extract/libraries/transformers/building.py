"""A model of transformers on the CPU with the weights of its safetensors files, every one of them set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers

from closerlook_common.errors import UserError
from extract.libraries.transformers import sources
from extract.libraries.transformers.encoders import ENCODERS, FeatureModule
from extract.libraries.transformers.model import TransformersZeroShot
from extract.libraries.transformers.preparing import ZERO_SHOT, clean_of, kind_of
from extract.models.base import Built, LoadedModel, Prepared
from extract.models.finite import check_finite
from extract.models.meta import EXPANSION, SLACK
from extract.models.modules import ModuleModel
from extract.models.remote_code import OPTION, remote_code
from extract.models.spec import ModelSpec
from extract.models.weights import explaining


def build(prepared: Prepared) -> Built:
    """Build a model of transformers and load its weights."""
    spec = prepared.spec
    source = sources.source_of(spec)
    files = sources.weight_files(spec, source)
    if not files:
        source = sources.source_of(spec, fetch=True)
        files = sources.weight_files(spec, source)
    kind = kind_of(spec, source)
    name, arguments = "AutoModelForImageClassification", {}
    if kind == "zero-shot":
        name = ZERO_SHOT[source.model_type]
    elif kind == "encoder":
        name, arguments = ENCODERS[source.architecture].name, dict(ENCODERS[source.architecture].arguments)
    with explaining(spec.id, "the hub", files[0] if files else None):
        if not files:
            raise FileNotFoundError(f"the repository has no {sources.WEIGHTS}")
        with remote_code(bool(spec.flag(OPTION)), spec.where, f"the model {spec.id}"):
            module = _module(spec, source, name, files, **arguments)
        check_finite(module)
    card = replace(prepared.card, weights_digest=sources.weights_digest(files, known=False))
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


def _module(spec: ModelSpec, source: sources.Source, name: str, files: list[Path], **arguments: Any) -> Any:
    kind: Any = getattr(transformers, name)
    trusted = bool(spec.flag(OPTION))
    _check_size(spec, source, kind, files, trusted=trusted)
    module, info = kind.from_pretrained(
        str(source.folder),
        local_files_only=True,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
        **arguments,
        **({OPTION: True} if trusted else {}),
    )
    missing = sorted(map(str, info.get("missing_keys", ())))
    wrong = sorted(str(key) for key in info.get("mismatched_keys", ()))
    if missing or wrong:
        what = f"{len(missing)} tensors are missing" if missing else f"{len(wrong)} have other shapes"
        raise UserError(
            f"they are not all weights of {source.architecture}: {what} ({(missing or wrong)[0][:120]} ...)"
        )
    return module.eval()


def _check_size(spec: ModelSpec, source: sources.Source, kind: Any, files: list[Path], *, trusted: bool) -> None:
    """Raise UserError where the configuration describes a far larger model than its weights fill."""
    config = transformers.AutoConfig.from_pretrained(
        str(source.folder), local_files_only=True, **({OPTION: True} if trusted else {})
    )
    try:
        with torch.device("meta"):
            empty = kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
    except NotImplementedError:  # a constructor that computes with values
        return
    needed = sum(tensor.numel() * tensor.element_size() for tensor in (*empty.parameters(), *empty.buffers()))
    held = sum(file.stat().st_size for file in files)
    if needed > EXPANSION * held + SLACK:
        raise UserError(f"the model takes {needed / 1e9:,.1f} GB, its weight files hold {held / 1e9:,.3f} GB")
