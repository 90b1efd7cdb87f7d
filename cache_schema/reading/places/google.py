"""Answers of Google Cloud Storage: gcsfs reads each to its end, so the session that it uses bounds them."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from cache_schema.reading.places.answers import (
    LISTING_BYTES,
    LISTING_ENTRIES,
    LISTING_SECONDS,
    Pace,
    TooLargeError,
    check_range,
    collect,
    copy_body,
)

_REFUSAL_BYTES = 1 << 16
"""Largest explanation of an error that is read."""

_wanted: ContextVar[tuple[int, int | None, float]] = ContextVar("wanted", default=(LISTING_BYTES, None, 60.0))
"""Of the object that is asked for: most bytes, first byte of a part, and seconds that it may take at any speed."""


def session_options() -> dict[str, Any]:
    """Return options for gcsfs's HTTP session: no body is unpacked, none is read further than it may be long."""
    import aiohttp

    class BoundedResponse(aiohttp.ClientResponse):
        """An answer whose body is of bounded size and time."""

        async def read(self) -> bytes:
            """Return the body; TooLargeError or TooSlowError where it exceeds its bounds."""
            limit, start, patience = _wanted.get()
            is_object = self.url.query.get("alt") == "media"
            try:
                if self.status >= 400:
                    return (await collect(self.content.read, _REFUSAL_BYTES, Pace(patience), cut=True))[:_REFUSAL_BYTES]
                if not is_object:
                    return await collect(self.content.read, LISTING_BYTES, Pace(patience), cut=False)
                if start is not None:
                    check_range(self.headers.get("Content-Range", ""), start)
                return await collect(self.content.read, limit, Pace(patience), cut=start is not None)
            finally:
                self.close() if not self.content.at_eof() else self.release()

    return {"response_class": BoundedResponse, "auto_decompress": False}


async def google_body(
    fs: Any, path: str, *, limit: int, patience: float, start: int | None = None, stop: int | None = None
) -> bytes:
    """Return an object of a bucket, or bytes ``start`` to ``stop`` of it; see :func:`answers.web_body`."""
    token = _wanted.set((limit, start, patience))
    try:
        return bytes(await fs._cat_file(path, start=start, end=stop))
    finally:
        _wanted.reset(token)


async def google_download(fs: Any, path: str, to: Path, *, limit: int, patience: float) -> None:
    """Write an object of a bucket to a file of this machine; TooLargeError where it is larger than ``limit``."""
    from gcsfs.retry import validate_response

    await fs._set_session()
    url, options = fs.url(path), {"params": fs._get_params({}), "headers": fs._get_headers(None)}
    async with fs.session.get(url, timeout=fs.requests_timeout, **options) as answer:
        validate_response(answer.status, await answer.read() if answer.status >= 400 else b"", path)
        with to.open("wb") as file:
            await copy_body(answer.content.read, file, limit, Pace(patience))


async def google_entries(fs: Any, path: str) -> list[dict[str, Any]]:
    """Return what lies in a folder of a bucket, with bounds on the number of entries and the time of the listing."""
    async with asyncio.timeout(LISTING_SECONDS):
        found: list[dict[str, Any]] = await fs._ls(path, detail=True, max_results=LISTING_ENTRIES + 1)
    if len(found) > LISTING_ENTRIES:
        raise TooLargeError(f"the folder lists more than {LISTING_ENTRIES:,} entries")
    return found
