"""What a library of models is to the extraction: its names, and how one of its models is described, built and run.

A library is one folder below ``extract/libraries`` (or a plug-in) with an instance of `Library`; nothing else knows its
name. Instances import their library only inside their methods, so that a model list is read without torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from cache_schema.format.model_names.card_fields import derive
from extract.models.forward_version import FORWARD_VERSION
from extract.models.spec import CLASSIFIER_OPTIONS, Line, ModelSpec

if TYPE_CHECKING:
    import torch

    from extract.classes.spaces import ClassSpace
    from extract.models.base import Built, Prepared

__all__ = ["CLASSIFIER_OPTIONS", "Entry", "Library", "Line", "ModelSpec"]


@dataclass(frozen=True)
class Entry:
    """One model that can be named.

    Attributes
    ----------
    library, name
        As in a model list.
    architecture
        The name without its weights.
    input_size
        Side of the test-time input in pixels.
    licence
        Of the weights; ``unknown`` where the library does not say.
    card
        Card fields derived from the name.
    """

    library: str
    name: str
    architecture: str
    input_size: int | None
    licence: str
    card: Mapping[str, Any] = field(default_factory=dict)


class Library(ABC):
    """A source of models.

    A library of your own implements ``name``, `prepare` and `build`; everything else has a default.

    Attributes
    ----------
    name
        The part of a line before the colon.
    distribution
        Package whose version is recorded in every store, and counts of parameters and operations are kept by; empty
        for none.
    options
        Keys of a line that only this library takes -> what they mean. Every library takes
        `extract.models.spec.COMMON_OPTIONS`.
    path_options
        Those of ``options`` that are files or folders: relative ones are resolved beside the list.
    forward_options, forward_files
        Those of ``options`` that change the network that the weights go into, by value and by the file's content: they
        are part of the identity of a store.
    confirming_options
        Those of ``options`` that a line needs only where it would be an error without them.
    examples, own_examples
        Lines of published models and of your own weights, each with its meaning, for ``extract help models``.
    """

    name: ClassVar[str]
    distribution: ClassVar[str] = ""
    options: ClassVar[Mapping[str, str]] = {}
    path_options: ClassVar[Sequence[str]] = ()
    forward_options: ClassVar[Sequence[str]] = ()
    forward_files: ClassVar[Sequence[str]] = ()
    confirming_options: ClassVar[Sequence[str]] = ()
    examples: ClassVar[Sequence[tuple[str, str]]] = ()
    own_examples: ClassVar[Sequence[tuple[str, str]]] = ()

    # -- names --------------------------------------------------------------------------------------------------------

    def resolve(self, line: Line) -> list[ModelSpec]:
        """Return the models that a line stands for: one, or every match of a wildcard.

        Raises
        ------
        UserError
            There is no such model; the message begins with ``line.where`` and gives the nearest name.
        """
        return [line.spec()]

    def entries(self) -> Iterator[Entry]:
        """Yield every published model, for ``extract models``; none where names cannot be listed."""
        return iter(())

    def lists(self) -> Mapping[str, Callable[[], list[str]]]:
        """Return named lists (``@NAME``) of published models, each as a function that gives their names."""
        return {}

    def card_fields(self, name: str) -> dict[str, Any]:
        """Return the card fields that a name gives: ``group``, ``source``, ``source_size``, ``samples_seen``,
        ``family``.
        """
        return derive(self.name, name)

    # -- models -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def prepare(self, spec: ModelSpec) -> Prepared:
        """Return card, preprocessing and weight file of a model, without building it; see
        `extract.libraries.prepare`.
        """

    def with_classes_of(self, prepared: Prepared, spaces: Mapping[str, ClassSpace]) -> Prepared:
        """Return a prepared model that answers in the classes of a run, where these decide what it gives.

        Only for libraries whose models take class names as input and give logits alone; the default changes nothing.

        Parameters
        ----------
        prepared
            As `prepare` returned it.
        spaces
            Class spaces of the run's datasets, by id of the dataset.

        Raises
        ------
        UserError
            There are several, and the line does not say which; the message begins with the line.
        """
        del spaces
        return prepared

    @abstractmethod
    def build(self, prepared: Prepared) -> Built:
        """Build a model on the CPU and load its weights; see `extract.libraries.build`."""

    def forward_version(self, name: str, precision: str) -> int:
        """Return the version of a model's forward pass, part of every store's identity.

        Raised for those models only whose numbers a change of the code moves: the others need not be run again.

        Parameters
        ----------
        name
            Of the model, as on its card.
        precision
            ``fp32``, ``bf16`` or ``fp16``.
        """
        return FORWARD_VERSION

    def why_without(self, prepared: Prepared, array: str) -> str:
        """Return why a model cannot give arrays that are stored when asked for, empty where it can.

        Parameters
        ----------
        prepared
            As `prepare` returned it.
        array
            A name of ``extract.planning.arrays.ARRAYS`` whose arrays are of prediction stores.
        """
        return f"models of {self.name} do not give them"

    # -- arithmetic ---------------------------------------------------------------------------------------------------

    def architecture(self, spec: ModelSpec) -> str:
        """Return the published architecture of a line; empty where the model has a configuration of its own."""
        return ""

    def published_tower(self, architecture: str) -> torch.nn.Module:
        """Return a published architecture's image tower with whatever weights; called on the meta device."""
        raise NotImplementedError(f"{self.name} has no published architectures")

    def image_tower(self, prepared: Prepared) -> torch.nn.Module:
        """Return a model's image tower with whatever weights; called on the meta device."""
        return self.published_tower(self.architecture(prepared.spec))

    def text_operations(self, prepared: Prepared) -> int | None:
        """Return the floating-point operations of the text tower for one text; None where they are not known."""
        return None
