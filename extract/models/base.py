"""What a model is to the extraction: prepared without being built, loaded, run, and asked for its head."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.format.records import ModelCard
from closerlook_common.errors import UserError
from extract.classes.choices import Choice
from extract.classes.prompts import PromptSet
from extract.classes.spaces import ClassSpace
from extract.models.compiling import CompileError, compile_tower
from extract.models.spec import ModelSpec
from extract.preprocess import Geometry, Preprocessing

if TYPE_CHECKING:
    import torch

__all__ = [
    "AFFINE_TOLERANCE",
    "PRECISIONS",
    "Built",
    "CompileError",
    "Geometry",
    "Head",
    "HeadUnavailable",
    "LoadedModel",
    "Outputs",
    "Prepared",
    "Preprocessing",
    "WeightsUnavailable",
]

PRECISIONS = ("fp32", "bf16", "fp16")

AFFINE_TOLERANCE = 1e-4
"""A head is affine if features and head give the model's logits back to within this fraction of their range.
"""


class WeightsUnavailable(UserError):
    """The weights are neither here nor to be had from the hub; the message says what would help."""


class HeadUnavailable(UserError):
    """The model has no head for that class space; the message says why."""


@dataclass(frozen=True)
class Prepared:
    """A model as known without building it.

    Attributes
    ----------
    spec
        The line of the model list.
    card
        The model card; ``weights_digest`` is empty where the file was never hashed on this machine,
        ``parameters`` and, for timm, ``feature_width`` are None until the model is loaded.
    preprocessing
        What is done to images.
    weights
        The weight file, if it is on this machine.
    output_order
        Of a classifier: the place of each class of ``card.class_space`` among the outputs; empty where they are in
        the same order.
    files_digest
        Of files other than weights that change what the model gives: the configuration of a ``local-dir:`` model,
        tokenizer files beside a configuration. Empty where there are none.
    answers_questions
        Whether it takes a question with options about each image: its `LoadedModel.answer` is implemented.
    class_names
        Of a classifier whose library knows them: names, or WordNet ids, by output; empty where the line names the
        classes, or where they are ImageNet's.
    """

    spec: ModelSpec
    card: ModelCard
    preprocessing: Preprocessing
    weights: Path | None
    output_order: tuple[int, ...] = ()
    files_digest: str = ""
    class_names: tuple[str, ...] = ()
    answers_questions: bool = False


@dataclass(frozen=True, eq=False)
class Built:
    """A model with its weights in the machine's memory, not yet on a device; nothing of it has touched the device.

    Attributes
    ----------
    prepared
        With the weights' digest in its card.
    module
        The library's own model.
    place
        Called with device and precision; gives the loaded model.
    """

    prepared: Prepared
    module: torch.nn.Module
    place: Callable[[str, str], LoadedModel]

    def on(self, device: str = "cpu", precision: str = "fp32") -> LoadedModel:
        """Put the model on a device, in the given precision unless its line asks for another; to be done once."""
        return self.place(device, self.prepared.spec.options.get("precision", precision))

    def weight_bytes(self) -> int:
        """Return the bytes of all weights and buffers."""
        return _bytes(self.module)


@dataclass(frozen=True)
class Outputs:
    """What one forward pass gives.

    Attributes
    ----------
    features
        (B, D) float32, on the device: the input of the final affine layer, or the unnormalised image
        embedding; None where a model gives logits alone.
    logits
        (B, C) float32, on the device; None for zero-shot models, whose logits come from features and a head.
    parts
        (B, ...) float32 by name, on the device: what `LoadedModel.forward_with` was asked for.
    """

    features: torch.Tensor | None
    logits: torch.Tensor | None
    parts: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Head:
    """The final layer: ``scale * f @ weight.T + bias``, with ``f`` normalised where ``normalize_features``.

    Attributes
    ----------
    class_space, class_names
        What the rows of ``weight`` are, by index.
    weight
        (C, D) float32; unit rows for a zero-shot head.
    bias
        (C,) float32.
    affine
        Whether features and head give the model's logits back.
    residual
        Largest deviation of these from the model's own logits on the batch they were compared on, as a
        fraction of the logits' range; 0 for zero-shot heads, which define the logits.
    normalize_features
        True for zero-shot heads: the logits are scaled cosines.
    logit_scale, logit_bias
        Of a zero-shot model (scale exponentiated); None for a classifier. A scalar ``logit_bias`` is in
        ``bias`` too.
    prompt_set, templates, n_templates
        The prompts of a zero-shot head; ``n_templates`` is the largest number of texts of a class.
    text_sum
        (C, D) float32, per class the sum of its unit text embeddings: adding those of several prompt sets and
        normalising gives the head of their union, exactly.
    text_embeddings
        (T, C, D) float16, the unit text embeddings of every template, zeros where a class has fewer texts; None where
        they were not asked for.
    """

    class_space: str
    class_names: tuple[str, ...]
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    affine: bool = True
    residual: float = 0.0
    normalize_features: bool = False
    logit_scale: float | None = None
    logit_bias: float | None = None
    prompt_set: str = ""
    templates: tuple[str, ...] = ()
    n_templates: int = 0
    text_sum: NDArray[np.float32] | None = None
    text_embeddings: NDArray[np.float16] | None = None

    def logits(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the (n, C) float32 logits of (n, D) features."""
        f = np.asarray(features, dtype=np.float32)
        if self.normalize_features:
            f = f / np.maximum(np.linalg.norm(f, axis=1, keepdims=True), np.float32(1e-12))
        scale = np.float32(1.0 if self.logit_scale is None else self.logit_scale)
        out: NDArray[np.float32] = scale * (f @ self.weight.T) + self.bias
        return out

    @property
    def kind(self) -> str:
        """What a model card calls it: ``zero-shot``, ``linear`` or ``non-affine``."""
        if self.normalize_features:
            return "zero-shot"
        return "linear" if self.affine else "non-affine"


class LoadedModel(ABC):
    """A model with its weights on a device, in evaluation mode.

    Attributes
    ----------
    card
        Complete: weights digest, parameters, feature width, head kind.
    preprocessing
        What is done to images; `forward` takes pixels that went through its geometry.
    feature_width
        D.
    device
        As torch names it.
    precision
        One of ``PRECISIONS``: of the body; features leave it as float32 and the head is always computed in
        float32.
    module
        The library's own model.
    compiled_rows
        Rows of the batches that the model is compiled for; 0 while it is not.
    on_texts
        Called while a text head is made, with templates done and templates in all.
    keeps_texts
        Whether text heads hold the embeddings of every template.
    """

    card: ModelCard
    preprocessing: Preprocessing
    feature_width: int
    device: torch.device
    precision: str
    module: torch.nn.Module
    compiled_rows: int = 0
    on_texts: Callable[[int, int], None] | None = None
    keeps_texts: bool = False
    _tower: Callable[[torch.Tensor], Any]
    """The costly part of `forward`: normalised images in, what the head needs out."""

    def compile(self, rows: int, *, backend: str = "inductor") -> None:
        """Compile the model for batches of one size, and run one of zeros.

        Parameters
        ----------
        rows
            Of a batch; halved until a batch fits the device.
        backend
            Of ``torch.compile``.

        Raises
        ------
        CompileError
            It does not work; the model is then as it was.
        """
        compile_tower(self, rows, backend)

    def weight_bytes(self) -> int:
        """Return the bytes that weights and buffers take on the device."""
        return _bytes(self.module)

    def release(self) -> None:
        """Let go of weights and everything that refers to them; the model cannot be run any more."""
        kept = ("card", "preprocessing", "feature_width", "compiled_rows")
        for name in [name for name in vars(self) if name not in kept]:
            delattr(self, name)

    @abstractmethod
    def forward(self, pixels: torch.Tensor) -> Outputs:
        """Run the model once.

        Parameters
        ----------
        pixels
            (B, H, W, 3) or (B, 3, H, W) uint8, on the model's device.
        """

    def forward_with(self, pixels: torch.Tensor, arrays: Sequence[str]) -> Outputs:
        """Run the model once, and return what further arrays are made of.

        Parameters
        ----------
        pixels
            As for `forward`.
        arrays
            Names of arrays that `Library.why_without` gives no reason against.

        Returns
        -------
        Outputs
            Features and logits as `forward` returns them, and in ``parts``: for ``patches`` the embeddings of all
            patches (B, P, D), not normalised, in the space of the texts; for other names the arrays as they are stored.
        """
        raise NotImplementedError(f"{self.card.id} gives no {', '.join(arrays)}")

    def part_details(self, array: str) -> Mapping[str, Any]:
        """Return what a store's details say of an array that `forward_with` gives, as far as the model decides it."""
        del array
        return {}

    def answer(self, pixels: torch.Tensor, asked: Sequence[Choice], options: int) -> Outputs:
        """Answer a question about each image.

        Parameters
        ----------
        pixels
            As for `forward`.
        asked
            Question and options of each image.
        options
            Columns of the logits; those beyond the options of an image are -inf.
        """
        raise NotImplementedError(f"{self.card.id} answers no questions; {len(asked)} of {options} options were asked")

    @abstractmethod
    def head(self, class_space: ClassSpace, prompts: PromptSet | None = None) -> Head:
        """Return the head for a class space.

        Parameters
        ----------
        class_space
            What the logits are to be of.
        prompts
            For zero-shot models; ignored by those that have a classifier.

        Raises
        ------
        HeadUnavailable
            The model's classifier answers in another class space, or has none.
        """

    def cut_texts(self, texts: Sequence[str]) -> list[int]:
        """Return the numbers of the texts that the text context cuts; none where that cannot be known."""
        del texts
        return []

    def encode_texts(self, texts: list[str]) -> NDArray[np.float32]:
        """Return (m, D) unit-norm embeddings of captions.

        Raises
        ------
        HeadUnavailable
            The model has no text tower.
        """
        raise HeadUnavailable(
            f"{self.card.id} has no text tower, so captions have no embedding; {len(texts)} were asked for"
        )


def _bytes(module: torch.nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*module.parameters(), *module.buffers()))
