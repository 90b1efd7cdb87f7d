"""timm's models: classifiers with features, head and logits from one forward pass.

Imports timm and torch only when a name is looked up or a model is prepared.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from extract.libraries.base import CLASSIFIER_OPTIONS, Entry, Line, ModelSpec
from extract.libraries.named import NamedLibrary, check_class_order, is_elsewhere

if TYPE_CHECKING:
    import torch

    from extract.models.base import Built, Prepared

__all__ = ["LIBRARY", "TimmLibrary"]


class TimmLibrary(NamedLibrary):
    """Models of the package timm, by ``arch.tag``."""

    name = "timm"
    distribution = "timm"
    options: ClassVar[Mapping[str, str]] = {
        **CLASSIFIER_OPTIONS,
        "crop_pct": "share of the resized image that is kept",
        "num_classes": "classes of a fixed head, where the checkpoint does not give them; 0 for the features alone",
    }
    examples = (
        ("timm:resnet50.a1_in1k", "a published model: architecture.tag"),
        ("timm:hf-hub:OWNER/REPOSITORY", "a repository on the Hugging Face hub"),
        ("timm:local-dir:FOLDER", "a folder with timm's configuration and weights"),
    )
    own_examples = (
        ("timm:resnet50 checkpoint=mine.pth id=mine", "1,000 outputs are taken for ImageNet's classes"),
        ("timm:resnet50 checkpoint=pets.pth id=pets classes=pets", "the classes of '--dataset pets=FOLDER'"),
        (
            "timm:resnet50 checkpoint=pets.pth id=pets classes=names.txt",
            "one class name a line, in the model's order",
        ),
    )

    def published(self) -> tuple[str, ...]:
        """Return the names that have weights; see `NamedLibrary.published`."""
        from extract.libraries.timm import names

        return names.published()

    def in_wildcards(self, name: str) -> bool:
        """Return whether a name has a trained classifier; see `NamedLibrary.in_wildcards`."""
        from extract.libraries.timm import names

        return names.has_trained_head(name)

    def full_name(self, line: Line) -> str:
        """Return the full name of a line's model; see `NamedLibrary.full_name`."""
        from extract.libraries.timm import names

        return names.full_name(line)

    def resolve(self, line: Line) -> list[ModelSpec]:
        """Return the models of a line; see `Library.resolve`."""
        check_class_order(line)
        return super().resolve(line)

    def entries(self) -> Iterator[Entry]:
        """Yield every published model; see `Library.entries`."""
        from extract.libraries.timm import names

        return names.entries()

    def lists(self) -> Mapping[str, Callable[[], list[str]]]:
        """Return the list of all classifiers of ImageNet's 1,000 classes; see `Library.lists`."""

        def all_in1k() -> list[str]:
            from extract.libraries.timm import names

            return names.imagenet_names()

        return {"all-timm-in1k": all_in1k}

    def prepare(self, spec: ModelSpec) -> Prepared:
        """Return what is known of a model without building it; see `Library.prepare`."""
        from extract.libraries.timm.preparing import prepare

        return prepare(spec)

    def build(self, prepared: Prepared) -> Built:
        """Build a model on the CPU and load its weights; see `Library.build`."""
        from extract.libraries.timm.building import build

        return build(prepared)

    def why_without(self, prepared: Prepared, array: str) -> str:
        """Return why a model cannot give an array; see `Library.why_without`."""
        from extract.libraries.timm.inner import why_without

        return why_without(prepared, array)

    def architecture(self, spec: ModelSpec) -> str:
        """Return the published architecture of a line; see `Library.architecture`."""
        return "" if is_elsewhere(spec.name) else spec.name.partition(".")[0]

    def published_tower(self, architecture: str) -> torch.nn.Module:
        """Return the whole model, its classifier included; see `Library.published_tower`."""
        import timm

        logging.getLogger("timm").setLevel(logging.ERROR)
        model: torch.nn.Module = timm.create_model(architecture, pretrained=False)
        return model

    def image_tower(self, prepared: Prepared) -> torch.nn.Module:
        """Return a model with whatever weights; see `Library.image_tower`."""
        return self.published_tower(str(prepared.card.extra["architecture"]))


LIBRARY = TimmLibrary()
