"""Vision-language models as classifiers: the log-likelihood of each class name, or option letter, after a question.

Models of transformers that take images and text to text (LLaVA, Qwen-VL, InternVL, Idefics, SmolVLM ...), from folders
that ``save_pretrained`` wrote or from the Hugging Face hub. Imports transformers only when a model is prepared.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from extract.classes.spaces import ClassSpace
from extract.libraries.base import CLASSIFIER_OPTIONS, Library, Line, ModelSpec
from extract.libraries.named import resolve_saved
from extract.libraries.vlm.questions import LINE_OPTIONS, question_of

if TYPE_CHECKING:
    from extract.models.base import Built, Prepared

__all__ = ["LIBRARY", "VlmLibrary"]


class VlmLibrary(Library):
    """Vision-language models that answer a question about every image."""

    name = "vlm"
    distribution = "transformers"
    options: ClassVar[Mapping[str, str]] = {
        "classes": CLASSIFIER_OPTIONS["classes"],
        "crop_pct": "share of the resized image that is kept",
        **LINE_OPTIONS,
        "trust_remote_code": "yes runs the Python code that comes with the model; nothing else can allow it, no"
        " configuration either",
    }
    examples = (
        ("vlm:OWNER/REPOSITORY", "LLaVA, Qwen-VL, InternVL ... on the hub; scores class names"),
        ("vlm:FOLDER answers=letters", "scores A, B, C ... of classes that the question lists"),
        ('vlm:FOLDER question="Which animal?"', "another question about each image"),
    )

    def resolve(self, line: Line) -> list[ModelSpec]:
        """Return the model of a line; see `Library.resolve`."""
        found = resolve_saved(line, self.name)
        for spec in found:
            question_of(spec)
        return found

    def prepare(self, spec: ModelSpec) -> Prepared:
        """Return what is known of a model without building it; see `Library.prepare`."""
        from extract.libraries.vlm.preparing import prepare

        return prepare(spec)

    def with_classes_of(self, prepared: Prepared, spaces: Mapping[str, ClassSpace]) -> Prepared:
        """Return a model with the class names of a run's dataset; see `Library.with_classes_of`."""
        from extract.libraries.vlm.preparing import of_run

        return of_run(prepared, spaces)

    def build(self, prepared: Prepared) -> Built:
        """Build a model on the CPU and load its weights; see `Library.build`."""
        from extract.libraries.vlm.building import build

        return build(prepared)


LIBRARY = VlmLibrary()
