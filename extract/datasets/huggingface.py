"""Hugging Face data sets as they lie on disk: a hub repository's Parquet files, or Arrow files of ``datasets``.

timm's reader of them (``hfds/``) goes through ``datasets.load_dataset``, which first writes a second copy of the whole
set into its cache, refuses what ``save_to_disk`` wrote, and names no rows. So the files are read where they lie; the
tests hold the rows against timm's reader.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError
from closerlook_common.input_files import MissingFileError, read_json_file
from extract.datasets.counts import check_numbered, differs
from extract.datasets.remarks import remark
from extract.datasets.splits import choose_split, snapshot
from extract.datasets.stated_rows import stated_rows
from extract.datasets.tables import Table

_DICT, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"
_SHARD = re.compile(r"-\d+-of-\d+(-[0-9a-f]+)?$")
_CACHED = re.compile(r"(cache|tmp)-?[0-9a-z_]+\.arrow")
_SUFFIXES = (".parquet", ".arrow")


def read_huggingface(
    folder: Path,
    split: str = "",
    preferred: Sequence[str] = (),
    *,
    label_column: str = "",
    allow_count_mismatch: bool = False,
) -> Table:
    """List the rows of a data set's folder, in order of file name and row.

    Parameters
    ----------
    folder
        One of: a clone or snapshot of a hub repository with ``<split>-00000-of-00001.parquet`` or
        ``<split>/0000.parquet``, itself or below (``datasets--OWNER--NAME`` of the hub's cache too); what
        ``save_to_disk`` wrote; a folder of ``.arrow`` files in the cache of ``datasets``.
    split
        Name of the split, or its beginning.
    preferred
        Words looked for among several splits, if none is asked for.
    label_column
        The column of labels, where it has another name than the usual ones.
    allow_count_mismatch
        Go on where files or rows are missing that the data set itself counts.

    Raises
    ------
    UserError
        No such files, a count that is not met, several splits and none chosen, several configurations, or no column of
        images.
    """
    folder = snapshot(folder)
    splits = _splits(folder)
    if not splits:
        raise UserError(f"{folder} {'holds no .parquet or .arrow file' if folder.is_dir() else 'is not a folder'}")
    chosen = choose_split(splits, split, preferred, folder)
    files = splits[chosen]
    homes = sorted({file.parent.relative_to(folder).as_posix() for file in files})
    if len(homes) > 1:
        raise UserError(f"{folder} holds several sets of that split; set path = to one of its {', '.join(homes)}")
    if (odd := next((file for file in files if not file.is_file()), None)) is not None:
        raise UserError(f"{odd} is missing or no regular file")
    check_numbered(files, allowed=allow_count_mismatch)
    if files[0].suffix == ".arrow":
        from extract.datasets.arrow import read_arrow_files

        table = read_arrow_files(folder, files, label_column)
    else:
        from extract.datasets.parquet import read_parquet_files

        table = read_parquet_files(folder, files, label_column)
    _check_rows(folder, files, chosen, len(table.names), allowed=allow_count_mismatch)
    return table


def _check_rows(folder: Path, files: Sequence[Path], split: str, n: int, *, allowed: bool) -> None:
    """Compare the number of rows with what the data set's own notes say."""
    home = files[0].parent
    for note, rows in stated_rows(folder, home, split).items():
        if rows == n:
            continue
        text = f"{home} holds {counted(n, 'row')} of split {split!r}, but {note} says {rows:,}"
        if (home / _STATE).is_file():
            # save_to_disk keeps the notes of the set that a selection was made from.
            remark(f"{text}: right for a selection that was saved; otherwise rows are missing")
        else:
            differs(text, allowed=allowed)


def _splits(folder: Path) -> dict[str, list[Path]]:
    """Return split -> files, sorted; an only split may have the empty name."""
    if (folder / _DICT).is_file():
        names = _json(folder / _DICT).get("splits", [])
        return {str(name): _saved(folder / str(name)) for name in names}
    if (folder / _STATE).is_file():
        return {"": _saved(folder)}
    for suffix in _SUFFIXES:
        found: dict[str, list[Path]] = defaultdict(list)
        for file in sorted(folder.rglob(f"*{suffix}")):
            if _CACHED.fullmatch(file.name):  # what map and filter of 'datasets' left
                continue
            found[_split_name(file, folder)].append(file)
        if found:
            return dict(found)
    return {}


def _saved(folder: Path) -> list[Path]:
    """Return the files that ``save_to_disk`` wrote, in their order."""
    state = _json(folder / _STATE)
    if state.get("_indices_data_files"):
        raise UserError(f"{folder} is a selection kept as row numbers: save it again after flatten_indices()")
    try:
        files = [folder / Path(str(entry["filename"])).name for entry in state["_data_files"]]
    except (KeyError, TypeError):
        raise UserError(f"{folder / _STATE} does not list the data files") from None
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None or not files:
        raise UserError(f"{folder / _STATE} names {missing.name if missing else 'no file'}, which is not there")
    return files


def _split_name(file: Path, folder: Path) -> str:
    name = _SHARD.sub("", file.stem)
    if file.suffix == ".arrow" and (file.parent / _INFO).is_file():
        # In the cache of 'datasets' the set's name comes before the split's.
        info = _json(file.parent / _INFO)
        for own in (info.get("dataset_name"), info.get("builder_name")):
            if own and name.startswith(f"{own}-"):
                name = name.removeprefix(f"{own}-")
                break
    return file.parent.name if name.isdecimal() and file.parent != folder else name


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = read_json_file(path, "notes of the data set")
    except MissingFileError:
        raise UserError(f"no {path}") from None
    return found if isinstance(found, dict) else {}
