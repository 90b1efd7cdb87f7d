"""Read heads, which turn features into logits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.reading.store import Store
from closerlook_common.errors import UserError


class HeadStore(Store):
    """A head: turns a model's features into logits of one class space, with one prompt set."""

    @cached_property
    def weight(self) -> NDArray[np.float32]:
        """(C, D) float32."""
        return self.read("weight")

    @cached_property
    def bias(self) -> NDArray[np.float32]:
        """(C,) float32, added last; includes a SigLIP's ``logit_bias``."""
        return self.read("bias")

    @cached_property
    def text_sum(self) -> NDArray[np.float32] | None:
        """(C, D) float32: sum over templates of unit text embeddings; None if not stored."""
        return self.read("text_sum") if self.has("text_sum") else None

    def text_embeddings(self, numbers: Sequence[int] | None = None) -> NDArray[Any]:
        """Read the embeddings of templates; the others are not decoded.

        Parameters
        ----------
        numbers
            Which templates, from 0; all when None. Neighbours are read together.

        Returns
        -------
        ndarray of shape (len(numbers), C, D)
            In the order of ``numbers`` and as stored, float16 or float32. Unit rows; zeros where a class has no such
            text.

        Raises
        ------
        UserError
            The head was stored without them, or has no template of a number.
        """
        if not self.has("text_embeddings"):
            raise UserError(
                f"head {self.prompt_set!r} of {self.model.id} holds no embeddings of single templates:"
                " 'extract --arrays texts' stores them"
            )
        count = self.shape("text_embeddings")[0]
        wanted = list(range(count)) if numbers is None else [int(number) for number in numbers]
        if wrong := [number for number in wanted if not 0 <= number < count]:
            raise UserError(
                f"head {self.prompt_set!r} of {self.model.id} has templates 0 to {count - 1}, no {wrong[0]}"
            )
        runs: list[list[int]] = []
        for number in wanted:
            if runs and runs[-1][1] == number:
                runs[-1][1] += 1
            else:
                runs.append([number, number + 1])
        return np.concatenate([self.read("text_embeddings", *run) for run in runs or [[0, 0]]])

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
        """Name of the class space."""
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
        """Number of templates that ``text_sum`` is summed over."""
        return int(self.details["n_templates"])

    @property
    def logit_scale(self) -> float | None:
        """Multiplier of the cosine; None for a linear head."""
        value = self.details["logit_scale"]
        return None if value is None else float(value)

    @property
    def logit_bias(self) -> float | None:
        """A SigLIP's additive bias, None otherwise; included in ``bias``."""
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
        """Largest relative difference to the model's logits on the first batch; None if not compared."""
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
            Float32: ``scale * (f @ weight.T) + bias``, f normalised if ``normalize_features``; scale is 1
            if ``logit_scale`` is None. A feature row of zeros gives NaN if features are normalised.
        """
        if not self.affine:
            raise UserError(
                f"the head of {self.model.id} is not affine (residual {self.residual}): its logits"
                " cannot be computed from features; use the stored ones"
            )
        values = np.asarray(features, dtype=np.float32)
        if values.ndim != 2 or values.shape[1] != self.feature_width:
            raise UserError(f"head of {self.model.id}: features are {values.shape}, expected (n, {self.feature_width})")
        if self.normalize_features:
            with np.errstate(invalid="ignore", divide="ignore"):
                values = values / np.linalg.norm(values, axis=1, keepdims=True)
        out: NDArray[np.float32] = values @ self.weight.T
        if self.logit_scale is not None:
            out *= np.float32(self.logit_scale)
        out += self.bias
        return out
