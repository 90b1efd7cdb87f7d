"""Read the arrays of ``.npz`` and ``.npy`` files: no pickles, arrays of an ``.npz`` need not fit in memory."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from cache_schema.importing.limits import check_room, plain, regular_file
from cache_schema.importing.npy_headers import BadHeaderError, Header, read_header
from closerlook_common.errors import UserError, nearest

_DAMAGE = (ValueError, OSError, EOFError, RuntimeError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""Errors of reading a damaged archive; RuntimeError if it is encrypted."""

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Compression methods of ``numpy.savez`` and ``numpy.savez_compressed``."""

LISTED = 20
"""Largest number of names of arrays in an error."""


class NpzFile:
    """An open ``.npz``.

    Parameters
    ----------
    path
        Of the file.

    Attributes
    ----------
    names
        Of its arrays.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        regular_file(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except _DAMAGE as error:
            raise UserError(f"{path} is not an .npz file: {error}") from error
        members = [info for info in self._zip.infolist() if info.filename.endswith(".npy")]
        self.names = [info.filename.removesuffix(".npy") for info in members]
        self._headers: dict[str, Header] = {}
        for name, count in Counter(self.names).items():
            if count > 1:
                raise UserError(f"{path} holds {count} arrays called {plain(name)!r}; save it again with one of them")
        for info in members:
            if info.compress_type not in _METHODS:
                raise UserError(f"{path}: {plain(info.filename)!r} is compressed in a way that numpy does not write")
        check_room(path, sum(info.file_size for info in members))

    def shape_and_dtype(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Return an array's shape and dtype, from its header."""
        header = self._header(name)
        return header.shape, header.dtype

    def read(self, name: str) -> NDArray[Any]:
        """Return a whole array."""
        header = self._header(name)
        if not header.n_bytes:
            return np.zeros(header.shape, header.dtype)
        flat = np.frombuffer(b"".join(self._bytes(name, [header.n_bytes])), header.dtype)
        return flat.reshape(header.shape, order="F" if header.fortran else "C")

    def blocks(self, name: str, rows: int) -> Iterator[NDArray[Any]]:
        """Yield consecutive rows of an array, ``rows`` at a time; one in Fortran order is read whole."""
        shape, fortran, dtype, _ = self._header(name)
        if fortran:
            whole = self.read(name)
            yield from (whole[start : start + rows] for start in range(0, len(whole), rows))
            return
        row_bytes = dtype.itemsize * math.prod(shape[1:])
        counts = [min(rows, shape[0] - start) for start in range(0, shape[0], rows)]
        for count, raw in zip(counts, self._bytes(name, [count * row_bytes for count in counts]), strict=True):
            yield np.frombuffer(raw, dtype).reshape(count, *shape[1:])

    def _bytes(self, name: str, sizes: list[int]) -> Iterator[bytes]:
        """Yield the data of an array in pieces; the archive's checksum is verified at the end."""
        header = self._header(name)
        try:
            with self._open(name) as file:
                file.read(header.offset)
                for size in sizes:
                    piece = file.read(size)
                    if len(piece) != size:
                        raise self._damaged(name, "it ends too early")
                    yield piece
                file.read(1)  # the checksum is verified at the end of the data
        except UserError:
            raise
        except _DAMAGE as error:
            raise self._damaged(name, error) from error

    def _open(self, name: str) -> Any:
        if name not in self.names:
            raise UserError(f"{self.path} holds no {name!r}{nearest(name, self.names)}; it has {self.listed()}")
        return self._zip.open(f"{name}.npy")

    def _header(self, name: str) -> Header:
        if name not in self._headers:
            try:
                with self._open(name) as file:
                    header = read_header(file)
            except UserError:
                raise
            except _DAMAGE as error:
                raise self._damaged(name, error) from error
            size = self._zip.getinfo(f"{name}.npy").file_size - header.offset
            if header.n_bytes != size:
                raise self._damaged(
                    name,
                    f"its header announces {header.shape} of {header.dtype}, {header.n_bytes:,} bytes, not {size:,}",
                )
            self._headers[name] = header
        return self._headers[name]

    def _damaged(self, name: str, error: object) -> UserError:
        if isinstance(error, BadHeaderError) and "Python objects" in str(error):
            what = "holds Python objects, which are never loaded; save plain arrays"
            return UserError(f"{self.path}: {plain(name)!r} {what}")
        return UserError(f"{self.path}: {plain(name)!r} cannot be read: {error}")

    def listed(self) -> str:
        """Return the names of the arrays as text, at most the first few."""
        more = f" ... ({len(self.names):,} in all)" if len(self.names) > LISTED else ""
        return ", ".join(map(plain, self.names[:LISTED])) + more or "nothing"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()


def mapped_npy(path: Path) -> NDArray[Any]:
    """Return the array of an ``.npy`` file, mapped into memory."""
    size = regular_file(path)
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PK\x03\x04":
                raise UserError(f"{path} holds several arrays: call it .npz and give it as the file to import")
            file.seek(0)
            header = read_header(file)
    except (BadHeaderError, OSError) as error:
        raise UserError(f"{path} is not an .npy file of plain numbers or text: {error}") from error
    if header.n_bytes != size - header.offset:
        raise UserError(
            f"{path} is not an .npy file of plain numbers or text: its header announces {header.shape} of"
            f" {header.dtype}, {header.n_bytes:,} bytes, not {size - header.offset:,}"
        )
    if not header.n_bytes:
        return np.zeros(header.shape, header.dtype)
    order: Literal["F", "C"] = "F" if header.fortran else "C"
    mapped: NDArray[Any] = np.memmap(path, header.dtype, "r", header.offset, header.shape, order)
    return mapped
