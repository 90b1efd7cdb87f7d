"""Check compressed blocks before they are decoded; raise ValueError if a length or an offset is wrong.

Decoders trust the lengths in a block. A store may come from a stranger, with matching checksums, so every length and
offset that the decoder follows is compared with the array's chunk and with the bytes of the block. Only zstd is left
to the decoder, with both lengths known.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

_BITSHUFFLE, _COPIED, _ONE_STREAM, _ZSTD = 0x04, 0x02, 0x10, 4 << 5
_EXTENDED = 0x05
_BLOSC1_HEADER, _BLOSC2_HEADER = 16, 32
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZEROS, _NANS, _VALUE = 1, 2, 3
_FILTERS = bytes([0, 0, 0, 0, 0, 2])
_FIXED_HEADER = 87
_TRAILER = bytes.fromhex("940193cd0006de0000dc0000ce00000023d800") + bytes(16)
_INDEX_SIZE = 40
_SPECIAL_OFFSET = 0x80
_LARGEST = 2**31 - 1


def check_blosc1(part: bytes | memoryview, nbytes: int, itemsize: int) -> None:
    """Check a Blosc block (zstd, bitshuffle).

    Parameters
    ----------
    part
        The block.
    nbytes, itemsize
        Size in bytes of the decoded chunk and of an element.

    Raises
    ------
    ValueError
        A length or an offset does not fit, or the block is compressed in another way.
    """
    if len(part) < _BLOSC1_HEADER or nbytes > _LARGEST:
        raise ValueError("a compressed block is too short")
    version, codec_version, flags, size, decoded, block, encoded = struct.unpack_from("<BBBBIII", part)
    _check_lengths(part, (decoded, nbytes), (size, itemsize), block, encoded)
    if version != 2 or codec_version != 1 or (flags & ~(_COPIED | _BITSHUFFLE | _ONE_STREAM)) != _ZSTD:
        raise ValueError("a compressed block is not of Blosc with zstd and bitshuffle")
    if flags & _COPIED:
        if encoded != nbytes + _BLOSC1_HEADER:
            raise ValueError("the length of an uncompressed block does not fit")
    elif not flags & _ONE_STREAM:
        raise ValueError("a compressed block is split, which is not allowed")
    else:
        _check_streams(part, _BLOSC1_HEADER, nbytes, block, runs=False)


def _check_lengths(
    part: bytes | memoryview, decoded: tuple[int, int], size: tuple[int, int], block: int, encoded: int
) -> None:
    if decoded[0] != decoded[1]:
        raise ValueError(f"a compressed block says {decoded[0]} bytes, its chunk has {decoded[1]}")
    if size[0] != size[1]:
        raise ValueError(f"a compressed block has elements of {size[0]} bytes, its array of {size[1]}")
    if encoded != len(part):
        raise ValueError(f"a compressed block claims {encoded} bytes and has {len(part)}")
    if not 0 < block <= decoded[1] or (block % size[1] and block != decoded[1]):
        raise ValueError(f"a compressed block is divided into pieces of {block} bytes")


def _check_streams(part: bytes | memoryview, header: int, nbytes: int, block: int, *, runs: bool) -> None:
    """Check the offsets of the pieces, and the length in front of each."""
    count = -(-nbytes // block)
    begin = header + 4 * count
    if begin > len(part):
        raise ValueError("the table of a compressed block does not fit into it")
    for i, start in enumerate(struct.unpack_from(f"<{count}i", part, header)):
        if not begin <= start <= len(part) - 4:
            raise ValueError("a piece of a compressed block lies outside it")
        (length,) = struct.unpack_from("<i", part, start)
        whole = min(block, nbytes - i * block)
        if runs and length == 0:
            continue
        if runs and -255 <= length < 0:
            if start + 5 > len(part) or part[start + 4] != 1:
                raise ValueError("a run in a compressed block is not valid")
            continue
        if not 0 < length <= whole or start + 4 + length > len(part):
            raise ValueError("the length of a piece of a compressed block does not fit")
        if length < whole and bytes(part[start + 4 : start + 8]) != _ZSTD_MAGIC:
            raise ValueError("a piece of a compressed block is not of zstd")


def check_frame(frame: bytes, chunks: Sequence[int], itemsize: int) -> None:
    """Check a Blosc2 frame as the HDF5 filter writes it: one chunk (zstd, bitshuffle), no further sections.

    Parameters
    ----------
    frame
        Bytes of an HDF5 chunk, without its checksum.
    chunks, itemsize
        The array's chunk shape, and the bytes of an element.

    Raises
    ------
    ValueError
        A length or an offset does not fit, or the bytes are not such a frame.
    """
    if len(frame) < _FIXED_HEADER + 10 + _INDEX_SIZE + len(_TRAILER) or frame[:11] != b"\x9e\xa8b2frame\0\xd2":
        raise ValueError("a chunk is not a Blosc2 frame")
    header_size, frame_size = struct.unpack_from(">i", frame, 11)[0], struct.unpack_from(">Q", frame, 16)[0]
    flags, kind, codec = frame[25], frame[26], frame[27]
    nbytes, _, cbytes, _, size, _, block, _, chunk = struct.unpack_from(">qBqBiBiBi", frame, 30)
    if frame_size != len(frame):
        raise ValueError(f"a Blosc2 frame claims {frame_size} bytes and has {len(frame)}")
    blocks = _block_shape(frame[_FIXED_HEADER:header_size], chunks) if header_size < len(frame) else None
    padded = chunks if blocks is None else [-(-length // b) * b for length, b in zip(chunks, blocks, strict=True)]
    expected = math.prod(padded) * itemsize
    if (
        expected > _LARGEST
        or (nbytes, chunk, size) != (expected, expected, itemsize)
        or not 0 < block <= expected
        or (blocks is not None and math.prod(blocks) * itemsize != block)
        or cbytes != len(frame) - header_size - _INDEX_SIZE - len(_TRAILER)
    ):
        raise ValueError(f"a Blosc2 frame of {nbytes} bytes in chunks of {chunk} does not fit its array")
    if (flags & 0x0F) != 2 or kind != 0 or (codec & 0x0F) != 5 or frame[69:87] != b"\xd8\x06" + _FILTERS + _tail(frame):
        raise ValueError("a Blosc2 frame is not of zstd and bitshuffle in one piece")
    if frame[-len(_TRAILER) :] != _TRAILER:
        raise ValueError("a Blosc2 frame holds sections that are not allowed")
    index = frame[header_size + cbytes : header_size + cbytes + _INDEX_SIZE]
    _check_index(index, cbytes)
    if cbytes:
        _check_blosc2(memoryview(frame)[header_size : header_size + cbytes], expected, itemsize, block)


def _tail(frame: bytes) -> bytes:
    """Return the settings of the codec behind the filters: its number, which version 1 leaves at 0, and zeros."""
    return frame[77:78] + bytes(9) if frame[77] in (0, 5) else b""


def _block_shape(section: bytes, chunks: Sequence[int]) -> tuple[int, ...] | None:
    """Return the shape of the blocks from a frame's metadata; None where the frame is of one axis."""
    if section == bytes.fromhex("93cd0007de0000dc0000"):
        return None
    d = len(chunks)
    at = len(section) - len(_metadata(chunks, [1] * d)) + len(_metadata(chunks, [1] * d)[: -9 - 5 * d])
    if d < 2 or at < 0 or len(section) < at + 5 * d:
        raise ValueError("the metadata of a Blosc2 frame do not fit its array")
    blocks = tuple(struct.unpack_from(">i", section, at + 5 * i + 1)[0] for i in range(d))
    ending = section[at + 5 * d :]
    if (
        section[: at + 5 * d] != _metadata(chunks, blocks)[: at + 5 * d]
        or not all(0 < b <= length for b, length in zip(blocks, chunks, strict=True))
        or ending[:7] != b"\x00\xdb\x00\x00\x00\x03|"
        or len(ending) != 9
    ):
        raise ValueError("the metadata of a Blosc2 frame do not fit its array")
    return blocks


def _metadata(chunks: Sequence[int], blocks: Sequence[int]) -> bytes:
    """Return the section that describes an array of several axes, as the filter writes it."""
    d = len(chunks)
    head = bytes([0x90 + d])
    content = (
        b"\x97\x00" + bytes([d]) + head + b"".join(struct.pack(">Bq", 0xD3, length) for length in chunks)
        + head + b"".join(struct.pack(">Bi", 0xD2, length) for length in chunks)
        + head + b"".join(struct.pack(">Bi", 0xD2, length) for length in blocks)
    )  # fmt: skip
    ending = b"\x00\xdb\x00\x00\x00\x03|V2"
    index = bytes.fromhex("93cd0011de0001a4") + b"b2nd\xd2\x00\x00\x00\x6b" + bytes.fromhex("dc0001c6")
    return index + struct.pack(">I", len(content) + len(ending)) + content + ending


def _check_index(index: bytes, cbytes: int) -> None:
    """Check the offset of a frame's only chunk: 0, or none for a chunk of zeros or NaN."""
    version, codec_version, flags, size, nbytes, block, encoded = struct.unpack_from("<BBBBIII", index)
    place = index[_BLOSC2_HEADER:]
    kind = place[7] & ~_SPECIAL_OFFSET if place[7] & _SPECIAL_OFFSET else None
    if (
        not 2 <= version <= 5
        or codec_version != 1
        or flags & ~0xF0 != _EXTENDED | _COPIED
        or (size, nbytes, block, encoded) != (8, 8, 8, _INDEX_SIZE)
        or index[31]
        or (place != bytes(8) if cbytes else (any(place[:7]) or kind not in (_ZEROS, _NANS)))
    ):
        raise ValueError("the index of a Blosc2 frame does not fit its chunk")


def _check_blosc2(part: memoryview, nbytes: int, itemsize: int, expected_block: int) -> None:
    if len(part) < _BLOSC2_HEADER:
        raise ValueError("a compressed block is too short")
    version, codec_version, flags, size, decoded, block, encoded = struct.unpack_from("<BBBBIII", part)
    _check_lengths(part, (decoded, nbytes), (size, itemsize), block, encoded)
    if (
        not 2 <= version <= 5
        or codec_version != 1
        or flags & ~_COPIED not in ((_ZSTD | _ONE_STREAM | _EXTENDED), *((_EXTENDED,) if flags & _COPIED else ()))
        or part[16:22] != _FILTERS
        or part[22] not in (0, 5)
        or any(part[23:31])
        or part[31] & 0x8F
        or block != expected_block
    ):
        raise ValueError("a compressed block is not of Blosc2 with zstd and bitshuffle")
    special = part[31] >> 4
    if special:
        if encoded != _BLOSC2_HEADER + {_ZEROS: 0, _NANS: 0, _VALUE: itemsize}.get(special, len(part)):
            raise ValueError("the length of a block of one value does not fit")
    elif flags & _COPIED:
        if encoded != nbytes + _BLOSC2_HEADER:
            raise ValueError("the length of an uncompressed block does not fit")
    else:
        _check_streams(part, _BLOSC2_HEADER, nbytes, block, runs=True)
