"""Headers of Arrow's messages: a compressed buffer may unpack to any size, so files that have some are refused."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from closerlook_common.errors import UserError

_RECORD_BATCH, _DICTIONARY = 3, 2
_COMPRESSION_OF_BATCH = 3  # the field of a record batch that says how its buffers are compressed
_BATCH_OF_DICTIONARY = 1
_CONTINUES = 0xFFFFFFFF
_FILE_MAGIC = b"ARROW1\0\0"


def refuse_compressed(path: Path) -> None:
    """Raise `UserError` where a file's record batches are compressed; Hugging Face's ``datasets`` writes none.

    Parameters
    ----------
    path
        A file in Arrow's streaming or file format.

    Raises
    ------
    UserError
        A batch is compressed, or a message does not fit into the file.
    """
    if path.stat().st_size == 0:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        place = len(_FILE_MAGIC) if data[: len(_FILE_MAGIC)] == _FILE_MAGIC else 0
        try:
            while place + 8 <= len(data):
                mark, length = struct.unpack_from("<Ii", data, place)
                if mark != _CONTINUES or length <= 0:
                    return
                header = data[place + 8 : place + 8 + length]
                body, compressed = _of_message(header)
                if compressed:
                    raise UserError(f"{path} is compressed; save the data set again with datasets' save_to_disk")
                if body < 0:
                    raise UserError(f"{path} is damaged: a part of it has {body} bytes")
                place += 8 + length + body
        except (struct.error, IndexError):
            raise UserError(f"{path} is damaged: its headers are no Arrow messages") from None


def _of_message(header: bytes) -> tuple[int, bool]:
    """Return the length of a message's body, and whether its buffers are compressed."""
    message = struct.unpack_from("<I", header)[0]
    body_at, kind_at, table_at = (_field(header, message, field) for field in (3, 1, 2))
    body = struct.unpack_from("<q", header, body_at)[0] if body_at else 0
    kind = header[kind_at] if kind_at else 0
    if not table_at or kind not in (_RECORD_BATCH, _DICTIONARY):
        return body, False
    batch = _follow(header, table_at)
    if kind == _DICTIONARY:
        inner = _field(header, batch, _BATCH_OF_DICTIONARY)
        if not inner:
            return body, False
        batch = _follow(header, inner)
    return body, _field(header, batch, _COMPRESSION_OF_BATCH) != 0


def _field(data: bytes, table: int, number: int) -> int:
    """Return where a field of a flatbuffer's table lies, 0 where it is not there."""
    fields = table - struct.unpack_from("<i", data, table)[0]
    if fields < 0:
        raise struct.error
    if 4 + 2 * number >= struct.unpack_from("<H", data, fields)[0]:
        return 0
    offset = struct.unpack_from("<H", data, fields + 4 + 2 * number)[0]
    return table + offset if offset else 0


def _follow(data: bytes, place: int) -> int:
    return place + int(struct.unpack_from("<I", data, place)[0])
