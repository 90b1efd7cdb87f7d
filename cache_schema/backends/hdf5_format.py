"""Parse the part of the HDF5 file format that stores use: find arrays and the offsets of their chunks.

The HDF5 library follows every address, size and link in a file; damaged or crafted ones can crash the process or lead
to other files. The library therefore gets only chunks that were checked. Supported: superblock 2 or 3, object headers
of version 2, hard links, layouts of version 4; everything else is refused.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import BinaryIO

from cache_schema.backends.hdf5_messages import (
    UNDEFINED,
    Chunk,
    Dataset,
    Form,
    Listing,
    dataset_of,
    dtype_of,
    filters_of,
    form_of,
    shape_of,
)

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MOST = 1 << 20
"""Largest piece of HDF5 metadata in bytes, far above what stores have."""
_BLOCK = 1 << 12
"""Smallest read in bytes."""
_MESSAGE = struct.Struct("<BHB").unpack_from
_MESSAGES = 4096
_PIECES = 64
_FORMS = 8
_LINK, _LINK_INFO, _CONTINUATION, _ATTRIBUTE = 0x06, 0x02, 0x10, 0x0C
_SPACE, _TYPE, _LAYOUT, _FILTERS, _EXTERNAL = 0x01, 0x03, 0x08, 0x0B, 0x07
_OF_ARRAYS = {_SPACE, _TYPE, _LAYOUT, _FILTERS}
_HARMLESS = {0x00, 0x05, 0x0A, 0x12, 0x15}
"""Nothing, fill value, group info, time of change, attribute info."""


class Hdf5Format:
    """Reads the HDF5 metadata of a store's file.

    Parameters
    ----------
    file
        Open for reading, seekable.

    Raises
    ------
    ValueError
        The file is not like a store's; every method raises it as well.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._windows: tuple[tuple[int, bytes], ...] = ((0, b""),)
        self._end = 48
        head = self._bytes(0, 48)
        if head[:8] != SIGNATURE or head[8] not in (2, 3) or head[9:11] != b"\x08\x08":
            raise ValueError("it does not begin like an HDF5 file of version 1.10")
        base, extension, end, root = struct.unpack_from("<4Q", head, 12)
        size = file.seek(0, 2)
        if base or extension != UNDEFINED or not 48 < end <= size:
            raise ValueError(f"its HDF5 data claim {end} bytes, the file has {size}")
        self._end = end
        self._root = self._messages(root)
        self._forms: list[Form] = []

    def _bytes(self, at: int, size: int) -> bytes:
        if not 0 <= size <= _MOST or at < 0 or at + size > self._end:
            raise ValueError("an address or a size in it points outside the file")
        for place, window in self._windows:
            if place <= at and at + size <= place + len(window):
                return window[at - place : at - place + size]
        # Headers of arrays lie side by side, and so do lists of chunks, so whole blocks are read.
        begin = at - at % _BLOCK
        self._file.seek(begin)
        window = self._file.read(min(max(at + size - begin, _BLOCK), self._end - begin))
        if len(window) < at + size - begin:
            raise ValueError("the file is shorter than its HDF5 data")
        self._windows = ((begin, window), *self._windows[:2])
        return window[at - begin : at - begin + size]

    def _signed(self, at: int, size: int, signature: bytes) -> bytes:
        raw = self._bytes(at, size)
        if raw[:4] != signature:
            raise ValueError(f"{signature.decode()} is missing where it is expected")
        return raw

    def _first_piece(self, at: int) -> tuple[int, int, int]:
        """Return place and length of the first messages of an object, and the length of what leads each."""
        head = self._signed(at, 12, b"OHDR")
        flags = head[5]
        if head[4] != 2:
            raise ValueError(f"an object header has version {head[4]}")
        begin = at + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        length = int.from_bytes(self._bytes(begin, width), "little")
        return begin + width, length, 6 if flags & 4 else 4

    def _messages(self, at: int) -> list[tuple[int, bytes]]:
        """Return type and content of an object's messages."""
        begin, first, lead = self._first_piece(at)
        pieces = [(begin, first)]
        found: list[tuple[int, bytes]] = []
        for start, length in pieces:
            raw, place, last = self._bytes(start, length), 0, length - lead
            while place <= last:
                kind, inner, bits = _MESSAGE(raw, place)
                place += lead + inner
                if place > length or len(found) >= _MESSAGES:
                    raise ValueError("a message of an object header does not fit into it")
                if bits & 0x02:
                    raise ValueError("a message is shared with another object")
                content = raw[place - inner : place]
                if kind != _CONTINUATION:
                    found.append((kind, content))
                    continue
                if inner != 16 or len(pieces) >= _PIECES:
                    raise ValueError("an object header is in too many pieces")
                where, more = struct.unpack("<QQ", content)
                self._signed(where, 4, b"OCHK")
                pieces.append((where + 4, more - 8))
        return found

    def links(self) -> dict[str, int]:
        """Return name and offset of everything in the root group."""
        found: dict[str, int] = {}
        for kind, content in self._root:
            if kind == _LINK:
                self._add_link(found, content)
            elif kind == _LINK_INFO:
                self._add_dense(found, content)
            elif kind != _ATTRIBUTE and kind not in _HARMLESS:
                raise ValueError(f"its root holds a message of type {kind}")
        return found

    @staticmethod
    def _add_link(found: dict[str, int], raw: bytes) -> None:
        if len(raw) < 4 or raw[0] != 1:
            raise ValueError("a link is not of version 1")
        flags, at, kind = raw[1], 2, 0
        if flags & 0x08:
            kind, at = raw[at], at + 1
        at += (8 if flags & 0x04 else 0) + (1 if flags & 0x10 else 0)
        begin = at + (1 << (flags & 3))
        end = begin + int.from_bytes(raw[at:begin], "little")
        name = raw[begin:end].decode()
        if kind:
            what = {1: "soft", 64: "external"}.get(kind, "unknown")
            raise ValueError(f"{name!r} is a link out of the file ({what}), which is not allowed")
        if len(raw) != end + 8 or name in found or not name:
            raise ValueError("a link does not fit into its place")
        found[name] = int.from_bytes(raw[end:], "little")

    def _add_dense(self, found: dict[str, int], raw: bytes) -> None:
        """Add the links of a group with many links, which HDF5 keeps in a heap."""
        at = 2 + (8 if raw[1] & 1 else 0)
        heap, names = struct.unpack_from("<QQ", raw, at)
        if heap == UNDEFINED:
            return
        objects = _Heap(self, heap)
        for record in self._records(names):
            self._add_link(found, objects.get(record[4:]))

    def _records(self, at: int) -> Iterator[bytes]:
        """Yield the records of a B-tree of links by name."""
        head = self._signed(at, 38, b"BTHD")
        kind, node, size, depth = head[5], *struct.unpack_from("<IHH", head, 6)
        root, count, total = struct.unpack_from("<QHQ", head, 16)
        if kind != 5 or size != 11 or not 64 <= node <= 1 << 16 or depth > 3 or total > _MESSAGES * 16:
            raise ValueError("the index of its arrays is not one of links by name")
        nodes = 0
        todo = [(root, count, depth)] if total else []
        while todo:
            place, records, level = todo.pop()
            nodes += 1
            if nodes > _MESSAGES or records * size + 10 > node:
                raise ValueError("the index of its arrays does not fit")
            raw = self._signed(place, node, b"BTIN" if level else b"BTLF")
            yield from (raw[6 + i * size : 6 + (i + 1) * size] for i in range(records))
            if level:
                most = (node - 10) // size
                wide = (most.bit_length() + 7) // 8
                deep = (total.bit_length() + 7) // 8 if level > 1 else 0
                begin, step = 6 + records * size, 8 + wide + deep
                if level > 1:
                    raise ValueError("the index of its arrays is deeper than a store's")
                for i in range(records + 1):
                    entry = raw[begin + i * step : begin + (i + 1) * step]
                    todo.append((int.from_bytes(entry[:8], "little"), int.from_bytes(entry[8 : 8 + wide], "little"), 0))

    def attribute(self, name: str) -> bytes:
        """Return the bytes of a text attribute of the root."""
        for kind, raw in self._root:
            if kind != _ATTRIBUTE:
                continue
            version, flags, named, typed, spaced = struct.unpack_from("<BBHHH", raw)
            at = 9 if version == 3 else 8
            if version not in (2, 3) or flags or raw[at : at + named].rstrip(b"\0").decode() != name:
                continue
            kind_of = raw[at + named : at + named + typed]
            value = raw[at + named + typed + spaced :]
            space = raw[at + named + typed : at + named + typed + spaced]
            if len(space) < 4 or space[0] not in (1, 2) or space[1]:
                raise ValueError(f"its attribute {name} is not one text")
            if kind_of[0] & 0x0F == 3:
                return value.rstrip(b"\0")
            if kind_of[0] & 0x0F == 9 and len(value) == 16:
                length, heap, index = struct.unpack("<IQI", value)
                return self._heap_object(heap, index, length)
            raise ValueError(f"its attribute {name} is not one text")
        raise ValueError(f"it has no attribute {name}")

    def _heap_object(self, heap: int, index: int, length: int) -> bytes:
        """Return an object of a heap that is shared by attributes of any length."""
        head = self._signed(heap, 16, b"GCOL")
        (size,) = struct.unpack_from("<Q", head, 8)
        at, steps = heap + 16, 0
        while at + 16 <= heap + size and steps < _MESSAGES:
            number, _, _, stored = struct.unpack("<HHIQ", self._bytes(at, 16))
            if number == index and length <= stored and at + 16 + length <= min(heap + size, self._end):
                return b"".join(
                    self._bytes(part, min(_MOST, at + 16 + length - part))
                    for part in range(at + 16, at + 16 + length, _MOST)
                )
            at, steps = at + 16 + -(-stored // 8) * 8, steps + 1
        raise ValueError("a text attribute of it is not in its heap")

    def array(self, at: int) -> tuple[Dataset, list[Chunk]]:
        """Return the array at a place, and the places of all of its chunks in order."""
        raw = b""
        for form in self._forms:
            if at + form.size <= self._end:
                if len(raw) != form.size:
                    raw = self._bytes(at, form.size)
                if raw.startswith(form.before) and raw.endswith(form.after):
                    return form.dataset, self._chunks(form.dataset, form.listing(raw))
        dataset, listing = self._parsed(at)
        return dataset, [] if dataset.chunks is None else self._chunks(dataset, listing)

    def _parsed(self, at: int) -> tuple[Dataset, Listing]:
        parts: dict[int, bytes] = {}
        for kind, content in self._messages(at):
            if kind in _OF_ARRAYS and kind not in parts:
                parts[kind] = content
            elif kind == _EXTERNAL:
                raise ValueError("it is kept in other files, which an array of a store never is")
            elif kind not in _HARMLESS:
                raise ValueError(f"it holds a message of type {kind}, which an array of a store never has")
        space, type_, layout = parts.get(_SPACE), parts.get(_TYPE), parts.get(_LAYOUT)
        if space is None or type_ is None or layout is None:
            raise ValueError("it is not an array")
        filters = filters_of(parts[_FILTERS]) if _FILTERS in parts else ()
        dataset, listing = dataset_of(layout, shape_of(space), dtype_of(type_), filters)
        begin, length, _ = self._first_piece(at)
        form = form_of(self._bytes(at, begin + length - at), layout, dataset, listing.kind)
        if form is not None and len(self._forms) < _FORMS:
            self._forms.insert(0, form)  # the next array is mostly like this one
        return dataset, listing

    def _chunks(self, dataset: Dataset, listing: Listing) -> list[Chunk]:
        assert dataset.chunks is not None
        count = _count(dataset.shape, dataset.chunks)
        found = [Chunk(listing[1], listing[2])] if listing[0] == 1 else self._fixed_array(listing, count)
        total = 0
        for at, size in found:
            total += size
            if size < 4 or at + size > self._end:
                raise ValueError("chunks of it are missing or lie outside the file")
        if len(found) != count:
            raise ValueError("chunks of it are missing or lie outside the file")
        if total > self._end:
            raise ValueError("its chunks are more than the file holds")
        return found

    def _fixed_array(self, listing: Listing, count: int) -> list[Chunk]:
        place, bits = listing.place, listing.bits
        head = self._signed(place, 28, b"FAHD")
        client, width, page_bits = head[5], head[6], head[7]
        entries, block = struct.unpack_from("<QQ", head, 8)
        if client != 1 or not 14 <= width <= 20 or entries != count or page_bits != bits or not 0 < bits <= 16:
            raise ValueError("the list of its chunks does not fit its shape")
        if count * width > self._end:
            raise ValueError("the list of its chunks is longer than the file")
        self._signed(block, 14, b"FADB")
        page = 1 << page_bits
        found: list[Chunk] = []
        if entries <= page:
            raws = [self._bytes(block + 14, count * width)]
        else:
            pages = -(-entries // page)
            at = block + 14 + -(-pages // 8) + 4
            raws = []
            for i in range(pages):
                length = min(page, entries - i * page) * width
                raws.append(self._bytes(at, length))
                at += length + 4
        for raw in raws:
            for i in range(0, len(raw), width):
                if any(raw[i + width - 4 : i + width]):
                    raise ValueError("a chunk of it left out a filter")
                at = int.from_bytes(raw[i : i + 8], "little")
                found.append(Chunk(at, int.from_bytes(raw[i + 8 : i + width - 4], "little")))
        return found


@lru_cache(256)
def _count(shape: tuple[int, ...], chunks: tuple[int, ...]) -> int:
    """Return the number of chunks of an array."""
    return math.prod(-(-n // c) for n, c in zip(shape, chunks, strict=True))


class _Heap:
    """A fractal heap, as far as a group's links need one."""

    def __init__(self, owner: Hdf5Format, at: int) -> None:
        head = owner._signed(at, 142, b"FRHP")
        id_size, filtered, flags = struct.unpack_from("<HHB", head, 5)
        self._owner = owner
        (largest,) = struct.unpack_from("<I", head, 10)
        width, start, most, bits, _, root, rows = struct.unpack_from("<HQQHHQH", head, 110)
        powers = all(n > 0 and n & (n - 1) == 0 for n in (width, start, most))
        if id_size != 7 or filtered or not powers or most > 1 << 20 or start > most or width > 64 or bits > 64:
            raise ValueError("the heap of its links is not one that a store has")
        self._offset_size = -(-bits // 8)
        self._length_size = max(1, (min(most, largest).bit_length() + 7) // 8)
        self._lead = 13 + self._offset_size + (4 if flags & 2 else 0)
        self._blocks: list[tuple[int, int, int]] = []
        """First offset, size and place of each block."""
        if rows == 0:
            self._blocks.append((0, start, root))
            return
        direct = (most // start).bit_length() + 1
        if rows > direct:
            raise ValueError("the heap of its links is larger than a store's")
        raw = owner._signed(root, 13 + self._offset_size + rows * width * 8, b"FHIB")
        offset, place = 0, 13 + self._offset_size
        for row in range(rows):
            size = start << max(0, row - 1)
            for _ in range(width):
                (block,) = struct.unpack_from("<Q", raw, place)
                if block != UNDEFINED:
                    self._blocks.append((offset, size, block))
                offset, place = offset + size, place + 8

    def get(self, identifier: bytes) -> bytes:
        """Return an object by its id."""
        if identifier[0]:
            raise ValueError("a link of it is not kept as a store's are")
        middle = 1 + self._offset_size
        offset = int.from_bytes(identifier[1:middle], "little")
        length = int.from_bytes(identifier[middle : middle + self._length_size], "little")
        lead = self._lead - 4
        for first, size, place in self._blocks:
            if first + lead <= offset and offset + length <= first + size:
                return self._owner._bytes(place + offset - first, length)
        raise ValueError("a link of it is not in its heap")
