"""Decoded pixels on disk, for model groups that need several passes over the same images, now or in a later run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from cache_schema.format.naming import slug
from closerlook_common.owner_lock import try_lock
from closerlook_common.user_cache import write_whole
from extract.datasets.base import Dataset
from extract.models.views import Views
from extract.passes.batches import PixelBatch, View
from extract.passes.decode import Decoder
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
    notify
        Called once, where pixels cannot be kept; the images are then decoded all the same.

    Notes
    -----
    A file is named by dataset digest and geometry and appears under that name only when it is complete.
    """

    def __init__(self, decoder: Decoder, options: RunOptions, notify: Listener = lambda event: None) -> None:
        self._decoder = decoder
        self._notify = notify
        self._stated: set[str] = set()
        self.watch = Watch()
        self._folder = options.pixel_cache
        self._bound = options.pixel_cache_bytes

    def batches(
        self, dataset: Dataset, geometries: Sequence[Geometry], batch_size: int, ahead: Sequence[Geometry] = ()
    ) -> Iterator[PixelBatch]:
        """Yield the rows in order; pixels are valid until the next batch is asked for.

        Parameters
        ----------
        dataset, geometries, batch_size
            What is wanted.
        ahead
            Geometries that are wanted later: where images are decoded now and their pixels can be kept, these are made
            in the same go.

        Raises
        ------
        DatasetStoppedError
            The dataset is not the one that was listed any more, or cannot be read.
        """
        self.watch.begin(dataset)
        kept = {geometry: found for geometry in geometries if (found := self._kept(dataset, geometry)) is not None}
        missing = [geometry for geometry in geometries if geometry not in kept]
        rows = min(batch_size, max(len(dataset), 1))
        with contextlib.ExitStack() as stack:
            for found in kept.values():
                stack.enter_context(found.file)
            read = {geometry: stack.enter_context(closing(found.views(rows))) for geometry, found in kept.items()}
            decoded = self._decode_and_keep(dataset, missing, rows, ahead) if missing else _bare(len(dataset), rows)
            for batch in stack.enter_context(closing(decoded)):
                views = dict(zip(missing, batch.views, strict=True))
                views |= {geometry: next(reading) for geometry, reading in read.items()}
                yield PixelBatch(batch.start, batch.stop, tuple(views[one] for one in geometries), batch.seconds)

    def _kept(self, dataset: Dataset, geometry: Geometry) -> _Kept | None:
        size = pixel_bytes(dataset, geometry)
        if self._folder is None or size > self._bound or not size:
            return None
        return _open(self._folder / _stem(dataset, geometry), (len(dataset), *geometry.output_size, 3))

    def _decode_and_keep(
        self, dataset: Dataset, geometries: Sequence[Geometry], batch_size: int, ahead: Sequence[Geometry]
    ) -> Generator[PixelBatch]:
        keepers = self._keepers(dataset, geometries, ahead)
        made = [*geometries, *(geometry for geometry in keepers if geometry not in geometries)]
        try:
            for batch in self._decoder.batches(dataset, made, batch_size):
                for geometry, view in zip(made, batch.views, strict=True):
                    if geometry in keepers:
                        keepers[geometry].write(batch.start, view)
                yield PixelBatch(batch.start, batch.stop, batch.views[: len(geometries)], batch.seconds)
            if keepers and (change := self.watch.change(dataset)):  # later runs would take these pixels for its own
                raise DatasetChangedError(change)
            for keeper in keepers.values():
                keeper.publish()
        finally:
            for keeper in keepers.values():
                keeper.close()

    def _keepers(
        self, dataset: Dataset, geometries: Sequence[Geometry], ahead: Sequence[Geometry]
    ) -> dict[Geometry, _Keeper]:
        """Begin the files of what is wanted, then of what is wanted later, as far as the bound goes."""
        if self._folder is None:
            return {}
        chosen: list[Geometry] = []
        total = 0
        for geometry in (*geometries, *ahead):
            size = pixel_bytes(dataset, geometry)
            if not size or total + size > self._bound:
                continue
            if geometry not in geometries and (found := self._kept(dataset, geometry)) is not None:
                found.file.close()
                continue
            chosen.append(geometry)
            total += size
        if chosen:
            self._make_room(total)
        return {one: _Keeper(self._folder / _stem(dataset, one), self._tell_once) for one in chosen}

    def _tell_once(self, event: Event) -> None:
        if event.text not in self._stated:
            self._stated.add(event.text)
            self._notify(event)

    def _make_room(self, size: int) -> None:
        assert self._folder is not None
        _clean(self._folder)
        files = []
        for path in self._folder.glob("*.u8"):
            with contextlib.suppress(FileNotFoundError):  # another run makes room as well
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

    def __init__(self, stem: Path, notify: Listener) -> None:
        self._stem, self._notify = stem, notify
        self._invalid: list[int] = []
        self._problems: list[tuple[int, str]] = []
        self._staged = stem.with_name(f".{stem.name}.{os.getpid()}.{secrets.token_hex(4)}{STAGED}")
        self._file: IO[bytes] | None = None
        with self._stated():
            stem.parent.parent.mkdir(parents=True, exist_ok=True)
            stem.parent.mkdir(mode=0o700, exist_ok=True)  # images may be private
            self._file = self._staged.open("xb")
            try_lock(self._file.fileno())  # until it is closed, however this process ends

    @contextlib.contextmanager
    def _stated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.close()
            reason = error.strerror or str(error)
            self._notify(Event("note", text=f"decoded pixels cannot be kept in {self._stem.parent}: {reason}"))

    def write(self, start: int, view: View) -> None:
        """Add a batch whose first row is ``start``."""
        self._invalid += (start + np.flatnonzero(~view.valid)).tolist()
        self._problems += view.problems
        if self._file is not None:
            with self._stated():
                self._file.write(np.ascontiguousarray(view.pixels).data)

    def publish(self) -> None:
        """Give the finished file its name."""
        if self._file is not None:
            notes = {"problems": self._problems, "invalid": self._invalid}
            with self._stated():
                self._file.flush()
                os.fsync(self._file.fileno())  # a file of the right size but without its bytes would be believed
                write_whole(self._stem.with_suffix(".json"), json.dumps(notes).encode())
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


def pixel_bytes(dataset: Dataset, geometry: Geometry) -> int:
    """Return the size of a dataset's pixel file; 0 for views, which are not kept: too many for each image."""
    if isinstance(geometry, Views):
        return 0
    height, width = geometry.output_size
    return len(dataset) * height * width * 3


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

    def views(self, batch_size: int) -> Generator[View]:
        """Yield the rows in order, each batch read while the one before is in use.

        Read, not mapped: a page at a time, as a mapped file comes from a cold disk, takes three times as long and
        would delay the process that copies the pixels.
        """
        spare = [np.empty((batch_size, *self.shape[1:]), np.uint8) for _ in range(2)]
        with ThreadPoolExecutor(1, "pixels") as reader:
            waiting: Future[None] | None = None
            for start in range(0, self.shape[0], batch_size):
                stop = min(start + batch_size, self.shape[0])
                pixels = spare[0][: stop - start]
                if waiting is None:
                    waiting = reader.submit(_fill, self.file, pixels)
                waiting.result()
                spare.reverse()
                if stop < self.shape[0]:
                    following = min(stop + batch_size, self.shape[0]) - stop
                    waiting = reader.submit(_fill, self.file, spare[0][:following])
                mine = tuple(problem for problem in self.problems if start <= problem[0] < stop)
                yield View(pixels, self.valid[start:stop], mine)


def _bare(n_images: int, batch_size: int) -> Generator[PixelBatch]:
    """Yield batches without pixels."""
    for start in range(0, n_images, batch_size):
        yield PixelBatch(start, min(start + batch_size, n_images), ())


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
