"""A library of one's own, from one function: the name of a model in, its module out."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from extract.libraries.base import CLASSIFIER_OPTIONS, Library, ModelSpec

if TYPE_CHECKING:
    from extract.libraries.python.loading import Loaded
    from extract.models.base import Built, Prepared


class FunctionLibrary(Library):
    """A library that makes each model with one function; features, head and card are found from the module.

    A library of your own gives ``name`` and `make`. A line is ``NAME:MODEL``; ``checkpoint=FILE`` fills weights in.
    """

    options: ClassVar[Mapping[str, str]] = {**CLASSIFIER_OPTIONS, "crop_pct": "share of the resized image that is kept"}

    @abstractmethod
    def make(self, name: str) -> Any:
        """Return a model: a torch module, an `extract.models.own.OwnModel`, or a mapping with the same keys.

        Parameters
        ----------
        name
            What follows the colon of a line.

        Raises
        ------
        UserError
            There is no model of that name.
        """

    def prepare(self, spec: ModelSpec) -> Prepared:
        """Make the model and describe it; see `Library.prepare`."""
        from extract.libraries.python.model import prepare

        return prepare(spec, self._load)

    def build(self, prepared: Prepared) -> Built:
        """Make the model again to run it; see `Library.build`."""
        from extract.libraries.python.model import build

        return build(prepared, self._load)

    def _load(self, spec: ModelSpec) -> Loaded:
        from extract.libraries.python.loading import load_made

        return load_made(spec, self.make)
