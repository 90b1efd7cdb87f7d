"""Names from file systems and tables: valid Unicode or an error, and equal whatever their normal form."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection

from closerlook_common.errors import UserError


def composed(name: str) -> str:
    """Return a name in composed form (NFC): macOS stores names decomposed (NFD), most other programs do not."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def spellings(name: str) -> tuple[str, ...]:
    """Return the forms under which a file system may hold a name, the given one first."""
    if name.isascii():
        return (name,)
    return tuple(dict.fromkeys((name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name))))


def is_text(name: str) -> bool:
    """Return whether a store can hold a name: file systems take bytes that are valid in no encoding."""
    try:
        return name.isascii() or bool(name.encode())
    except UnicodeEncodeError:
        return False


def text_name(name: str, where: object) -> str:
    """Return the name; raises `UserError` that names it where it is not valid Unicode or holds a zero byte."""
    if not is_text(name):
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        raise UserError(f"{where}: the name '{shown}' is not valid UTF-8; rename that file or folder")
    if "\0" in name:
        raise UserError(f"{where}: the name {name!r} holds a zero byte")
    return name


def refuse_same_names(names: Collection[str], where: object) -> None:
    """Raise `UserError` where two names differ in nothing but their Unicode form: no table could distinguish them."""
    known: dict[str, str] = {}
    for name in names:
        other = known.setdefault(composed(name), name)
        if other != name:
            raise UserError(
                f"{where}: two names are both {composed(name)!r}, in composed and decomposed Unicode (NFC and NFD);"
                " rename or merge them"
            )
