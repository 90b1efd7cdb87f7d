"""Read summaries: per-image statistics."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from cache_schema.reading.store import Store
from closerlook_common.errors import UserError, nearest


class SummaryStore(Store):
    """Per-image statistics: the columns that nearly every metric is computed from."""

    def columns(self) -> tuple[str, ...]:
        """Return the columns' names."""
        return tuple(item["name"] for item in self.details["columns"])

    @property
    def variant(self) -> str:
        """Name of one of several summaries of the same outputs; empty for the plain one."""
        return str(self.details["variant"])

    def column(self, name: str) -> NDArray[Any]:
        """Return a column, (n,) or (n, k); text as an object array of str.

        Parameters
        ----------
        name
            One of ``columns()``; the error for another name suggests the nearest.
        """
        for item in self.details["columns"]:
            if item["name"] == name:
                return self._column(item)
        raise UserError(f"{self.path.name} has no column {name!r}{nearest(name, self.columns())}")
