"""Decoded pixels on disk, for model groups that need several passes over the same images, now or in a later run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache_schema.naming import slug
from extract.datasets.base import Dataset
from extract.decode import Decoder, PixelBatch
from extract.options import RunOptions
from extract.preprocess import Geometry

PIXELS_VERSION = 1
"""Bumped by hand when decoding gives other pixels; old files are then not read."""


class PixelSource:
    """Gives a dataset's batches: from a complete pixel file where there is one, else by decoding.

    Parameters
    ----------
    decoder
        Decodes what is not kept.
    options
        ``pixel_cache`` is the folder (None: nothing is kept) and ``pixel_cache_bytes`` its bound. The files that were
        used longest ago go first; a dataset that is larger than the bound is simply decoded.

    Notes
    -----
    A file is named by dataset digest and geometry and appears under that name only when it is complete.
    """

    def __init__(self, decoder: Decoder, options: RunOptions) -> None:
        self._decoder = decoder
        self._folder = options.pixel_cache
        self._bound = options.pixel_cache_bytes

    def batches(self, dataset: Dataset, geometry: Geometry, batch_size: int) -> Iterator[PixelBatch]:
        """Yield the rows in order; pixels are valid until the next batch is asked for."""
        height, width = geometry.output_size
        size = len(dataset) * height * width * 3
        if self._folder is None or size > self._bound or not size:
            yield from self._decoder.batches(dataset, geometry, batch_size)
            return
        stem = self._folder / _stem(dataset, geometry)
        kept = _open(stem, (len(dataset), height, width, 3))
        if kept is None:
            self._make_room(size)
            yield from self._decode_and_keep(stem, dataset, geometry, batch_size)
        else:
            yield from _read(*kept, batch_size)

    def _decode_and_keep(
        self, stem: Path, dataset: Dataset, geometry: Geometry, batch_size: int
    ) -> Iterator[PixelBatch]:
        stem.parent.mkdir(parents=True, exist_ok=True)
        staged = stem.with_name(f".{stem.name}.{os.getpid()}.staged")
        valid = np.zeros(len(dataset), bool)
        problems: list[tuple[int, str]] = []
        try:
            with staged.open("wb") as file:
                for batch in self._decoder.batches(dataset, geometry, batch_size):
                    file.write(np.ascontiguousarray(batch.pixels).data)
                    valid[batch.start : batch.stop] = batch.valid
                    problems.extend(batch.problems)
                    yield batch
            notes = {"problems": problems, "invalid": np.flatnonzero(~valid).tolist()}
            stem.with_suffix(".json").write_text(json.dumps(notes))
            staged.replace(stem.with_suffix(".u8"))
        finally:
            staged.unlink(missing_ok=True)

    def _make_room(self, size: int) -> None:
        assert self._folder is not None
        files = sorted(self._folder.glob("*.u8"), key=lambda path: path.stat().st_atime_ns)
        held = sum(path.stat().st_size for path in files)
        for path in files:
            if held + size <= self._bound:
                return
            held -= path.stat().st_size
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)


def _stem(dataset: Dataset, geometry: Geometry) -> str:
    key = f"{PIXELS_VERSION}:{dataset.digest}:{dataset.border_crop}:{geometry.key()}"
    return f"{slug(dataset.card.id)}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _open(
    stem: Path, shape: tuple[int, int, int, int]
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], list[tuple[int, str]]] | None:
    path = stem.with_suffix(".u8")
    try:
        notes = json.loads(stem.with_suffix(".json").read_text())
        if path.stat().st_size != int(np.prod(shape)):
            return None
        pixels = np.memmap(path, np.uint8, "r", shape=shape)
    except (OSError, ValueError):
        return None
    # Access times say which file goes first; many file systems do not keep them by themselves.
    with contextlib.suppress(OSError):
        os.utime(path)
    valid = np.ones(shape[0], bool)
    valid[np.array(notes["invalid"], int)] = False
    return pixels, valid, [(int(row), str(reason)) for row, reason in notes["problems"]]


def _read(
    pixels: NDArray[np.uint8], valid: NDArray[np.bool_], problems: list[tuple[int, str]], batch_size: int
) -> Iterator[PixelBatch]:
    for start in range(0, len(pixels), batch_size):
        stop = min(start + batch_size, len(pixels))
        mine = tuple(problem for problem in problems if start <= problem[0] < stop)
        yield PixelBatch(start, stop, pixels[start:stop], valid[start:stop], mine)
