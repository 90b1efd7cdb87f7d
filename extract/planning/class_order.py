"""Which output of a classifier is which class of a dataset: where that is not certain, the user is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from closerlook_common.errors import UserError
from extract.classes.orders import differ, in_order
from extract.classes.spaces import BUILT_IN, ClassSpace
from extract.datasets.base import Dataset
from extract.datasets.spaces import content_name, space_for
from extract.libraries import registry
from extract.models.base import Prepared


def with_known_spaces(models: Sequence[Prepared], datasets: Sequence[Dataset]) -> tuple[list[Prepared], dict[str, str]]:
    """Let ``classes=`` of a model's line name a dataset of the run, or a file with the same names, for its space.

    Parameters
    ----------
    models
        Prepared models.
    datasets
        Listed datasets.

    Returns
    -------
    list of Prepared
        The models, classifiers with the places of the dataset's classes among their outputs.
    dict
        Why the order of a classifier's outputs is not known, by id of the model.
    """
    spaces = {d.class_space.id: d.class_space for d in datasets if d.class_space is not None}
    known: dict[str, str] = {}
    for dataset in datasets:
        if (space := dataset.class_space) is not None:
            known |= {content_name(space): space.id, dataset.card.id: space.id}
    known |= {name: name for name in spaces}
    found, unordered = [], {}
    named = {dataset.card.id: dataset.class_space for dataset in datasets if dataset.class_space is not None}
    for model in models:
        given = registry.get(model.spec.library).with_classes_of(model, named)
        own = given.card.class_space
        name = known.get(own) or next((s.id for s in spaces.values() if _has_classes_of(given, s)), own)
        model = replace(given, card=replace(given.card, class_space=name))
        try:
            if ("classes" in model.spec.options or model.class_names) and name in spaces:
                model = _with_outputs_in_order(model, spaces[name])
        except UserError as error:
            unordered[model.card.id] = str(error)
        found.append(model)
    return found, unordered


def _keys(space: ClassSpace) -> tuple[str, ...]:
    """Return what distinguishes a space's classes: WordNet ids where it has them, else names."""
    return space.wnids or space.names


def _own_names(model: Prepared) -> tuple[str, ...]:
    """Return the names of a model's outputs, of the file that its line names or known to its library; () for none."""
    stated = model.spec.options.get("classes", "")
    return _keys(space_for(stated, (), where=model.spec.where)) if stated.endswith(".txt") else model.class_names


def _has_classes_of(model: Prepared, space: ClassSpace) -> bool:
    """Return whether a model's outputs are known to be a space's classes, in whatever order."""
    return sorted(_own_names(model)) == sorted(_keys(space))


def _with_outputs_in_order(model: Prepared, space: ClassSpace) -> Prepared:
    """Return a classifier that answers in a dataset's classes, with the place of each class among its outputs.

    Parameters
    ----------
    model
        A classifier whose line names the dataset or a file of its classes, or whose library knows their names.
    space
        The dataset's classes.

    Raises
    ------
    UserError
        timm and torchvision sort the class folders differently, and the line does not say which order is the model's.
    """
    options = model.spec.options
    order = options.get("class_order", "")
    keys = _keys(space)
    if names := _own_names(model):
        theirs: Sequence[str] = names
    elif space.id in BUILT_IN:
        return model  # WordNet ids, which both sort alike
    elif order:
        theirs = in_order(keys, order)
    elif (places := differ(keys)) is not None and list(keys) == in_order(keys, "torchvision"):
        one, other = places
        raise UserError(
            f"{model.spec.where}: timm and torchvision sort these class folders differently ({one!r} comes before or"
            f" after {other!r}): say class_order=timm or class_order=torchvision in the line of {model.card.id},"
            " or classes=FILE.txt with a class name a line, in the order of the model's outputs"
        )
    else:
        theirs = keys
    place = {name: index for index, name in enumerate(theirs)}
    outputs = tuple(place[name] for name in keys)
    return replace(model, output_order=() if outputs == tuple(range(len(outputs))) else outputs)
