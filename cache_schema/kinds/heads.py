"""Heads: what turns features into logits of one class space; the store that holds it, read and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cache_schema.builder import StoreBuilder
from cache_schema.errors import UserError
from cache_schema.identities import identity as identity_of
from cache_schema.kinds.writing import finite_floats, model_fields
from cache_schema.naming import head_name
from cache_schema.records import ModelCard
from cache_schema.store import Store, open_published


class HeadStore(Store):
    """What turns a model's features into logits of one class space, with one prompt set."""

    @cached_property
    def weight(self) -> NDArray[np.float32]:
        """(C, D) float32."""
        return self.read("weight")

    @cached_property
    def bias(self) -> NDArray[np.float32]:
        """(C,) float32, added last; a SigLIP's ``logit_bias`` is in it already."""
        return self.read("bias")

    @cached_property
    def text_sum(self) -> NDArray[np.float32] | None:
        """(C, D) float32: sum over templates of unit text embeddings; None where it was not stored."""
        return self.read("text_sum") if self.has("text_sum") else None

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names by index."""
        return tuple(self.read_text("class_name"))

    @property
    def n_classes(self) -> int:
        """C."""
        return self.shape("weight")[0]

    @property
    def feature_width(self) -> int:
        """D."""
        return self.shape("weight")[1]

    @property
    def class_space(self) -> str:
        """Name of the space its classes are in."""
        return str(self.details["class_space"])

    @property
    def prompt_set(self) -> str:
        """Name of the prompt set; empty for a model's own head."""
        return str(self.details["prompt_set"])

    @property
    def templates(self) -> tuple[str, ...]:
        """The prompt set's templates."""
        return tuple(self.details["templates"])

    @property
    def n_templates(self) -> int:
        """How many templates ``text_sum`` is summed over."""
        return int(self.details["n_templates"])

    @property
    def logit_scale(self) -> float | None:
        """Multiplier of the cosine; None for a linear head."""
        value = self.details["logit_scale"]
        return None if value is None else float(value)

    @property
    def logit_bias(self) -> float | None:
        """A SigLIP's additive bias, None otherwise; part of ``bias`` already."""
        value = self.details["logit_bias"]
        return None if value is None else float(value)

    @property
    def normalize_features(self) -> bool:
        """Whether features are scaled to unit norm first."""
        return bool(self.details["normalize_features"])

    @property
    def affine(self) -> bool:
        """Whether ``logits`` gives the model's own logits."""
        return bool(self.details["affine"])

    @property
    def residual(self) -> float | None:
        """Largest relative difference to the model's own logits on the first batch; None if never
        compared.
        """
        value = self.details["residual"]
        return None if value is None else float(value)

    def logits(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Compute logits from features.

        Parameters
        ----------
        features : ndarray of shape (n, D)
            As stored, not normalised.

        Returns
        -------
        ndarray of shape (n, C)
            Float32: ``scale * (f @ weight.T) + bias``, f normalised where ``normalize_features``; scale is 1
            where ``logit_scale`` is None. A feature row of zeros gives NaN where features are normalised.
        """
        if not self.affine:
            raise UserError(
                f"the head of {self.model.id} is not affine (residual {self.residual}): its logits"
                " cannot be computed from features; use the stored ones"
            )
        values = np.asarray(features, dtype=np.float32)
        if values.ndim != 2 or values.shape[1] != self.feature_width:
            raise UserError(
                f"head of {self.model.id}: features are {values.shape}, expected (n, {self.feature_width})"
            )
        if self.normalize_features:
            with np.errstate(invalid="ignore", divide="ignore"):
                values = values / np.linalg.norm(values, axis=1, keepdims=True)
        out: NDArray[np.float32] = values @ self.weight.T
        if self.logit_scale is not None:
            out *= np.float32(self.logit_scale)
        out += self.bias
        return out


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
    weights = finite_floats("weight", weight, np.float32, 2)
    c = len(weights)
    biases = finite_floats("bias", np.zeros(c) if bias is None else bias, np.float32, 1)
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
        store = open_published(builder.publish(c))
    assert isinstance(store, HeadStore)
    return store
