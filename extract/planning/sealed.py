"""What to report on stores that exist already: one cannot be used, images of a dataset could not be read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from cache_schema.reading.open_stores import open_store
from closerlook_common.errors import CacheError


class Found(NamedTuple):
    """What is to be reported of stores that were made before; both empty where there is nothing."""

    damage: str = ""
    unreadable: str = ""


def look_at(paths: Iterable[Path]) -> Found:
    """Read the headers of the stores of one job.

    Half a store, as a copy that was broken off leaves it, is found; changed bytes of its arrays are not, which is what
    ``python -m cache_schema check`` is for.

    Returns
    -------
    Found
        Why one cannot be used and what fixes that, and how many images could not be read when they were made.
    """
    unreadable = ""
    for path in paths:
        try:
            record = open_store(path).record
        except (CacheError, OSError) as error:
            reason = str(error).removeprefix(str(path)).lstrip("/: ")
            fix = "remove it and run the same command again, or copy it here once more"
            return Found(damage=f"{path} cannot be used ({reason}): {fix}")
        count, given = int(record.get("n_unreadable") or 0), record.get("unreadable")
        if count and given:
            many = f"{count} images" if count > 1 else "1 image"
            unreadable = f"{many} could not be read ({given[0]['image_id']}: {given[0]['reason']})"
    return Found(unreadable=unreadable)
