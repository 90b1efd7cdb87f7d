"""What open_clip knows of a name before a model is built: config, preprocessing, tokenizer, weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

from closerlook_common.errors import UserError, nearest
from closerlook_common.input_files import read_json_file
from extract.libraries.open_clip.checks import check_config
from extract.libraries.open_clip.names import quick_gelu_mismatch
from extract.models.base import WeightsUnavailable
from extract.models.remote_code import OPTION, remote_code
from extract.models.spec import ModelSpec
from extract.models.weights import cached_on_hub, checkpoint_file, content_digest, fetched_from_hub

CONFIG_FILE = "open_clip_config.json"
LOCAL_FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""In the order in which open_clip looks for them."""

_LARGEST_CONFIG = 4 << 20
_TOKENIZER_ENDINGS = (".bpe", ".json", ".model", ".py", ".tiktoken", ".txt", ".vocab")
_PREPROCESS = ("mean", "std", "interpolation", "resize_mode", "fill_color", "size")
_REMEDY = "name a published pair (open_clip:ARCH/TAG checkpoint=FILE), or give mean= std= interpolation= resize_mode="


@dataclass(frozen=True)
class Source:
    """Everything known of one line.

    Attributes
    ----------
    architecture, tag
        Name of the config, and of the weights if they are open_clip's own.
    model
        ``embed_dim``, ``vision_cfg``, ``text_cfg`` ...
    preprocess
        What the config or the weights' entry says, not yet completed; empty where it has none.
    stated_by
        Where ``preprocess`` comes from, for the record.
    folder
        Where a custom config lies: tokenizer files may lie beside it.
    weights_entry
        open_clip's entry of published weights: addresses.
    custom
        The config is not one of open_clip's own.
    """

    architecture: str
    tag: str
    model: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    stated_by: str
    folder: Path | None
    weights_entry: Mapping[str, Any]
    custom: bool = False

    @property
    def siglip_like(self) -> bool:
        """Whether the model was trained with a sigmoid loss, and so hardly with CLIP's preprocessing."""
        return self.model.get("init_logit_bias") is not None

    @property
    def image_size(self) -> int | tuple[int, int]:
        """Input size of the image tower."""
        size = self.model["vision_cfg"].get("image_size", 224)
        return size if isinstance(size, int) else (int(size[0]), int(size[1]))


def _check_quick_gelu(spec: ModelSpec, architecture: str, tag: str) -> None:
    if spec.flag("quick_gelu") is not None or not quick_gelu_mismatch(architecture, tag):
        return
    trained = bool(get_pretrained_cfg(architecture, tag).get("quick_gelu", False))
    partner = f"{architecture}-quickgelu" if trained else architecture.removesuffix("-quickgelu")
    words = "with QuickGELU" if trained else "without QuickGELU"
    if partner != architecture and tag in list_pretrained_tags_by_model(partner):
        fix = f"name {spec.library}:{partner}/{tag} instead"
    else:
        fix = "say quick_gelu=yes or quick_gelu=no on its line (open_clip itself runs it as the config says)"
    raise UserError(
        f"{spec.where}: the weights {tag!r} are listed as trained {words}, the config {architecture} is not so; {fix}"
    )


def _read_config(file: Path, spec: ModelSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        data = read_json_file(file, "config", limit=_LARGEST_CONFIG)
    except UserError as error:
        raise UserError(f"{spec.where}: {error}") from None
    model = data.get("model_cfg", data) if isinstance(data, dict) else {}
    if not isinstance(model, dict) or (missing := {"embed_dim", "vision_cfg", "text_cfg"} - model.keys()):
        lacks = ", ".join(sorted(missing)) if isinstance(model, dict) else "everything"
        raise UserError(f"{spec.where}: config {file} is not of an open_clip model: it lacks {lacks}")
    check_config(spec, model, file)
    preprocess = data.get("preprocess_cfg") or {}
    if not isinstance(preprocess, dict):
        raise UserError(f"{spec.where}: config {file}: preprocess_cfg is no object")
    return dict(model), {key: value for key, value in preprocess.items() if key in _PREPROCESS}


def source_of(spec: ModelSpec) -> Source:
    """Return what is known of a line.

    Raises
    ------
    UserError
        The config is unreadable, or contradicts the weights (QuickGELU).
    """
    if "config" in spec.options:
        file = Path(spec.options["config"])
        model, preprocess = _read_config(file, spec)
        return Source(spec.name, "", model, preprocess, f"preprocess_cfg of {file.name}", file.parent, {}, True)
    if spec.name.startswith("local-dir:"):
        folder = Path(spec.name.removeprefix("local-dir:"))
        model, preprocess = _read_config(folder / CONFIG_FILE, spec)
        return Source(folder.name, "", model, preprocess, f"preprocess_cfg of {CONFIG_FILE}", folder, {}, True)
    if spec.name.startswith("hf-hub:"):
        repository, _, revision = spec.name.removeprefix("hf-hub:").partition("@")
        found = cached_on_hub(repository, [CONFIG_FILE], revision or None)
        try:
            file = found or fetched_from_hub(repository, [CONFIG_FILE], revision or None)
        except Exception as error:  # whatever the hub's client raises, the config is not to be had
            raise WeightsUnavailable(
                f"{spec.where}: {CONFIG_FILE} of {repository} is neither in the hub cache nor to be had: {error}"
            ) from error
        model, preprocess = _read_config(file, spec)
        entry = {"hf_hub": f"{repository}/", "revision": revision or None}
        return Source(repository, "", model, preprocess, f"preprocess_cfg of {repository}", None, entry, True)
    architecture, _, tag = spec.name.partition("/")
    model = open_clip.get_model_config(architecture)
    if model is None:
        raise UserError(
            f"{spec.where}: open_clip has no config {architecture!r}{nearest(architecture, open_clip.list_models())}"
        )
    if tag:
        _check_quick_gelu(spec, architecture, tag)
        entry = get_pretrained_cfg(architecture, tag)
        stated = {key: entry[key] for key in _PREPROCESS if key in entry}
        return Source(architecture, tag, model, stated, f"open_clip's entry {spec.name}", None, entry)
    stated, by = _agreed(architecture)
    return Source(architecture, "", model, stated, by, None, {})


def _agreed(architecture: str) -> tuple[dict[str, Any], str]:
    """Return the preprocessing that all published weights of a config agree on, if they do."""
    entries = [get_pretrained_cfg(architecture, tag) for tag in list_pretrained_tags_by_model(architecture)]
    stated = [{key: entry[key] for key in _PREPROCESS if key in entry} for entry in entries]
    if stated and all(other == stated[0] for other in stated):
        return stated[0], f"all published weights of {architecture}"
    return {}, ""


def preprocess_config(spec: ModelSpec, source: Source) -> tuple[dict[str, Any], str]:
    """Return open_clip's preprocessing config for a line, complete, and where it comes from.

    Raises
    ------
    UserError
        Nothing says how a SigLIP-like model was trained to see images: open_clip itself would silently take
        CLIP's preprocessing.
    """
    line: dict[str, Any] = {"mean": spec.numbers("mean"), "std": spec.numbers("std"),
                            "interpolation": spec.options.get("interpolation"),
                            "resize_mode": spec.options.get("resize_mode")}  # fmt: skip
    line = {
        key: value if isinstance(value, str) or len(value) == 3 else value * 3 for key, value in line.items() if value
    }
    if "interpolation" in line and line["interpolation"] not in ("bicubic", "bilinear"):
        raise UserError(f"{spec.where}: open_clip resizes bicubic or bilinear, not {line['interpolation']}")
    if "resize_mode" in line and line["resize_mode"] not in ("shortest", "longest", "squash"):
        raise UserError(f"{spec.where}: resize_mode={line['resize_mode']} is not shortest, longest or squash")
    stated = dict(source.preprocess)
    missing = {"mean", "std", "interpolation", "resize_mode"} - stated.keys() - line.keys()
    if missing and source.siglip_like:
        raise UserError(
            f"{spec.where}: nothing says how {spec.name} is to see images ({', '.join(sorted(missing))}), "
            "and a model"
            f" with a logit bias is hardly trained with CLIP's preprocessing; {_REMEDY}"
        )
    if missing and len(tags := list_pretrained_tags_by_model(source.architecture)) > 1 and not source.custom:
        raise UserError(
            f"{spec.where}: the published weights of {source.architecture} ({', '.join(tags)}) see images "
            f"in different ways; {_REMEDY}"
        )
    default = open_clip.transform.PreprocessCfg()
    whole = {key: getattr(default, key) for key in _PREPROCESS} | stated | line
    size = spec.number("input_size")
    whole["size"] = source.image_size if size is None else size
    by = [source.stated_by] if stated else []
    by += ["open_clip's default (CLIP)"] if missing else []
    by += [f"the list ({', '.join(sorted(line))})"] if line else []
    return whole, ", ".join(by)


def _hub_files(address: str) -> tuple[str, tuple[str, ...]]:
    repository, _, file = address.rpartition("/")
    if not file:
        return repository, ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    safe = (f"{file[:-4]}.safetensors",) if file.endswith((".bin", ".pth")) else ()
    return repository, (*safe, file)


def locate(spec: ModelSpec, source: Source) -> Path | None:
    """Return the weight file of a line without a checkpoint, if it is on this machine; asks no network."""
    if spec.name.startswith("local-dir:"):
        assert source.folder is not None
        files = [source.folder / name for name in LOCAL_FILES]
        files += [
            file for ending in ("safetensors", "bin", "pth") for file in sorted(source.folder.glob(f"*.{ending}"))
        ]
        found = next((file for file in files if file.is_file()), None)
        if found is None:
            raise UserError(f"{spec.where}: no weights in {source.folder}; it needs one of {', '.join(LOCAL_FILES)}")
        return checkpoint_file(found, spec.where)
    if address := source.weights_entry.get("hf_hub"):
        repository, candidates = _hub_files(address)
        return cached_on_hub(repository, candidates, source.weights_entry.get("revision"))
    if url := source.weights_entry.get("url"):
        file = Path("~/.cache/clip").expanduser() / str(url).rpartition("/")[2]
        return file if file.is_file() else None
    return None


def fetch(source: Source) -> Path:
    """Download the weight file into the library's usual cache and return it."""
    if address := source.weights_entry.get("hf_hub"):
        repository, candidates = _hub_files(address)
        return fetched_from_hub(repository, candidates, source.weights_entry.get("revision"))
    path: str = open_clip.download_pretrained(dict(source.weights_entry))
    return Path(path)


def tokenizer_of(source: Source, spec: ModelSpec) -> Any:
    """Return the tokenizer of a model.

    Raises
    ------
    RemoteCodeError
        It comes with code, and the line does not allow it.
    UserError
        It needs a package or files that are not here.
    """
    text = source.model["text_cfg"]
    name = text.get("hf_tokenizer_name") or ""
    trusted = bool(spec.flag(OPTION))
    if not name:
        return open_clip.get_tokenizer(source.architecture) if not source.custom else _simple_tokenizer(text)
    with remote_code(trusted, spec.where, f"the tokenizer {name}"):
        if not source.custom:
            return open_clip.get_tokenizer(source.architecture, **({OPTION: True} if trusted else {}))
        name = str(_tokenizer_folder(source) or name)
        options = {**(text.get("tokenizer_kwargs") or {}), OPTION: trusted}
        return open_clip.tokenizer.HFTokenizer(
            name, context_length=_context_length(text), tokenizer_mode=text.get("tokenizer_mode"), **options
        )


def _tokenizer_folder(source: Source) -> Path | None:
    """Return the folder beside a configuration that its tokenizer is read from, if there is one."""
    name = source.model["text_cfg"].get("hf_tokenizer_name") or ""
    if source.folder is None or not name:
        return None
    beside = (source.folder / name, source.folder)
    return next((place for place in beside if (place / "tokenizer_config.json").is_file()), None)


def _text_files(source: Source) -> dict[str, str]:
    """Return the SHA-256 of files on this machine that a custom configuration's text side is built from, by role."""
    if not source.custom:
        return {}
    files: dict[str, Path] = {}
    if (folder := _tokenizer_folder(source)) is not None:
        files = {file.name: file for file in folder.iterdir() if file.suffix in _TOKENIZER_ENDINGS}
    if tower := source.model["text_cfg"].get("hf_model_name"):
        files["text tower"] = Path(tower) / "config.json"
    return {role: content_digest(file) for role, file in files.items() if file.is_file()}


def files_digest(spec: ModelSpec, source: Source) -> str:
    """Return a digest of the files, other than weights, that change what a custom model gives.

    Parameters
    ----------
    spec
        The line.
    source
        What is known of it.

    Returns
    -------
    str
        Of the configuration of a ``local-dir:`` model, of tokenizer files beside a configuration and of the
        configuration of a text tower on this machine, 64 hexadecimal digits; empty where there are none of these.
    """
    files = _text_files(source)
    if spec.name.startswith("local-dir:"):
        assert source.folder is not None
        files[CONFIG_FILE] = content_digest(source.folder / CONFIG_FILE)
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest() if files else ""


def _simple_tokenizer(text: Mapping[str, Any]) -> Any:
    options = {key: value for key, value in (text.get("tokenizer_kwargs") or {}).items() if key != OPTION}
    return open_clip.SimpleTokenizer(context_length=_context_length(text), **options)


def _context_length(text: Mapping[str, Any]) -> int:
    return int(text.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH))


def tokenizer_id(source: Source) -> str:
    """Return a text that differs between tokenizers, for the cache of text embeddings."""
    text = source.model["text_cfg"]
    parts = {
        key: text.get(key) for key in ("context_length", "hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs")
    }
    siglip = "siglip" in source.architecture.lower() and source.architecture
    files = _text_files(source)
    return json.dumps([parts, siglip or "", *([files] if files else [])], sort_keys=True)
