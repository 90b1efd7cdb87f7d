"""Decoded pixels on disk, for model groups that need several passes over the same images, now or in a later run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cache_schema.naming import slug
from cache_schema.staging import try_lock
from extract.datasets.base import Dataset
from extract.passes.decode import Decoder, PixelBatch
from extract.passes.events import Event, Listener
from extract.passes.image_rows import DatasetChangedError
from extract.passes.watching import Watch
from extract.planning.options import RunOptions
from extract.preprocess import Geometry

STAGED = ".staged"
STALE_SECONDS = 3600.0
"""Where the file system has no locks: a half file that has not grown for so long is nobody's."""

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
    tell
        Told once, where pixels cannot be kept; the images are then decoded all the same.

    Notes
    -----
    A file is named by dataset digest and geometry and appears under that name only when it is complete.
    """

    def __init__(self, decoder: Decoder, options: RunOptions, tell: Listener = lambda event: None) -> None:
        self._decoder = decoder
        self._tell = tell
        self._told: set[str] = set()
        self.watch = Watch()
        self._folder = options.pixel_cache
        self._bound = options.pixel_cache_bytes

    def batches(self, dataset: Dataset, geometry: Geometry, batch_size: int) -> Iterator[PixelBatch]:
        """Yield the rows in order; pixels are valid until the next batch is asked for.

        Raises
        ------
        DatasetStoppedError
            The dataset is not the one that was listed any more, or cannot be read.
        """
        self.watch.begin(dataset)
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
            yield from kept.batches(batch_size)

    def _decode_and_keep(
        self, stem: Path, dataset: Dataset, geometry: Geometry, batch_size: int
    ) -> Iterator[PixelBatch]:
        valid = np.zeros(len(dataset), bool)
        problems: list[tuple[int, str]] = []
        keeper = _Keeper(stem, self._tell_once)
        try:
            for batch in self._decoder.batches(dataset, geometry, batch_size):
                keeper.write(batch.pixels)
                valid[batch.start : batch.stop] = batch.valid
                problems.extend(batch.problems)
                yield batch
            if change := self.watch.change(dataset):  # later runs would take these pixels for the dataset's
                raise DatasetChangedError(change)
            keeper.publish({"problems": problems, "invalid": np.flatnonzero(~valid).tolist()})
        finally:
            keeper.close()

    def _tell_once(self, event: Event) -> None:
        if event.text not in self._told:
            self._told.add(event.text)
            self._tell(event)

    def _make_room(self, size: int) -> None:
        assert self._folder is not None
        _clean(self._folder)
        files = []
        for path in self._folder.glob("*.u8"):
            with contextlib.suppress(FileNotFoundError):  # a run beside this one makes room as well
                status = path.stat()
                files.append((status.st_atime_ns, path, status.st_size))
        held = sum(kept for _, _, kept in files)
        for _, path, kept in sorted(files):
            if held + size <= self._bound:
                return
            held -= kept
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)


class _Keeper:
    """Writes a pixel file under a hidden name; what goes wrong ends the keeping, not the pass."""

    def __init__(self, stem: Path, tell: Listener) -> None:
        self._stem, self._tell = stem, tell
        self._staged = stem.with_name(f".{stem.name}.{os.getpid()}{STAGED}")
        self._file: IO[bytes] | None = None
        with self._told():
            stem.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._staged.open("wb")
            try_lock(self._file.fileno())  # until it is closed, however this process ends

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.close()
            reason = error.strerror or str(error)
            self._tell(Event("note", text=f"decoded pixels cannot be kept in {self._stem.parent}: {reason}"))

    def write(self, pixels: NDArray[np.uint8]) -> None:
        """Add a batch."""
        if self._file is not None:
            with self._told():
                self._file.write(np.ascontiguousarray(pixels).data)

    def publish(self, notes: Mapping[str, Any]) -> None:
        """Give the finished file its name."""
        if self._file is not None:
            with self._told():
                self._file.flush()
                os.fsync(self._file.fileno())  # a file of the right size but without its bytes would be believed
                self._stem.with_suffix(".json").write_text(json.dumps(notes))
                self._staged.replace(self._stem.with_suffix(".u8"))

    def close(self) -> None:
        """Remove what was not published."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # what is still to be written does not matter
                self._file.close()
            self._file = None
            self._staged.unlink(missing_ok=True)


def _clean(folder: Path) -> None:
    """Remove the half files of processes that died; those of living ones are locked."""
    for path in folder.glob(f".*{STAGED}"):
        with contextlib.suppress(OSError), path.open("rb") as file:
            taken = try_lock(file.fileno())
            if taken or (taken is None and time.time() - path.stat().st_mtime > STALE_SECONDS):
                path.unlink(missing_ok=True)


def _stem(dataset: Dataset, geometry: Geometry) -> str:
    key = f"{PIXELS_VERSION}:{dataset.digest}:{dataset.border_crop}:{geometry.key()}"
    return f"{slug(dataset.card.id)}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, eq=False)
class _Kept:
    """A complete pixel file, open, so that nobody can take it away, and what else is known of its rows."""

    file: FileIO
    shape: tuple[int, int, int, int]
    valid: NDArray[np.bool_]
    problems: list[tuple[int, str]]

    def batches(self, batch_size: int) -> Iterator[PixelBatch]:
        """Yield the rows in order, each batch read while the one before is in use.

        Read, not mapped: a page at a time, as a mapped file comes from a cold disk, takes three times as long and
        would hold up whoever copies the pixels on.
        """
        batch_size = min(batch_size, max(self.shape[0], 1))
        starts = range(0, self.shape[0], batch_size)
        spare = [np.empty((batch_size, *self.shape[1:]), np.uint8) for _ in range(2)]
        with self.file as file, ThreadPoolExecutor(1, "pixels") as reader:
            waiting: Future[None] | None = None
            for start in starts:
                stop = min(start + batch_size, self.shape[0])
                pixels = spare[0][: stop - start]
                if waiting is None:
                    waiting = reader.submit(_fill, file, pixels)
                waiting.result()
                spare.reverse()
                if stop < self.shape[0]:
                    following = min(stop + batch_size, self.shape[0]) - stop
                    waiting = reader.submit(_fill, file, spare[0][:following])
                mine = tuple(problem for problem in self.problems if start <= problem[0] < stop)
                yield PixelBatch(start, stop, pixels, self.valid[start:stop], mine)


def _fill(file: FileIO, pixels: NDArray[np.uint8]) -> None:
    """Read the next pixels of a file."""
    left = pixels.reshape(-1).data
    while left:
        n = file.readinto(left)
        if not n:
            raise OSError(f"{file.name} has become shorter while it was read; run the same command again")
        left = left[n:]


def _open(stem: Path, shape: tuple[int, int, int, int]) -> _Kept | None:
    path = stem.with_suffix(".u8")
    valid = np.ones(shape[0], bool)
    try:
        notes = json.loads(stem.with_suffix(".json").read_text())
        valid[np.array(notes["invalid"], int)] = False
        problems = [(int(row), str(reason)) for row, reason in notes["problems"]]
        file = path.open("rb", buffering=0)
    except (OSError, ValueError, LookupError, TypeError):  # half of it, or somebody else's: decoded anew
        return None
    if os.fstat(file.fileno()).st_size != int(np.prod(shape)):
        file.close()
        return None
    # Access times say which file goes first; many file systems do not keep them by themselves.
    with contextlib.suppress(OSError):
        os.utime(path)
    return _Kept(file, shape, valid, problems)
