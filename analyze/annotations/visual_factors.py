"""Visual-factor annotations of images: ImageNet-X, files of its layout, or columns of a store."""

from __future__ import annotations

import csv
import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closerlook_common.console.terminal import counted
from closerlook_common.distribution import install_line
from closerlook_common.errors import UserError
from closerlook_common.input_files import read_json_file, read_text_file, refuse_lfs_pointer

STUDY_FACTORS = (
    "pose",
    "background",
    "pattern",
    "color",
    "smaller",
    "shape",
    "partial_view",
    "subcategory",
    "texture",
    "larger",
)
"""The study's ten of ImageNet-X's sixteen factors, in the order of its panels."""

FACTORS = (
    *STUDY_FACTORS,
    "darker",
    "object_blocking",
    "person_blocking",
    "style",
    "brighter",
    "multiple_objects",
)
"""The sixteen factors of ImageNet-X."""

_METACLASSES = frozenset(
    [
        "device",
        "dog",
        "commodity",
        "bird",
        "structure",
        "covering",
        "wheeled_vehicle",
        "food",
        "equipment",
        "insect",
        "vehicle",
        "furniture",
        "primate",
        "vessel",
        "snake",
        "natural_object",
    ]
)


@dataclass(frozen=True, eq=False)
class Annotations:
    """Which factors each annotated image has.

    Attributes
    ----------
    source
        Where they come from.
    labels
        ``top`` (one factor an image) or ``multi``.
    keys
        (m,) int64, ``image_key`` of each annotated image.
    members
        Factor -> (m,) bool.
    prototype
        (m,) bool: typical images, left out by default.
    metaclass
        (C,) coarse class of each class, or None.
    real_labels
        Key of an image -> acceptable classes (ReaL), or None.
    """

    source: str
    labels: str
    keys: NDArray[np.int64]
    members: Mapping[str, NDArray[np.bool_]]
    prototype: NDArray[np.bool_]
    metaclass: NDArray[np.int64] | None = None
    real_labels: Mapping[int, frozenset[int]] | None = None

    @property
    def digest(self) -> str:
        """Hexadecimal digest of everything that numbers by factor depend on."""
        found = hashlib.sha256(self.labels.encode())
        arrays = {"keys": self.keys, "prototype": self.prototype, "metaclass": self.metaclass, **self.members}
        for name, values in arrays.items():
            found.update(name.encode() + (b"" if values is None else np.ascontiguousarray(values).tobytes()))
        for key, labels in sorted((self.real_labels or {}).items()):
            found.update(f"{key}:{sorted(labels)}".encode())
        return found.hexdigest()


def image_key(name: str) -> int:
    """Return the 64-bit key of an image: of its file name without the folders, in composed Unicode (NFC).

    A file system may hold the decomposed form of a name that a table has composed.
    """
    base = unicodedata.normalize("NFC", name.replace("\\", "/").rsplit("/", 1)[-1])
    return int.from_bytes(hashlib.blake2b(base.encode(), digest_size=8).digest(), "little", signed=True)


def image_keys(names: Sequence[str]) -> NDArray[np.int64]:
    """Return the keys of images, (n,) int64."""
    return np.fromiter((image_key(name) for name in names), np.int64, len(names))


def read_annotations(source: str, *, labels: str = "top") -> Annotations:
    """Read annotations.

    Parameters
    ----------
    source
        ``imagenet-x`` for the files of the installed package (which is not imported), a folder of the same
        layout, or
        one JSONL file: an object a line with ``file_name`` and a 0/1 (or true/false) a factor; optional
        ``top_factor``, ``prototype``, ``class`` and ``metaclass``.
    labels
        ``top`` or ``multi``. A single file holds multi labels; ``top`` then needs its ``top_factor``.

    Raises
    ------
    UserError
        Where the package or file is missing, or a line is not an annotation (it is named).
    """
    if labels not in ("top", "multi"):
        raise UserError(f"factor labels are 'top' or 'multi', not {labels!r}")
    if source == "imagenet-x":
        return _folder(_installed(), labels, "imagenet-x")
    path = Path(source)
    if path.is_dir():
        return _folder(path, labels, str(path))
    if not path.is_file():
        raise UserError(f"no annotations at {path}: give 'imagenet-x', a folder of its layout, or a JSONL file")
    return _one_file(path, labels)


def _installed() -> Path:
    try:
        package = distribution("imagenet-x")
    except PackageNotFoundError:
        raise UserError(
            f"the ImageNet-X annotations are not installed: {install_line('imagenet-x')}"
            " (their licence is CC BY-NC 4.0)"
        ) from None
    return Path(str(package.locate_file("imagenet_x/annotations")))


MAX_BYTES = 1 << 30
"""Largest file of annotations."""
_FORMAT = (
    "; annotations are JSON lines, one object an image with its 'file_name' and 0 or 1 for each factor"
    " (columns of an imported table need no file: name them with `columns`)"
)


def _lines(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number, line in enumerate(read_text_file(path, "annotations", limit=MAX_BYTES).split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not JSON: {error}{_FORMAT if not found else ''}") from error
        if not isinstance(entry, dict) or not isinstance(entry.get("file_name"), str):
            raise UserError(f"{path}, line {number}: an annotation needs a 'file_name'")
        found.append(entry)
    if not found:
        raise UserError(f"{path} holds no annotation")
    return found


def _columns(path: Path, entries: list[dict[str, Any]]) -> dict[str, NDArray[np.bool_]]:
    parts = [name for name in FACTORS if name in entries[0]]
    if not parts:
        raise UserError(f"{path}: no factor is named; the factors are {', '.join(FACTORS)}")
    try:
        return {name: np.array([bool(int(entry[name])) for entry in entries]) for name in parts}
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(f"{path}: a line lacks a factor, or it is neither 0 nor 1: {error}") from error


def _folder(folder: Path, labels: str, source: str) -> Annotations:
    path = folder / f"imagenet_x_val_{labels}_factor.jsonl"
    if not path.is_file():
        raise UserError(f"{folder} holds no {path.name}")
    entries = _lines(path)
    keys = _unique(path, [entry["file_name"] for entry in entries])
    prototypes = folder / "prototypical_paths.csv"
    typical: set[int] = set()
    if prototypes.is_file():
        refuse_lfs_pointer(prototypes)
        with prototypes.open(encoding="utf-8", newline="") as file:
            typical = {image_key(row["file_name"]) for row in csv.DictReader(file)}
    prototype = np.array([int(key) in typical for key in keys])
    return Annotations(source, labels, keys, _columns(path, entries), prototype, _metaclass(folder), _real(folder))


def _metaclass(folder: Path) -> NDArray[np.int64] | None:
    """Coarse class by class index: the table's row number; names outside the list are one class of their
    own.
    """
    path = folder / "imagenet_1k_classes_to_100_metaclasses.csv"
    if not path.is_file():
        return None
    refuse_lfs_pointer(path)
    with path.open(encoding="utf-8", newline="") as file:
        names = [row["name"] if row["name"] in _METACLASSES else "other" for row in csv.DictReader(file)]
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _real(folder: Path) -> dict[int, frozenset[int]] | None:
    path = folder / "imagenet_real_labels.jsonl"
    if not path.is_file():
        return None
    lists = read_json_file(path, "labels", limit=MAX_BYTES)
    return {image_key(f"ILSVRC2012_val_{i:08d}.JPEG"): frozenset(labels) for i, labels in enumerate(lists, 1)}


def _one_file(path: Path, labels: str) -> Annotations:
    entries = _lines(path)
    keys = _unique(path, [entry["file_name"] for entry in entries])
    members: dict[str, NDArray[np.bool_]] = _columns(path, entries)
    if labels == "top":
        if not all("top_factor" in entry for entry in entries):
            raise UserError(f"{path} has no 'top_factor' in every line: ask for the multi labels")
        members = {name: np.array([entry["top_factor"] == name for entry in entries]) for name in members}
    prototype = np.array([bool(entry.get("prototype", False)) for entry in entries])
    metaclass = None
    if all("metaclass" in entry and "class" in entry for entry in entries):
        by_class = {int(entry["class"]): str(entry["metaclass"]) for entry in entries}
        numbers = {name: i for i, name in enumerate(sorted(set(by_class.values())))}
        metaclass = np.full(max(by_class) + 1, -1, np.int64)
        for index, name in by_class.items():
            metaclass[index] = numbers[name]
    return Annotations(str(path), labels, keys, members, prototype, metaclass)


def _unique(path: Path, names: list[str]) -> NDArray[np.int64]:
    keys = image_keys(names)
    if np.unique(keys).size != keys.size:
        raise UserError(f"{path}: an image is annotated twice")
    return keys


def of_metadata(metadata: Mapping[str, NDArray[Any]], *, labels: str = "top") -> Annotations | None:
    """Return the annotations that a dataset's own metadata columns hold, None where they hold none.

    Columns named like factors with 0/1, and optionally ``top_factor``, ``prototype`` and ``metaclass``.
    Rows are the
    dataset's own, in order (``keys`` count up from 0).
    """
    parts = [name for name in FACTORS if name in metadata and metadata[name].dtype.kind in "biu"]
    if len(parts) < 2:
        return None
    members = {name: metadata[name].astype(np.bool_) for name in parts}
    n = len(metadata[parts[0]])
    if labels == "top":
        if "top_factor" not in metadata:
            return None
        members = {name: np.asarray(metadata["top_factor"] == name) for name in parts}
    typical = metadata.get("prototype", np.zeros(n, np.bool_))
    return Annotations("metadata", labels, np.arange(n), members, np.asarray(typical).astype(np.bool_))


def aligned(annotations: Annotations, keys: NDArray[np.int64]) -> tuple[Annotations, NDArray[np.int64]]:
    """Return the annotations of the images at hand, and the row of each.

    Parameters
    ----------
    annotations
        As read.
    keys
        (n,) keys of a dataset's images.

    Raises
    ------
    UserError
        Where no image is annotated, or file names repeat in different folders so that the join is not clear.
    """
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    place = np.minimum(np.searchsorted(ordered, annotations.keys), max(ordered.size - 1, 0))
    found = ordered[place] == annotations.keys if ordered.size else np.zeros(annotations.keys.size, np.bool_)
    if not found.any():
        raise UserError(
            f"none of the {counted(len(keys), 'image')} is annotated in {annotations.source}: other file names?"
        )
    twice = found & (place + 1 < ordered.size) & (ordered[np.minimum(place + 1, ordered.size - 1)] == ordered[place])
    if twice.any():
        raise UserError(f"file names repeat in different folders: {annotations.source} cannot be joined by name")
    kept = replace(
        annotations,
        keys=annotations.keys[found],
        members={name: values[found] for name, values in annotations.members.items()},
        prototype=annotations.prototype[found],
    )
    return kept, order[place[found]]
