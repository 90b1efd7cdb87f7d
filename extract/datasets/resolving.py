"""From a table of ``datasets.toml`` to a dataset that is ready to be read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from closerlook_common.errors import UserError
from extract.classes.choices import choices_space
from extract.classes.spaces import BUILT_IN, ClassSpace
from extract.datasets.base import NO_LABEL, Dataset
from extract.datasets.building import build, folder_column
from extract.datasets.columns import LABEL, no_label, wants_labels
from extract.datasets.folder import Rows, class_folder_names, empty_class_folders, read_class_folders, read_flat
from extract.datasets.labels import label_map
from extract.datasets.listing import Listed, holds_images, list_images
from extract.datasets.packed import packed_kind, read_packed
from extract.datasets.recipes import apply, recipe_for
from extract.datasets.remarks import collected
from extract.datasets.spaces import space_for
from extract.datasets.specs import DatasetSpec


def resolve(spec: DatasetSpec) -> Dataset:
    """List a dataset's images and give each its label.

    Nothing is decoded; only names and sizes are read.

    Raises
    ------
    UserError
        The folder is missing or empty, names are not classes, a count is not the expected one ... each with
        the fix.
    """
    with collected() as remarks:
        if spec.data is not None:
            dataset = _from_python(spec)
        elif spec.questions is not None:
            dataset = _from_questions(spec, spec.questions)
        else:
            recipe = recipe_for(spec)
            dataset = apply(recipe, spec) if recipe is not None else _by_spec(spec)
    return replace(dataset, problems=tuple(dict.fromkeys((*dataset.problems, *remarks))))


def _by_spec(spec: DatasetSpec) -> Dataset:
    spec = with_reader(spec)
    if spec.reader != "files":
        packed = read_packed(spec)
        return build(
            spec,
            packed.rows,
            packed.space,
            metadata=packed.metadata,
            source=packed.source,
            extra={"layout": packed.layout},
        )
    if spec.manifest is not None:
        return _from_manifest(spec, spec.manifest)
    from extract.datasets.manifest import folder_manifest  # polars is not for decoding processes to import

    metadata = folder_manifest(spec.path)
    return _from_folder(spec) if metadata is None else _from_manifest(spec, metadata, folders_name_labels=True)


def _from_python(spec: DatasetSpec) -> Dataset:
    """Read a Python object's items once: labels, and a digest of the content, which is part of the dataset's."""
    from extract.datasets.python_data import PythonSource, Reference, checked, class_names, read_rows

    where = spec.where or f"dataset {spec.name}"
    data = spec.data if isinstance(spec.data, Reference) else checked(spec.data, where)
    source = PythonSource(data, where)
    rows, content, metadata = read_rows(source)
    names, labelled = class_names(source.items()), bool((rows.labels != NO_LABEL).any())
    classes: str | tuple[str, ...] | ClassSpace = spec.classes or names
    if labelled and not classes:
        raise UserError(
            f"{where}: its labels are numbers without names: give the object `classes`, a list of names by index, or "
            "say whose they are (NAME=python:FILE.py:function:imagenet-1k, or a .txt file of names)"
        )
    space = space_for(classes, names, class_space_name=spec.class_space, where=where) if classes else None
    if space is not None and labelled and spec.class_map is None and int(rows.labels.max()) >= len(space.names):
        raise UserError(f"{where}: label {int(rows.labels.max())} is not a class: there are {len(space.names)}")
    dataset = build(spec, rows, space, metadata=metadata, source=source, root=Path(), extra={"layout": "python"})
    digest = hashlib.sha256(f"{dataset.card.digest} {content}".encode()).hexdigest()
    return replace(dataset, card=replace(dataset.card, digest=digest))


def _from_questions(spec: DatasetSpec, table: Path) -> Dataset:
    """Read a table of questions; what is asked is part of the dataset's digest."""
    from extract.datasets.questions import read_questions  # polars is not for decoding processes to import

    found = read_questions(
        table,
        spec.path,
        path_column=spec.path_column,
        answer_column=spec.label_column,
        follow_links=spec.follow_links,
    )
    dataset = build(
        spec,
        found.rows,
        choices_space(max(len(one.options) for one in found.asked)),
        metadata=found.metadata,
        keys=found.keys,
        problems=found.problems,
        extra={"layout": "questions"},
    )
    asked = json.dumps([[one.question, *one.options] for one in found.asked], ensure_ascii=False)
    digest = hashlib.sha256(f"{dataset.card.digest} {asked}".encode()).hexdigest()
    return replace(dataset, questions=found.asked, card=replace(dataset.card, digest=digest))


def with_reader(spec: DatasetSpec) -> DatasetSpec:
    """Return the spec with ``reader = "auto"`` decided: files where there are any, else what the folder holds."""
    if spec.reader != "auto":
        return spec
    kind = "" if spec.manifest is not None or holds_images(spec.path) else packed_kind(spec.path)
    return replace(spec, reader=kind or "files")


def _from_manifest(spec: DatasetSpec, manifest: Path, *, folders_name_labels: bool = False) -> Dataset:
    space = None
    if spec.labels != "none":
        space = _manifest_space(spec, manifest)
    elif spec.classes:
        space = _space(spec, ())
    from extract.datasets.manifest import read_manifest  # polars is not for decoding processes to import

    read = read_manifest(
        manifest,
        spec.path,
        space,
        spec.labels,
        captions=spec.captions or None,
        follow_links=spec.follow_links,
        path_column=spec.path_column,
        label_column=spec.label_column,
        needs_labels=wants_labels(spec) and not folders_name_labels,
    )
    rows = read.rows
    if folders_name_labels and space is None and spec.labels != "none" and spec.role != "ood":
        space, rows = _labelled_by_folder(spec, rows)
        if space is None and wants_labels(spec) and set(read.metadata) - {"folder"}:
            raise no_label(list(read.metadata), manifest)
    return build(spec, rows, space, metadata=read.metadata, captions=read.captions, problems=read.problems)


def _labelled_by_folder(spec: DatasetSpec, rows: Rows) -> tuple[ClassSpace | None, Rows]:
    """Give rows without labels those of their folders, if all of them lie in some."""
    tops = [path.partition("/")[0] if "/" in path else "" for path in rows.paths]
    if not all(tops):
        return None, rows
    space = _space(spec, sorted(set(tops)))
    index = label_map(set(tops), space, spec.labels, where=spec.where or str(spec.path))
    return space, Rows(rows.paths, np.asarray([index[top] for top in tops], dtype=np.int32), rows.sizes)


def _manifest_space(spec: DatasetSpec, manifest: Path) -> ClassSpace | None:
    if spec.classes and spec.classes != "folders":
        return _space(spec, ())
    from extract.datasets.label_columns import label_texts
    from extract.datasets.manifest import read_labelled

    table = read_labelled(manifest, spec.path_column, spec.label_column)
    if LABEL not in table.columns:
        return None
    values = {text for text in label_texts(table.get_column(LABEL), manifest, spec.labels) if text}
    return _space(spec, sorted(values)) if values else None


def _from_folder(spec: DatasetSpec) -> Dataset:
    listed = list_images(spec.path)
    flat = all("/" not in item.path for item in listed)
    if spec.labels == "none" or (spec.role == "ood" and spec.labels == "auto") or (flat and spec.role in ("", "ood")):
        rows = read_flat(spec.path, listed=listed)
        return build(spec, rows, _space(spec, ()) if spec.classes else None, metadata=folder_column(rows))
    space = _space(spec, class_folder_names(listed, spec.path))
    # A space made of the folder names is read by them, even where a name looks like a number or a WordNet id.
    kind = ("wnid" if space.wnids else "name") if spec.classes == "folders" else spec.labels
    dataset = build(spec, read_class_folders(spec.path, space, kind, listed=listed), space)
    if spec.classes not in ("", "folders") or space.id in BUILT_IN:
        return dataset
    return replace(dataset, empty_classes=tuple(empty_class_folders(spec.path, _tops(listed))))


def _tops(listed: list[Listed]) -> set[str]:
    return {item.path.partition("/")[0] for item in listed}


def _space(spec: DatasetSpec, names: tuple[str, ...] | list[str]) -> ClassSpace:
    return space_for(spec.classes, names, class_space_name=spec.class_space, where=spec.where or str(spec.path))
