"""Manifests: a CSV, TSV, JSON-lines or Parquet table of images, with labels, captions and anything else known about
each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from cache_schema.errors import UserError, nearest
from extract.classes.spaces import ClassSpace
from extract.datasets.base import MISSING, NO_LABEL
from extract.datasets.folder import Rows
from extract.datasets.labels import label_map
from extract.datasets.listing import safe_relative, size_of

PATH, LABEL = "path", "label"
FILE_NAME = "file_name"
"""What the path is called in a Hugging Face image folder's ``metadata.csv``; taken where there is no ``path``."""
PATH_NAMES = (FILE_NAME, "filename", "file", "filepath", "file_path", "image_path", "image", "img", "image_id")
LABEL_NAMES = ("class", "target", "class_name", "category", "wnid")
"""Other names of the two columns, in this order; capitals do not count. Taken where the column itself is not there."""
METADATA = tuple(f"metadata.{suffix}" for suffix in ("csv", "jsonl", "parquet"))


def _csv(path: Path) -> pl.DataFrame:
    return pl.read_csv(path, infer_schema_length=None)


def _tsv(path: Path) -> pl.DataFrame:
    return pl.read_csv(path, separator="\t", infer_schema_length=None)


def _jsonl(path: Path) -> pl.DataFrame:
    return pl.read_ndjson(path, infer_schema_length=None)


_READERS: Mapping[str, Callable[[Path], pl.DataFrame]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
    ".parquet": pl.read_parquet,
}


class Manifest(NamedTuple):
    """A manifest's rows, one an image, sorted by path; captions only where it has them."""

    rows: Rows
    metadata: dict[str, NDArray[np.generic]]
    captions: tuple[tuple[str, ...], ...] | None
    problems: tuple[str, ...]


def read_table(path: Path) -> pl.DataFrame:
    """Read a CSV, TSV, JSON-lines or Parquet file; raises `UserError` with the reason if it cannot be read."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(f"{path}: a manifest ends in {', '.join(_READERS)}")
    if not path.is_file():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(f"no manifest {path}{nearest(path.name, siblings)}")
    try:
        return reader(path)
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None


def read_labelled(path: Path) -> pl.DataFrame:
    """Return a manifest whose columns ``path`` and ``label`` are called so, where it has them by another name."""
    table = read_table(path)
    for wanted, others in ((PATH, PATH_NAMES), (LABEL, LABEL_NAMES)):
        if wanted in table.columns:
            continue
        by_lower = {name.lower(): name for name in table.columns}
        given = next((by_lower[name] for name in (wanted, *others) if name in by_lower), None)
        if given is not None:
            table = table.rename({given: wanted})
    return table


def read_manifest(
    path: Path,
    root: Path,
    space: ClassSpace | None = None,
    labels: str = "auto",
    *,
    captions: str | None = None,
    follow_links: bool = False,
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
    table = read_labelled(path)
    for column in (PATH, *([captions] if captions else [])):
        if column not in table.columns:
            there = ", ".join(table.columns)
            mend = nearest(column, table.columns)
            if column == PATH and not mend:
                mend = f", nor {', '.join(PATH_NAMES)}"
            raise UserError(f"{path}: no column {column!r} among {there}{mend}")
    if table.height == 0:
        raise UserError(f"{path} has no rows")
    written = table.get_column(PATH).cast(pl.String).fill_null("").to_list()
    clean = [
        safe_relative(text, root, follow_links=follow_links, where=f"{path}, row {row}")
        for row, text in enumerate(written, start=1)
    ]
    table = table.with_columns(pl.Series(PATH, clean))
    texts: tuple[tuple[str, ...], ...] | None = None
    if captions:
        table, texts = _gather_captions(table, captions, path)
    else:
        table = table.sort(PATH, maintain_order=True)
    _refuse_doubles(table, path)
    sizes = np.asarray([size_of(root / name) for name in table.get_column(PATH)], dtype=np.int64)
    missing = int((sizes == MISSING).sum())
    if missing == table.height:
        raise UserError(
            f"{path}: none of its {missing:,} images is below {root} (first: {table[0, PATH]!r}); set path ="
        )
    problems = (f"{missing:,} images named by {path.name} are missing",) if missing else ()
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
    column = table.get_column(LABEL)
    if column.dtype.is_float():  # a whole-number column with gaps is read as floats
        if not (column.drop_nulls() == column.drop_nulls().round()).all():
            raise UserError(f"{path}: labels are indices, WordNet ids or names, not fractions")
        column = column.cast(pl.Int64)
    texts = [text.strip() for text in column.cast(pl.String).fill_null("").to_list()]
    named = [row for row, text in enumerate(texts) if text not in ("", "-1")]
    if not named:
        return out
    if space is None:
        raise UserError(f'{path} has labels but no class space: set classes = "imagenet-1k", a list or a file')
    index = label_map([texts[row] for row in named], space, kind, where=str(path))
    out[named] = [index[texts[row]] for row in named]
    return out


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
