"""A saved model of transformers built from its safetensors files, every weight of them set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from closerlook_common.errors import UserError
from extract.libraries.saved import Source
from extract.models.meta import EXPANSION, SLACK
from extract.models.remote_code import OPTION
from extract.models.spec import ModelSpec


def saved_module(spec: ModelSpec, source: Source, kind: Any, files: list[Path], **arguments: Any) -> Any:
    """Return a saved model in evaluation mode, on the CPU in float32.

    Parameters
    ----------
    spec
        The line.
    source
        The saved model.
    kind
        Class of transformers that has ``from_pretrained``.
    files
        Of its weights.
    arguments
        Further arguments of ``from_pretrained``.

    Raises
    ------
    UserError
        The weights do not fill the model, or the configuration describes a far larger one.
    """
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


def _check_size(spec: ModelSpec, source: Source, kind: Any, files: list[Path], *, trusted: bool) -> None:
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
