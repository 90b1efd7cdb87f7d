"""The identity of a store: a digest of everything that can change its numbers; a test pins its values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np

from closerlook_common.errors import UserError

IDENTITY_VERSION = 1
"""Raise by hand when the recipe below changes; every store then gets another identity."""


def to_json_value(value: Any, where: str = "") -> Any:
    """Return a value as plain JSON types; UserError names the first part that is not JSON.

    Parameters
    ----------
    value
        Nested dictionaries, sequences, numpy scalars, paths and plain values.
    where
        Dotted path of the value, for the error.
    """
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, np.generic):
        return to_json_value(value.item(), where)
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise UserError(f"{where or 'the record'} is {value}, which JSON cannot hold; leave it out or use None")
        return value
    if isinstance(value, Mapping):
        return {str(key): to_json_value(item, f"{where}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json_value(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, set | frozenset):
        return sorted(to_json_value(item, where) for item in value)
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, np.ndarray):
        return to_json_value(value.tolist(), where)
    raise UserError(f"{where or 'the record'} is a {type(value).__name__}, which a store's header cannot hold")


def canonical_json(value: Any) -> str:
    """Return the canonical JSON of a value: sorted keys, no spaces, unescaped UTF-8, no NaN."""
    return json.dumps(to_json_value(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def identity(fields: Mapping[str, Any]) -> str:
    """Return the identity of what the fields describe.

    Parameters
    ----------
    fields
        Everything that can change an output, and nothing that cannot (batch size, device, time).

    Returns
    -------
    str
        SHA-256 of the canonical JSON of the fields and ``IDENTITY_VERSION``, 64 hexadecimal digits.

    Examples
    --------
    >>> identity({"model": "resnet50"})[:8]
    '3df5bcda'
    """
    text = canonical_json({"identity_version": IDENTITY_VERSION, "fields": fields})
    return hashlib.sha256(text.encode()).hexdigest()


def prediction_identity(
    *,
    library: str,
    name: str,
    tag: str,
    weights_digest: str,
    preprocessing: Mapping[str, Any],
    precision: str,
    dataset_id: str,
    dataset_digest: str,
    class_space: str,
    class_mask: tuple[int, ...] | None,
    class_map: tuple[tuple[int, ...], ...] | None,
    prompt_set_digest: str,
    logits_kind: str,
    features_dtype: str,
    forward_version: int,
) -> str:
    """Return the identity of a prediction store. All fields are required, so that none is forgotten.

    Parameters
    ----------
    library, name, tag, weights_digest
        Which weights.
    preprocessing
        Record of resize, crop, interpolation, mean and std.
    precision
        ``fp32``, ``bf16`` or ``fp16``.
    dataset_id, dataset_digest
        Which images, in which order, with which labels.
    class_space, class_mask, class_map
        What the logits mean and over which classes their rows are centred.
    prompt_set_digest
        Of a zero-shot head's templates and class names; empty for a model's own head.
    logits_kind, features_dtype
        What is stored.
    forward_version
        Raised by hand when a change of the code that runs models changes outputs.
    """
    return identity({**locals(), "kind": "predictions"})
