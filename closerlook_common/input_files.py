"""Read files that a user names (lists, settings, tables): only regular files of bounded size.

A path in a downloaded list or study may name a pipe without a writer, or a device that never ends. Opening
it must neither block nor fill the memory. Git LFS pointers (three lines in place of a large file, left by a clone
without Git LFS) are recognised for every kind of file.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import tomllib
from pathlib import Path
from typing import Any, NoReturn

from closerlook_common.errors import UserError

MAX_TEXT_BYTES = 64 << 20
"""Largest text file to read: about a list of a million lines."""

LFS_REMEDY = "is a Git LFS pointer, not the file itself: run 'git lfs pull' where it was cloned"

_LFS_BEGINNING = b"version https://git-lfs.github.com/spec/"
_LFS_LARGEST = 1024
"""Git LFS limits a pointer to this many bytes."""
_PIECE = 1 << 20
_OF_THE_SHELL = re.compile(r"/dev/stdin|/dev/fd/\d+|/proc/self/fd/\d+")
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def is_lfs_pointer(content: Path | str | bytes) -> bool:
    r"""Return whether a file, or the bytes of a whole file, is a Git LFS pointer; False if it cannot be read.

    Examples
    --------
    >>> is_lfs_pointer(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    True
    """
    if not isinstance(content, bytes):
        try:
            status = os.stat(content)  # noqa: PTH116  to open some devices is to change them
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LFS_LARGEST:
                return False
            content = Path(content).read_bytes()
        except (OSError, ValueError):
            return False
    return len(content) <= _LFS_LARGEST and content.startswith(_LFS_BEGINNING)


class MissingFileError(UserError, FileNotFoundError):
    """A file that the user named does not exist."""


def refuse_lfs_pointer(path: Path | str) -> None:
    """Raise `UserError` where a file, which something else opens next, is a Git LFS pointer."""
    if is_lfs_pointer(path):
        raise UserError(f"{path} {LFS_REMEDY}")


def require_regular_file(path: Path | str, what: str) -> Path:
    """Check that a path names a regular file that can be opened, before a library opens it by name.

    Parameters
    ----------
    path
        Of the file; links are followed.
    what
        What the file is to the user, for the error: ``result table``, ``settings file`` ...

    Raises
    ------
    MissingFileError
        The file does not exist.
    UserError
        The path is a folder, a pipe, a socket, a device or a Git LFS pointer, or cannot be read.
    """
    os.close(_open_regular(path, what, shell_pipe=False))
    if is_lfs_pointer(path):
        raise UserError(f"{what} {path} {LFS_REMEDY}")
    return Path(path)


def read_text_file(path: Path | str, what: str, *, limit: int = MAX_TEXT_BYTES) -> str:
    """Read a UTF-8 text file that the user named; a byte order mark is dropped, line ends become LF.

    A pipe is read only where the user's shell opened it: ``/dev/stdin`` and ``/dev/fd/N``, which is what
    ``<(command)`` becomes.

    Parameters
    ----------
    path, what
        See :func:`require_regular_file`.
    limit
        Largest size in bytes.

    Raises
    ------
    MissingFileError
        The file does not exist.
    UserError
        The file is not regular, larger than ``limit``, not UTF-8, a Git LFS pointer, or cannot be read.
    """
    raw = read_bytes_file(path, what, limit=limit)
    try:
        return raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{what} {path} is not UTF-8 text (byte {error.start})") from None


def read_bytes_file(path: Path | str, what: str, *, limit: int = MAX_TEXT_BYTES) -> bytes:
    """Read all bytes of a file that the user named; see :func:`read_text_file`."""
    handle = _open_regular(path, what, shell_pipe=True)
    with open(handle, "rb", buffering=0) as file:  # noqa: PTH123  a handle has no path
        parts: list[bytes] = []
        size = 0
        while True:
            try:
                part = file.read(_PIECE)
            except OSError as error:
                raise _unreadable(path, what, error) from None
            if not part:
                break
            size += len(part)
            if size > limit:
                raise UserError(f"{what} {path} is larger than {limit >> 20} MiB, the limit for such a file")
            parts.append(part)
    content = b"".join(parts)
    if is_lfs_pointer(content):
        raise UserError(f"{what} {path} {LFS_REMEDY}")
    return content


def read_json_file(path: Path | str, what: str, *, limit: int = MAX_TEXT_BYTES) -> Any:
    """Read a JSON file that the user named; refuse NaN and infinities, which are not JSON.

    Parameters
    ----------
    path, what, limit
        See :func:`read_text_file`.

    Raises
    ------
    UserError
        The file is missing, empty, not JSON, or nested too deeply.
    """

    def refuse(constant: str) -> NoReturn:
        raise UserError(f"{what} {path} holds {constant}, which is not JSON")

    text = read_text_file(path, what, limit=limit)
    if not text.strip():
        raise UserError(f"{what} {path} is empty")
    try:
        return json.loads(text, parse_constant=refuse)
    except UserError:
        raise
    except RecursionError:
        raise UserError(f"{what} {path} is nested too deeply") from None
    except ValueError as error:
        raise UserError(f"{what} {path} is not JSON: {error}") from None


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Return a parsed TOML text; UserError, starting with ``where``, if it is not TOML or nested too deeply."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also a number of thousands of digits
        raise UserError(f"{where} cannot be read as TOML: {_line(error)}") from None


def _line(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())[:200]


def _open_regular(path: Path | str, what: str, *, shell_pipe: bool) -> int:
    """Return a handle of a regular file, or of a pipe of the user's shell."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  to open some devices is to change them
        is_pipe = shell_pipe and stat.S_ISFIFO(mode) and _OF_THE_SHELL.fullmatch(str(path)) is not None
        if not (is_pipe or stat.S_ISREG(mode)):
            raise UserError(_not_regular(path, what, mode))
        # Do not block if the path has become a pipe since.
        handle = os.open(path, os.O_RDONLY | (0 if is_pipe else getattr(os, "O_NONBLOCK", 0)))
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise _unreadable(path, what, error) from None
    mode = os.fstat(handle).st_mode
    if not (is_pipe or stat.S_ISREG(mode)):
        os.close(handle)
        raise UserError(_not_regular(path, what, mode))
    return handle


def _not_regular(path: Path | str, what: str, mode: int) -> str:
    kind = next((name for test, name in _KINDS if test(mode)), "not a regular file")
    return f"{what} {path} is {kind}; name a file"


def _unreadable(path: Path | str, what: str, error: OSError | ValueError) -> UserError:
    if not isinstance(error, OSError):  # a NUL in the path
        return UserError(f"{what} {str(path)!r} cannot be read: {error}")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return MissingFileError(f"{what} {path} cannot be read: no such file")
    return UserError(f"{what} {path} cannot be read: {error.strerror}")
