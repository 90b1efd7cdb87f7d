"""open_clip's models: the unnormalised image embedding, and a zero-shot head for any class space and prompt set.

Imports open_clip and torch only when a name is looked up or a model is prepared.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from extract.libraries.base import Entry, Line, ModelSpec
from extract.libraries.named import NamedLibrary, is_elsewhere
from extract.models.forward_version import FORWARD_VERSION

if TYPE_CHECKING:
    import torch

    from extract.models.base import Built, Prepared

__all__ = ["LIBRARY", "OpenClipLibrary"]

PROJECTED_IN_FLOAT32 = 2
COCA_NOT_NORMALIZED = 2


class OpenClipLibrary(NamedLibrary):
    """Models of the package open_clip, by ``arch/tag``."""

    name = "open_clip"
    distribution = "open_clip_torch"
    options: ClassVar[Mapping[str, str]] = {
        "config": "JSON file with embed_dim, vision_cfg, text_cfg (and preprocess_cfg)",
        "trust_remote_code": "yes runs the Python code that comes with the model's tokenizer; nothing else can allow"
        " it, no configuration either",
        "quick_gelu": "yes or no, where config and weights disagree",
    }
    path_options = ("config",)
    one_model_options = ("config",)
    forward_options = ("quick_gelu",)
    forward_files = ("config",)
    confirming_options = ("quick_gelu",)
    examples = (
        ("open_clip:ViT-B-32/laion2b_s34b_b79k", "a published model: architecture/tag"),
        ("open_clip:*/laion2b*", "every published model that matches; * and ? are wildcards"),
        ("open_clip:hf-hub:OWNER/REPOSITORY", "a repository on the Hugging Face hub"),
        ("open_clip:local-dir:FOLDER", "a folder with open_clip's configuration and weights"),
    )
    own_examples = (
        ("open_clip:ViT-B-32 checkpoint=mine.pt id=my-clip", "a published architecture"),
        (
            "open_clip:my-clip config=my-clip.json checkpoint=mine.pt",
            "any other: its open_clip configuration as JSON",
        ),
    )

    def published(self) -> tuple[str, ...]:
        """Return the names that have weights; see `NamedLibrary.published`."""
        from extract.libraries.open_clip import names

        return names.published()

    def in_wildcards(self, name: str) -> bool:
        """Return whether config and weights agree; see `NamedLibrary.in_wildcards`."""
        from extract.libraries.open_clip import names

        return not names.quick_gelu_mismatch(*name.split("/", 1))

    def full_name(self, line: Line) -> str:
        """Return the full name of a line's model; see `NamedLibrary.full_name`."""
        from extract.libraries.open_clip import names

        return names.full_name(line)

    def resolve(self, line: Line) -> list[ModelSpec]:
        """Return the models of a line; see `Library.resolve`."""
        if "config" in line.options and not is_elsewhere(line.name):
            return [line.spec()]
        return super().resolve(line)

    def entries(self) -> Iterator[Entry]:
        """Yield every published model; see `Library.entries`."""
        from extract.libraries.open_clip import names

        return names.entries()

    def lists(self) -> Mapping[str, Callable[[], list[str]]]:
        """Return the list of all published models; see `Library.lists`."""
        return {"all-open-clip": lambda: list(self.published())}

    def prepare(self, spec: ModelSpec) -> Prepared:
        """Return what is known of a model without building it; see `Library.prepare`."""
        from extract.libraries.open_clip.preparing import prepare

        return prepare(spec)

    def build(self, prepared: Prepared) -> Built:
        """Build a model on the CPU and load its weights; see `Library.build`."""
        from extract.libraries.open_clip.building import build

        return build(prepared)

    def forward_version(self, name: str, precision: str) -> int:
        """Return the version of a model's forward pass; see `Library.forward_version`.

        Examples
        --------
        >>> LIBRARY.forward_version("ViT-B-32", "fp32"), LIBRARY.forward_version("ViT-B-32", "bf16")
        (1, 2)
        """
        if precision != "fp32":
            return PROJECTED_IN_FLOAT32
        return COCA_NOT_NORMALIZED if name.lower().startswith("coca") else FORWARD_VERSION

    def why_without(self, prepared: Prepared, array: str) -> str:
        """Return why a model cannot give an array; see `Library.why_without`."""
        from extract.libraries.open_clip.inner import why_without

        return why_without(prepared, array)

    def architecture(self, spec: ModelSpec) -> str:
        """Return the published architecture of a line; see `Library.architecture`."""
        return "" if "config" in spec.options or is_elsewhere(spec.name) else spec.name.partition("/")[0]

    def published_tower(self, architecture: str) -> torch.nn.Module:
        """Return the image tower of a published config; see `Library.published_tower`."""
        from extract.libraries.open_clip.operations import published_tower

        logging.getLogger("timm").setLevel(logging.ERROR)
        return published_tower(architecture)

    def image_tower(self, prepared: Prepared) -> torch.nn.Module:
        """Return the image tower of a model; see `Library.image_tower`."""
        from extract.libraries.open_clip.operations import image_tower

        logging.getLogger("timm").setLevel(logging.ERROR)
        return image_tower(prepared.spec)

    def text_operations(self, prepared: Prepared) -> int | None:
        """Return the operations of the text tower for one text; see `Library.text_operations`."""
        from extract.libraries.open_clip.operations import text_operations

        return text_operations(prepared.spec)


LIBRARY = OpenClipLibrary()
