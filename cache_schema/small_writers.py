"""Writes the other kinds of stores: heads, references, summaries, texts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache_schema.builder import StoreBuilder
from cache_schema.columns import add_columns
from cache_schema.errors import UserError
from cache_schema.identities import identity as identity_of
from cache_schema.naming import head_name
from cache_schema.records import DatasetCard, ModelCard
from cache_schema.small_stores import HeadStore, ReferenceArrays, ReferenceStore, SummaryStore, TextStore
from cache_schema.store import open_store

_REFERENCE_DETAILS = ("n", "max_logit_sum", "logsumexp_sum")


def _model_fields(model: ModelCard) -> dict[str, Any]:
    names = ("id", "library", "name", "tag", "weights_digest", "preprocessing")
    return {name: getattr(model, name) for name in names}


def _dataset_fields(dataset: DatasetCard) -> dict[str, Any]:
    return {
        name: getattr(dataset, name) for name in ("id", "digest", "class_space", "class_mask", "class_map")
    }


def _floats(name: str, values: ArrayLike, dtype: Any, ndim: int) -> NDArray[Any]:
    array = np.asarray(values, dtype=dtype)
    if array.ndim != ndim:
        raise UserError(f"{name} has {array.ndim} axes, not {ndim}")
    if not np.isfinite(array).all():
        raise UserError(f"{name} holds NaN or infinity")
    return array


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
        Zeros when None. Holds ``logit_bias`` already where there is one.
    prompt_set, templates
        Of a zero-shot head; empty for a model's own head.
    logit_scale, logit_bias
        See :class:`cache_schema.records.ModelCard`. With a ``logit_scale`` logits are scaled by it before the
        bias.
    normalize_features
        Whether features are scaled to unit norm first.
    affine, residual
        Whether features and head give the model's logits, and how closely on the first batch.
    text_sum : array of shape (C, D), optional
        Sum over templates of unit text embeddings.
    n_templates
        How many texts a class ``text_sum`` is summed over, where that is not the number of templates.
    default
        Whether this is the head meant where none is named.
    identity
        Computed from model, class space, names and templates when None.
    """
    weights = _floats("weight", weight, np.float32, 2)
    c = len(weights)
    biases = _floats("bias", np.zeros(c) if bias is None else bias, np.float32, 1)
    if len(class_names) != c:
        raise UserError(f"head of {model.id}: {c} rows of weight, {len(class_names)} class names")
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
        **_model_fields(model),
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
            builder.add("text_sum", _floats("text_sum", text_sum, np.float32, 2))
        store = open_store(builder.publish(c))
    assert isinstance(store, HeadStore)
    return store


def write_reference(
    cache_path: Path | str,
    *,
    model: ModelCard,
    dataset: DatasetCard,
    arrays: ReferenceArrays | Mapping[str, Any],
    backend: str = "zarr",
    record: Mapping[str, Any] | None = None,
    identity: str | None = None,
    overwrite: bool = False,
) -> ReferenceStore:
    """Write a reference store.

    Parameters
    ----------
    cache_path, model, dataset, backend, record, identity, overwrite
        As for :func:`cache_schema.write_store`.
    arrays
        What was gathered over the training set. The bank's order is kept, it may be empty; sums must be
        finite.
    """
    reference = arrays if isinstance(arrays, ReferenceArrays) else ReferenceArrays(**arrays)
    described = {"kind": "reference", **_model_fields(model), "dataset": _dataset_fields(dataset)}
    builder = StoreBuilder(
        cache_path,
        "reference",
        model=model,
        dataset=dataset,
        name=dataset.id,
        identity=identity or identity_of(described),
        backend=backend,
        record=record,
        overwrite=overwrite,
    )
    with builder:
        builder.details = {name: getattr(reference, name) for name in _REFERENCE_DETAILS}
        for field in fields(reference):
            value = getattr(reference, field.name)
            if value is None or field.name in _REFERENCE_DETAILS:
                continue
            array = np.asarray(value)
            if field.name != "bank_logits" and not np.isfinite(array).all():
                raise UserError(f"{model.id} on {dataset.id}: {field.name} holds NaN or infinity")
            builder.add(field.name, array)
        store = open_store(builder.publish(len(reference.class_count)))
    assert isinstance(store, ReferenceStore)
    return store


def write_summary(
    cache_path: Path | str,
    *,
    model: ModelCard,
    dataset: DatasetCard,
    columns: Mapping[str, Any],
    variant: str = "",
    backend: str = "zarr",
    record: Mapping[str, Any] | None = None,
    identity: str | None = None,
    overwrite: bool = False,
) -> SummaryStore:
    """Write a summary store.

    Parameters
    ----------
    cache_path, model, dataset, backend, record, overwrite
        As for :func:`cache_schema.write_store`.
    columns
        Name -> array of shape (n,) or (n, k), or n strings. dtypes: int8, int16, int32, int64, uint8,
        float32, float64, bool; others are widened where that loses nothing.
    variant
        Which of several summaries of the same outputs this is (a class subset, a temperature); part of the
        identity.
    identity
        Computed from model, dataset, variant, the columns' names and ``record["source_digest"]`` when None.
    """
    if not columns:
        raise UserError(f"{model.id} on {dataset.id}: a summary needs at least one column")
    n = len(next(iter(columns.values())))
    if n == 0:
        raise UserError(f"{model.id} on {dataset.id}: the summary has no rows, there is nothing to store")
    described = {
        "kind": "summary",
        **_model_fields(model),
        "dataset": _dataset_fields(dataset),
        "variant": variant,
        "columns": list(columns),
        "source_digest": (record or {}).get("source_digest", ""),
    }
    builder = StoreBuilder(
        cache_path,
        "summary",
        model=model,
        dataset=dataset,
        name=dataset.id,
        identity=identity or identity_of(described),
        backend=backend,
        record=record,
        overwrite=overwrite,
    )
    with builder:
        builder.details = {"variant": variant, "columns": add_columns(builder, "column.", columns, n)}
        store = open_store(builder.publish(n))
    assert isinstance(store, SummaryStore)
    return store


def write_texts(
    cache_path: Path | str,
    *,
    model: ModelCard,
    dataset: DatasetCard,
    embeddings: ArrayLike,
    text: Sequence[str],
    image_index: ArrayLike,
    backend: str = "zarr",
    record: Mapping[str, Any] | None = None,
    identity: str | None = None,
    overwrite: bool = False,
) -> TextStore:
    """Write a text store.

    Parameters
    ----------
    cache_path, model, dataset, backend, record, overwrite
        As for :func:`cache_schema.write_store`.
    embeddings : array of shape (m, D)
        Unit-norm rows (to 1e-3).
    text
        The m captions.
    image_index : array of shape (m,)
        Row of the image that a caption belongs to.
    identity
        Computed from model, dataset and captions when None.
    """
    values = _floats("embeddings", embeddings, np.float32, 2)
    m = len(values)
    index = np.asarray(image_index)
    if m == 0:
        raise UserError(f"{model.id} on {dataset.id}: there are no captions")
    if len(text) != m or index.shape != (m,) or index.dtype.kind not in "iu" or (index < 0).any():
        raise UserError(
            f"{model.id} on {dataset.id}: {m} embeddings need {m} captions and {m} image rows from 0 on"
            f" (given: {len(text)} captions, image_index {index.dtype} of shape {index.shape})"
        )
    norms = np.linalg.norm(values, axis=1)
    if (np.abs(norms - 1) > 1e-3).any():
        row = int(np.flatnonzero(np.abs(norms - 1) > 1e-3)[0])
        raise UserError(
            f"{model.id} on {dataset.id}: embedding {row} has norm {norms[row]:.4g}; they must be 1"
        )
    described = {
        "kind": "texts",
        **_model_fields(model),
        "dataset": _dataset_fields(dataset),
        "text": hashlib.sha256("\0".join(text).encode()).hexdigest(),
    }
    builder = StoreBuilder(
        cache_path,
        "texts",
        model=model,
        dataset=dataset,
        name=dataset.id,
        identity=identity or identity_of(described),
        backend=backend,
        record=record,
        overwrite=overwrite,
    )
    with builder:
        builder.add("embeddings", values)
        builder.add_text("text", list(text))
        builder.add("image_index", index.astype(np.int32))
        store = open_store(builder.publish(m))
    assert isinstance(store, TextStore)
    return store
