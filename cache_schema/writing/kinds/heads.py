"""Write heads, which turn features into logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache_schema.format.identities import identity as identity_of
from cache_schema.format.naming import head_name
from cache_schema.format.records import ModelCard
from cache_schema.reading.kinds.heads import HeadStore
from cache_schema.reading.open_stores import open_published
from cache_schema.writing.builder import StoreBuilder
from cache_schema.writing.kinds.writing import finite_floats, model_fields
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError

UNIT_TOLERANCE = 1e-3
"""Largest deviation of the norm of a template's embedding from 1."""


def write_head(
    cache_path: Path | str,
    *,
    model: ModelCard,
    class_space: str,
    class_names: Sequence[str],
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    prompt_set: str = "",
    templates: Sequence[str] = (),
    logit_scale: float | None = None,
    logit_bias: float | None = None,
    normalize_features: bool = False,
    affine: bool = True,
    residual: float | None = None,
    text_sum: ArrayLike | None = None,
    n_templates: int | None = None,
    text_embeddings: ArrayLike | None = None,
    default: bool = False,
    backend: str = "zarr",
    record: Mapping[str, Any] | None = None,
    identity: str | None = None,
    overwrite: bool = False,
) -> HeadStore:
    """Write a head store.

    Parameters
    ----------
    cache_path, model, backend, record, overwrite
        As for :func:`cache_schema.write_store`.
    class_space, class_names
        Name of the class space and its C names by index.
    weight : array of shape (C, D)
        Final linear layer, or text classifier (unit rows for a CLIP).
    bias : array of shape (C,), optional
        Zeros when None. Includes the ``logit_bias`` if there is one.
    prompt_set, templates
        Of a zero-shot head; empty for a model's own head.
    logit_scale, logit_bias
        See :class:`cache_schema.format.records.ModelCard`. With a ``logit_scale`` logits are scaled by it before the
        bias.
    normalize_features
        Whether features are scaled to unit norm first.
    affine, residual
        Whether features and head give the model's logits, and how closely on the first batch.
    text_sum : array of shape (C, D), optional
        Sum over templates of unit text embeddings.
    n_templates
        Number of texts per class in ``text_sum``, if that is not the number of templates.
    text_embeddings : array of shape (T, C, D), optional
        Unit text embeddings of every template, float16 or float32; zeros where a class has fewer texts.
    default
        Whether this head is used when none is named.
    identity
        Computed from model, class space, names and templates when None.
    """
    weights = finite_floats("weight", weight, np.float32, 2)
    c = len(weights)
    biases = finite_floats("bias", np.zeros(c) if bias is None else bias, np.float32, 1)
    if len(class_names) != c:
        raise UserError(f"head of {model.id}: {counted(c, 'row')} of weight, {len(class_names)} class names")
    details = {
        "class_space": class_space,
        "prompt_set": prompt_set,
        "templates": list(templates),
        "n_templates": len(templates) if n_templates is None else int(n_templates),
        "logit_scale": None if logit_scale is None else float(logit_scale),
        "logit_bias": None if logit_bias is None else float(logit_bias),
        "normalize_features": normalize_features,
        "affine": affine,
        "residual": None if residual is None else float(residual),
        "default": default,
    }
    described = {
        "kind": "head",
        **model_fields(model),
        "class_names": list(class_names),
        **{key: details[key] for key in ("class_space", "prompt_set", "templates")},
    }
    builder = StoreBuilder(
        cache_path,
        "head",
        model=model,
        dataset=None,
        name=head_name(class_space, prompt_set),
        identity=identity or identity_of(described),
        backend=backend,
        record=record,
        overwrite=overwrite,
    )
    with builder:
        builder.details = details
        builder.add("weight", weights)
        builder.add("bias", biases)
        builder.add_text("class_name", list(class_names))
        if text_sum is not None:
            builder.add("text_sum", finite_floats("text_sum", text_sum, np.float32, 2))
        if text_embeddings is not None:
            builder.add("text_embeddings", _unit_rows(model.id, text_embeddings))
        store = open_published(builder.publish(c))
    assert isinstance(store, HeadStore)
    return store


def _unit_rows(model: str, values: ArrayLike) -> NDArray[Any]:
    """Return embeddings of templates as they are stored; UserError where a row has neither norm 1 nor norm 0."""
    kind = np.float16 if np.asarray(values).dtype == np.float16 else np.float32
    checked = finite_floats("text_embeddings", values, kind, 3)
    for template, block in enumerate(checked):
        norms = np.linalg.norm(block.astype(np.float32), axis=1)
        wrong = np.flatnonzero((np.abs(norms - 1) > UNIT_TOLERANCE) & (norms > 0))
        if wrong.size:
            raise UserError(
                f"head of {model}: the embedding of class {wrong[0]} in template {template} has norm"
                f" {norms[wrong[0]]:.4g}; it must be 1, or 0 where a class has no such text"
            )
    return checked
