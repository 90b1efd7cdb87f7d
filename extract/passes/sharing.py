"""Which geometries share a decode: as many as memory holds, and with a pixel cache those of later passes too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from extract.datasets.base import Dataset
from extract.passes.pixel_cache import pixel_bytes
from extract.passes.pixel_room import image_bytes, most_bytes, together
from extract.planning.jobs import Job
from extract.planning.options import RunOptions
from extract.planning.plan import Unit
from extract.preprocess import Geometry


class Sharing:
    """Divides the geometries of a unit into passes.

    Parameters
    ----------
    unit
        What will be done.
    options
        Batch size, processes and pixel cache.
    most
        Bytes that decoded pixels may take; None for what this machine allows.

    Notes
    -----
    Pixels of models that do not fit the device yet are made and kept while the first ones run, where the pixel cache
    can hold every dataset of the unit at every geometry. Where it cannot, they would be removed before they are used.
    """

    def __init__(self, unit: Unit, options: RunOptions, most: int | None = None) -> None:
        self._options, self._most = options, most_bytes() if most is None else most
        self._rows = max((len(job.dataset) for job in unit.jobs), default=0)
        self._geometries = unit.geometries
        needed = {(job.dataset.digest, geometry_of(job)): job for job in unit.jobs}
        size = sum(pixel_bytes(job.dataset, geometry_of(job)) for job in needed.values())
        self._owed: dict[str, list[Geometry]] = {}
        if options.pixel_cache is not None and size <= options.pixel_cache_bytes:
            for job in needed.values():
                self._owed.setdefault(job.dataset.digest, []).append(geometry_of(job))

    def largest(self) -> tuple[Sequence[Geometry], int]:
        """Return the geometries that take most memory side by side, and the rows of their batches."""
        return max(self._together(self._geometries, self._rows), key=image_bytes, default=[]), self._batch(self._rows)

    def passes(self, dataset: Dataset, geometries: Iterable[Geometry]) -> list[list[Geometry]]:
        """Return which geometries are made of a dataset's images side by side, those of one pass after another."""
        return self._together(list(dict.fromkeys(geometries)), len(dataset))

    def ahead(self, dataset: Dataset, geometries: Sequence[Geometry]) -> list[Geometry]:
        """Return which other geometries are made and kept in a pass that is run for these; later passes need them."""
        owed = self._owed.get(dataset.digest, [])
        owed[:] = [geometry for geometry in owed if geometry not in geometries]
        found = self._together([*geometries, *owed], len(dataset))[0][len(geometries) :]
        owed[:] = [geometry for geometry in owed if geometry not in found]
        return found

    def _together(self, geometries: Sequence[Geometry], n_images: int) -> list[list[Geometry]]:
        return together(geometries, self._batch(n_images), self._options.workers, self._most)

    def _batch(self, n_images: int) -> int:
        return min(self._options.batch_size, max(n_images, 1))


def geometry_of(job: Job) -> Geometry:
    """Return what a job does to its dataset's images."""
    return job.preprocessing.geometry
