"""Which class space a dataset lives in: a named one, a list, a file, or its own folder names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from closerlook_common.errors import UserError, nearest
from closerlook_common.input_files import read_text_file
from extract.classes.spaces import BUILT_IN, IMAGENET_1K, ClassSpace, class_space
from extract.classes.unicode_names import composed, refuse_same_names
from extract.datasets.base import Dataset
from extract.datasets.labels import by_index, by_name, by_wnid, looks_like_wnid

FOLDERS = "folders"


def own_space(names: Sequence[str], name: str = "") -> ClassSpace:
    """Return a class space of one's own; unnamed, it is called after its content, so equal lists are one
    space.

    Parameters
    ----------
    names
        Class names by index. Where all of them are WordNet ids of ImageNet-1k, they become the classes' ids, and
        ImageNet's names their names.
    name
        Name of the space, if it has one.
    """
    refuse_same_names(names, f"class space {name}" if name else "classes")
    names = [composed(text) for text in names]
    wnids = None
    if all(map(looks_like_wnid, names)):
        imagenet = class_space(IMAGENET_1K)
        found = by_wnid(names, imagenet)
        if len(found) == len(names):  # a prompt wants "tench", not "n01440764"
            names, wnids = [imagenet.names[found[wnid]] for wnid in names], tuple(names)
    unnamed = ClassSpace("unnamed", tuple(names), wnids)
    return ClassSpace(name or content_name(unnamed), unnamed.names, wnids)


def content_name(space: ClassSpace) -> str:
    """Return the id that a space has without a name: the number of its classes and their digest."""
    return f"{len(space)}-classes-{space.digest[:8]}"


def space_for(
    classes: str | Sequence[str] | ClassSpace, names: Collection[str], *, class_space_name: str = "", where: str = ""
) -> ClassSpace:
    """Return the class space that a dataset's ``classes`` key stands for.

    Parameters
    ----------
    classes
        ``imagenet-1k``, ``folders``, a list of names, a ``.txt`` file, a class space, or empty: decided from ``names``.
    names
        The dataset's folder names, or the values of its label column.
    class_space_name
        Name to give a space of the dataset's own.
    where
        What is read, for messages.

    Raises
    ------
    UserError
        ``classes`` is none of these, or ``names`` do not decide.
    """
    if isinstance(classes, ClassSpace):
        return classes
    if not isinstance(classes, str):
        return own_space(classes, class_space_name)
    if classes.endswith(".txt"):
        return own_space(_names_in(Path(classes), where), class_space_name)
    if classes == FOLDERS:
        return own_space(sorted(set(names), key=composed), class_space_name)
    if classes in BUILT_IN:
        return class_space(classes)
    if classes:
        known = (*BUILT_IN, FOLDERS)
        raise UserError(
            f"{where}: classes = {classes!r} is neither {' nor '.join(known)}, a list, a .txt file, nor another dataset"
            f"{nearest(classes, known)}"
        )
    return _decide(sorted(set(names), key=composed), class_space_name, where)


def _decide(names: list[str], class_space_name: str, where: str) -> ClassSpace:
    """Decide between ImageNet-1k and the names themselves by what all of the names are."""
    imagenet = class_space(IMAGENET_1K)
    if all(map(looks_like_wnid, names)):
        stranger = next((name for name in names if name not in by_wnid(names, imagenet)), None)
        if stranger is not None:
            raise UserError(
                f"{where}: the folders are named by WordNet ids, but {stranger!r} is not in {IMAGENET_1K};"
                ' classes = "folders" takes the ids as classes'
            )
        return imagenet
    if all(name.isdecimal() for name in names):
        if len(names) == len(imagenet.names) and len(by_index(names, imagenet)) == len(names):
            return imagenet
        line = f"{where}:{IMAGENET_1K}" if where.startswith("--dataset ") else f'classes = "{IMAGENET_1K}"'
        raise UserError(
            f"{where}: the classes are numbers; say what they count: {line} for ImageNet's indices, otherwise classes ="
            " with a list of names or a .txt file in its table of datasets.toml"
        )
    if len(by_name(names, imagenet)) == len(names):
        return imagenet
    return own_space(names, class_space_name)


def _names_in(path: Path, where: str) -> list[str]:
    lines = read_text_file(path, f"{where}: class list").splitlines()
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise UserError(f"{where}: {path} holds no class name")
    if "" in names:
        number = names.index("") + 1
        raise UserError(f"{where}: {path}, line {number} is blank; the line's number is the class, so none may be")
    return names


def member_indices(members: Sequence[str | int], space: ClassSpace, *, where: str = "") -> tuple[int, ...]:
    """Return class indices, sorted, of members given by index, WordNet id or name.

    Raises
    ------
    UserError
        A member is not a class of the space, or is the name of several.
    """
    texts = [member for member in members if isinstance(member, str)]
    found = {**by_name(texts, space), **by_wnid(texts, space)}
    out = set()
    for member in members:
        index = member if isinstance(member, int) else found.get(member)
        if index is None or not 0 <= index < len(space.names):
            raise UserError(f"{where}: {member!r} is not a class of {space.id}{nearest(str(member), space.names)}")
        out.add(index)
    return tuple(sorted(out))


def in_class_space(dataset: Dataset, space: ClassSpace) -> Dataset:
    """Return a dataset without labels with the class space that its logits are to be of."""
    card = replace(dataset.card, class_space=space.id, class_names=space.names, n_classes=len(space))
    return replace(dataset, class_space=space, card=card)
