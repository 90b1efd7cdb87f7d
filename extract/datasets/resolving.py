"""From a table of ``datasets.toml`` to a dataset that is ready to be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from extract.classes.spaces import ClassSpace
from extract.datasets.base import Dataset
from extract.datasets.building import build, folder_column
from extract.datasets.folder import Rows, class_folder_names, read_class_folders, read_flat
from extract.datasets.labels import label_map
from extract.datasets.listing import holds_images, list_images
from extract.datasets.packed import packed_kind, read_packed
from extract.datasets.recipes import apply, recipe_for
from extract.datasets.spaces import space_for
from extract.datasets.specs import DatasetSpec


def resolve(spec: DatasetSpec) -> Dataset:
    """List a dataset's images and give each its label.

    Nothing is decoded; only names and sizes are read.

    Raises
    ------
    UserError
        The folder is missing or empty, names are no classes, a count is not the expected one ... each with
        the mend.
    """
    recipe = recipe_for(spec)
    if recipe is not None:
        return apply(recipe, spec)
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
    return _from_folder(spec) if metadata is None else _from_manifest(spec, metadata, folders_tell=True)


def with_reader(spec: DatasetSpec) -> DatasetSpec:
    """Return the spec with ``reader = "auto"`` decided: files where there are any, else what the folder holds."""
    if spec.reader != "auto":
        return spec
    kind = "" if spec.manifest is not None or holds_images(spec.path) else packed_kind(spec.path)
    return replace(spec, reader=kind or "files")


def _from_manifest(spec: DatasetSpec, manifest: Path, *, folders_tell: bool = False) -> Dataset:
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
    )
    rows = read.rows
    if folders_tell and space is None and spec.labels != "none" and spec.role != "ood":
        space, rows = _labelled_by_folder(spec, rows)
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
    from extract.datasets.manifest import LABEL, read_labelled

    table = read_labelled(manifest)
    if LABEL not in table.columns:
        return None
    values = {str(value).strip() for value in table.get_column(LABEL).drop_nulls().unique().to_list()} - {
        "",
        "-1",
    }
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
    return build(spec, read_class_folders(spec.path, space, kind, listed=listed), space)


def _space(spec: DatasetSpec, names: tuple[str, ...] | list[str]) -> ClassSpace:
    return space_for(spec.classes, names, class_space_name=spec.class_space, where=spec.where or str(spec.path))
