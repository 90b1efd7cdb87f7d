"""Copy the records of the datasets' roles along with the stores, in both directions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cache_schema.format.dataset_facts import FOLDER, Recorded, add_record, drop_replaced, record_names, recorded_in
from cache_schema.reading.places.base import Place

if TYPE_CHECKING:
    from cache_schema.reading.places.remote import RemotePlace


def push_roles(cache_path: Path, place: RemotePlace) -> list[str]:
    """Send a cache's records to an address and remove the records that they replace there.

    Returns
    -------
    list of str
        Damaged records, which were not sent, one line each.
    """
    recorded = recorded_in(cache_path)
    there = set(place.record_names())
    replaced = set()
    for records in recorded.records.values():
        for record in records:
            if record.name not in there:
                place.wire.write(f"{FOLDER}/{record.name}", record.to_bytes())
            replaced |= set(record.replaces)
    for name in there:
        if any(name.endswith(f"-{digest[:16]}.json") for digest in replaced):
            place.wire.remove(f"{FOLDER}/{name}")
    return list(recorded.problems)


def copy_roles(source: Place | Recorded, cache_path: Path) -> list[str]:
    """Copy the records of a cache into one on this machine.

    Returns
    -------
    list of str
        Damaged records, which were not copied, one line each.
    """
    recorded = source.recorded() if isinstance(source, Place) else source
    there = set(record_names(cache_path))
    for records in recorded.records.values():
        for record in records:
            if record.name not in there:
                add_record(cache_path, record)
    drop_replaced(cache_path)
    return list(recorded.problems)
