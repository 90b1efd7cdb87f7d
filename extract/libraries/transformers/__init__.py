"""Models of the package transformers: image classifiers, encoders without a head, and zero-shot models of two towers.

Imports transformers only when a model is prepared. Weights are read from safetensors files alone, and code that comes
with a model runs only where its line says ``trust_remote_code=yes``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from extract.libraries.base import CLASSIFIER_OPTIONS, Library, Line, ModelSpec
from extract.libraries.named import resolve_saved

if TYPE_CHECKING:
    from extract.models.base import Built, Prepared

__all__ = ["LIBRARY", "TransformersLibrary"]


class TransformersLibrary(Library):
    """Models saved with ``save_pretrained``, in a folder or on the Hugging Face hub."""

    name = "transformers"
    distribution = "transformers"
    options: ClassVar[Mapping[str, str]] = {
        **CLASSIFIER_OPTIONS,
        "crop_pct": "share of the resized image that is kept",
        "clean": "how texts are cleaned before they become tokens: canonicalize (lower case, no punctuation; what"
        " SigLIP takes), lower, or none (what the others take)",
        "trust_remote_code": "yes runs the Python code that comes with the model; nothing else can allow it, no"
        " configuration either",
    }
    forward_options = ("clean",)
    examples = (
        (
            "transformers:OWNER/REPOSITORY",
            "a repository on the Hugging Face hub; @REVISION after it",
        ),
        (
            "transformers:FOLDER",
            "what save_pretrained wrote: a classifier, DINOv2, MAE, or CLIP, SigLIP ...",
        ),
    )

    def resolve(self, line: Line) -> list[ModelSpec]:
        """Return the model of a line; see `Library.resolve`."""
        return resolve_saved(line, self.name)

    def prepare(self, spec: ModelSpec) -> Prepared:
        """Return what is known of a model without building it; see `Library.prepare`."""
        from extract.libraries.transformers.preparing import prepare

        return prepare(spec)

    def build(self, prepared: Prepared) -> Built:
        """Build a model on the CPU and load its weights; see `Library.build`."""
        from extract.libraries.transformers.building import build

        return build(prepared)

    def why_without(self, prepared: Prepared, array: str) -> str:
        """Return why a model cannot give an array; see `Library.why_without`."""
        from extract.libraries.transformers.inner import why_without

        return why_without(prepared, array)


LIBRARY = TransformersLibrary()
