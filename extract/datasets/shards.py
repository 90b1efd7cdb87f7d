"""Webdataset shards: tar files whose members ``KEY.jpg``, ``KEY.cls`` ... are the parts of one sample.

timm's reader of them (``wds/``) is a stream: it has no length of its own, no way to one row, and by its own word no
names. Rows need all three, so the members' places are listed once, and an image is read from its place. The tests hold
the samples against timm's reader.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache_schema.errors import UserError
from extract.classes.spaces import ClassSpace
from extract.datasets.base import NO_LABEL
from extract.datasets.folder import Rows
from extract.datasets.images import UnreadableImage, fault_of, is_image_name
from extract.datasets.labels import label_map
from extract.datasets.splits import choose_split, snapshot

_LABEL_PARTS = ("cls", "cls.txt", "label", "label.txt")
_INFOS = ("_info.json", "info.json")
_CLASS_NAMES = "classnames.txt"
_NUMBER = re.compile(r"[-_.]?\d+$")


@dataclass(frozen=True)
class TarSource:
    """Reads members of uncompressed tar files by their place.

    Attributes
    ----------
    shards
        The tar files.
    shard_of, offset, size
        Per image, (n,): index of its shard, first byte of its data there, and number of bytes.
    """

    shards: tuple[Path, ...]
    shard_of: NDArray[np.int32]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]

    def read(self, index: int) -> bytes:
        """Return the bytes of one image."""
        path = self.shards[int(self.shard_of[index])]
        try:
            with path.open("rb") as file:
                file.seek(int(self.offset[index]))
                data = file.read(int(self.size[index]))
        except OSError as error:
            raise fault_of(error) from None
        if len(data) != int(self.size[index]):
            raise UnreadableImage(f"the shard {path.name} is cut short")
        return data

    @property
    def files(self) -> Sequence[Path]:
        """The tar files."""
        return self.shards


@dataclass(frozen=True)
class Shards:
    """What shards hold: image names (``SHARD/KEY.jpg``), the text of each label (empty for none), the reader, and the
    classes that number labels count, if a ``classnames.txt`` tells them.
    """

    names: tuple[str, ...]
    label_texts: tuple[str, ...]
    source: TarSource
    class_names: tuple[str, ...] = ()

    def rows(self, space: ClassSpace | None, labels: str, where: str) -> Rows:
        """Return the rows with labels in a class space; None leaves all images without."""
        found = np.full(len(self.names), NO_LABEL, dtype=np.int32)
        named = [row for row, text in enumerate(self.label_texts) if text not in ("", "-1")]
        if space is not None and labels != "none" and named:
            index = label_map({self.label_texts[row] for row in named}, space, labels, where=where)
            found[named] = [index[self.label_texts[row]] for row in named]
        return Rows(self.names, found, self.source.size)


def read_shards(folder: Path, split: str = "", preferred: Sequence[str] = ()) -> Shards:
    """List the images of a folder of tar shards, sorted by shard and key.

    Parameters
    ----------
    folder
        Holds the ``.tar`` files, or a folder of them for each split; perhaps with an ``_info.json`` that tells the
        splits' files, and a ``classnames.txt``.
    split
        Name of the split, or its beginning: of those that ``_info.json`` names, of the folders, or of the files without
        their number (``val`` of ``val-000000.tar``).
    preferred
        Words looked for among several splits, if none is asked for.

    Raises
    ------
    UserError
        No shards, several splits and none chosen, a compressed or damaged shard, or a sample with two images.
    """
    folder = snapshot(folder)
    shards = _shard_files(folder, split, preferred)
    found = sorted((sample for number, path in enumerate(shards) for sample in _samples(number, path)), key=_name_of)
    if not found:
        raise UserError(f"the shards in {folder} hold no images")
    source = TarSource(
        tuple(shards),
        np.asarray([sample.shard for sample in found], dtype=np.int32),
        np.asarray([sample.offset for sample in found], dtype=np.int64),
        np.asarray([sample.size for sample in found], dtype=np.int64),
    )
    names = next((place / _CLASS_NAMES for place in (folder, folder.parent) if (place / _CLASS_NAMES).is_file()), None)
    classes = tuple(names.read_text(encoding="utf-8").splitlines()) if names is not None else ()
    return Shards(tuple(map(_name_of, found)), tuple(sample.label for sample in found), source, classes)


@dataclass
class _Sample:
    shard: int
    name: str = ""
    offset: int = 0
    size: int = 0
    label: str = ""


def _name_of(sample: _Sample) -> str:
    return sample.name


def _shard_files(folder: Path, split: str, preferred: Sequence[str]) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of tar shards")
    files = sorted((*folder.glob("*.tar"), *folder.glob("*/*.tar")))
    if not files:
        packed = next(folder.glob("*.tar.*"), None)
        if packed is not None:
            raise UserError(f"{packed} is compressed; shards are read at any place, so unpack it to .tar first")
        raise UserError(f"{folder} holds no .tar shards")
    splits = _told_splits(folder, files) or _named_splits(folder, files)
    if split and not any(name.startswith(split) for name in splits):
        named = [file for file in files if file.name.startswith(split)]
        if named:  # some of a split's files
            return named
    return splits[choose_split(splits, split, preferred, folder)]


def _told_splits(folder: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the splits that an info file tells, with those of their files that are there."""
    info = next((folder / name for name in _INFOS if (folder / name).is_file()), None)
    if info is None:
        return {}
    try:
        told = json.loads(info.read_text(encoding="utf-8"))["splits"]
        named = {split: {os.path.basename(str(name)) for name in of["filenames"]} for split, of in told.items()}  # noqa: PTH119
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{info} does not tell the files of each split") from None
    splits = {split: [file for file in files if file.name in names] for split, names in named.items()}
    for split, there in splits.items():
        if there and len(there) < len(named[split]):
            of = f"{len(there)} of the {len(named[split])} shards of {split!r}"
            raise UserError(f"{folder} has {of} that {info.name} names")
    return {split: there for split, there in splits.items() if there}


def _named_splits(folder: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the splits that folders tell, or else the names of the files up to their number."""
    splits: dict[str, list[Path]] = {}
    for file in files:
        split = file.parent.name if file.parent != folder else _NUMBER.sub("", file.stem)
        splits.setdefault(split, []).append(file)
    return splits


def _samples(number: int, path: Path) -> list[_Sample]:
    """Return a shard's samples that have an image; a sample is all members with the same name up to the first
    dot.
    """
    samples: dict[str, _Sample] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                place, _, file_name = member.name.rpartition("/")
                key, dot, part = file_name.partition(".")
                if not member.isreg() or not dot or not key:
                    continue
                sample = samples.setdefault(f"{place}/{key}", _Sample(number))
                if is_image_name(file_name):
                    if sample.name:
                        raise UserError(f"{path}: sample {key!r} has two images; only one can be its row")
                    sample.name = f"{path.stem}/{member.name.removeprefix('./')}"
                    sample.offset, sample.size = member.offset_data, member.size
                elif part.lower() in _LABEL_PARTS or (part.lower() == "json" and not sample.label):
                    stream = tar.extractfile(member)
                    text = stream.read().decode("utf-8", "replace").strip() if stream else ""
                    sample.label = _label_in(text) if part.lower() == "json" else text
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read as a tar file: {error}") from None
    return [sample for sample in samples.values() if sample.name]


def _label_in(text: str) -> str:
    """Return the label that a sample's JSON part tells, for samples without a part of their own for it."""
    try:
        label = json.loads(text).get("label")
    except (ValueError, AttributeError):
        return ""
    return str(label) if isinstance(label, int | str) and not isinstance(label, bool) else ""
