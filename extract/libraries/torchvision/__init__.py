"""torchvision's classifiers: their own weights, or yours, with the preprocessing that belongs to the weights.

Imports torchvision only when a name is looked up or a model is prepared.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from extract.libraries.base import CLASSIFIER_OPTIONS, Entry, Line, ModelSpec
from extract.libraries.named import NamedLibrary, check_class_order

if TYPE_CHECKING:
    import torch

    from extract.models.base import Built, Prepared

__all__ = ["LIBRARY", "TorchvisionLibrary"]


class TorchvisionLibrary(NamedLibrary):
    """Models of the package torchvision, by ``arch.WEIGHTS``."""

    name = "torchvision"
    distribution = "torchvision"
    options: ClassVar[Mapping[str, str]] = {
        **CLASSIFIER_OPTIONS,
        "crop_pct": "share of the resized image that is kept",
        "weights": "torchvision's weights, such as IMAGENET1K_V1; with checkpoint= those that yours were trained"
        " from or like, whose preprocessing is taken (none: the line says how images are seen)",
    }
    one_model_options = ("weights",)
    forward_options = ("weights",)
    examples = (
        ("torchvision:resnet50.IMAGENET1K_V2", "a published model: architecture.WEIGHTS"),
        ("torchvision:resnet50", "the same; without WEIGHTS, torchvision's default ones"),
    )
    own_examples = (
        (
            "torchvision:resnet50 weights=IMAGENET1K_V1 checkpoint=mine.pth",
            "fine-tuned from these weights, or like them",
        ),
    )

    def published(self) -> tuple[str, ...]:
        """Return the names that have weights; see `NamedLibrary.published`."""
        from extract.libraries.torchvision import names

        return names.published()

    def in_wildcards(self, name: str) -> bool:
        """Return True: all of them have a trained classifier; see `NamedLibrary.in_wildcards`."""
        return True

    def full_name(self, line: Line) -> str:
        """Return the full name of a line's model; see `NamedLibrary.full_name`."""
        from extract.libraries.torchvision import names

        return names.full_name(line)

    def resolve(self, line: Line) -> list[ModelSpec]:
        """Return the models of a line; see `Library.resolve`."""
        check_class_order(line)
        return super().resolve(line)

    def entries(self) -> Iterator[Entry]:
        """Yield every published model; see `Library.entries`."""
        from extract.libraries.torchvision import names

        return names.entries()

    def card_fields(self, name: str) -> dict[str, Any]:
        """Return the card fields that a name gives; see `Library.card_fields`."""
        from extract.libraries.torchvision import names

        return names.card_fields(name)

    def prepare(self, spec: ModelSpec) -> Prepared:
        """Return what is known of a model without building it; see `Library.prepare`."""
        from extract.libraries.torchvision.model import prepare

        return prepare(spec)

    def build(self, prepared: Prepared) -> Built:
        """Build a model on the CPU and load its weights; see `Library.build`."""
        from extract.libraries.torchvision.model import build

        return build(prepared)

    def architecture(self, spec: ModelSpec) -> str:
        """Return the published architecture of a line; see `Library.architecture`."""
        return spec.name.partition(".")[0]

    def published_tower(self, architecture: str) -> torch.nn.Module:
        """Return the whole model, its classifier included; see `Library.published_tower`."""
        from torchvision.models import get_model

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of two architectures' random weights, which do not matter
            model: torch.nn.Module = get_model(architecture, weights=None)
        return model


LIBRARY = TorchvisionLibrary()
