"""Models exported to one file that holds the network itself: logits, and features where an output of it is named.

Such a file says nothing of images or classes: the model's line does. It runs in float32, whatever a run's precision is,
since its operations are fixed.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from closerlook_common.errors import CloserlookError, UserError
from extract.libraries.base import CLASSIFIER_OPTIONS, Library, Line, ModelSpec
from extract.libraries.named import check_class_order

if TYPE_CHECKING:
    import torch

    from extract.models.base import Built, Prepared

OPTIONS: Mapping[str, str] = {
    **CLASSIFIER_OPTIONS,
    "crop_pct": "share of the resized image that is kept",
    "logits": "name of the output that holds the logits; the first one where it is left out",
    "features": "name of the output that holds the features; none are stored where it is left out",
}
"""What lines of exported models take besides."""


class ExportedLibrary(Library):
    """A library of files; a subclass loads one.

    Attributes
    ----------
    ending
        Of its files' names, for messages.
    """

    ending: ClassVar[str]
    options: ClassVar[Mapping[str, str]] = OPTIONS
    forward_options = ("logits", "features")

    @abstractmethod
    def module(self, file: Path, device: str) -> torch.nn.Module:
        """Return a module that takes (B, 3, H, W) float32 images on a device to outputs by name, in their order."""

    def resolve(self, line: Line) -> list[ModelSpec]:
        """Return the model of a line; see `Library.resolve`."""
        check_class_order(line)
        if line.checkpoint is not None:
            raise UserError(f"{line.where}: checkpoint= does not go with {self.name}: the file holds its weights")
        file = line.absolute(line.name)
        if not file.is_file():
            raise UserError(f"{line.where}: there is no file {file}; {self.name}: takes FILE{self.ending}")
        return [line.spec(str(file), id=file.stem)]

    def prepare(self, spec: ModelSpec) -> Prepared:
        """Load the file, run it on one image, and describe it; see `Library.prepare`."""
        import torch

        from extract.libraries.exported_model import outputs_of
        from extract.models.base import Prepared
        from extract.models.cards import model_card
        from extract.models.outputs import output_space
        from extract.models.transforms import line_preprocessing
        from extract.models.weights import checkpoint_file, file_digest

        file = checkpoint_file(Path(spec.name), spec.where)
        preprocessing = line_preprocessing(spec, None)
        module = self._loaded(spec, "cpu")
        height, width = preprocessing.geometry.output_size
        features, logits = outputs_of(spec, module, torch.zeros((1, 3, height, width)))
        n_classes = int(logits.shape[1])
        if (stated := spec.number("num_classes")) is not None and stated != n_classes:
            raise UserError(f"{spec.where}: num_classes={stated}, but {spec.id} gives {n_classes} logits")
        space, _ = output_space(spec, n_classes)
        alone = {"logits_only": True} if features is None else {}
        card = model_card(
            spec,
            input_size=height,
            class_space=space,
            feature_width=None if features is None else int(features.shape[1]),
            preprocessing=preprocessing.to_record(),
            weights_digest=file_digest(file),
            extra={"n_classes": n_classes, "file": file.name, **alone},
        )
        # The same file is the same model wherever it lies.
        return Prepared(spec, replace(card, name=file.name), preprocessing, file)

    def build(self, prepared: Prepared) -> Built:
        """Load the file; see `Library.build`."""
        from extract.libraries.exported_model import ExportedModel
        from extract.models.base import Built

        spec = prepared.spec
        module = self._loaded(spec, "cpu")

        def placed(device: str, precision: str) -> ExportedModel:
            own = module if device == "cpu" else self._loaded(spec, device)
            return ExportedModel(prepared, own, device)

        return Built(prepared, module, placed)

    def _loaded(self, spec: ModelSpec, device: str) -> torch.nn.Module:
        try:
            return self.module(Path(spec.name), device)
        except CloserlookError:
            raise
        except Exception as error:  # whatever a runtime raises for a file
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{spec.where}: {spec.name} cannot be loaded ({type(error).__name__}: {reason})") from error
