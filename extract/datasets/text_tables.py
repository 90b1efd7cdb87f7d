"""CSV tables and lists of files as people write them: which separator, which columns are text, what is too large."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from closerlook_common.csv_files import SEPARATORS, cells, first_line
from closerlook_common.errors import UserError
from closerlook_common.input_files import refuse_lfs_pointer
from extract.datasets.columns import LABEL, LABEL_NAMES, PATH, PATH_NAMES, plain_column, shown
from extract.datasets.images import is_image_name

LONGEST_LINE = 1 << 20
"""Bytes of a line; nothing that describes one image is longer."""
MOST_COLUMNS = 10_000
_CHUNK = 1 << 22


def read_csv(path: Path, *, tabs: bool = False, text: Sequence[str] = ()) -> pl.DataFrame:
    """Read a table whose first line names the columns, separated by commas, semicolons, tabs or bars.

    The separator is the one under which the first line holds a column of paths. That column and the one of labels are
    read as text, so that ``007`` stays what it is.

    Parameters
    ----------
    path
        The file, UTF-8.
    tabs
        Try tabs first, as for ``.tsv``.
    text
        Further columns to read as text: those that a spec names.

    Raises
    ------
    UserError
        A line or the number of columns is too large, the file is not UTF-8, or its first line is data.
    """
    first = _first_line(path)
    order = ("\t", *(s for s in SEPARATORS if s != "\t")) if tabs else SEPARATORS
    split = {separator: cells(first, separator) for separator in order}
    named = [separator for separator, names in split.items() if _has_path(names, text)]
    separator = named[0] if named else max(order, key=lambda s: (len(split[s]), -order.index(s)))
    columns = split[separator]
    if len(columns) > MOST_COLUMNS:
        raise UserError(f"{path} has {len(columns):,} columns; a manifest has at most {MOST_COLUMNS:,}")
    if not named and is_image_name(columns[0].strip()):
        raise UserError(
            f"{path}: its first line ({shown(columns)}) is data, not the names of columns; put a line such as"
            " 'path,label' above it"
        )
    known = {PATH, LABEL, *PATH_NAMES, *LABEL_NAMES}
    as_text = {name: pl.String for name in columns if name in text or plain_column(name) in known}
    table = pl.read_csv(path, separator=separator, infer_schema_length=None, schema_overrides=as_text)
    stripped = [name.strip().lstrip("\ufeff") for name in table.columns]
    if len(set(stripped)) == len(stripped):  # "path, label" has a column " label"
        table.columns = stripped
    return table


def read_file_list(path: Path) -> pl.DataFrame:
    """Read a list of files, one a line: ``path`` or ``path label``, as torchvision, timm and OpenOOD have them.

    Raises
    ------
    UserError
        The lines are neither.
    """
    _first_line(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None
    rows = [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise UserError(f"{path} has no rows")
    if all(is_image_name(_base(line)) for _, line in rows):
        return pl.DataFrame({PATH: [line for _, line in rows]})
    paths, labels = [], []
    for number, line in rows:
        name, _, label = line.rpartition("\t") if "\t" in line else line.rpartition(" ")
        if not is_image_name(_base(name.strip())):
            raise UserError(
                f"{path}, line {number}: {line[:80]!r} is not 'path label'; a list of files has a path and perhaps a"
                " label a line, a table with more columns is a .csv with a first line of column names"
            )
        paths.append(name.strip())
        labels.append(label)
    return pl.DataFrame({PATH: paths, LABEL: labels})


def _base(text: str) -> str:
    return text.replace("\\", "/").rpartition("/")[2]


def _has_path(names: Sequence[str], asked: Sequence[str]) -> bool:
    return any(plain_column(name) in (PATH, *PATH_NAMES) or (name.strip() and name in asked) for name in names)


def _first_line(path: Path) -> str:
    """Return the first line; raises `UserError` where a line is too long or the file is not UTF-8."""
    refuse_lfs_pointer(path)
    with path.open("rb") as file:
        head = file.read(LONGEST_LINE)
        _refuse_long_lines(path, head)
    return first_line(path)


def _refuse_long_lines(path: Path, head: bytes) -> None:
    if len(head) < LONGEST_LINE:
        return
    with path.open("rb") as file:
        open_line = 0  # bytes since the last end of a line
        while chunk := file.read(_CHUNK):
            first, *others = chunk.split(b"\n")
            longest = max(open_line + len(first), max(map(len, others), default=0))
            if longest > LONGEST_LINE:
                raise UserError(f"{path} has a line longer than {LONGEST_LINE:,} bytes: it is not a table of images")
            open_line = len(others[-1]) if others else longest
