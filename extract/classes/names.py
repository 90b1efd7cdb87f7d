"""Class-name sets: what prompts call the classes, where that is not the class space's own names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from closerlook_common.errors import UserError, nearest
from closerlook_common.input_files import read_json_file, read_text_file
from extract.classes.spaces import IMAGENET_1K, ClassSpace, class_space

CLASS_NAME_SETS: Mapping[str, str] = {
    "open_clip": "of ImageNet's classes, as open_clip curated them; what imagenet-1k uses by default",
    "wordnet": "of ImageNet's classes, the first synonym in WordNet",
}
"""Built-in class-name sets: name -> what it is."""


@dataclass(frozen=True)
class ClassNames:
    """Names for prompts.

    Attributes
    ----------
    name
        What the set is called; it follows the ``@`` in a prompt set's name.
    in_order
        A name for every class, by index; or empty, and ``by_class`` is used.
    by_class
        Names by class (its index as text, WordNet id or own name). Classes that are not among them keep their own.
    """

    name: str
    in_order: tuple[str, ...] = ()
    by_class: Mapping[str, str] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.name, self.digest))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the names themselves, whatever the set is called."""
        given = json.dumps([self.in_order, sorted(self.by_class.items())], ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(given.encode()).hexdigest()

    def of(self, space: ClassSpace) -> tuple[str, ...]:
        """Return the names of a space's classes, by index.

        Raises
        ------
        UserError
            There are more or fewer names than classes, or a name is given to a class that the space has not.
        """
        if self.in_order:
            if len(self.in_order) != len(space):
                given, wanted = len(self.in_order), len(space)
                raise UserError(f"class names {self.name!r}: {given:,} names, but {space.id} has {wanted:,} classes")
            return self.in_order
        wnids = space.wnids or ("",) * len(space)
        keys = [(str(index), wnid, own) for index, (wnid, own) in enumerate(zip(wnids, space.names, strict=True))]
        known = {key for row in keys for key in row}
        stranger = next((key for key in self.by_class if key not in known), None)
        if stranger is not None:
            raise UserError(
                f"class names {self.name!r}: {stranger!r} is not a class of {space.id}{nearest(stranger, space.names)}"
            )
        return tuple(next((self.by_class[k] for k in row if k in self.by_class), row[-1]) for row in keys)


def class_names(source: str) -> ClassNames:
    """Return a built-in class-name set, or read one from a file.

    Parameters
    ----------
    source
        One of `CLASS_NAME_SETS`; a ``.txt`` file with a name a line, for every class by index; or a ``.json`` file: a
        list of the same, or an object {class: name}, which renames those classes alone.

    Raises
    ------
    UserError
        No such set or file, or the file holds something else.
    """
    if source in CLASS_NAME_SETS:
        return _built_in(source)
    path = Path(source)
    if path.suffix not in (".txt", ".json"):
        raise UserError(
            f"no class names {source!r}; there are {', '.join(CLASS_NAME_SETS)}, or a .txt or .json file"
            f"{nearest(source, CLASS_NAME_SETS)}"
        )
    if path.suffix == ".json":
        data = read_json_file(path, "class-name file")
    else:
        lines = [line.strip() for line in read_text_file(path, "class-name file").splitlines()]
        data = [line for line in lines if line]
    if isinstance(data, dict) and data and all(isinstance(name, str) and name.strip() for name in data.values()):
        return ClassNames(path.stem, by_class=data)
    if isinstance(data, list) and data and all(isinstance(name, str) and name.strip() for name in data):
        return ClassNames(path.stem, tuple(data))
    raise UserError(f"class-name file {path} holds neither a list of names nor an object {{class: name}}")


def _built_in(name: str) -> ClassNames:
    space = class_space(IMAGENET_1K)
    wnids = space.wnids or ()
    if name == "open_clip":
        return ClassNames(name, by_class=dict(zip(wnids, space.names, strict=True)))
    from timm.data.imagenet_info import ImageNetInfo

    given = ImageNetInfo()
    first = [str(given.index_to_description(index)).partition(",")[0] for index in range(len(space))]
    return ClassNames(name, by_class=dict(zip(wnids, first, strict=True)))
