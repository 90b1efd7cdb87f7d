"""Files of a folder that are not read as images although they may be some: counted by suffix and reported."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from dataclasses import dataclass, field

from closerlook_common.console.terminal import counted
from extract.datasets.remarks import remark

_SUFFIXES = (
    "3fr ai arw avifs bpg cr2 cr3 cur dcm dds dng emf eps exr fit fits flif hdr heic heics heif hif icns ico jls jng"
    " jxl jxr jxs kra mng nef nrw orf pam pcd pcx pdf pfm pgf pic psb psd qoi raf ras raw rgb rgba rw2 sgi srw svg svgz"
    " vtf wbmp wdp wmf x3f xbm xcf xpm"
)
UNREADABLE_SUFFIXES = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
"""Suffixes of images that are not read: their formats need other libraries or programs, or are not photographs."""

_SUFFIX = re.compile(r"\.[a-z][a-z0-9]{0,5}")
_SNIFFED_A_SUFFIX = 3
_SNIFFED_IN_ALL = 100
_MAGIC = (
    b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\x00", b"MM\x00*", b"\x00\x00\x00\x0cjP", b"\xffO\xffQ", b"8BPS",
    b"\xff\n", b"\x00\x00\x00\x0cJXL", b"qoif", b"v/1\x01",
)  # fmt: skip
_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")
"""Kinds of ISO media files that hold still images."""


def looks_like_image(head: bytes) -> bool:
    """Return whether the first bytes of a file are those of a common image format.

    Examples
    --------
    >>> looks_like_image(b"GIF89a"), looks_like_image(b"path,label")
    (True, False)
    """
    if head.startswith(_MAGIC):
        return True
    return (head[:4] == b"RIFF" and head[8:12] == b"WEBP") or (head[4:8] == b"ftyp" and head[8:12] in _BRANDS)


@dataclass
class Leftovers:
    """Counts the files of a folder that are not taken for images.

    Attributes
    ----------
    images
        Suffix -> number of files that are images by suffix or by their first bytes.
    example
        Suffix -> name of one of them.
    """

    images: Counter[str] = field(default_factory=Counter)
    example: dict[str, str] = field(default_factory=dict)
    _others: dict[str, list[tuple[str, str]]] = field(default_factory=dict, repr=False)
    _count: Counter[str] = field(default_factory=Counter, repr=False)

    def add(self, path: str, name: str) -> None:
        """Count a file; ``path`` is where it lies, ``name`` what it is called in messages."""
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
        if suffix in UNREADABLE_SUFFIXES:
            self.images[suffix] += 1
            self.example.setdefault(suffix, name)
            return
        suffix = suffix if _SUFFIX.fullmatch(suffix) else ""
        self._count[suffix] += 1
        kept = self._others.setdefault(suffix, [])
        if len(kept) < _SNIFFED_A_SUFFIX:
            kept.append((path, name))

    def report(self, root: object) -> None:
        """Add one remark about the images that were skipped, if there are any."""
        tried = 0
        for suffix, examples in self._others.items():
            for path, name in examples:
                tried += 1
                if tried <= _SNIFFED_IN_ALL and looks_like_image(_head(path)):
                    self.images[suffix] += self._count[suffix]
                    self.example.setdefault(suffix, name)
                    break
        if not self.images:
            return
        parts = [f"{n:,} {suffix or 'without a known suffix'}" for suffix, n in sorted(self.images.items())]
        first = next(iter(sorted(self.example.items())))[1]
        remark(
            f"{root}: skipped {counted(sum(self.images.values()), 'file')} of images: {', '.join(parts)}"
            f" (one is {first!r}); convert or rename them to .png, .jpg, .webp or .avif to have them read"
        )


def _head(path: str) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return b""
    with os.fdopen(handle, "rb") as file:
        try:
            return file.read(16) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
        except OSError:
            return b""
