"""Webdataset shards: tar files whose members ``KEY.jpg``, ``KEY.cls`` ... are the parts of one sample.

timm's and webdataset's own readers stream shards in whatever order they come. Rows need an order and a way
back to each of them, so the members' places are listed once, and an image is read from its place.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache_schema.errors import UserError
from extract.class_spaces import ClassSpace
from extract.datasets.base import NO_LABEL
from extract.datasets.folder import Rows
from extract.datasets.images import UnreadableImage, is_image_name
from extract.datasets.labels import label_map

_LABEL_PARTS = ("cls", "cls.txt", "label", "label.txt")
_INFO = "_info.json"


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
            raise UnreadableImage(error.strerror or str(error)) from None
        if len(data) != int(self.size[index]):
            raise UnreadableImage(f"the shard {path.name} is cut short")
        return data


@dataclass(frozen=True)
class Shards:
    """What shards hold: image names (``SHARD/KEY.jpg``), the text of each label (empty for none), and the
    reader.
    """

    names: tuple[str, ...]
    label_texts: tuple[str, ...]
    source: TarSource

    def rows(self, space: ClassSpace | None, labels: str, where: str) -> Rows:
        """Return the rows with labels in a class space; None leaves all images without."""
        found = np.full(len(self.names), NO_LABEL, dtype=np.int32)
        named = [row for row, text in enumerate(self.label_texts) if text not in ("", "-1")]
        if space is not None and labels != "none" and named:
            index = label_map({self.label_texts[row] for row in named}, space, labels, where=where)
            found[named] = [index[self.label_texts[row]] for row in named]
        return Rows(self.names, found, self.source.size)


def read_shards(folder: Path, split: str = "") -> Shards:
    """List the images of a folder of tar shards, sorted by shard and key.

    Parameters
    ----------
    folder
        Holds the ``.tar`` files, perhaps with an ``_info.json`` that tells the splits' files.
    split
        Take the shards of this split: those that ``_info.json`` names, or whose names contain it.

    Raises
    ------
    UserError
        No shards, a compressed or damaged one, or a sample with two images.
    """
    shards = _shard_files(folder, split)
    found = sorted((sample for number, path in enumerate(shards) for sample in _samples(number, path)), key=_name_of)
    if not found:
        raise UserError(f"the shards in {folder} hold no images")
    source = TarSource(
        tuple(shards),
        np.asarray([sample.shard for sample in found], dtype=np.int32),
        np.asarray([sample.offset for sample in found], dtype=np.int64),
        np.asarray([sample.size for sample in found], dtype=np.int64),
    )
    return Shards(tuple(map(_name_of, found)), tuple(sample.label for sample in found), source)


@dataclass
class _Sample:
    shard: int
    name: str = ""
    offset: int = 0
    size: int = 0
    label: str = ""


def _name_of(sample: _Sample) -> str:
    return sample.name


def _shard_files(folder: Path, split: str) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of tar shards")
    packed = next(folder.glob("*.tar.*"), None)
    files = sorted(folder.glob("*.tar"))
    if not files and packed is not None:
        raise UserError(f"{packed} is compressed; shards are read at any place, so unpack it to .tar first")
    if split:
        files = _of_split(folder, files, split)
    if not files:
        raise UserError(f"{folder} holds no .tar shards{f' of split {split!r}' if split else ''}")
    return files


def _of_split(folder: Path, files: Sequence[Path], split: str) -> list[Path]:
    try:
        info = json.loads((folder / _INFO).read_text(encoding="utf-8"))
        named = {os.path.basename(str(name)) for name in info["splits"][split]["filenames"]}  # noqa: PTH119
    except FileNotFoundError:
        return [file for file in files if split in file.name]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{folder / _INFO} does not tell the files of split {split!r}") from None
    return [file for file in files if file.name in named]


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
                    sample.name = f"{path.stem}/{member.name.lstrip('./')}"
                    sample.offset, sample.size = member.offset_data, member.size
                elif part.lower() in _LABEL_PARTS:
                    stream = tar.extractfile(member)
                    sample.label = stream.read().decode("utf-8", "replace").strip() if stream else ""
    except (tarfile.TarError, OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read as a tar file: {error}") from None
    return [sample for sample in samples.values() if sample.name]
