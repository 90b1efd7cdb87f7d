"""Requests to an address: retried if the failure may be temporary, reported in one line otherwise."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import random
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from fsspec.asyn import sync
from fsspec.config import conf
from fsspec.core import url_to_fs

from cache_schema.reading.places.addresses import Address, credentials_hint
from cache_schema.reading.places.answers import (
    TooLargeError,
    TooSlowError,
    UnsafeRedirectError,
    WrongRangeError,
    hardened_client,
    s3_body,
    s3_download,
    s3_entries,
    web_body,
    web_download,
    web_links,
)
from cache_schema.reading.places.google import google_body, google_download, google_entries, session_options
from cache_schema.reading.places.other_files import file_body, file_download
from closerlook_common.distribution import install_line
from closerlook_common.errors import CacheError, UserError, is_full

T = TypeVar("T")
Item = TypeVar("Item")

AT_ONCE = 32
"""Number of parallel requests for small files."""
LARGE = 1 << 20
LARGE_AT_ONCE = 4
"""Number of parallel requests for files above ``LARGE`` bytes, which are in memory while they are verified."""

ATTEMPTS = 6
FIRST_PAUSE = 0.1
"""Seconds before the first retry; each further pause is 2.5 times as long, 6.5 s in total."""
SHORT_ANSWERS = 3
CONNECT_SECONDS = 20.0
SILENT_SECONDS = 60.0
"""Seconds without any data after which a server counts as failed; slow servers do not."""

_MAY_PASS = {
    errno.EIO, errno.EBUSY, errno.EPIPE, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED,
    errno.EAGAIN, getattr(errno, "EREMOTEIO", errno.EIO),  # the last is s3fs's for an InternalError
}  # fmt: skip
_CONTRADICTS = {400, 404, 405, 410, 411, 413, 414, 416, 501}
_NO_FOLDERS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "http", "https"}
_OF_GOOGLE = {"gs", "gcs"}
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "http": "web", "https": "web"}
_TRIES_AGAIN = _OF_GOOGLE
"""Protocols whose library retries by itself, for about a minute."""
_OF_S3 = {"s3", "s3a"}
"""Protocols whose libraries retry (s3fs five times, botocore twice); these retries are turned off."""
_BROKEN_OFF = ("ClientPayload", "Server", "Incomplete", "ConnectionClosed")
"""First parts of the names of exceptions for answers that end too early; they have no common type."""
METADATA_BYTES = 64 << 20
"""Largest index or root of a store to read; an index of 100,000 stores takes 10 MB."""
MESSAGE = 300
"""Number of characters of a server's message to print."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DENIED = re.compile("credential|forbidden|access ?denied", re.IGNORECASE)


class ShortAnswerError(Exception):
    """A body with fewer or more bytes than were asked for."""


class Wire:
    """A file system that fsspec reaches.

    Parameters
    ----------
    address
        Of the cache.
    options
        For fsspec: credentials, endpoint, ``anon`` ...

    Attributes
    ----------
    title
        The address without secrets, for messages.
    """

    def __init__(self, address: Address, options: Mapping[str, Any]) -> None:
        self.address, self.title = address, address.title
        # Do not reuse connections and listings: contents or credentials may have changed.
        given = {"skip_instance_cache": True, "use_listings_cache": False, **options, **_patience(address, options)}
        try:
            self.fs, root = url_to_fs(address.base, **given)
        except ImportError as error:
            raise UserError(_missing(address, error)) from error
        except Exception as error:  # noqa: BLE001  every protocol has errors of its own
            raise UserError(f"{self.title} cannot be opened: {self._message(error)}") from None
        if address.protocol in _OF_S3:
            self.fs.retries = 1
        self.root = str(root).rstrip("/")
        first = address.protocol.partition("::")[0]
        self._kind = "web" if address.is_web else "s3" if first in _OF_S3 else "gs" if first in _OF_GOOGLE else ""
        # gcsfs warns at every request without credentials, and prints tracebacks of errors reported here.
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        self._ours = address.protocol not in _TRIES_AGAIN
        self._stopped = threading.Event()
        self._small = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="small")
        self._large = ThreadPoolExecutor(LARGE_AT_ONCE, thread_name_prefix="large")

    def at(self, name: str) -> str:
        """Return the path of a name below the cache."""
        return self.address.at(self.root, name)

    def each(self, call: Callable[[Item], T], items: Iterable[Item], *, large: bool = False) -> list[T]:
        """Run calls in parallel; ``call`` must not use this method itself."""
        return list((self._large if large else self._small).map(call, items))

    def cat(self, name: str, limit: int = METADATA_BYTES) -> bytes | None:
        """Return a file's bytes, at most ``limit`` of them; None if the file does not exist."""
        return self.there(name, lambda: self._body(name, limit))

    def _body(self, name: str, limit: int, start: int | None = None, stop: int | None = None) -> bytes:
        """Return a body of at most ``limit`` bytes; one more if a part was requested and the server sent more."""
        path = self.at(name)
        wanted: dict[str, Any] = {"start": start, "stop": stop, "limit": limit}
        fetch = {"web": web_body, "s3": s3_body, "gs": google_body}.get(self._kind)
        if fetch is None:
            return file_body(self.fs, path, **wanted)
        return bytes(sync(self.fs.loop, fetch, self.fs, path, **wanted, patience=SILENT_SECONDS))

    def part(self, name: str, start: int, stop: int) -> bytes | None:
        """Return bytes ``start`` to ``stop`` of a file; one byte more if the server sends no parts; None if the
        file does not exist.
        """

        def fetch() -> bytes:
            raw = self._body(name, stop - start, start, stop)
            if len(raw) < stop - start:
                raise ShortAnswerError(f"{len(raw)} bytes came, {stop - start} were asked for")
            return raw

        return self.there(name, fetch)

    def info(self, name: str) -> dict[str, Any] | None:
        """Return the server's information on a file (``size`` ...); None if the file does not exist."""

        def fetch() -> dict[str, Any]:
            try:
                if self._kind in ("web", "gs"):  # a header may never end
                    return dict(sync(self.fs.loop, self.fs._info, self.at(name), timeout=4 * SILENT_SECONDS))
                return dict(self.fs.info(self.at(name)))
            except FileNotFoundError as error:
                cause = error.__cause__
                if isinstance(cause, Exception) and getattr(cause, "status", None) != 404 and self.address.is_web:
                    raise cause from None  # fsspec raises FileNotFoundError for any failure
                raise

        return self.there(name, fetch)

    def entries(self, folder: str) -> dict[str, bool]:
        """Return the names in a folder and whether each is a folder; empty if the folder does not exist."""
        path = self.at(f"{folder}/" if self.address.is_web and folder else folder)
        if self._kind == "web":
            links = self.there(folder, lambda: sync(self.fs.loop, web_links, self.fs, path, patience=SILENT_SECONDS))
            return dict(sorted((links or {}).items()))
        if self._kind in ("s3", "gs"):
            entries = {"s3": s3_entries, "gs": google_entries}[self._kind]
            listed = self.there(folder, lambda: sync(self.fs.loop, entries, self.fs, path)) or []
        else:
            listed = self.there(folder, lambda: list(self.fs.ls(path, detail=True))) or []
        own = path.partition("?")[0].rstrip("/")
        found = {}
        for entry in listed:
            if str(entry["name"]).rstrip("/") != own:
                found[self.address.listed_name(str(entry["name"]))] = entry["type"] == "directory"
        return dict(sorted(item for item in found.items() if item[0]))

    def sizes_below(self, folder: str) -> dict[str, int]:
        """Return the size of every file below a folder, by name below it."""
        path = self.at(folder)
        found = self.there(folder, lambda: dict(self.fs.find(path, detail=True))) or {}
        lead = len(path.rstrip("/")) + 1
        return {str(name)[lead:]: int(info["size"] or 0) for name, info in found.items() if len(str(name)) >= lead}

    def download(self, name: str, path: Path, limit: int) -> None:
        """Fetch a file of at most ``limit`` bytes to a path of this machine."""

        def fetch() -> bool:
            get = {"web": web_download, "s3": s3_download, "gs": google_download}.get(self._kind)
            if get is None:
                file_download(self.fs, self.at(name), path, limit=limit)
            else:
                sync(self.fs.loop, get, self.fs, self.at(name), path, limit=limit, patience=SILENT_SECONDS)
            return True

        if self.there(name, fetch) is None:
            raise CacheError(f"{self.title}/{name} is missing")

    def upload(self, path: Path, name: str) -> None:
        """Send a file."""
        self._put(name, lambda: self.fs.put_file(str(path), self.at(name)))

    def write(self, name: str, raw: bytes) -> None:
        """Send a small file."""
        self._put(name, lambda: self.fs.pipe_file(self.at(name), raw))

    def _put(self, name: str, call: Callable[[], object]) -> None:
        def put() -> None:
            if self.address.protocol not in _NO_FOLDERS:  # where it would create a bucket
                self.fs.makedirs(self.at(name).rpartition("/")[0], exist_ok=True)
            call()

        try:
            self.retried(name, put, "written to")
        except FileNotFoundError as error:
            raise CacheError(f"{self.title}/{name} cannot be written to: {self._message(error)}") from None

    def stop(self) -> None:
        """Make all further requests fail at once, after an interruption."""
        self._stopped.set()

    def remove(self, name: str) -> None:
        """Delete a file; ignore errors."""
        with contextlib.suppress(Exception):
            self.fs.rm_file(self.at(name))

    def there(self, name: str, call: Callable[[], T]) -> T | None:
        """Return the result of a call; None if it finds no file."""
        try:
            return self.retried(name, call, "read")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def retried(self, name: str, call: Callable[[], T], done: str) -> T:
        """Run a call, and retry it if the failure may be temporary.

        Raises
        ------
        FileNotFoundError
            The file does not exist.
        CacheError
            Any other failure, in one line.
        """
        for attempt in range(ATTEMPTS):
            if self._stopped.is_set():
                raise CacheError(f"{self.title}/{name}: interrupted")
            try:
                return call()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise
            except Exception as error:
                if is_full(error):
                    raise  # not a fault of the server
                again = may_pass(error, attempt) and (self._ours or isinstance(error, ShortAnswerError))
                if attempt == ATTEMPTS - 1 or not again:
                    what = f"{self.title}/{name}".rstrip("/")
                    raise CacheError(f"{what} cannot be {done}: {self._message(error)}") from None
            self._stopped.wait(FIRST_PAUSE * 2.5**attempt * random.uniform(0.7, 1.3))
        raise AssertionError

    def _message(self, error: BaseException) -> str:
        """Return an error as one line that names the fix."""
        text = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        text = _CONTROL.sub("?", self.address.hide(text))[:MESSAGE]
        status = _status(error)
        if isinstance(error, PermissionError) or status in (401, 403, "401", "403") or _DENIED.search(text):
            return f"access is denied ({text}); {credentials_hint(self.address.protocol)}"
        name = type(error).__name__
        if isinstance(error, TooSlowError):
            return f"the server sends too slowly ({text}); run the same command again"
        if isinstance(error, TooLargeError | UnsafeRedirectError):
            return text
        if isinstance(error, TimeoutError | asyncio.TimeoutError) or name.startswith("ReadTimeout"):
            return f"the server stopped responding ({name}); run the same command again"
        if isinstance(error, ShortAnswerError | WrongRangeError) or name.startswith(_BROKEN_OFF):
            return f"the answer broke off every time ({text}); run the same command again"
        if "Connect" in name or isinstance(error, ConnectionError):
            return f"no server answers there ({text}); check the address and the network"
        return f"{name}: {text}" if name not in text and not isinstance(error, OSError) else text


def may_pass(error: BaseException, attempt: int) -> bool:
    """Return whether a failure may be temporary."""
    status = _status(error)
    if isinstance(status, int) and status >= 300:
        return status in (408, 425, 429) or (status >= 500 and status not in _CONTRADICTS)
    name = type(error).__name__
    unreached = ("ClientConnector", "EndpointConnection", "ConnectTimeout")
    if isinstance(error, ConnectionRefusedError) or name.startswith(unreached):
        return attempt < 2 and "DNS" not in name and "Certificate" not in name
    if isinstance(error, ShortAnswerError | WrongRangeError | TooSlowError):
        return attempt < SHORT_ANSWERS
    if isinstance(error, TimeoutError | asyncio.TimeoutError | ConnectionError):
        return True
    if isinstance(error, PermissionError):
        return False
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in _MAY_PASS
    passing = ("ClientOS", "ResponseStreaming", "ReadTimeout", "FSTimeout", "HTTPClient", "ResponseParser")
    return name.startswith((*_BROKEN_OFF, *passing))


def _status(error: BaseException) -> Any:
    """Return the HTTP status of an answer: of aiohttp ``status`` (its ``code`` is deprecated), of gcsfs ``code``."""
    status = getattr(error, "status", None)
    return getattr(error, "code", None) if status is None else status


def _patience(address: Address, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with timeouts for silent servers, not for slow ones; options of the user come first."""
    ours: dict[str, dict[str, Any]] = {}
    client: dict[str, Any] = {}
    if address.is_web:
        with contextlib.suppress(ImportError):  # reported when the file system is opened
            from aiohttp import ClientTimeout

            limit = ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
            ours = {"client_kwargs": {"timeout": limit}}
            client = {"get_client": hardened_client}
    elif address.protocol in _OF_GOOGLE:
        with contextlib.suppress(ImportError):
            ours = {"session_kwargs": session_options()}
    elif address.protocol in _OF_S3:
        ours = {
            "config_kwargs": {
                "max_pool_connections": AT_ONCE + LARGE_AT_ONCE,
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": SILENT_SECONDS,
                "retries": {"total_max_attempts": 1},
            }
        }
    configured = conf.get(address.protocol, {})
    return client | {key: {**value, **configured.get(key, {}), **options.get(key, {})} for key, value in ours.items()}


def _missing(address: Address, error: ImportError) -> str:
    if extra := _EXTRAS.get(address.protocol):
        return f"{address.title} needs more packages ({error}): {install_line(extra)}"
    return f"{address.title} cannot be opened: {error}"
