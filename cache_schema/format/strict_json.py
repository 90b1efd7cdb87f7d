"""Parse JSON from an untrusted source: limited depth, no NaN, no broken text."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

MAX_DEPTH = 64
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(raw: bytes | str) -> Any:
    """Parse JSON without NaN, infinities, halves of surrogate pairs, or more than ``MAX_DEPTH`` levels.

    Parameters
    ----------
    raw
        The document, UTF-8.

    Raises
    ------
    ValueError
        The document is not such JSON; the message says why in one line.

    Examples
    --------
    >>> parse_json('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    """
    text = raw if isinstance(raw, str) else raw.decode()
    try:
        value = _DECODER.decode(text)
        _check_levels(value)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair, which is not text") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"it holds {constant}, which is not JSON")


def _finite(number: str) -> float:
    value = float(number)
    return value if math.isfinite(value) else _refuse("a number that is too large")


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)


def _check_levels(value: Any) -> None:
    level: list[Any] = [value] if type(value) is dict or type(value) is list else []
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for node in level:
            for item in node.values() if type(node) is dict else node:
                kind = type(item)
                if kind is dict or kind is list:
                    below.append(item)
        if not below:
            return
        level = below
    raise ValueError("it is nested too deeply")
