"""Rows and what a spec says of them in, a dataset with its card out: role, choice a class, mask, map, checks."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.format.records import UNKNOWN, DatasetCard
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError
from extract.classes.spaces import BUILT_IN, ClassSpace
from extract.classes.unicode_names import composed, refuse_same_names, text_name
from extract.datasets.base import NO_LABEL, ChosenRows, Dataset, ImageSource, manifest_digest
from extract.datasets.folder import Rows
from extract.datasets.spaces import member_indices
from extract.datasets.specs import DatasetSpec


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
    for name in keys or rows.paths:
        text_name(name, where)
    if len(set(keys or rows.paths)) < len(rows.paths):
        double = next(name for name, n in Counter(keys or rows.paths).items() if n > 1)
        raise UserError(f"{where}: two images are called {double!r}; their rows could not be distinguished")
    if keys is None and any(name != composed(name) for name in rows.paths):
        refuse_same_names(rows.paths, where)
        keys = tuple(map(composed, rows.paths))  # one name on every file system
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
            f"{where}: label {int(rows.labels.max())} is not a super-class: class_map has {len(class_map)},"
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
    bare = int((rows.labels == NO_LABEL).sum())
    if labelled and bare:
        problems = (*problems, f"{bare:,} of {len(rows.paths):,} images have no label and count for no accuracy")
    empty = int((rows.sizes == 0).sum())
    if empty:
        problems = (*problems, counted(empty, "empty file"))
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
        stamps={} if source is None else {path: _stamp(path) for path in source.files},
        problems=problems,
    )


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


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
