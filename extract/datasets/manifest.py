"""Manifests: a CSV, TSV, JSON-lines or Parquet table of images, with labels, captions and anything else known about
each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache_schema.importing.column_names import is_index
from closerlook_common.console.terminal import counted
from closerlook_common.console.waiting import waiting
from closerlook_common.csv_files import is_packed
from closerlook_common.errors import UserError, nearest
from extract.classes.spaces import ClassSpace
from extract.datasets.base import MISSING, NO_LABEL
from extract.datasets.columns import FILE_NAME, LABEL, LABEL_NAMES, PATH, PATH_NAMES, find_column, no_label, shown
from extract.datasets.folder import Rows
from extract.datasets.label_columns import label_texts
from extract.datasets.labels import label_map
from extract.datasets.listing import as_on_disk, hint_for_missing, safe_relative, size_of
from extract.datasets.parquet_tables import read_parquet_table
from extract.datasets.remarks import remark
from extract.datasets.text_tables import read_csv, read_file_list

METADATA = tuple(f"metadata.{suffix}" for suffix in ("csv", "jsonl", "parquet"))


def _jsonl(path: Path, text: Sequence[str]) -> pl.DataFrame:
    return pl.read_ndjson(path, infer_schema_length=None)


def _parquet(path: Path, text: Sequence[str]) -> pl.DataFrame:
    return read_parquet_table(path)


_READERS: Mapping[str, Callable[[Path, Sequence[str]], pl.DataFrame]] = {
    ".csv": lambda path, text: read_csv(path, text=text),
    ".tsv": lambda path, text: read_csv(path, text=text, tabs=True),
    ".jsonl": _jsonl,
    ".parquet": _parquet,
    ".txt": lambda path, text: read_file_list(path),
}


class Manifest(NamedTuple):
    """A manifest's rows, one an image, sorted by path; captions only where it has them."""

    rows: Rows
    metadata: dict[str, NDArray[np.generic]]
    captions: tuple[tuple[str, ...], ...] | None
    problems: tuple[str, ...]


def read_table(path: Path, text: Sequence[str] = ()) -> pl.DataFrame:
    """Read a CSV, TSV, JSON-lines or Parquet file, or a list of files; raises `UserError` with the reason if it cannot
    be read. ``text`` names further columns of CSV files that hold text.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None and is_packed(path):
        raise UserError(f"{path} is compressed; unpack it first")
    if reader is None:
        raise UserError(f"{path}: a manifest ends in {', '.join(_READERS)}")
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"no manifest {path}{nearest(path.name, siblings)}")
    try:
        with waiting(f"reading {path}"):
            return _without_index(reader(path, text), path)
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def _without_index(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Return a table without the numbers of its rows, which pandas writes as a column without a name."""
    numbers = [name for name in table.columns if is_index(name) and table.schema[name].is_integer()]
    if numbers:
        remark(f"{path}: the column without a name (the index of a pandas frame) is left out")
    return table.drop(numbers)


def read_labelled(path: Path, path_column: str = "", label_column: str = "") -> pl.DataFrame:
    """Return a manifest whose columns of paths and labels are called ``path`` and ``label``.

    Raises
    ------
    UserError
        A column that is asked for is not there, or both could be several.
    """
    table = read_table(path, tuple(filter(None, (path_column, label_column))))
    names = {
        wanted: find_column(table.columns, wanted, others, asked, path)
        for wanted, others, asked in ((PATH, PATH_NAMES, path_column), (LABEL, LABEL_NAMES, label_column))
    }
    if names[PATH] is not None and names[PATH] == names[LABEL]:
        raise UserError(f"{path}: the column {names[PATH]!r} cannot hold both the paths and the labels")
    for wanted, given in names.items():
        if given is not None and given != wanted:
            # Another column of that name stays, under a name that says so.
            taken = {wanted: f"{wanted} (not used)"} if wanted in table.columns else {}
            table = table.rename({**taken, given: wanted})
    return table


def read_manifest(
    path: Path,
    root: Path,
    space: ClassSpace | None = None,
    labels: str = "auto",
    *,
    captions: str | None = None,
    follow_links: bool = False,
    path_column: str = "",
    label_column: str = "",
    needs_labels: bool = False,
) -> Manifest:
    """Read a manifest.

    Parameters
    ----------
    path
        Table with a column ``path`` (relative to ``root``), perhaps ``label`` (index, WordNet id or class name; empty
        for none), and any further columns, which become per-image metadata. Usual other names of the two are known
        (`PATH_NAMES`, `LABEL_NAMES`).
    root
        Folder of the images.
    space
        Class space of the labels; None where all images are without labels.
    labels
        How labels are read: ``auto``, ``wnid``, ``index``, ``name``, or ``none`` to ignore the column.
    captions
        Column of captions: text, with one row a caption and paths repeated, or a list column with one row an
        image.
    follow_links
        Allow links that lead out of ``root``.
    path_column, label_column
        Names of the two columns, where they have other names.
    needs_labels
        Refuse a table with further columns of which none is recognised as the labels.

    Returns
    -------
    Manifest
        Sorted by path. Named files that are missing keep their row (size -1).

    Raises
    ------
    UserError
        A column is missing, a path leaves ``root`` or is named twice, a label is unknown, or no file is there
        at all.
    """
    table = read_labelled(path, path_column, label_column)
    for column in (PATH, *([captions] if captions else [])):
        if column not in table.columns:
            there = shown(table.columns)
            fix = nearest(column, table.columns)
            if column == PATH and not fix:
                fix = f", nor {', '.join(PATH_NAMES)}; path_column = names another"
            raise UserError(f"{path}: no column {column!r} among {there}{fix}")
    if needs_labels and LABEL not in table.columns and table.width > 1:
        raise no_label([name for name in table.columns if name != PATH], path)
    if table.height == 0:
        raise UserError(f"{path} has no rows")
    written = table.get_column(PATH)
    if written.dtype.is_nested() or written.dtype.is_float():
        raise UserError(f"{path}: the column of paths holds {written.dtype}, not text")
    clean = [
        safe_relative(text, root, follow_links=follow_links, where=f"{path}, row {row}")
        for row, text in enumerate(written.cast(pl.String).fill_null("").to_list(), start=1)
    ]
    table = table.with_columns(pl.Series(PATH, [as_on_disk(text, root) for text in clean]))
    if LABEL in table.columns and labels != "none":
        _report_blank_labels(table, path)
    texts: tuple[tuple[str, ...], ...] | None = None
    if captions:
        table, texts = _gather_captions(table, captions, path)
    else:
        table = table.sort(PATH, maintain_order=True)
    _refuse_doubles(table, path)
    sizes = np.asarray([size_of(root / name) for name in table.get_column(PATH)], dtype=np.int64)
    missing = int((sizes == MISSING).sum())
    problems: tuple[str, ...] = ()
    if missing:
        first = str(table[int(np.flatnonzero(sizes == MISSING)[0]), PATH])
        hint = hint_for_missing(first, root)
        if missing == table.height:
            hint = hint or "; set path = to the folder that the names are relative to"
            raise UserError(f"{path}: none of its {missing:,} images is below {root} (first: {first!r}){hint}")
        problems = (f"{counted(missing, 'image')} named by {path.name} missing (first: {first!r}){hint}",)
    rows = Rows(tuple(table.get_column(PATH)), _labels(table, space, labels, path), sizes)
    extra = [column for column in table.columns if column not in (PATH, LABEL, captions)]
    return Manifest(rows, {column: as_column(table.get_column(column)) for column in extra}, texts, problems)


def folder_manifest(root: Path) -> Path | None:
    """Return the ``metadata.csv`` (``.jsonl``, ``.parquet``) of an image folder, if it names its files."""
    for name in METADATA:
        if (root / name).is_file() and FILE_NAME in read_table(root / name).columns:
            return root / name
    return None


def as_column(values: pl.Series) -> NDArray[np.generic]:
    """Return a per-image column as int64, float64, bool or str objects; what is missing becomes NaN or
    ``""``.
    """
    if values.dtype == pl.Boolean and values.null_count() == 0:
        return values.to_numpy().astype(np.bool_)
    if values.dtype.is_integer() and values.null_count() == 0:
        return (
            values.cast(pl.Int64, strict=False).to_numpy()
            if values.dtype != pl.UInt64
            else values.to_numpy().astype(np.int64)
        )
    if values.dtype.is_numeric() or values.dtype == pl.Boolean:
        return values.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    if isinstance(values.dtype, pl.List | pl.Struct | pl.Array):
        return np.asarray([str(value) for value in values.to_list()], dtype=object)
    return np.asarray(values.cast(pl.String).fill_null("").to_list(), dtype=object)


def _labels(table: pl.DataFrame, space: ClassSpace | None, kind: str, path: Path) -> NDArray[np.int32]:
    out = np.full(table.height, NO_LABEL, dtype=np.int32)
    if kind == "none" or LABEL not in table.columns:
        return out
    texts = label_texts(table.get_column(LABEL), path, kind)
    named = [row for row, text in enumerate(texts) if text]
    if not named:
        return out
    if space is None:
        raise UserError(f'{path} has labels but no class space: set classes = "imagenet-1k", a list or a file')
    index = label_map([texts[row] for row in named], space, kind, where=str(path))
    out[named] = [index[texts[row]] for row in named]
    return out


def _report_blank_labels(table: pl.DataFrame, path: Path) -> None:
    column = table.get_column(LABEL)
    if column.dtype.is_nested():
        return
    blank = column.is_null() | (column.cast(pl.String).str.strip_chars() == "")
    count = int(blank.sum())
    if 0 < count < table.height:
        row = int(blank.arg_max() or 0)
        rows = f"{count:,} rows have" if count > 1 else "1 row has"
        remark(f"{path}: {rows} a blank label (first: row {row + 1}, {table[row, PATH]!r})")


def _gather_captions(table: pl.DataFrame, column: str, path: Path) -> tuple[pl.DataFrame, tuple[tuple[str, ...], ...]]:
    """Return one row an image and its captions in the manifest's order."""
    values = table.get_column(column)
    if not isinstance(values.dtype, pl.List | pl.Array):
        if values.dtype != pl.String:
            raise UserError(f"{path}: column {column!r} holds {values.dtype}, not text or lists of text")
        others = [name for name in table.columns if name not in (PATH, column)]
        table = table.group_by(PATH, maintain_order=True).agg(
            pl.col(column).drop_nulls(), *(pl.col(name).first() for name in others)
        )
    table = table.sort(PATH, maintain_order=True)
    texts = tuple(
        tuple(str(text) for text in row or () if text is not None) for row in table.get_column(column).to_list()
    )
    bare = next((row for row, found in enumerate(texts) if not found), None)
    if bare is not None:
        raise UserError(f"{path}: {table[bare, PATH]!r} has no caption")
    return table, texts


def _refuse_doubles(table: pl.DataFrame, path: Path) -> None:
    twice = table.filter(pl.col(PATH).is_duplicated())
    if twice.height:
        raise UserError(
            f"{path} names {twice[0, PATH]!r} more than once; an image is one row"
            ' (captions = "COLUMN" gathers the captions of repeated rows)'
        )
