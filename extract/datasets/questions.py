"""Questions with options about images: a table of image, question, options and answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError, nearest
from extract.classes.choices import LEAST, LETTERS, MOST, Choice
from extract.datasets.base import MISSING
from extract.datasets.columns import LABEL, PATH, PATH_NAMES, find_column, shown
from extract.datasets.folder import Rows
from extract.datasets.listing import as_on_disk, hint_for_missing, safe_relative, size_of
from extract.datasets.manifest import as_column, read_table

QUESTION, OPTIONS, ANSWER = "question", "options", "answer"
OPTIONS_NAMES = ("choices", "candidates")
ANSWER_NAMES = ("correct_answer", "correct", "ground_truth", "gt", LABEL)
IMAGENET_D = ("gt_category", "top1_pred_cate", "top2_pred_cate")
"""Columns of ImageNet-D's tables: the object, and the classes that a model took it for most and second most. The wrong
option is the first of the two that is not the object, as in the authors' ``eval_imagenet_d.py``."""


class Questions(NamedTuple):
    """A table's rows, one a question, sorted by path.

    Attributes
    ----------
    rows
        Paths, labels (the option that is right, from 0) and sizes.
    keys
        Names of the rows: the path, with ``#2`` and so on where an image is asked about again.
    asked
        Question and options of each row.
    metadata
        Question, options and every further column of the table.
    problems
        What is odd, one line each.
    """

    rows: Rows
    keys: tuple[str, ...]
    asked: tuple[Choice, ...]
    metadata: dict[str, NDArray[np.generic]]
    problems: tuple[str, ...]


def read_questions(
    path: Path, root: Path, *, path_column: str = "", answer_column: str = "", follow_links: bool = False
) -> Questions:
    """Read a table of questions.

    Parameters
    ----------
    path
        CSV, TSV, JSON lines or Parquet with a column of paths; perhaps ``question``; the options in ``options`` (a
        list, or one as JSON text) or in columns ``A``, ``B`` ... ``J``, blank from some letter on where a row has
        fewer; and ``answer``, an option's text or its letter. ImageNet-D's tables are read as they are, their two
        options in alphabetical order.
    root
        Folder of the images.
    path_column, answer_column
        Names of these columns, where they have others than the usual ones.
    follow_links
        Allow links that lead out of ``root``.

    Raises
    ------
    UserError
        A column is missing, an answer is none of the options, a row is there twice ...; one line with the row.
    """
    known = (QUESTION, OPTIONS, *OPTIONS_NAMES, ANSWER, *ANSWER_NAMES, *IMAGENET_D, *LETTERS)
    table = read_table(path, (*known, *filter(None, (path_column, answer_column))))
    if table.height == 0:
        raise UserError(f"{path} has no rows")
    of_path = _need(table, PATH, (*PATH_NAMES, "image_dir"), path_column, path)
    texts = _texts(table, of_path)
    asked, right, used = _asked(table, answer_column, path)
    clean = [
        safe_relative(text, root, follow_links=follow_links, where=f"{path}, row {row}")
        for row, text in enumerate(texts, start=1)
    ]
    names = [as_on_disk(text, root) for text in clean]
    order = sorted(range(len(names)), key=names.__getitem__)  # stable: questions about an image in the table's order
    _refuse_doubles(names, asked, path)
    counts: Counter[str] = Counter()
    keys = []
    for index in order:
        counts[names[index]] += 1
        again = counts[names[index]]
        keys.append(names[index] if again == 1 else f"{names[index]}#{again}")
    paths = tuple(names[index] for index in order)
    sizes = np.asarray([size_of(root / name) for name in paths], dtype=np.int64)
    chosen = tuple(asked[index] for index in order)
    further = {name: as_column(table[name])[order] for name in table.columns if name not in (of_path, *used)}
    return Questions(
        Rows(paths, np.asarray([right[index] for index in order], dtype=np.int32), sizes),
        tuple(keys),
        chosen,
        {
            QUESTION: np.asarray([one.question for one in chosen], dtype=object),
            OPTIONS: np.asarray([json.dumps(list(one.options), ensure_ascii=False) for one in chosen], dtype=object),
            **further,
        },
        _missing(paths, sizes, path, root),
    )


def _asked(table: pl.DataFrame, answer_column: str, path: Path) -> tuple[list[Choice], list[int], set[str]]:
    """Return each row's question and options, the option that is right, and the columns that were used."""
    if set(IMAGENET_D) <= set(table.columns) and not answer_column:
        right, first, second = (_texts(table, name) for name in IMAGENET_D)
        wrong = [two if one == true else one for true, one, two in zip(right, first, second, strict=True)]
        options = [sorted(pair) for pair in zip(right, wrong, strict=True)]
        question = [""] * table.height
        used: set[str] = set()
    else:
        of_question = find_column(table.columns, QUESTION, (), "", path)
        of_answer = _need(table, ANSWER, ANSWER_NAMES, answer_column, path)
        options, of_options = _options(table, path)
        right = _texts(table, of_answer)
        question = [""] * table.height if of_question is None else _texts(table, of_question)
        used = {of_answer, *of_options, *filter(None, [of_question])}
    asked, places = [], []
    for row, (text, given, answer) in enumerate(zip(question, options, right, strict=True), start=1):
        where = f"{path}, row {row}"
        _check_options(given, where)
        asked.append(Choice(text, tuple(given)))
        places.append(_place(answer, given, where))
    return asked, places, used


def _options(table: pl.DataFrame, path: Path) -> tuple[list[list[str]], tuple[str, ...]]:
    """Return the options of each row, and the columns that they are in."""
    column = find_column(table.columns, OPTIONS, OPTIONS_NAMES, "", path)
    if column is not None:
        return [_listed(value, f"{path}, row {row}") for row, value in enumerate(table[column].to_list(), 1)], (column,)
    letters = tuple(letter for letter in LETTERS if letter in table.columns)
    if len(letters) < LEAST or letters != tuple(LETTERS[: len(letters)]):
        raise UserError(
            f"{path}: no column of options among {shown(table.columns)}: 'options' holds a list, or 'A', 'B' ... hold"
            " one each"
        )
    columns = [_texts(table, letter) for letter in letters]
    rows = []
    for row, given in enumerate(zip(*columns, strict=True), start=1):
        count = next((index for index, text in enumerate(given) if not text), len(given))
        if any(given[count:]):
            raise UserError(f"{path}, row {row}: option {letters[count]} is blank, and one after it is not")
        rows.append(list(given[:count]))
    return rows, letters


def _listed(value: Any, where: str) -> list[str]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, list) or not all(isinstance(item, str | int | float) for item in value):
        raise UserError(f'{where}: its options are no list of texts, such as ["cat", "dog"]')
    return [str(item).strip() for item in value]


def _check_options(given: Sequence[str], where: str) -> None:
    if not LEAST <= len(given) <= MOST:
        raise UserError(f"{where}: {counted(len(given), 'option')}; a question has {LEAST} to {MOST}")
    if "" in given:
        raise UserError(f"{where}: option {LETTERS[given.index('')]} is blank")
    twice = [text for text, count in Counter(given).items() if count > 1]
    if twice:
        raise UserError(f"{where}: the option {twice[0]!r} is given twice")


def _place(answer: str, given: Sequence[str], where: str) -> int:
    """Return which option an answer is, by its text or its letter."""
    letters = LETTERS[: len(given)]
    places = {given.index(answer)} if answer in given else set()
    if len(answer) == 1 and answer.upper() in letters:
        places.add(letters.index(answer.upper()))
    if len(places) == 1:
        return places.pop()
    if places:
        at, other = sorted(places)
        raise UserError(
            f"{where}: the answer {answer!r} may be option {letters[at]} or option {letters[other]}: put options whose"
            " texts are letters in the order of these letters"
        )
    options = ", ".join(f"{letter} {text!r}" for letter, text in zip(letters, given, strict=True))
    raise UserError(f"{where}: the answer {answer!r} is none of its options: {options}{nearest(answer, given)}")


def _refuse_doubles(names: Sequence[str], asked: Sequence[Choice], path: Path) -> None:
    first: dict[tuple[str, Choice], int] = {}
    for row, item in enumerate(zip(names, asked, strict=True), start=1):
        if item in first:
            raise UserError(f"{path}, row {row}: the same question about {item[0]!r} as in row {first[item]}")
        first[item] = row


def _missing(paths: Sequence[str], sizes: NDArray[np.int64], path: Path, root: Path) -> tuple[str, ...]:
    gone = [name for name, size in zip(paths, sizes.tolist(), strict=True) if size == MISSING]
    if not gone:
        return ()
    hint = hint_for_missing(gone[0], root)
    if len(gone) == len(paths):
        hint = hint or "; set path = to the folder that the names are relative to"
        raise UserError(f"{path}: none of its {len(gone):,} images is below {root} (first: {gone[0]!r}){hint}")
    return (f"{counted(len(gone), 'image')} named by {path.name} missing (first: {gone[0]!r}){hint}",)


def _need(table: pl.DataFrame, wanted: str, others: Sequence[str], given: str, path: Path) -> str:
    found = find_column(table.columns, wanted, others, given, path)
    if found is None:
        raise UserError(f"{path}: no column {wanted!r} among {shown(table.columns)}{nearest(wanted, table.columns)}")
    return found


def _texts(table: pl.DataFrame, column: str) -> list[str]:
    values = table.get_column(column)
    if values.dtype.is_nested():
        raise UserError(f"the column {column!r} holds {values.dtype}, not text")
    return [str(text).strip() for text in values.cast(pl.String).fill_null("").to_list()]
