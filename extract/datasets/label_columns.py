"""Labels as they are in the column of a table, as text or as numbers."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
from numpy.typing import NDArray

from closerlook_common.errors import UserError
from extract.classes.unicode_names import composed
from extract.datasets.base import NO_LABEL

_MISSING_TEXT = ("", "-1", "nan", "<na>")
"""What is in a label column, in lower case, where an image has no label."""


def single_labels(column: pl.Series, where: object) -> pl.Series:
    """Return a column of lists of one label as a column of labels; others as they are.

    Raises
    ------
    UserError
        A list holds several labels.
    """
    if isinstance(column.dtype, pl.Array):
        column = column.arr.to_list()
    if not isinstance(column.dtype, pl.List):
        return column
    several = (column.list.len() > 1).fill_null(value=False)
    if several.any():
        row = int(several.arg_max() or 0)
        labels = ", ".join(map(str, column[row].to_list()[:5]))
        raise UserError(f"{where}, row {row + 1}: an image has one label, this one has several: {labels}")
    return column.list.first()


def label_texts(column: pl.Series, where: object, kind: str = "auto") -> list[str]:
    """Return the labels of a column as text, without surrounding blanks; empty for an image without one.

    Whole numbers that are written as ``3.0`` become ``3``; a list of one label is that label.

    Raises
    ------
    UserError
        Labels are fractions, several an image, or neither numbers nor text.
    """
    column = single_labels(column, where)
    if column.dtype.is_nested() or column.dtype in (pl.Binary, pl.Object):
        raise UserError(f"{where}: the labels are of type {column.dtype}, neither numbers nor text")
    texts = [text.strip() for text in column.cast(pl.String).fill_null("").to_list()]
    texts = ["" if text.casefold() in _MISSING_TEXT else composed(text) for text in texts]
    written = any("." in text for text in texts) and all(map(_is_number, filter(None, texts)))
    if column.dtype.is_float() or (written and kind != "name"):
        # A whole-number column with gaps is written as floats.
        numbers = [float(text) if text else 0.0 for text in texts]
        odd = next((row for row, number in enumerate(numbers) if not number.is_integer()), None)
        if odd is not None:
            raise UserError(f"{where}: labels are indices, WordNet ids or names, not fractions ({texts[odd]})")
        texts = [str(int(number)) if text else "" for number, text in zip(numbers, texts, strict=True)]
    return ["" if text == "-1" else text for text in texts]  # -1.0


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]+(\.[0-9]*)?", text) is not None


def label_numbers(
    column: pl.Series | None, n: int, named: tuple[str, ...], where: object
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """Return labels (n,) as numbers, and the classes that they count.

    Whole numbers count ``named``, or whatever the spec says; labels that are text, or true and false, become classes of
    their own, sorted.

    Raises
    ------
    UserError
        Labels are fractions, several an image, or too large for a class number.
    """
    if column is None:
        return np.full(n, NO_LABEL, dtype=np.int32), ()
    column = single_labels(column, where)
    if column.dtype.is_integer():
        numbers = column.fill_null(NO_LABEL)
    else:
        texts = label_texts(column, where)
        if not all(re.fullmatch(r"[0-9]+", text) for text in texts if text):
            known = sorted({text for text in texts if text})
            index = {text: number for number, text in enumerate(known)} | {"": NO_LABEL}
            return np.asarray([index[text] for text in texts], dtype=np.int32), tuple(known)
        numbers = pl.Series([int(text) if text and len(text) < 16 else NO_LABEL for text in texts], dtype=pl.Int64)
    found = numbers.to_numpy()
    if found.size and (int(found.max()) >= 2**31 or int(found.min()) < NO_LABEL):
        raise UserError(f"{where}: labels from {found.min()} to {found.max()} are not class numbers")
    return found.astype(np.int32), named
