"""The files of a saved model: its configuration, its weights, everything else that changes what it gives."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from closerlook_common.errors import UserError
from closerlook_common.input_files import read_json_file
from extract.libraries.named import LOCAL
from extract.models.base import WeightsUnavailable
from extract.models.spec import ModelSpec
from extract.models.weights import checkpoint_file, content_digest, file_digest, known_digest

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SMALL = ("*.json", "*.txt", "*.model", "*.jinja", "*.py")
"""Files beside the weights: configurations, tokenizers, processors, code."""

_LARGEST_CONFIG = 4 << 20
_LARGEST_INDEX = 64 << 20
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "flax_model.msgpack")


@dataclass(frozen=True)
class Source:
    """A saved model on this machine.

    Attributes
    ----------
    folder
        Where its files are.
    config
        What its ``config.json`` holds.
    """

    folder: Path
    config: dict[str, Any]

    @property
    def model_type(self) -> str:
        """Transformers' name of the architecture, such as ``vit``."""
        return str(self.config.get("model_type", ""))

    @property
    def architecture(self) -> str:
        """The class that the weights were saved from, such as ``ViTForImageClassification``."""
        found = self.config.get("architectures") or [""]
        return str(found[0]) if isinstance(found, list) else ""


def require_version(where: str) -> None:
    """Raise UserError for a transformers without image processors of Pillow's resampling for every model."""
    from transformers import __version__ as found

    if int(found.partition(".")[0]) < 5:
        raise UserError(f"{where}: transformers {found} is installed, this library needs 5 or newer: pip install -U it")


def source_of(spec: ModelSpec, *, fetch: bool = False) -> Source:
    """Return the files of a line's model.

    Parameters
    ----------
    spec
        The line.
    fetch
        Whether the weights of a repository are downloaded; its small files always are, unless they are here.

    Raises
    ------
    WeightsUnavailable
        They are neither here nor to be had.
    UserError
        The configuration cannot be read.
    """
    require_version(spec.where)
    folder = Path(spec.name.removeprefix(LOCAL)) if spec.name.startswith(LOCAL) else _snapshot(spec, fetch=fetch)
    try:
        config = read_json_file(folder / "config.json", "configuration", limit=_LARGEST_CONFIG)
    except UserError as error:
        raise UserError(f"{spec.where}: {error}") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise UserError(f"{spec.where}: {folder / 'config.json'} has no model_type: transformers did not write it")
    return Source(folder, config)


def _snapshot(spec: ModelSpec, *, fetch: bool) -> Path:
    from huggingface_hub import snapshot_download

    repository, _, revision = spec.name.partition("@")
    wanted = [*SMALL, *((WEIGHTS, "model-*.safetensors") if fetch else ())]
    try:
        if not fetch:
            folder = Path(snapshot_download(repository, revision=revision or None, local_files_only=True))
            if (folder / "config.json").is_file():
                return folder
    except Exception:  # noqa: BLE001  # it is not in the cache
        pass
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=wanted))
    except Exception as error:  # whatever the hub's client raises
        reason = " ".join(str(error).split())[:300]
        raise WeightsUnavailable(
            f"{spec.where}: {repository} is neither in the hub cache nor to be had; warm the hub cache (HF_HOME) on a"
            f" machine with network, or name a folder ({reason})"
        ) from error


def weight_files(spec: ModelSpec, source: Source) -> list[Path]:
    """Return the safetensors files of a model; empty where a repository's are not on this machine.

    Raises
    ------
    UserError
        A folder has none, or an index names files elsewhere.
    """
    folder = source.folder
    if (folder / WEIGHTS).is_file():
        return [checkpoint_file(folder / WEIGHTS, spec.where)]
    if (folder / INDEX).is_file():
        index = read_json_file(folder / INDEX, "index of weights", limit=_LARGEST_INDEX)
        named = index.get("weight_map") if isinstance(index, dict) else None
        names = sorted(set(named.values())) if isinstance(named, dict) else []
        if not names or not all(isinstance(name, str) and Path(name).name == name for name in names):
            raise UserError(f"{spec.where}: {folder / INDEX} does not list the files of weights beside it")
        files = [folder / name for name in names]
        if all(file.is_file() for file in files):
            return [checkpoint_file(file, spec.where) for file in files]
        if spec.name.startswith(LOCAL):
            missing = next(file for file in files if not file.is_file())
            raise WeightsUnavailable(f"{spec.where}: {missing} is missing, which {INDEX} lists")
    if spec.name.startswith(LOCAL):
        other = next((name for name in _PICKLES if (folder / name).is_file()), "")
        reason = f"; {other} is not read: save it once more, as safetensors" if other else ""
        raise WeightsUnavailable(f"{spec.where}: there is no {WEIGHTS} in {folder}{reason}")
    return []


def weights_digest(files: list[Path], *, known: bool) -> str:
    """Return the SHA-256 of one weight file, or of the digests of several.

    Parameters
    ----------
    files
        In order.
    known
        Only where this machine has computed it before; else an empty text.
    """
    digests = [known_digest(file) if known else file_digest(file) for file in files]
    if not digests or not all(digests):
        return ""
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


def files_digest(source: Source) -> str:
    """Return the SHA-256 of everything besides the weights: configuration, tokenizer, processor, code."""
    found = {file.name: file for pattern in SMALL for file in sorted(source.folder.glob(pattern)) if file.is_file()}
    found.pop(INDEX, None)
    text = json.dumps({name: content_digest(file) for name, file in sorted(found.items())})
    return hashlib.sha256(text.encode()).hexdigest()
