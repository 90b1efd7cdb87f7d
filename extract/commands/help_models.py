"""The grammar of model lists, for ``extract help models``; what each library takes comes from the library."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping

from extract.libraries import registry
from extract.models.spec import COMMON_OPTIONS

_WIDTH = 100
_LONG = 46
"""Examples longer than this have their meaning on the next line."""

_GRAMMAR = """\
A model list is a text file with one model a line:

    LIBRARY:NAME key=value ...

LIBRARY is {libraries}.

'#' at the start of a line or after a space starts a comment. A value with spaces is quoted. Relative
paths are relative to the list's folder. A line '@NAME' stands for a list that comes with the package.
"""

_END = "\n'extract models' lists the names, 'extract models @LIST' the models of a list."


def text() -> str:
    """Return the text, with every library and every option that a line takes."""
    libraries, problems = registry.every()
    names = [library.name for library in libraries]
    parts = [_GRAMMAR.format(libraries=f"{', '.join(names[:-1])} or {names[-1]}")]
    parts.append("NAME is one of:\n\n" + _examples(pair for library in libraries for pair in library.examples))
    parts.append("Weights of your own:\n\n" + _examples(pair for lib in libraries for pair in lib.own_examples))
    parts.append("Options of every line:\n\n" + _options(COMMON_OPTIONS))
    sections: dict[str, list[str]] = {}
    for library in libraries:
        for key in library.options:
            sections.setdefault(key, []).append(library.name)
    for users in dict.fromkeys(map(tuple, sections.values())):
        of = {
            key: meaning
            for library in libraries
            for key, meaning in library.options.items()
            if tuple(sections[key]) == users
        }
        parts.append(f"Options of {', '.join(users)}:\n\n" + _options(of))
    parts += [f"{problem}\n" for problem in problems]
    return "\n".join(parts) + _END


def _examples(pairs: Iterable[tuple[str, str]]) -> str:
    examples = list(pairs)
    width = max((len(line) for line, _ in examples if len(line) <= _LONG), default=0)
    return "".join(
        f"    {line:<{width}}  {meaning}\n" if len(line) <= _LONG else f"    {line}\n        {meaning}\n"
        for line, meaning in examples
    )


def _options(options: Mapping[str, str]) -> str:
    width = max(map(len, options))
    indent = " " * (width + 6)
    lines = []
    for key, meaning in options.items():
        first, *rest = textwrap.wrap(meaning, _WIDTH - len(indent), break_long_words=False)
        lines += [f"    {key:<{width}}  {first}", *(indent + line for line in rest)]
    return "\n".join(lines) + "\n"
