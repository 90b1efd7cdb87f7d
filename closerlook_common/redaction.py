"""Remove secrets and control characters from text that is printed or stored: command lines, addresses, reasons."""

from __future__ import annotations

import re

HIDDEN = "***"

# Every repetition is bounded, so that the search takes linear time on any text.
_URL_USER = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]{0,20}:/{1,3})(?!user:password@)[^\s/?#@'\"]{1,500}@", re.IGNORECASE
)
_URL_QUERY = re.compile(
    r"(?P<url>[a-z][a-z0-9+.-]{0,20}:/{1,3}[^\s?#'\"]{0,2000})(?:\?|%3F)[^\s#'\";,)]+", re.IGNORECASE
)
_SECRET_NAME = (
    r"(?<![a-z0-9])(?:password|passwd|passphrase|token|secret|signature|credentials?|(?:api|access)[_-]?key(?:[_-]id)?)"
)
_ASSIGNED = re.compile(
    rf"(?P<lead>{_SECRET_NAME}(?:=[\"']?|[\"']\s*:\s*[\"']?))(?P<value>[^\s\"'&,;}}]+)", re.IGNORECASE
)
_SHAPES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|(?:AKIA|ASIA)[A-Z0-9]{16}|sk-[A-Za-z0-9-]{20,})"
    r"|(?<=[Bb]earer )[\w.~+/=-]{8,}|(?<=[Bb]asic )[\w+/=-]{8,}"
)


def redact(text: str) -> str:
    """Return a text without secrets that can be recognised by their form.

    These are the user and the query of an address, the values of ``token=``, ``password:`` and the like, and
    tokens of well-known services.

    Examples
    --------
    >>> redact("analyze metrics https://me:pw@host/cache?sig=abc -o r.parquet")
    'analyze metrics https://***@host/cache?*** -o r.parquet'
    >>> redact("timm:resnet50 hf_token=abcdef")
    'timm:resnet50 hf_token=***'
    """
    if ":/" in text:  # a path drops the second slash
        text = _URL_USER.sub(rf"\g<scheme>{HIDDEN}@", text)
        text = _URL_QUERY.sub(rf"\g<url>?{HIDDEN}", text)
    text = _ASSIGNED.sub(rf"\g<lead>{HIDDEN}", text)
    return _SHAPES.sub(HIDDEN, text)


def printable(text: object) -> str:
    r"""Return text whose control characters, direction marks and other invisible characters are escapes.

    Names come from files of others, and may hold sequences that a terminal would obey.

    Examples
    --------
    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


def printable_lines(text: str) -> str:
    """Return a text of several lines, each `printable`."""
    return "\n".join(map(printable, text.split("\n")))
