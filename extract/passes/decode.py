"""Image files in, uint8 batches out, in row order: decoding in worker processes that may crash or hang."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np

from extract.datasets.base import Dataset
from extract.models.views import Views
from extract.passes.batches import PixelBatch, View
from extract.passes.image_rows import decode_rows
from extract.passes.pieces import Limits, Pieces
from extract.passes.pixel_room import image_bytes, room_of
from extract.passes.pool import Pool

if TYPE_CHECKING:
    from extract.models.base import Geometry

STUCK_SECONDS = 120.0
"""A piece that is waited for longer is taken for hung; its images are then tried one by one."""

STUCK_IMAGE_SECONDS = 20.0

PATIENCE_WITH_VIEWS = 8
"""By which both are multiplied where an image is resized many times over."""


class Decoder:
    """Decodes datasets batch by batch, in this process or in workers that outlive each dataset.

    Parameters
    ----------
    workers
        Number of processes; 0 decodes in this one.
    stuck_seconds, stuck_image_seconds
        How long a piece of a batch, or an image alone, may take before its process is ended and the image counted as
        unreadable.

    Notes
    -----
    A process that dies (a decoder's segmentation fault, the out-of-memory killer) or hangs costs its piece of a batch
    a second try, image by image. An image whose process dies twice of it alone, or hangs, is tried at each geometry by
    itself, marked unreadable at those where that happens again, and everything else goes on.
    """

    def __init__(
        self,
        workers: int,
        *,
        stuck_seconds: float = STUCK_SECONDS,
        stuck_image_seconds: float = STUCK_IMAGE_SECONDS,
    ) -> None:
        self.pool = Pool(workers)
        self._limits = Limits(stuck_seconds, stuck_image_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, geometries: Sequence[Geometry], batch_size: int) -> None:
        """Start the workers, with room for such batches; they get ready while this process does something else."""
        if self.pool.size:
            self.pool.start(room_of(batch_size, self.pool.size) * image_bytes(geometries))

    def close(self) -> None:
        """End the workers."""
        self.pool.close()

    def batches(self, dataset: Dataset, geometries: Sequence[Geometry], batch_size: int) -> Iterator[PixelBatch]:
        """Yield the dataset's rows in order, ``batch_size`` at a time, each with a view for every geometry.

        Raises
        ------
        DatasetStoppedError
            A file's size is not the one in the manifest, or it cannot be had.
        """
        batch_size = min(batch_size, max(len(dataset), 1))  # memory for more would be taken, and never used
        if self.pool.size == 0:
            yield from _here(dataset, geometries, batch_size)
            return
        self.start(geometries, batch_size)
        views = any(isinstance(geometry, Views) for geometry in geometries)
        limits = self._limits.times(PATIENCE_WITH_VIEWS) if views else self._limits
        yield from Pieces(self.pool, limits, dataset, geometries, batch_size).run()


def _here(dataset: Dataset, geometries: Sequence[Geometry], batch_size: int) -> Iterator[PixelBatch]:
    outs = [np.empty((batch_size, *geometry.output_size, 3), np.uint8) for geometry in geometries]
    for start in range(0, len(dataset), batch_size):
        stop = min(start + batch_size, len(dataset))
        begun = time.perf_counter()
        mine = [out[: stop - start] for out in outs]
        found = decode_rows(dataset, geometries, start, stop, mine)
        took = time.perf_counter() - begun
        views = [
            View(pixels, np.array(rows.valid, bool), tuple(rows.problems))
            for pixels, rows in zip(mine, found, strict=True)
        ]
        yield PixelBatch(start, stop, tuple(views), took)
