"""Which column of a table names the image and which its label; what to say where none is recognised."""

from __future__ import annotations

import re
from collections.abc import Sequence

from closerlook_common.errors import UserError, nearest
from extract.datasets.specs import DatasetSpec

PATH, LABEL = "path", "label"
FILE_NAME = "file_name"
"""What the path is called in a Hugging Face image folder's ``metadata.csv``; taken where there is no ``path``."""
PATH_NAMES = (FILE_NAME, "filename", "file", "filepath", "file_path", "image_path", "image", "img", "image_id")
LABEL_NAMES = (
    "labels", "class", "target", "class_name", "classname", "category", "wnid", "synset", "cls", "class_id", "label_id",
    "target_cls", "class_label", "fine_label", "category_id", "label_name",
)  # fmt: skip
"""Other names of the two columns, in this order. Capitals, blanks, dots and hyphens do not count. Taken where the
column itself is not there."""

UNLABELLED = 'labels = "none" takes the images without labels, as an out-of-distribution set'


def plain_column(name: str) -> str:
    """Return a column's name without differences of case, blanks, dots and hyphens.

    Examples
    --------
    >>> plain_column(" Target.cls")
    'target_cls'
    """
    return re.sub(r"[\s.\-_]+", "_", name.strip().lstrip("\ufeff").casefold()).strip("_")


def find_column(columns: Sequence[str], wanted: str, others: Sequence[str], asked: str, where: object) -> str | None:
    """Return the column that is called ``wanted`` or has one of its other names; None where there is none.

    Parameters
    ----------
    columns
        All columns.
    wanted, others
        Its usual name, and other names in their order.
    asked
        The column that ``path_column`` or ``label_column`` names; empty for none.
    where
        The file, for messages.

    Raises
    ------
    UserError
        The column asked for is not there, or two columns have names that differ only in case and spaces.
    """
    if asked:
        if asked in columns:
            return asked
        raise UserError(
            f"{where}: {wanted}_column = {asked!r} is not among its columns {shown(columns)}{nearest(asked, columns)}"
        )
    if wanted in columns:
        return wanted
    by_plain: dict[str, list[str]] = {}
    for column in columns:
        by_plain.setdefault(plain_column(column), []).append(column)
    for name in (wanted, *others):
        found = by_plain.get(name, [])
        if len(found) > 1:
            raise UserError(
                f"{where}: the columns {' and '.join(map(repr, found))} have nearly the same name;"
                f" say which to take: {wanted}_column = {found[0]!r}"
            )
        if found:
            return found[0]
    return None


def wants_labels(spec: DatasetSpec) -> bool:
    """Return whether a dataset has labels unless its table says that it has none."""
    return spec.labels != "none" and spec.role not in ("ood", "pairs") and not spec.captions


def no_label(columns: Sequence[str], where: object, what: str = "columns") -> UserError:
    """Return the error for data whose label column is not recognised."""
    first = next(iter(columns), "NAME")
    return UserError(
        f'{where}: none of its {what} {shown(columns)} is recognised as the labels; label_column = "{first}" in its'
        f" table of datasets.toml takes that one, {UNLABELLED}"
    )


def shown(columns: Sequence[str]) -> str:
    """Return the names of columns as text, at most twenty of them."""
    few = ", ".join(column.strip()[:60] or "(no name)" for column in columns[:20])
    return few + (f" and {len(columns) - 20:,} more" if len(columns) > 20 else "")
