"""Files of ``file://`` and of whatever else fsspec reaches: no more of them is asked for than may come."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO, cast

from fsspec.implementations.local import LocalFileSystem

from cache_schema.format.naming import SUFFIXES
from cache_schema.format.plain_files import open_plain
from cache_schema.reading.places.answers import TooLargeError

_PIECE = 1 << 20


def _opened(fs: Any, path: str) -> BinaryIO:
    """Open a file; of this machine only a plain one, for a stranger's folder may hold pipes and links."""
    if isinstance(fs, LocalFileSystem):
        # As in a cache on this machine, a store that is one file may be a link that the user has made.
        return open_plain(Path(path), follow=path.endswith(SUFFIXES["hdf5"]))
    return cast(BinaryIO, fs.open(path, "rb"))


def file_body(fs: Any, path: str, *, limit: int, start: int | None = None, stop: int | None = None) -> bytes:
    """Return a file, or bytes ``start`` to ``stop`` of it; see :func:`cache_schema.reading.places.answers.web_body`.

    No more than ``limit + 1`` bytes are asked for; what an answer with more than that costs is up to the library.
    """
    if start is not None and not isinstance(fs, LocalFileSystem):
        return bytes(fs.cat_file(path, start=start, end=stop))[: limit + 1]
    with _opened(fs, path) as file:
        file.seek(start or 0)
        wanted = limit + 1 if stop is None else stop - (start or 0)
        raw = _read(file, wanted)
    if len(raw) > limit:
        raise TooLargeError(f"the answer is larger than {limit:,} bytes, which is all that it may be")
    return raw


def _read(file: BinaryIO, wanted: int) -> bytes:
    """Read so many bytes, fewer only at the file's end; one call may bring less."""
    parts: list[bytes] = []
    while wanted > 0 and (part := file.read(min(wanted, 16 * _PIECE))):
        parts.append(part)
        wanted -= len(part)
    return b"".join(parts)


def file_download(fs: Any, path: str, to: Path, *, limit: int) -> None:
    """Write a file to one of this machine; TooLargeError where it is larger than ``limit``."""
    size = 0
    with _opened(fs, path) as source, to.open("wb") as file:
        while part := source.read(_PIECE):
            size += len(part)
            if size > limit:
                raise TooLargeError(f"the answer is larger than {limit:,} bytes, which is all that it may be")
            file.write(part)
