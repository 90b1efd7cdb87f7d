"""Models that a Python function of the user's own returns: ``python:FILE.py:function``.

Such a line runs code, as nothing else in a model list does: the user who writes the line chooses the code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from closerlook_common.errors import UserError
from extract.libraries.base import CLASSIFIER_OPTIONS, Library, Line, ModelSpec
from extract.libraries.named import check_class_order
from extract.models.spec import shown

if TYPE_CHECKING:
    from extract.models.base import Built, Prepared

__all__ = ["LIBRARY", "PythonLibrary"]


class PythonLibrary(Library):
    """Models of the user's own functions."""

    name = "python"
    options: ClassVar[Mapping[str, str]] = {
        **CLASSIFIER_OPTIONS,
        "crop_pct": "share of the resized image that is kept",
        "head": "name of the final linear layer, whose input are the features; found where it is left out",
    }
    forward_options = ("head",)
    own_examples = (
        ("python:my_models.py:small", "what the function small of that file returns; examples/own_module.py"),
        ("python:my_package.models:small", "what a function of an installed package returns"),
        ("python:my_models.py:small checkpoint=w.pth", "with the weights of a file"),
    )

    def resolve(self, line: Line) -> list[ModelSpec]:
        """Return the model of a line; nothing is run yet. See `Library.resolve`."""
        check_class_order(line)
        place, colon, function = line.name.rpartition(":")
        if not colon or not place or not function.isidentifier():
            raise UserError(
                f"{line.where}: {shown(line.name)!r} is neither FILE.py:function nor package.module:function"
            )
        if place.endswith(".py"):
            file = line.absolute(place)
            if not file.is_file():
                raise UserError(f"{line.where}: there is no file {file}")
            return [line.spec(f"{file}:{function}", id=f"{file.stem}:{function}")]
        if not all(part.isidentifier() for part in place.split(".")):
            raise UserError(f"{line.where}: {shown(place)!r} is neither a file FILE.py nor the name of a module")
        return [line.spec()]

    def prepare(self, spec: ModelSpec) -> Prepared:
        """Call the function, and describe what it returns; see `Library.prepare`."""
        from extract.libraries.python.model import prepare

        return prepare(spec)

    def build(self, prepared: Prepared) -> Built:
        """Call the function again for a model to run; see `Library.build`."""
        from extract.libraries.python.model import build

        return build(prepared)


LIBRARY = PythonLibrary()
