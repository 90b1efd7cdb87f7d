"""Which published models there are, and how many parameters each has, built on no memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from extract.libraries import registry
from extract.libraries.base import Entry, Library
from extract.libraries.counts import Counts

NON_COMMERCIAL = frozenset({"cc-by-nc-4.0", "fair-noncommercial-research-license", "apple-amlr", "seer-license"})
"""Licences that forbid commercial use, or allow research alone."""
OPEN = frozenset({"apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0"})
"""Licences that allow it; anything else has terms of its own."""


def entries() -> Iterator[Entry]:
    """Yield every published model of all libraries."""
    libraries, _ = registry.every()
    for library in libraries:
        yield from library.entries()


def count_parameters(wanted: Iterable[Entry]) -> Iterator[int | None]:
    """Yield each model's number of parameters: of its image tower, a classifier included.

    Models are built on the meta device, which allocates nothing, and the counts are remembered by library
    version. None where an architecture cannot be built that way.
    """
    with Counts("parameters") as counts:
        for entry in wanted:
            library = registry.get(entry.library)
            architecture = entry.architecture
            yield counts.of(library, architecture, partial(_count, library, architecture))


def _count(library: Library, architecture: str) -> int | None:
    import torch

    try:
        with torch.device("meta"):
            model = library.published_tower(architecture)
    except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError, ImportError):
        return None
    return int(sum(parameter.numel() for parameter in model.parameters()))
