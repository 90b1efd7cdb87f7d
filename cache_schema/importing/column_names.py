"""Names of columns and arrays: this project's names, common other names, and one column per class."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from closerlook_common.errors import UserError

OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "logits": ("logit", "logit_list"),
    "probabilities": ("probability", "probs", "softmax"),
    "log_probabilities": ("log_probs", "log_softmax"),
    "labels": ("label", "targets", "target", "y_true", "label_list"),
    "features": ("feature", "feats", "feat", "embeddings", "feat_list"),
    "image_ids": ("image_id", "ids", "paths", "filenames"),
    "weight": ("weights", "w"),
    "bias": ("b",),
}
"""Array -> common other names; ambiguous names (``outputs``) are left out."""

OTHER_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "image_id": ("image_ids", "image", "filename", "file_name", "file", "path", "id", "ids", "paths", "filenames"),
    "label": ("labels", "target", "targets", "class", "y_true"),
    "predicted": ("prediction", "pred", "y_pred"),
    "confidence": ("conf", "probability"),
}
"""Column of a table -> common other names."""

KNOWN_COLUMNS = frozenset(name for wanted, others in OTHER_COLUMNS.items() for name in (wanted, *others))
"""Every name of a column that is recognised, in lower case."""

_WIDE = {
    "logits": re.compile(r"logits?[_.\- ]?(\d+)"),
    "probabilities": re.compile(r"prob(?:s|ability|abilities)?[_.\- ]?(\d+)"),
    "log_probabilities": re.compile(r"log_?prob(?:s|ability|abilities)?[_.\- ]?(\d+)"),
    "features": re.compile(r"feat(?:s|ures?)?[_.\- ]?(\d+)"),
}
NUMBERED = "numbered"
"""Kind of the columns named only 0, 1, 2 ..., as pandas names them."""

DROPPED_INDEX = ("", "__index_level_0__")
"""The index of a pandas frame, in CSV and in Parquet; in CSV perhaps also ``Unnamed: 0``."""

INDEX_LEFT_OUT = (
    "the column without a name (the index of a pandas frame) is left out; call it image_id if it names the images"
)


def renamed(names: Sequence[str], others: Mapping[str, Sequence[str]], where: str) -> dict[str, str]:
    """Return name -> this project's name for it, ignoring case.

    The project's own name comes first. Only one of the other names may occur: whether ``path`` or ``id`` holds the
    names of the images is not guessed.

    Raises
    ------
    UserError
        Several names could be the same column.
    """
    found: dict[str, str] = {}
    for wanted, aliases in others.items():
        if wanted in names:
            found[wanted] = wanted
            continue
        same = [name for name in names if name.lower() in (wanted, wanted.rstrip("s"), f"{wanted}s")]
        if not same:
            same = [name for name in names if name.lower() in aliases and name not in found]
        if len(same) > 1:
            listed = " and ".join(map(repr, same))
            raise UserError(f"{where} has {listed}, which could each be {wanted!r}; rename the right one {wanted!r}")
        found.update(dict.fromkeys(same, wanted))
    return found


def is_index(name: str) -> bool:
    """Return whether a column is the unnamed index of a pandas frame."""
    return name in DROPPED_INDEX or re.fullmatch(r"Unnamed: \d+", name) is not None


def number_columns(names: Sequence[str]) -> list[str]:
    """Return the names of the columns that hold numbers by their meaning: outputs, features, labels and confidences."""
    known = {name for wanted in ("label", "predicted", "confidence") for name in (wanted, *OTHER_COLUMNS[wanted])}
    return [
        name
        for name in names
        if name.lower() in known or name.isdecimal() or any(p.fullmatch(name.lower()) for p in _WIDE.values())
    ]


def wide_columns(names: Sequence[str], where: str = "the table") -> dict[str, list[str]]:
    """Return kind -> columns, one per class or feature, in the order of their numbers.

    Parameters
    ----------
    names
        Of all columns.
    where
        The file, for errors.

    Raises
    ------
    UserError
        The numbers are not 0, 1, 2 ... without a gap. The number of a column is its class, not its position.
    """
    found: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        for kind, pattern in _WIDE.items():
            if match := pattern.fullmatch(name.lower()):
                found.setdefault(kind, []).append((int(match[1]), name))
    answers = renamed(names, {name: OTHER_COLUMNS[name] for name in ("predicted", "confidence")}, where)
    if not set(found) - {"features"} and len(answers) < 2:
        # Bare numbers are classes only in a table without other outputs: 2024 may be a column of notes.
        numbered = [(int(name), name) for name in names if name.isascii() and name.isdigit() and len(name) < 10]
        found |= {NUMBERED: numbered} if numbered else {}
    for kind, columns in found.items():
        columns.sort()
        _check_numbers(kind, columns, where)
    return {kind: [name for _, name in columns] for kind, columns in found.items()}


def _check_numbers(kind: str, columns: list[tuple[int, str]], where: str) -> None:
    numbers = [number for number, _ in columns]
    twice = next((pair for pair in pairwise(columns) if pair[0][0] == pair[1][0]), None)
    if twice is not None:
        raise UserError(f"{where}: columns {twice[0][1]!r} and {twice[1][1]!r} have the same number; rename one")
    if numbers == list(range(len(numbers))):
        return
    one = "feature" if kind == "features" else "class"
    held = f"{where} has {len(columns)} columns {columns[0][1]!r} to {columns[-1][1]!r}"
    missing = next(number for number in range(len(numbers) + 1) if number not in set(numbers))
    if one == "class" and numbers == list(range(1, len(numbers) + 1)):
        raise UserError(
            f"{held}, and none for class 0. If they are ranks (the top {len(columns)}), import a table of image_id,"
            f" label, predicted, confidence; if classes are counted from 1, number the columns and the labels from 0"
        )
    raise UserError(
        f"{held}, but none for {one} {missing}: the number of a column is its {one}, so all from 0 to"
        f" {numbers[-1]} are needed"
    )
