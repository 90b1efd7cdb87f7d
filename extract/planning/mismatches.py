"""Which models do not fit which datasets, and why."""

from __future__ import annotations

from closerlook_common.console.terminal import counted
from extract.classes.spaces import BUILT_IN, ClassSpace
from extract.datasets.base import Dataset
from extract.models.base import Prepared


def is_zero_shot(model: Prepared) -> bool:
    """Return whether a model's logits come from prompts."""
    return model.card.head_kind == "zero-shot"


def gives_features_alone(model: Prepared) -> bool:
    """Return whether a model has no classifier and no text tower, so that heads are fitted on what it gives."""
    return model.card.extra.get("n_classes") == 0


def why_no_views(model: Prepared) -> str:
    """Return why views of a model cannot be chosen: features and a head that gives its logits are needed."""
    if model.card.extra.get("logits_only"):
        return "it gives logits alone, and views are kept as features"
    if gives_features_alone(model):
        return "it has no head, by which the surest views are chosen"
    return why_not_affine(model.card.head_kind) if model.card.head_kind == "non-affine" else ""


def why_not_affine(kind: str) -> str:
    """Return why views cannot be kept with a head of some kind, as a loaded model's card names it; empty if so."""
    if kind in ("linear", "zero-shot"):
        return ""
    return "its head is not affine, so that features of views do not give their logits"


def mismatch(model: Prepared, dataset: Dataset) -> str:
    """Return why a model cannot run on a dataset, or an empty string."""
    if dataset.questions is not None and not model.answers_questions:
        return "it answers no questions, and the dataset asks one about each image"
    if is_zero_shot(model):
        return ""
    if dataset.card.role == "pairs":
        return "it has no text tower, and the dataset is of images with captions"
    if gives_features_alone(model):
        return ""
    space = dataset.class_space
    if space is None:
        return ""
    outputs = int(model.card.extra.get("n_classes") or 0)
    if model.card.class_space == space.id:
        is_known = outputs > 0 and not model.card.extra.get("n_classes_guessed")
        return _other_width(outputs, space, dataset) if is_known and outputs != len(space) else ""
    theirs = f"the dataset's {len(space)} classes are {space.id}{_few_names(space)}"
    own = model.card.class_space
    text = f"it classifies into {own}" if own else f"its line does not say what its {outputs} outputs are"
    fix = ""
    if outputs == len(space) and dataset.card.role != "ood":  # whose classes are those of another dataset
        fix = f"; if these are its classes in this order, put classes={dataset.card.id} into its line"
    return f"{text}, {theirs}{fix}"


def empty_classes(model: Prepared, dataset: Dataset) -> str:
    """Return why a classifier's outputs cannot be the dataset's classes where class folders are empty."""
    space, empty = dataset.class_space, dataset.empty_classes
    if not empty or space is None or is_zero_shot(model) or model.card.class_space != space.id:
        return ""
    outputs = int(model.card.extra.get("n_classes") or 0)
    if outputs == len(space) and not model.card.extra.get("n_classes_guessed"):
        return ""  # it was trained without the empty folders
    text = f"its head has {outputs} outputs, " if outputs != len(space) else ""
    shown = ", ".join(map(repr, empty[:3])) + (", ..." if len(empty) > 3 else "")
    return (
        f"{text}{len(space)} class folders of {dataset.card.id} hold images and {len(empty)} do not ({shown}): put the"
        f" images there, remove what is not a class, or list all classes in its table: classes = [...]"
    )


def _other_width(outputs: int, space: ClassSpace, dataset: Dataset) -> str:
    """Say why a head cannot be of a class space that its line names; the space may hold more than the folders do."""
    text = f"its head has {counted(outputs, 'output')}, the {len(space)} classes of {dataset.card.id} are {space.id}"
    present = len(set(dataset.labels[dataset.labels >= 0].tolist()))
    if outputs == present:
        text += (
            f'; if it was trained on the {present} that have images, say classes = "folders" in the table of'
            f" {dataset.card.id} in datasets.toml"
        )
    return text


def _few_names(space: ClassSpace) -> str:
    if space.id in BUILT_IN:
        return ""
    shown = ", ".join(space.names[:4])
    return f" ({shown}{', ...' if len(space) > 4 else ''})"
