"""Requests to the place that an address names: tried again where a failure may pass, told in one line where
it does not.
"""

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

from fsspec.config import conf
from fsspec.core import url_to_fs

from cache_schema.errors import CacheError, UserError, is_full
from cache_schema.places.addresses import Address, credentials_hint

T = TypeVar("T")
Item = TypeVar("Item")

AT_ONCE = 32
"""Requests for small things that are under way together: each waits a round trip, and little else."""
LARGE = 1 << 20
LARGE_AT_ONCE = 4
"""The same for files above ``LARGE`` bytes, each of which is in memory while it is compared with its seal."""

ATTEMPTS = 6
FIRST_PAUSE = 0.1
"""Seconds before a request is made again; each further pause is 2.5 times as long, 6.5 s together."""
SHORT_ANSWERS = 3
CONNECT_SECONDS = 20.0
SILENT_SECONDS = 60.0
"""A server that sends nothing for so long has failed; one that is slow but sends has not."""

_MAY_PASS = {
    errno.EIO, errno.EBUSY, errno.EPIPE, errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED,
    errno.EAGAIN, getattr(errno, "EREMOTEIO", errno.EIO),  # the last is s3fs's for an InternalError
}  # fmt: skip
_CONTRADICTS = {400, 404, 405, 410, 411, 413, 414, 416, 501}
_NO_FOLDERS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "http", "https"}
_TRIES_AGAIN = {"gs", "gcs"}
"""Where the library below makes a request again by itself, for about a minute."""
_OF_S3 = {"s3", "s3a"}
"""Where two libraries do so, s3fs five times what botocore tries twice, and are told to leave it to this module."""
_BROKEN_OFF = ("ClientPayload", "Server", "Incomplete", "ConnectionClosed")
"""Begin the names of what the libraries raise for an answer that ends too early; no common type says so."""
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
        The address as it may be printed.
    """

    def __init__(self, address: Address, options: Mapping[str, Any]) -> None:
        self.address, self.title = address, address.title
        # A process may open an address again after its content or the credentials have changed.
        given = {"skip_instance_cache": True, "use_listings_cache": False, **options, **_patience(address, options)}
        try:
            self.fs, root = url_to_fs(address.base, **given)
        except ImportError as error:
            raise UserError(_missing(address, error)) from error
        except Exception as error:  # noqa: BLE001  every protocol has errors of its own
            raise UserError(f"{self.title} cannot be opened: {self._said(error)}") from None
        if address.protocol in _OF_S3:
            self.fs.retries = 1
        self.root = str(root).rstrip("/")
        # It warns at every request without credentials, and prints what is told here in a line as a traceback.
        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
        self._ours = address.protocol not in _TRIES_AGAIN
        self._stopped = threading.Event()
        self._small = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="small")
        self._large = ThreadPoolExecutor(LARGE_AT_ONCE, thread_name_prefix="large")

    def at(self, name: str) -> str:
        """Return the path of a name below the cache."""
        return self.address.at(self.root, name)

    def each(self, call: Callable[[Item], T], items: Iterable[Item], *, large: bool = False) -> list[T]:
        """Make calls together; ``call`` may not call this in turn."""
        return list((self._large if large else self._small).map(call, items))

    def cat(self, name: str) -> bytes | None:
        """Return a file's bytes, None where there is none."""
        return self.there(name, lambda: bytes(self.fs.cat_file(self.at(name))))

    def part(self, name: str, start: int, stop: int) -> bytes | None:
        """Return bytes ``start`` to ``stop`` of a file, or the whole where the server sends no parts; None where
        there is no file.
        """

        def fetch() -> bytes:
            raw = bytes(self.fs.cat_file(self.at(name), start=start, end=stop))
            if len(raw) < stop - start:
                raise ShortAnswerError(f"{len(raw)} bytes came, {stop - start} were asked for")
            return raw

        return self.there(name, fetch)

    def info(self, name: str) -> dict[str, Any] | None:
        """Return what the server tells of a file (``size`` ...), None where there is none."""

        def fetch() -> dict[str, Any]:
            try:
                return dict(self.fs.info(self.at(name)))
            except FileNotFoundError as error:
                cause = error.__cause__
                if isinstance(cause, Exception) and getattr(cause, "status", None) != 404 and self.address.is_web:
                    raise cause from None  # fsspec tells so whatever the server did
                raise

        return self.there(name, fetch)

    def entries(self, folder: str) -> dict[str, bool]:
        """Return the names in a folder and whether each is a folder; nothing where it is not there."""
        path = self.at(f"{folder}/" if self.address.is_web and folder else folder)
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
        return {str(name)[lead:]: int(told["size"] or 0) for name, told in found.items() if len(str(name)) >= lead}

    def download(self, name: str, path: Path) -> None:
        """Fetch a file to a path of this machine, however large."""

        def fetch() -> bool:
            self.fs.get_file(self.at(name), str(path))
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
            if self.address.protocol not in _NO_FOLDERS:  # there it would make a bucket
                self.fs.makedirs(self.at(name).rpartition("/")[0], exist_ok=True)
            call()

        try:
            self.retried(name, put, "written to")
        except FileNotFoundError as error:
            raise CacheError(f"{self.title}/{name} cannot be written to: {self._said(error)}") from None

    def stop(self) -> None:
        """Let every request from now on fail at once: the user has interrupted."""
        self._stopped.set()

    def remove(self, name: str) -> None:
        """Delete a file; quietly nothing where that is not allowed."""
        with contextlib.suppress(Exception):
            self.fs.rm_file(self.at(name))

    def there(self, name: str, call: Callable[[], T]) -> T | None:
        """Return what a call gives, None where it finds no file."""
        try:
            return self.retried(name, call, "read")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None

    def retried(self, name: str, call: Callable[[], T], done: str) -> T:
        """Make a call, again while its failure may pass.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        CacheError
            Whatever else ended it, in one line.
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
                    raise  # no fault of the server's
                again = may_pass(error, attempt) and (self._ours or isinstance(error, ShortAnswerError))
                if attempt == ATTEMPTS - 1 or not again:
                    what = f"{self.title}/{name}".rstrip("/")
                    raise CacheError(f"{what} cannot be {done}: {self._said(error)}") from None
            self._stopped.wait(FIRST_PAUSE * 2.5**attempt * random.uniform(0.7, 1.3))
        raise AssertionError

    def _said(self, error: BaseException) -> str:
        """Return an error as a line that names the mend."""
        told = (str(error).strip().splitlines() or [""])[0] or type(error).__name__
        told = self.address.hide(told)
        status = _status(error)
        if isinstance(error, PermissionError) or status in (401, 403, "401", "403") or _DENIED.search(told):
            return f"access is denied ({told}); {credentials_hint(self.address.protocol)}"
        name = type(error).__name__
        if isinstance(error, TimeoutError | asyncio.TimeoutError) or name.startswith("ReadTimeout"):
            return f"the server fell silent ({name}); run the same command again"
        if isinstance(error, ShortAnswerError) or name.startswith(_BROKEN_OFF):
            return f"the answer broke off every time ({told}); run the same command again"
        if "Connect" in name or isinstance(error, ConnectionError):
            return f"nobody answers there ({told}); check the address and the network"
        return f"{name}: {told}" if name not in told and not isinstance(error, OSError) else told


def may_pass(error: BaseException, attempt: int) -> bool:
    """Return whether a request that failed so may succeed when it is made again."""
    status = _status(error)
    if isinstance(status, int) and status >= 300:
        return status in (408, 425, 429) or (status >= 500 and status not in _CONTRADICTS)
    name = type(error).__name__
    unreached = ("ClientConnector", "EndpointConnection", "ConnectTimeout")
    if isinstance(error, ConnectionRefusedError) or name.startswith(unreached):
        return attempt < 2 and "DNS" not in name and "Certificate" not in name
    if isinstance(error, ShortAnswerError):
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
    """Return options that let a slow server go on and a silent one fail; what the user says comes first."""
    ours: dict[str, dict[str, Any]] = {}
    if address.is_web:
        with contextlib.suppress(ImportError):  # told when the file system is opened
            from aiohttp import ClientTimeout

            limit = ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
            ours = {"client_kwargs": {"timeout": limit}}
    elif address.protocol in _OF_S3:
        ours = {
            "config_kwargs": {
                "max_pool_connections": AT_ONCE + LARGE_AT_ONCE,
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": SILENT_SECONDS,
                "retries": {"total_max_attempts": 1},
            }
        }
    told = conf.get(address.protocol, {})
    return {key: {**value, **told.get(key, {}), **options.get(key, {})} for key, value in ours.items()}


def _missing(address: Address, error: ImportError) -> str:
    if address.protocol in ("s3", "gs", "gcs", "http", "https"):
        return f"{address.title} needs more packages ({error}): pip install 'closerlook[remote]'"
    return f"{address.title} cannot be opened: {error}"
