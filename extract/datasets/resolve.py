"""From a table of ``datasets.toml`` to a dataset that is ready to be read."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.errors import UserError
from cache_schema.records import UNKNOWN, DatasetCard
from extract.classes.spaces import BUILT_IN, ClassSpace
from extract.datasets.base import NO_LABEL, ChosenRows, Dataset, ImageSource, manifest_digest
from extract.datasets.folder import Rows, class_folder_names, read_class_folders, read_flat
from extract.datasets.labels import label_map
from extract.datasets.listing import holds_images, list_images
from extract.datasets.packed import packed_kind, read_packed
from extract.datasets.spaces import member_indices, space_for
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
    from extract.datasets.recipes import apply, recipe_for  # recipes are built on this module

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


def folder_column(rows: Rows) -> dict[str, NDArray[np.generic]]:
    """Return the metadata column ``folder`` (the top-level folder of each image), if there are any
    folders.
    """
    folders = [path.rpartition("/")[0].partition("/")[0] for path in rows.paths]
    return {"folder": np.asarray(folders, dtype=object)} if any(folders) else {}


def build(
    spec: DatasetSpec,
    rows: Rows,
    space: ClassSpace | None,
    *,
    metadata: Mapping[str, NDArray[np.generic]] | None = None,
    captions: tuple[tuple[str, ...], ...] | None = None,
    source: ImageSource | None = None,
    keys: tuple[str, ...] | None = None,
    root: Path | None = None,
    problems: tuple[str, ...] = (),
    extra: Mapping[str, Any] | None = None,
) -> Dataset:
    """Put a dataset together from its rows and what the spec says of it.

    Parameters
    ----------
    spec
        Says role, mask, map, choice per class and the rest.
    rows
        Paths in row order, labels (n,), sizes (n,).
    space
        Class space of the logits; the labels' too unless the spec has a class map.
    metadata, captions, source, keys, problems
        As on `Dataset`.
    root
        Folder the paths are relative to, if it is not the spec's.
    extra
        Further facts for the card.
    """
    where = spec.where or f"dataset {spec.name}"
    metadata = dict(metadata or {})
    # A reference is streamed whole; there, per_class is the size of its bank.
    if spec.per_class is not None and spec.role != "reference":
        keep = choose_per_class(rows.paths, rows.labels, spec.per_class, spec.seed)
        source = ChosenRows(source, keep) if source is not None else None
        captions = tuple(captions[i] for i in keep) if captions is not None else None
        rows = Rows(tuple(rows.paths[i] for i in keep), rows.labels[keep], rows.sizes[keep])
        metadata = {name: column[keep] for name, column in metadata.items()}
        keys = tuple(keys[i] for i in keep) if keys is not None else None
    mask = class_map = None
    if spec.class_mask is not None or spec.class_map is not None:
        if space is None:
            raise UserError(f"{where}: class_mask and class_map need a class space; set classes =")
        if spec.class_mask is not None:
            mask = member_indices(spec.class_mask, space, where=where)
        if spec.class_map is not None:
            class_map = tuple(member_indices(members, space, where=where) for members in spec.class_map)
    _check_labels_in_mask(rows.labels, mask if class_map is None else None, space, where)
    if class_map is not None and rows.labels.size and int(rows.labels.max()) >= len(class_map):
        raise UserError(
            f"{where}: label {int(rows.labels.max())} is no super-class: class_map has {len(class_map)},"
            " and labels count those"
        )
    border = spec.border_crop or 0
    labelled = bool((rows.labels != NO_LABEL).any())
    role = spec.role or _role(spec, labelled=labelled, captioned=captions is not None)
    facts: dict[str, Any] = dict(extra or {})
    if border:
        facts["border_crop"] = border
    if spec.already_cropped:
        facts["already_cropped"] = spec.already_cropped
    if spec.per_class is not None:
        what = "bank_per_class" if role == "reference" else "per_class"
        facts |= {what: spec.per_class, "bank_seed" if role == "reference" else "seed": spec.seed}
    if space is not None:
        facts["class_space_digest"] = space.digest
    card = DatasetCard(
        id=spec.name,
        role=role,
        class_space=space.id if space is not None else "",
        class_names=space.names if space is not None and space.id not in BUILT_IN else (),
        n_classes=(len(class_map) if class_map is not None else len(space.names))
        if space is not None and labelled
        else None,
        class_mask=mask,
        class_map=class_map,
        class_map_rule=spec.class_map_rule or "max",
        shift_of=spec.shift_of,
        distance=spec.distance,
        digest=manifest_digest(keys or rows.paths, rows.labels, rows.sizes, captions=captions, border_crop=border),
        n_images=len(rows.paths),
        licence=spec.licence or UNKNOWN,
        extra=facts,
    )
    empty = int((rows.sizes == 0).sum())
    if empty:
        problems = (*problems, f"{empty:,} files are empty")
    return Dataset(
        card=card,
        root=root or spec.path,
        keys=keys,
        paths=rows.paths,
        labels=rows.labels,
        sizes=rows.sizes,
        class_space=space,
        metadata=metadata,
        captions=captions,
        border_crop=border,
        already_cropped=spec.already_cropped,
        source=source,
        problems=problems,
    )


def choose_per_class(paths: tuple[str, ...], labels: NDArray[np.int32], per_class: int, seed: int) -> NDArray[np.intp]:
    """Return the rows, in order, of at most ``per_class`` images of each class, chosen by the hash of seed
    and path.

    The choice of a class depends on that class's files alone, and a larger ``per_class`` contains the
    smaller.
    """
    keys = [hashlib.sha256(f"{seed}\0{path}".encode("utf-8", "surrogateescape")).digest() for path in paths]
    taken: Counter[int] = Counter()
    keep = []
    for row in sorted(range(len(paths)), key=keys.__getitem__):
        label = int(labels[row])
        if taken[label] < per_class:
            taken[label] += 1
            keep.append(row)
    return np.asarray(sorted(keep), dtype=np.intp)


def _role(spec: DatasetSpec, *, labelled: bool, captioned: bool) -> str:
    if captioned:
        return "pairs"
    if spec.shift_of:
        return "shift"
    return "id" if labelled else "ood"


def _check_labels_in_mask(
    labels: NDArray[np.int32], mask: tuple[int, ...] | None, space: ClassSpace | None, where: str
) -> None:
    if mask is None or space is None:
        return
    outside = np.setdiff1d(labels[labels != NO_LABEL], np.asarray(mask))
    if outside.size:
        raise UserError(
            f"{where}: {outside.size} classes that have images lie outside class_mask, for one"
            f" {space.names[int(outside[0])]!r};"
            " their true class could never be predicted"
        )
