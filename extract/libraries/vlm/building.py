"""A vision-language model on the CPU with the weights of its safetensors files, every one of them set."""

from __future__ import annotations

from dataclasses import replace

import transformers

from closerlook_common.errors import UserError
from extract.libraries import saved
from extract.libraries.saved_module import saved_module
from extract.libraries.vlm.model import VlmModel
from extract.libraries.vlm.preparing import PreparedVlm, check_kind
from extract.libraries.vlm.processors import processor_of
from extract.models.base import Built, Prepared
from extract.models.finite import check_finite
from extract.models.remote_code import OPTION, remote_code
from extract.models.weights import explaining


def build(prepared: Prepared) -> Built:
    """Build a vision-language model and load its weights."""
    assert isinstance(prepared, PreparedVlm)
    spec = prepared.spec
    if not prepared.names:
        raise UserError(
            f"{spec.where}: nothing says which classes {spec.id} answers in: add classes= to its line, imagenet-1k, a"
            " dataset of the run, or a .txt file with a class name a line"
        )
    source = saved.source_of(spec)
    files = saved.weight_files(spec, source)
    if not files:
        source = saved.source_of(spec, fetch=True)
        files = saved.weight_files(spec, source)
    check_kind(spec, source)
    processor = processor_of(spec, source)
    with explaining(spec.id, "the hub", files[0] if files else None):
        if not files:
            raise FileNotFoundError(f"the repository has no {saved.WEIGHTS}")
        with remote_code(bool(spec.flag(OPTION)), spec.where, f"the model {spec.id}"):
            module = saved_module(spec, source, transformers.AutoModelForImageTextToText, files)
        check_finite(module)
    card = replace(prepared.card, weights_digest=saved.weights_digest(files, known=False))
    filled = replace(prepared, card=card, weights=files[0] if len(files) == 1 else None)
    return Built(filled, module, lambda device, precision: VlmModel(filled, processor, module, device, precision))
