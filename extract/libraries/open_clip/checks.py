"""What an open_clip configuration may say: numbers within reason, towers that timm has, and nothing that runs code.

A configuration is a file that came with somebody's weights. It is checked before open_clip is given any of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import timm
import torch

from closerlook_common.errors import UserError, nearest
from extract.models.meta import EXPANSION, RANDOM, SLACK
from extract.models.remote_code import OPTION
from extract.models.spec import ModelSpec

TOKENIZER_OPTIONS = (
    "add_bos_token", "add_eos_token", "add_prefix_space", "additional_special_tokens", "bos_token", "clean",
    "clean_up_tokenization_spaces", "cls_token", "do_lower_case", "eos_token", "extra_ids", "language", "legacy",
    "mask_token", "model_max_length", "pad_token", "padding_side", "sep_token", "src_lang",
    "strip_sep_token", "tgt_lang", "truncation_side", "unk_token", "use_fast", OPTION,
)  # fmt: skip
"""Keys of ``tokenizer_kwargs``: how text becomes tokens. Others choose files and classes."""

_LARGEST: Mapping[str, int] = {
    "attn_pooler_heads": 4096, "attn_pooler_queries": 65536, "context_length": 8192, "embed_dim": 65536,
    "head_width": 65536, "heads": 4096, "image_size": 8192, "layers": 1000, "mlp_ratio": 64, "patch_size": 8192,
    "vocab_size": 4_000_000, "width": 65536,
}  # fmt: skip
"""Ten times and more what any published model has."""


def check_config(spec: ModelSpec, model: Mapping[str, Any], file: object) -> None:
    """Raise UserError where a configuration asks for something that is not a reasonable CLIP model.

    Parameters
    ----------
    spec
        The line, whose ``trust_remote_code`` counts.
    model
        ``embed_dim``, ``vision_cfg``, ``text_cfg`` ...
    file
        Where it was read, for messages.
    """
    at = f"{spec.where}: config {file}"
    for key in ("vision_cfg", "text_cfg", "multimodal_cfg"):
        if key in model and not isinstance(model[key], Mapping):
            raise UserError(f"{at}: {key} is {_shown(model[key])}, not an object")
    for name, value in _numbers(model, ""):
        _check_number(at, name, value)
    if not isinstance(model["embed_dim"], int):
        raise UserError(f"{at}: embed_dim is {_shown(model['embed_dim'])}, not a whole number")
    tower = model["vision_cfg"].get("timm_model_name")
    if tower and not (isinstance(tower, str) and timm.is_model(tower.partition(".")[0])):
        near = nearest(tower, timm.list_models()) if isinstance(tower, str) else ""
        raise UserError(f"{at}: timm_model_name is {_shown(tower)}, which is not an architecture of timm{near}")
    text = model["text_cfg"]
    for key in ("hf_tokenizer_name", "hf_model_name", "tokenizer_mode"):
        if text.get(key) is not None and not isinstance(text[key], str):
            raise UserError(f"{at}: {key} is {_shown(text[key])}, not a name")
    _check_tokenizer(spec, at, text.get("tokenizer_kwargs") or {})


def _check_tokenizer(spec: ModelSpec, at: str, options: Any) -> None:
    if not isinstance(options, Mapping):
        raise UserError(f"{at}: tokenizer_kwargs is {_shown(options)}, not an object")
    if strange := [key for key in options if key not in TOKENIZER_OPTIONS]:
        raise UserError(
            f"{at}: tokenizer_kwargs holds {_shown(strange[0])}; a configuration may set only"
            f" {', '.join(key for key in TOKENIZER_OPTIONS if key != OPTION)}"
        )
    if options.get(OPTION) and not spec.flag(OPTION):
        raise UserError(
            f"{at} asks to run Python code that comes with its tokenizer; if you have read the code and trust it,"
            f" add {OPTION}=yes to the model's line, else remove {OPTION} from the configuration"
        )


def _numbers(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _numbers(inner, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _numbers(inner, name)
    elif name in _LARGEST or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        yield name, value


def _check_number(at: str, name: str, value: Any) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise UserError(f"{at}: {name} is {_shown(value)}, not a number")
    if not math.isfinite(value) or abs(value) > (1 << 31):
        raise UserError(f"{at}: {name} is {_shown(value)}, which no model has")
    if name in _LARGEST:
        if not 0 < value <= _LARGEST[name]:
            raise UserError(f"{at}: {name} is {_shown(value)}, outside 1 to {_LARGEST[name]:,}")
        if name != "mlp_ratio" and not isinstance(value, int):
            raise UserError(f"{at}: {name} is {_shown(value)}, not a whole number")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def check_size(spec: ModelSpec, model: Mapping[str, Any], weights_bytes: int | None) -> None:
    """Raise UserError where building a configuration would take far more memory than its weights hold.

    Parameters
    ----------
    spec
        The line, for the message.
    model
        A checked configuration.
    weights_bytes
        Size of the weight file; None for random weights.
    """
    needed = _bytes_of(model)
    limit = RANDOM if weights_bytes is None else EXPANSION * weights_bytes + SLACK
    if needed > limit:
        holds = "a model of random weights may take" if weights_bytes is None else "its weight file allows"
        raise UserError(
            f"{spec.where}: the configuration describes a model of about {needed / 1e9:,.1f} GB,"
            f" more than the {limit / 1e9:,.1f} GB that {holds}"
        )


def _bytes_of(model: Mapping[str, Any]) -> int:
    vision, text = model["vision_cfg"], model["text_cfg"]
    total = 0.0
    if tower := vision.get("timm_model_name"):
        total += _parameters_of(tower)
    else:
        layers = vision.get("layers", 12)
        depth = sum(layers) if isinstance(layers, list) else layers
        size, patch = vision.get("image_size", 224), vision.get("patch_size", 16)
        side = max(size) if isinstance(size, list) else size
        total += _transformer(depth, vision.get("width", 768), vision.get("mlp_ratio", 4.0))
        total += (side // patch + 1) ** 2 * vision.get("width", 768)
    for part in (text, model.get("multimodal_cfg") or {}):
        length = part.get("context_length", 77)
        if not part.get("hf_model_name"):
            total += _transformer(part.get("layers", 12), part.get("width", 512), part.get("mlp_ratio", 4.0))
            total += part.get("vocab_size", 49408) * part.get("width", 512) + length**2
    return 4 * int(total)


def _transformer(layers: int, width: int, ratio: float) -> float:
    return layers * width**2 * (4 + 2 * ratio)


def _parameters_of(architecture: str) -> int:
    with torch.device("meta"):
        try:
            model = timm.create_model(architecture, pretrained=False)
        except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError):
            return 0  # it cannot be built without memory; timm's own architectures are all of reasonable size
    return sum(parameter.numel() for parameter in model.parameters())
