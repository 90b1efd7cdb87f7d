"""Hugging Face data sets as they lie on disk: a hub repository's Parquet files, or Arrow files of ``datasets``.

timm's reader of them (``hfds/``) goes through ``datasets.load_dataset``, which first writes a second copy of the whole
set into its cache, refuses what ``save_to_disk`` wrote, and names no rows. So the files are read where they lie; the
tests hold the rows against timm's reader.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cache_schema.errors import UserError
from extract.datasets.splits import choose_split, snapshot
from extract.datasets.tables import Table

_DICT, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"
_SHARD = re.compile(r"-\d+-of-\d+(-[0-9a-f]+)?$")
_SUFFIXES = (".parquet", ".arrow")


def read_huggingface(folder: Path, split: str = "", preferred: Sequence[str] = ()) -> Table:
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

    Raises
    ------
    UserError
        No such files, several splits and none chosen, several configurations, or no column of images.
    """
    folder = snapshot(folder)
    splits = _splits(folder)
    if not splits:
        raise UserError(f"{folder} {'holds no .parquet or .arrow file' if folder.is_dir() else 'is not a folder'}")
    files = splits[choose_split(splits, split, preferred, folder)]
    homes = sorted({file.parent.relative_to(folder).as_posix() for file in files})
    if len(homes) > 1:
        raise UserError(f"{folder} holds several sets of that split; set path = to one of its {', '.join(homes)}")
    if files[0].suffix == ".arrow":
        from extract.datasets.arrow import read_arrow_files

        return read_arrow_files(folder, files)
    from extract.datasets.parquet import read_parquet_files

    return read_parquet_files(folder, files)


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
        raise UserError(f"{folder / _STATE} does not tell the data files") from None
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None or not files:
        raise UserError(f"{folder / _STATE} names {missing.name if missing else 'no file'}, which is not there")
    return files


def _split_name(file: Path, folder: Path) -> str:
    name = _SHARD.sub("", file.stem)
    if file.suffix == ".arrow" and (file.parent / _INFO).is_file():
        # In the cache of 'datasets' the set's name stands before the split's.
        name = name.removeprefix(f"{_json(file.parent / _INFO).get('dataset_name', '')}-")
    return file.parent.name if name.isdecimal() and file.parent != folder else name


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no {path}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    return found if isinstance(found, dict) else {}
