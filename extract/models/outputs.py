"""What a classifier answers in: the class space that its line names, or that its library knows by class names."""

from __future__ import annotations

from collections.abc import Sequence

from closerlook_common.errors import UserError
from extract.classes.imagenet_labels import are_imagenet_1k
from extract.classes.spaces import IMAGENET_1K
from extract.datasets.spaces import own_space, space_for
from extract.models.spec import ModelSpec


def output_space(spec: ModelSpec, n_classes: int, names: Sequence[str] = ()) -> tuple[str, tuple[str, ...]]:
    """Return the id of a head's class space, empty where nothing says what its outputs are, and their names.

    Parameters
    ----------
    spec
        The line; its ``classes`` wins.
    n_classes
        Outputs of the head. 1,000 outputs without names are taken for ImageNet's.
    names
        Class names by output, where the library knows them.

    Returns
    -------
    str, tuple of str
        The names are empty for ImageNet's classes, and where the line names a dataset or a file: these are compared
        by their order.

    Raises
    ------
    UserError
        The names are another number than the outputs, or two are alike.
    """
    stated = spec.options.get("classes", "")
    if stated.endswith(".txt"):
        space = space_for(stated, (), where=spec.where)
        if len(space) != n_classes:
            raise UserError(f"{spec.where}: {stated} names {len(space)} classes, {spec.id} answers in {n_classes}")
        return space.id, ()
    if stated or not names:
        return stated or (IMAGENET_1K if n_classes == 1000 else ""), ()
    if len(names) != n_classes:
        raise UserError(f"{spec.where}: {spec.id} has {n_classes} outputs and {len(names)} class names")
    if are_imagenet_1k(names):
        return IMAGENET_1K, ()
    try:
        space = own_space(names)
    except UserError as error:
        raise UserError(f"{spec.where}: {spec.id}: {error}") from error
    return space.id, space.wnids or space.names
