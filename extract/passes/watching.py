"""Whether a dataset is still the one that a process began to read."""

from __future__ import annotations

from extract.datasets.base import Dataset
from extract.passes.image_rows import DatasetChangedError, changed_since, last_change


class Watch:
    """Remembers of each dataset when its images were last changed, by the clock of their own file system.

    Sizes, which a dataset's digest is made from, do not show that an image was replaced by another of the same size
    between two passes, or in the middle of one: models of one run would have seen different images.
    """

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], int] = {}
        self._changed: dict[tuple[str, str], str] = {}

    def begin(self, dataset: Dataset) -> None:
        """Take note of a dataset that is read next.

        Raises
        ------
        DatasetChangedError
            It was found changed before, so that no further pass over it is of use.
        """
        key = dataset.card.id, dataset.digest
        if key in self._changed:
            raise DatasetChangedError(self._changed[key])
        if key not in self._last:
            self._last[key] = last_change(dataset)

    def change(self, dataset: Dataset) -> str:
        """Return which file is not what it was when `begin` was first called with the dataset; empty where all are."""
        key = dataset.card.id, dataset.digest
        if found := changed_since(dataset, self._last.get(key)):
            self._changed[key] = found
        return found
