"""Webdataset shards: tar files whose members ``KEY.jpg``, ``KEY.cls`` ... are the parts of one sample.

timm's reader of them (``wds/``) is a stream: it has no length of its own, no way to one row, and by its own word no
names. Rows need all three, so the members' places are listed once, and an image is read from its place. The tests hold
the samples against timm's reader.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closerlook_common.errors import UserError
from closerlook_common.input_files import read_json_file, read_text_file, refuse_lfs_pointer
from extract.classes.spaces import ClassSpace
from extract.classes.unicode_names import text_name
from extract.datasets.base import NO_LABEL
from extract.datasets.counts import check_numbered, check_shard_notes, differs
from extract.datasets.folder import Rows
from extract.datasets.images import UnreadableImage, fault_of, is_image_name
from extract.datasets.labels import label_map
from extract.datasets.remarks import remark
from extract.datasets.splits import choose_split, snapshot

_LABEL_PARTS = ("cls", "cls.txt", "label", "label.txt", "target.cls", "target")
_MOST_LABEL_BYTES = 16 << 20
_BLOCK = 512
_INFOS = ("_info.json", "info.json")
_CLASS_NAMES = "classnames.txt"
_NUMBER = re.compile(r"[-_.]?\d+(-of-\d+)?$")


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
    """What shards hold: image names (``SHARD/KEY.jpg``), the text of each label (empty for none), the reader, the
    classes that number labels count, if a ``classnames.txt`` holds them, and the other parts of the samples.
    """

    names: tuple[str, ...]
    label_texts: tuple[str, ...]
    source: TarSource
    class_names: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()

    def rows(self, space: ClassSpace | None, labels: str, where: str) -> Rows:
        """Return the rows with labels in a class space; None leaves all images without."""
        found = np.full(len(self.names), NO_LABEL, dtype=np.int32)
        named = [row for row, text in enumerate(self.label_texts) if text not in ("", "-1")]
        if space is not None and labels != "none" and named:
            index = label_map({self.label_texts[row] for row in named}, space, labels, where=where)
            found[named] = [index[self.label_texts[row]] for row in named]
        return Rows(self.names, found, self.source.size)


def read_shards(
    folder: Path,
    split: str = "",
    preferred: Sequence[str] = (),
    *,
    label_column: str = "",
    allow_count_mismatch: bool = False,
) -> Shards:
    """List the images of a folder of tar shards, sorted by shard and key.

    Parameters
    ----------
    folder
        Holds the ``.tar`` files, or a folder of them for each split; perhaps with an ``_info.json`` that states the
        splits' files, and a ``classnames.txt``.
    split
        Name of the split, or its beginning: of those that ``_info.json`` names, of the folders, or of the files without
        their number (``val`` of ``val-000000.tar``).
    preferred
        Words looked for among several splits, if none is asked for.
    label_column
        The part of a sample, or the key of its JSON part, that is its label; empty for the usual ones.
    allow_count_mismatch
        Go on where shards or samples are missing that the dataset itself counts.

    Raises
    ------
    UserError
        No shards, several splits and none chosen, a compressed or damaged shard, a sample with two images, or a count
        that is not met.
    """
    folder = snapshot(folder)
    allowed = allow_count_mismatch
    chosen = _shard_files(folder, split, preferred, allowed=allowed)
    shards = chosen.files
    if not chosen.partial:
        check_numbered(shards, allowed=allowed)
    contents = [_read_shard(number, path, label_column, allowed=allowed) for number, path in enumerate(shards)]
    counted = {path: content.n_samples for path, content in zip(shards, contents, strict=True)}
    if not chosen.partial:
        _check_lengths(folder, chosen, counted, allowed=allowed)
        check_shard_notes(folder, counted, chosen.every, allowed=allowed)
    found = sorted((sample for content in contents for sample in content.samples), key=_name_of)
    skipped = sum((content.skipped for content in contents), Counter[str]())
    if skipped:
        kinds = ", ".join(f"{n:,} .{part}" for part, n in sorted(skipped.items()))
        remark(f"{sum(skipped.values()):,} samples in {folder} hold no image that is read and are skipped ({kinds})")
    if not found:
        raise UserError(f"the shards in {folder} hold no images")
    source = TarSource(
        tuple(shards),
        np.asarray([sample.shard for sample in found], dtype=np.int32),
        np.asarray([sample.offset for sample in found], dtype=np.int64),
        np.asarray([sample.size for sample in found], dtype=np.int64),
    )
    names = next((place / _CLASS_NAMES for place in (folder, folder.parent) if (place / _CLASS_NAMES).is_file()), None)
    classes = tuple(read_text_file(names, "class names").splitlines()) if names is not None else ()
    parts = tuple(sorted(set().union(*(content.parts for content in contents))))
    return Shards(tuple(map(_name_of, found)), tuple(sample.label for sample in found), source, classes, parts)


@dataclass
class _Sample:
    shard: int
    name: str = ""
    offset: int = 0
    size: int = 0
    label: str = ""
    place: int = len(_LABEL_PARTS)  # in the order of parts that may be the label


@dataclass
class _Content:
    """What a shard holds: samples with an image, the number of all, parts that are not images, skipped samples."""

    samples: list[_Sample]
    n_samples: int
    parts: set[str]
    skipped: Counter[str]


@dataclass(frozen=True)
class _Chosen:
    """The shards of a split; ``stated`` are counts of an info file, ``partial`` where somebody asked for some."""

    files: list[Path]
    every: list[Path]
    partial: bool = False
    stated: Mapping[str, Any] = field(default_factory=dict)


def _name_of(sample: _Sample) -> str:
    return sample.name


def _shard_files(folder: Path, split: str, preferred: Sequence[str], *, allowed: bool) -> _Chosen:
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of tar shards")
    files = sorted((*folder.glob("*.tar"), *folder.glob("*/*.tar")))
    if not files:
        packed = next(folder.glob("*.tar.*"), None)
        if packed is not None:
            raise UserError(f"{packed} is compressed; shards are read at any place, so unpack it to .tar first")
        raise UserError(f"{folder} holds no .tar shards")
    if (odd := next((file for file in files if not file.is_file()), None)) is not None:
        raise UserError(f"{odd} is missing or no regular file")
    stated = _stated_splits(folder)
    splits = _splits_of_info(folder, files, stated, allowed=allowed) or _named_splits(folder, files)
    if split and not any(name.startswith(split) for name in splits):
        named = [file for file in files if file.name.startswith(split)]
        if named:  # some of a split's files
            return _Chosen(named, files, partial=True)
    name = choose_split(splits, split, preferred, folder)
    return _Chosen(splits[name], files, stated=stated.get(name, {}))


def _stated_splits(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Return what an info file says of each split."""
    info = next((folder / name for name in _INFOS if (folder / name).is_file()), None)
    if info is None:
        return {}
    try:
        splits = read_json_file(info, "info file")["splits"]
        for of in splits.values():
            if not all(isinstance(name, str) for name in of["filenames"]):
                raise TypeError
    except (KeyError, TypeError, AttributeError):
        raise UserError(f"{info} does not list the files of each split") from None
    return {str(name): of for name, of in splits.items()}


def _splits_of_info(
    folder: Path, files: Sequence[Path], stated: Mapping[str, Mapping[str, Any]], *, allowed: bool
) -> dict[str, list[Path]]:
    """Return the splits of an info file, with those of their files that are there."""
    named = {split: {PurePosixPath(name).name for name in of["filenames"]} for split, of in stated.items()}
    splits = {split: [file for file in files if file.name in names] for split, names in named.items()}
    for split, there in splits.items():
        if there and len(there) < len(named[split]):
            of = f"{len(there)} of the {len(named[split])} shards of {split!r}"
            differs(f"{folder} has {of} that its info file names", allowed=allowed)
    return {split: there for split, there in splits.items() if there}


def _check_lengths(folder: Path, chosen: _Chosen, counted: Mapping[Path, int], *, allowed: bool) -> None:
    """Compare the samples with ``num_samples`` and ``shard_lengths`` of an info file."""
    lengths, names = chosen.stated.get("shard_lengths"), chosen.stated.get("filenames", [])
    if isinstance(lengths, list) and len(lengths) == len(names):
        by_name = {PurePosixPath(name).name: length for name, length in zip(names, lengths, strict=True)}
        for path, count in counted.items():
            if isinstance(stated := by_name.get(path.name), int) and stated != count:
                differs(f"{path} holds {count:,} samples, but the info file says {stated:,}", allowed=allowed)
    total = chosen.stated.get("num_samples")
    if isinstance(total, int) and total != sum(counted.values()):
        found = sum(counted.values())
        differs(f"{folder}: the split has {found:,} samples, but its info file says {total:,}", allowed=allowed)


def _named_splits(folder: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the splits that folders name, or else the names of the files up to their number."""
    splits: dict[str, list[Path]] = {}
    for file in files:
        split = file.parent.name if file.parent != folder else _NUMBER.sub("", file.stem)
        splits.setdefault(split, []).append(file)
    return splits


def _read_shard(number: int, path: Path, label_column: str, *, allowed: bool) -> _Content:
    """Return a shard's samples that have an image; a sample is all members with the same name up to the first
    dot.
    """
    samples: dict[str, _Sample] = {}
    parts: set[str] = set()
    first_part: dict[str, str] = {}
    wanted = (label_column.lower(),) if label_column else _LABEL_PARTS
    refuse_lfs_pointer(path)
    try:
        with tarfile.open(path, "r:", errorlevel=1) as tar:
            last = -1
            for member in tar:
                if member.offset <= last or member.size < 0:
                    raise UserError(f"{path} cannot be read as a tar file: {member.name[:80]!r} has an invalid size")
                last = member.offset
                tar.members = []  # type: ignore[attr-defined]  # of no use, and long
                place, _, file_name = member.name.rpartition("/")
                key, dot, part = file_name.partition(".")
                if not member.isreg() or not dot or not key:
                    continue
                if member.sparse is not None:
                    raise UserError(f"{path}: {member.name[:80]!r} is stored sparsely; make the archive again without")
                sample = samples.setdefault(f"{place}/{key}", _Sample(number))
                part = part.lower()
                first_part.setdefault(f"{place}/{key}", part)
                if is_image_name(file_name) and part != label_column.lower():
                    if sample.name:
                        raise UserError(f"{path}: sample {key!r} has two images; only one can be its row")
                    sample.name = f"{path.stem}/{text_name(member.name, path).removeprefix('./')}"
                    sample.offset, sample.size = member.offset_data, member.size
                    continue
                parts.add(part)
                is_json = part == "json" and part not in wanted
                if part in wanted or part.rpartition(".")[2] == "cls" or (is_json and not sample.label):
                    _take_label(sample, tar, member, part, wanted, label_column, path, parts)
            end = tar.offset
    except (tarfile.TarError, OSError, EOFError, ValueError, RecursionError, OverflowError, MemoryError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} cannot be read as a tar file: {error or type(error).__name__}") from None
    _check_end(path, end, allowed=allowed)
    skipped = Counter(first_part[key] for key, sample in samples.items() if not sample.name)
    found = [sample for sample in samples.values() if sample.name]
    return _Content(found, len(samples), parts, skipped)


def _take_label(
    sample: _Sample,
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    part: str,
    wanted: Sequence[str],
    label_column: str,
    path: Path,
    parts: set[str],
) -> None:
    """Read a part that may be the sample's label; the first of the usual parts goes before the others."""
    if member.size > _MOST_LABEL_BYTES:
        raise UserError(f"{path}: {member.name[:80]!r} has {member.size:,} bytes, too many for a label")
    stream = tar.extractfile(member)
    text = stream.read().decode("utf-8", "replace").strip() if stream else ""
    if part == "json" and part not in wanted:
        keys = _json_keys(text)
        parts.update(f"json.{key}" for key in list(keys)[:50])
        name = label_column.removeprefix("json.") if label_column else "label"
        if name in keys and not sample.label:
            sample.label = _label_in(keys[name], f"{path}: {member.name[:80]!r}")
        return
    if label_column and part not in wanted:
        return
    rank = wanted.index(part) if part in wanted else len(wanted)
    if not sample.label or rank < sample.place:
        sample.label, sample.place = text, rank


def _check_end(path: Path, end: int, *, allowed: bool) -> None:
    """Check that an archive has its end mark, two blocks of zeros, and nothing behind it.

    One that was cut off between two members has none and looks whole otherwise; of two that were joined, readers take
    the first alone.
    """
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(_BLOCK)
        if not block:
            differs(f"{path} has no end mark: it was cut short between two of its files", allowed=allowed)
        elif block.count(0) != len(block):
            differs(f"{path} is damaged at byte {end:,}: the files behind it cannot be read", allowed=allowed)
        else:
            while chunk := file.read(1 << 22):
                if chunk.count(0) != len(chunk):
                    text = f"{path} goes on behind its end mark: archives were joined, and only the first is read"
                    differs(text, allowed=allowed)
                    return


def _json_keys(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _label_in(label: object, where: str) -> str:
    """Return the label of a sample's JSON part as text."""
    if isinstance(label, list) and len(label) == 1:
        label = label[0]
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if isinstance(label, bool) or label is None:
        return "" if label is None else str(label).lower()
    if isinstance(label, int | str):
        return str(label).strip()
    raise UserError(f"{where}: its label {str(label)[:80]} is neither a number nor a name")
