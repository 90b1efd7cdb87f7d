"""Libraries that publish models under names: wildcards, repositories on the hub, folders, names with a near miss."""

from __future__ import annotations

import fnmatch
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from closerlook_common.errors import UserError, nearest
from extract.classes.orders import ORDERS
from extract.libraries.base import Library, Line, ModelSpec
from extract.models.spec import shown

LOCAL, HUB = "local-dir:", "hf-hub:"
"""What names of a folder and of a repository on the hub begin with."""

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def is_elsewhere(name: str) -> bool:
    """Return whether a name is a folder or a repository on the hub, not one that the library publishes."""
    return name.startswith((LOCAL, HUB))


class NamedLibrary(Library):
    """A library with a registry of names.

    Attributes
    ----------
    one_model_options
        Options that a line with a wildcard cannot have, besides ``checkpoint`` and ``id``.
    """

    one_model_options: ClassVar[Sequence[str]] = ()

    @abstractmethod
    def published(self) -> Sequence[str]:
        """Return the names that have weights."""

    @abstractmethod
    def in_wildcards(self, name: str) -> bool:
        """Return whether a wildcard may stand for a published name: whether it runs without further options."""

    @abstractmethod
    def full_name(self, line: Line) -> str:
        """Return the full name of a line's model.

        Raises
        ------
        UserError
            There is no such model, or the line does not say which weights.
        """

    def resolve(self, line: Line) -> list[ModelSpec]:
        """Return the models of a line; see `Library.resolve`."""
        if line.name.startswith(LOCAL):
            folder = line.absolute(line.name.removeprefix(LOCAL))
            return [line.spec(f"{LOCAL}{folder}", id=folder.name)]
        if line.name.startswith(HUB):
            return [line.spec()]
        if any(sign in line.name for sign in "*?["):
            return self._matches(line)
        return [line.spec(self.full_name(line))]

    def _matches(self, line: Line) -> list[ModelSpec]:
        given: Mapping[str, object] = {"checkpoint": line.checkpoint, "id": line.id, **line.options}
        for option in ("checkpoint", *self.one_model_options, "id"):
            if given.get(option):
                raise UserError(f"{line.where}: {option}= is for one model, and {line.name!r} may stand for several")
        names = self.published()
        found = [name for name in names if fnmatch.fnmatchcase(name, line.name) and self.in_wildcards(name)]
        if not found:
            near = nearest(line.name.replace("*", ""), names)
            raise UserError(f"{line.where}: no pretrained model of {self.name} matches {line.name!r}{near}")
        return [line.match(name) for name in found]


def check_class_order(line: Line) -> None:
    """Raise UserError where a line's ``class_order`` is unknown, or says nothing."""
    order = line.options.get("class_order")
    if order is None:
        return
    if order not in ORDERS:
        raise UserError(
            f"{line.where}: class_order={shown(order)} is not one of {', '.join(ORDERS)}{nearest(order, ORDERS)}"
        )
    if "classes" not in line.options:
        raise UserError(f"{line.where}: class_order= is for a model whose line says classes=DATASET")
    if line.options["classes"].endswith(".txt"):
        classes = line.options["classes"]
        raise UserError(f"{line.where}: the lines of {classes} are in the model's order; remove class_order=")


def resolve_saved(line: Line, library: str) -> list[ModelSpec]:
    """Return the model of a line that names what ``save_pretrained`` wrote: a folder, or a repository on the hub.

    Raises
    ------
    UserError
        It names neither.
    """
    check_class_order(line)
    if line.checkpoint is not None:
        raise UserError(
            f"{line.where}: checkpoint= does not go with {library}: name the folder that save_pretrained wrote"
        )
    path = line.name.removeprefix(LOCAL)
    folder = line.absolute(path)
    if folder.is_dir() or line.name.startswith(LOCAL) or path.startswith((".", "/", "~")):
        if not (folder / "config.json").is_file():
            raise UserError(f"{line.where}: there is no config.json in {folder}, which save_pretrained writes")
        return [line.spec(f"{LOCAL}{folder}", id=folder.name)]
    if not _REPOSITORY.fullmatch(line.name):
        raise UserError(f"{line.where}: {shown(line.name)!r} is neither a folder nor OWNER/REPOSITORY of the hub")
    return [line.spec()]
