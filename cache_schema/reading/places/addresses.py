"""Parse addresses such as ``s3://bucket/cache``, and keep their secrets out of messages."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote

from closerlook_common.errors import UserError

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*(?:::[a-z][a-z0-9+.-]*)*)://(.*)$", re.IGNORECASE | re.DOTALL)
_ONE_SLASH = re.compile(r"^(s3|gs|gcs|https?|file):/{0,1}(?!/)(.+)$", re.IGNORECASE)
_NO_PART_OF_A_NAME = re.compile(r"[\\/:\x00-\x1f\x7f-\x9f\u2028\u2029]")
HIDDEN = "***"
LONGEST_NAME = 200
"""Longest name in bytes: file systems allow 255, a few of which temporary names need."""
SHORT = 4
"""A value in a query of at most so many characters is not a secret."""


def is_address(path: Path | str) -> bool:
    """Return whether a path is an address such as ``s3://bucket/cache`` or ``https://host/cache``."""
    return isinstance(path, str) and "://" in path


def meant_address(path: Path | str) -> str:
    """Return a hint for an address with a missing slash (``s3:/bucket``), else an empty string.

    Examples
    --------
    >>> meant_address("s3:/bucket/cache")
    '; did you mean s3://bucket/cache?'
    """
    found = _ONE_SLASH.match(str(path))
    return f"; did you mean {found[1].lower()}://{found[2]}?" if found else ""


def not_an_address(text: str) -> UserError:
    """Return the error for a path where an address is needed."""
    hint = meant_address(text) or (
        f"; for a folder say file://{Path(text).absolute()} (two caches on this machine: cp -r ONE/. OTHER/ joins them)"
    )
    return UserError(f"{text} is not an address such as s3://bucket/cache{hint}")


def is_plain_name(name: str) -> bool:
    """Return whether a name from a server is safe as one part of a path: no ``..``, drive or separator, not hidden."""
    if not name or name.startswith(".") or _NO_PART_OF_A_NAME.search(name):
        return False
    try:
        return len(name.encode()) <= LONGEST_NAME
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


class Address:
    """An address, whose secrets (password, signature or token in the query) are never printed.

    Parameters
    ----------
    text
        Such as ``s3://bucket/cache`` or ``https://user:password@host/cache?token=...``.

    Attributes
    ----------
    protocol
        Such as ``s3``.
    base
        The address without query and final slashes, for fsspec.
    title
        The address without secrets, for messages.

    Raises
    ------
    UserError
        The text is not an address, or lacks the host or bucket.
    """

    def __init__(self, text: str) -> None:
        found = _SCHEME.match(text.strip())
        if found is None:
            raise UserError(f"{text} is not an address such as s3://bucket/cache{meant_address(text)}")
        self.protocol, rest = found[1].lower(), found[2]
        self.is_web = self.protocol in ("http", "https")
        self._query = ""
        if self.is_web:
            rest = rest.partition("#")[0]
            rest, _, self._query = rest.partition("?")
        self.base = f"{self.protocol}://{rest}".rstrip("/")
        host, slash, below = rest.rstrip("/").partition("/")
        user, at, place = host.rpartition("@")
        secret = bool(at) and (self.is_web or ":" in user)
        secrets = [user, user.partition(":")[2]] if secret else []
        secrets += [self._query, *(value for _, value in parse_qsl(self._query) if len(value) > SHORT)]
        self._secrets = sorted(
            {form for part in secrets if part for form in (part, quote(part), unquote(part))}, key=len
        )
        self.title = f"{self.protocol}://{HIDDEN + '@' + place if secret else host}{slash}{below}"
        if secret and self.protocol in ("s3", "gs", "gcs"):
            raise UserError(f"{self.title}: keys do not belong in an address; {credentials_hint(self.protocol)}")
        if not rest.strip("/") and self.protocol not in ("memory", "file", "local"):
            raise UserError(f"{self.title or text} has no {'host' if self.is_web else 'bucket'}")

    def at(self, root: str, name: str) -> str:
        """Return the path of a request for a name (``/`` between parts) below a path."""
        if not self.is_web:
            return f"{root}/{name}" if name else root
        path = f"{root}/{quote(name, safe='/')}" if name else f"{root}/"
        return f"{path}?{self._query}" if self._query else path

    def listed_name(self, entry: str) -> str:
        """Return the last part of a listed path as a plain name."""
        name = entry.rstrip("/").rpartition("/")[2]
        return unquote(name.partition("?")[0]) if self.is_web else name

    def hide(self, text: str) -> str:
        """Return a text (of an error, say) without the secrets of this address."""
        for secret in reversed(self._secrets):
            text = text.replace(secret, HIDDEN)
        return text


def credentials_hint(protocol: str) -> str:
    """Return a hint on where the credentials of a protocol come from."""
    first = protocol.rpartition("::")[2]
    if first == "s3":
        return (
            "credentials come from AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,"
            " a public bucket needs FSSPEC_S3='{\"anon\": true}'"
        )
    if first in ("gs", "gcs"):
        return (
            "credentials come from GOOGLE_APPLICATION_CREDENTIALS or 'gcloud auth application-default login',"
            ' a public bucket needs FSSPEC_GS=\'{"token": "anon"}\''
        )
    if first in ("http", "https"):
        return "put user and password into the address, https://user:password@host/cache"
    return f"fsspec reads FSSPEC_{first.upper()}='{{...}}' as its options"
