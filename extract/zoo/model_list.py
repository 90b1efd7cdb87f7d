"""A text file of models in, specifications out: names checked against the libraries before anything is loaded."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path

from closerlook_common.errors import UserError, nearest
from closerlook_common.input_files import read_text_file
from extract.libraries import registry
from extract.libraries.base import Library
from extract.models.spec import COMMON_OPTIONS, Line, ModelSpec, shown

_LARGEST_LIST = 4 << 20
_LONGEST_LINE = 1 << 14
_MOST_WRONG = 20


def read_model_list(source: str | Path) -> list[ModelSpec]:
    """Read a model list.

    Parameters
    ----------
    source
        A file, or ``@NAME`` for one of the lists that come with the package. In a list, one model a line:
        ``LIBRARY:NAME key=value ...``; ``#`` after a space starts a comment; values may be quoted; ``*`` and ``?`` in a
        name stand for every pretrained model that matches; a line ``@NAME`` stands for that list. Relative
        paths are relative to the file's folder.

    Raises
    ------
    UserError
        A line cannot be read, a name does not exist (the message gives the nearest ones), or two models have one id.
    """
    specs: list[ModelSpec] = []
    wrong: list[str] = []
    for where, folder, line in _lines(str(source)):
        try:
            specs += parse_line(line, where, folder)
        except UserError as error:
            wrong.append(str(error))
            if len(wrong) == _MOST_WRONG:
                wrong.append("the lines after these were not read")
                break
    if wrong:  # report all errors at once
        raise UserError(" | ".join(wrong))
    seen: dict[str, ModelSpec] = {}
    for spec in specs:
        other = seen.setdefault(spec.id, spec)
        if other is not spec:
            raise UserError(f"{spec.where}: the id {spec.id!r} is taken by {other.where}; give one of them id=NAME")
    if not specs:
        raise UserError(f"{source}: no model in this list")
    return specs


def _lines(source: str, within: tuple[str, ...] = ()) -> Iterator[tuple[str, Path, str]]:
    """Yield (where, folder that paths are relative to, line) with comments gone and lists opened."""
    if source in within:
        raise UserError(f"the list {source} names itself")
    if source.startswith("@"):
        from extract.zoo.lists import named_list

        lines, folder = list(named_list(source[1:])), Path.cwd()
    else:
        lines = read_text_file(source, "model list", limit=_LARGEST_LIST).splitlines()
        folder = Path(source).resolve().parent
    for number, line in enumerate(lines, 1):
        where = f"{source}:{number}"
        words = _words(line, where)
        if words and words[0].startswith("@"):
            if len(words) > 1:
                raise UserError(f"{where}: {words[0]} must be alone on its line; {words[1]!r} has no place there")
            yield from _lines(words[0], (*within, source))
        elif words:
            yield where, folder, line


def _words(line: str, where: str) -> list[str]:
    if len(line) > _LONGEST_LINE:
        raise UserError(f"{where}: {shown(line)!r} is {len(line):,} characters long; no line of a model list is")
    try:
        return shlex.split(_without_comment(line))
    except ValueError as error:
        raise UserError(f"{where}: {error}".replace("No closing quotation", "a quotation is not closed")) from None


def _without_comment(line: str) -> str:
    """Cut a comment off: as in YAML it begins the line or follows a space, so names and paths may hold the sign."""
    quote = ""
    for place, sign in enumerate(line):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign == "#" and (place == 0 or line[place - 1].isspace()):
            return line[:place]
    return line


def parse_line(line: str, where: str = "", folder: Path | None = None) -> list[ModelSpec]:
    """Read one line of a model list; a wildcard gives several models, an empty line none.

    Parameters
    ----------
    line
        ``LIBRARY:NAME key=value ...``.
    where
        File and line, for messages.
    folder
        What relative paths are relative to; the working folder when None.
    """
    words = _words(line, where)
    if not words:
        return []
    where = where or words[0]
    library, colon, name = words[0].partition(":")
    if not colon or not name:
        raise UserError(f"{where}: {shown(words[0])!r} is not LIBRARY:NAME, such as timm:resnet50.a1_in1k")
    try:
        chosen = registry.get(shown(library))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    options = _options(words[1:], chosen, where)
    root = folder or Path.cwd()

    def absolute(path: str) -> str:
        return str((root / Path(path).expanduser()).absolute())

    for option in ("checkpoint", *chosen.path_options):
        if option in options:
            options[option] = absolute(options[option])
    if options.get("classes", "").endswith(".txt"):
        options["classes"] = absolute(options["classes"])
    checkpoint, identifier = options.pop("checkpoint", None), options.pop("id", "")
    path = Path(checkpoint) if checkpoint is not None else None
    return chosen.resolve(Line(library, name, path, identifier, options, where, root))


def _options(words: list[str], library: Library, where: str) -> dict[str, str]:
    known: Mapping[str, str] = {**COMMON_OPTIONS, **library.options}
    options: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{where}: {shown(word)!r} is not key=value")
        if key not in known:
            if of := [other.name for other in registry.every()[0] if key in other.options]:
                raise UserError(f"{where}: {key}= is an option of {', '.join(of)}, not of {library.name}")
            near = nearest(shown(key), known)
            raise UserError(f"{where}: no option {shown(key)!r}; there are {', '.join(known)}{near}")
        if key in options:
            raise UserError(f"{where}: {key}= is given twice")
        if not value:
            raise UserError(f"{where}: {key}= has no value")
        options[key] = value
    return options
