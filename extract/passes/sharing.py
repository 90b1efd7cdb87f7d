"""Which geometries share a decode: as many as memory holds, and with a pixel cache those of later passes too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from extract.datasets.base import Dataset
from extract.models.views import Views
from extract.passes.pixel_cache import pixel_bytes
from extract.passes.pixel_room import image_bytes, most_bytes, room_of, rows_of_views, together
from extract.planning.jobs import geometry_of
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
            for job in (job for job in needed.values() if not isinstance(geometry_of(job), Views)):
                self._owed.setdefault(job.dataset.digest, []).append(geometry_of(job))

    def largest(self) -> tuple[Sequence[Geometry], int]:
        """Return the geometries that take most memory side by side, and the rows of their batches."""
        groups = [(group, self._rows_of(group, self._rows)) for group in self._together(self._geometries, self._rows)]

        def size(group: tuple[Sequence[Geometry], int]) -> int:
            return room_of(group[1], self._options.workers) * image_bytes(group[0])

        return max(groups, key=size, default=([], self._batch(self._rows)))

    def rows(self, dataset: Dataset, geometries: Sequence[Geometry]) -> int:
        """Return the rows of the batches of a pass."""
        return self._rows_of(geometries, len(dataset))

    def _rows_of(self, geometries: Sequence[Geometry], n_images: int) -> int:
        views = next((geometry for geometry in geometries if isinstance(geometry, Views)), None)
        batch = self._batch(n_images)
        return batch if views is None else rows_of_views(batch, views, self._options.workers, self._most)

    def passes(self, dataset: Dataset, geometries: Iterable[Geometry]) -> list[list[Geometry]]:
        """Return which geometries are made of a dataset's images side by side, those of one pass after another."""
        return self._together(list(dict.fromkeys(geometries)), len(dataset))

    def ahead(self, dataset: Dataset, geometries: Sequence[Geometry]) -> list[Geometry]:
        """Return which other geometries are made and kept in a pass that is run for these; later passes need them."""
        if any(isinstance(geometry, Views) for geometry in geometries):
            return []
        owed = self._owed.get(dataset.digest, [])
        owed[:] = [geometry for geometry in owed if geometry not in geometries]
        found = self._together([*geometries, *owed], len(dataset))[0][len(geometries) :]
        owed[:] = [geometry for geometry in owed if geometry not in found]
        return found

    def _together(self, geometries: Sequence[Geometry], n_images: int) -> list[list[Geometry]]:
        """Divide geometries into passes; views have one of their own, whose batches hold few images."""
        plain = [geometry for geometry in geometries if not isinstance(geometry, Views)]
        groups = together(plain, self._batch(n_images), self._options.workers, self._most)
        return groups + [[geometry] for geometry in geometries if isinstance(geometry, Views)]

    def _batch(self, n_images: int) -> int:
        return min(self._options.batch_size, max(n_images, 1))
