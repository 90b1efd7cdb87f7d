"""Answers of untrusted servers: bodies of bounded size and time, no secrets to other hosts.

The libraries below read a body to its end, however large, unpack what a server has packed, and follow it to any host.
"""

from __future__ import annotations

import asyncio
import html
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urljoin, urlsplit

PIECE = 1 << 16
LISTING_BYTES = 16 << 20
"""Largest page that lists a folder: about 100,000 entries."""
LISTING_ENTRIES = 1_000_000
LISTING_SECONDS = 600.0
"""A listing that comes in pages may take so long: a server can send empty pages for ever."""
SLOWEST = 200
"""Bytes a second. A body that comes more slowly, once it has taken as long as a silent server is waited for, failed."""

_LINK = re.compile(r"""\bhref\s{0,8}=\s{0,8}(?:"([^"<>]{1,4096})"|'([^'<>]{1,4096})')""", re.IGNORECASE)
_OF_ANY_REQUEST = {"accept", "accept-encoding", "range", "user-agent"}


class TooLargeError(Exception):
    """A body that is larger than it may be."""


class TooSlowError(Exception):
    """A body that arrives so slowly that its end is not in sight."""


class UnsafeRedirectError(Exception):
    """A server sends the request to where it would travel unencrypted."""


class WrongRangeError(Exception):
    """A server sends other bytes of a file than those that were asked for."""


async def hardened_client(**options: Any) -> Any:
    """Return an aiohttp session that unpacks no bodies and takes no secrets to another host.

    Parameters
    ----------
    **options
        For ``aiohttp.ClientSession``; those that are given come first.
    """
    import aiohttp

    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_on_redirect)
    headers = {"Accept-Encoding": "identity", **dict(options.pop("headers", None) or {})}
    traces = [trace, *options.pop("trace_configs", [])]
    return aiohttp.ClientSession(**{"auto_decompress": False, **options, "headers": headers, "trace_configs": traces})


async def _on_redirect(_session: Any, _context: Any, params: Any) -> None:
    """Drop headers that the user gave (tokens, say) where a redirect leads to another host."""
    place = params.response.headers.get("Location") or params.response.headers.get("URI") or ""
    origin, target = urlsplit(str(params.url)), urlsplit(urljoin(str(params.url), place))
    if (origin.scheme, origin.netloc.rpartition("@")[2]) == (target.scheme, target.netloc):
        return
    if origin.scheme == "https" and target.scheme == "http":
        params.response.close()
        raise UnsafeRedirectError(f"the server redirects from https to http://{target.hostname}")
    for name in [name for name in params.headers if name.lower() not in _OF_ANY_REQUEST]:
        del params.headers[name]


class Pace:
    """Watches how fast a body comes.

    Parameters
    ----------
    patience
        Seconds that a body may take at any speed.
    """

    def __init__(self, patience: float) -> None:
        self._begun, self._patience = time.monotonic(), patience

    def check(self, n_bytes: int) -> None:
        """Raise TooSlowError where too little has come by now."""
        elapsed = time.monotonic() - self._begun
        if elapsed > self._patience and n_bytes < elapsed * SLOWEST:
            raise TooSlowError(f"{n_bytes:,} bytes in {elapsed:.0f} s")


async def collect(read: Callable[[int], Awaitable[bytes]], limit: int, pace: Pace, *, cut: bool) -> bytes:
    """Read a body; one longer than ``limit`` is refused, or cut behind the first byte too many."""
    parts: list[bytes] = []
    size = 0
    while size <= limit:
        part = await read(PIECE)
        if not part:
            return b"".join(parts)
        parts.append(part)
        size += len(part)
        pace.check(size)
    if not cut:
        raise TooLargeError(f"the answer is larger than {limit:,} bytes, which is all that it may be")
    return b"".join(parts)[: limit + 1]


async def web_body(
    fs: Any, url: str, *, limit: int, patience: float, start: int | None = None, stop: int | None = None
) -> bytes:
    """Return a body of a web server, or bytes ``start`` to ``stop`` of it.

    Where a part was asked for and the server sends the whole, the first ``limit + 1`` bytes are returned.
    """
    async with _Answer(fs, url, patience, start, stop) as answer:
        if start is not None:
            check_range(answer.headers.get("Content-Range", ""), start)
        return await collect(answer.content.read, limit, Pace(patience), cut=start is not None)


def check_range(stated: str, start: int) -> None:
    """Raise WrongRangeError where a ``Content-Range`` header says that a part begins elsewhere."""
    found = re.match(r"bytes\s+(\d{1,18})-", stated)
    if found and int(found[1]) != start:
        raise WrongRangeError(f"bytes from {found[1]} on came, from {start} on were asked for")


class _Answer:
    """The beginning of an answer, which must come within a time however its lines drip."""

    def __init__(self, fs: Any, url: str, patience: float, start: int | None = None, stop: int | None = None) -> None:
        self._fs, self._url, self._patience = fs, url, patience
        self._range = {} if start is None or stop is None else {"Range": f"bytes={start}-{stop - 1}"}

    async def __aenter__(self) -> Any:
        session = await self._fs.set_session()
        given = dict(self._fs.kwargs)
        headers = {**(given.pop("headers", None) or {}), **self._range}
        async with asyncio.timeout(2 * self._patience):
            self._answer = await session.get(self._fs.encode_url(self._url), headers=headers, **given)
        try:
            self._fs._raise_not_found_for_status(self._answer, self._url)
        except BaseException:
            self._answer.close()
            raise
        return self._answer

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        self._answer.release() if error is None else self._answer.close()


async def web_download(fs: Any, url: str, path: Path, *, limit: int, patience: float) -> None:
    """Write a body of a web server to a file of this machine; TooLargeError where it is larger than ``limit``."""
    async with _Answer(fs, url, patience) as answer:
        pace = Pace(patience)
        with path.open("wb") as file:
            await copy_body(answer.content.read, file, limit, pace)


async def copy_body(read: Callable[[int], Awaitable[bytes]], file: BinaryIO, limit: int, pace: Pace) -> None:
    """Write a body to a file; TooLargeError where it is larger than ``limit`` bytes."""
    size = 0
    while part := await read(PIECE):
        size += len(part)
        if size > limit:
            raise TooLargeError(f"the answer is larger than {limit:,} bytes, which is all that it may be")
        file.write(part)
        pace.check(size)


async def web_links(fs: Any, url: str, *, patience: float) -> dict[str, bool]:
    """Return the names that a page links to directly below itself, and whether each is a folder."""
    async with _Answer(fs, url, patience) as answer:
        kind = answer.headers.get("Content-Type", "text/html").partition(";")[0].strip()
        if kind != "text/html":
            return {}
        raw = await collect(answer.content.read, LISTING_BYTES, Pace(patience), cut=False)
    return names_below(url, raw.decode("utf-8", "replace"))


def names_below(url: str, page: str) -> dict[str, bool]:
    """Return the names of links that lie directly below a page's own address, and whether each is a folder."""
    own = urlsplit(url)
    lead = unquote(own.path).rstrip("/") + "/"
    found = {}
    for match in _LINK.finditer(page):
        link = html.unescape(match[1] or match[2])
        try:
            target = urlsplit(urljoin(own._replace(path=own.path.rstrip("/") + "/", query="").geturl(), link))
        except ValueError:  # [ without ]
            continue
        # A server that answers under http and https may link to either.
        if target.scheme not in ("http", "https") or target.hostname != own.hostname:
            continue
        # The part that is a name is taken off before it is unquoted: %2F is no separator.
        folder, slash, name = target.path.rstrip("/").rpartition("/")
        if slash and name and unquote(folder) + "/" == lead:
            found[unquote(name)] = target.path.endswith("/")
    return found


async def s3_body(
    fs: Any, path: str, *, limit: int, patience: float, start: int | None = None, stop: int | None = None
) -> bytes:
    """Return an object of S3, or bytes ``start`` to ``stop`` of it; see :func:`web_body`."""
    bucket, key, version = fs.split_path(path)
    given = {"VersionId": version} if version else {}
    if start is not None and stop is not None:
        given["Range"] = f"bytes={start}-{stop - 1}"
    answer = await fs._call_s3("get_object", Bucket=bucket, Key=key, **given)
    body = answer["Body"]
    try:
        if start is not None:
            check_range(answer.get("ContentRange", ""), start)
        return await collect(body.read, limit, Pace(patience), cut=start is not None)
    finally:
        body.close()


async def s3_download(fs: Any, path: str, to: Path, *, limit: int, patience: float) -> None:
    """Write an object of S3 to a file of this machine; TooLargeError where it is larger than ``limit``."""
    bucket, key, version = fs.split_path(path)
    answer = await fs._call_s3("get_object", Bucket=bucket, Key=key, **({"VersionId": version} if version else {}))
    body = answer["Body"]
    try:
        with to.open("wb") as file:
            await copy_body(body.read, file, limit, Pace(patience))
    finally:
        body.close()


async def s3_entries(fs: Any, path: str) -> list[dict[str, Any]]:
    """Return what lies in a folder of S3, with bounds on the number of entries and the time of the listing."""
    async with asyncio.timeout(LISTING_SECONDS):
        found: list[dict[str, Any]] = await fs._lsdir(path, refresh=True, max_items=LISTING_ENTRIES + 1)
    if len(found) > LISTING_ENTRIES:
        raise TooLargeError(f"the folder lists more than {LISTING_ENTRIES:,} entries")
    return found
