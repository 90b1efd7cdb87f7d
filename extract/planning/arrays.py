"""The arrays that are stored when asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from closerlook_common.errors import UserError, nearest

ARRAYS: Mapping[str, str] = {
    "texts": "text heads also hold the embeddings of every template (subsets and weightings of templates)",
    "unit": "references also hold sums of features at unit length (Mahalanobis++) and the keys of the bank's rows",
}
"""Arrays that are stored when asked for: name -> what they are."""


def arrays_of(names: str | Iterable[str]) -> tuple[str, ...]:
    """Return names of ``ARRAYS``, each once and in the table's order; UserError for another.

    Examples
    --------
    >>> arrays_of("unit, unit")
    ('unit',)
    """
    given = names.split(",") if isinstance(names, str) else list(names)
    wanted = {name.strip() for name in given if name.strip()}
    for name in sorted(wanted):
        if name not in ARRAYS:
            known = nearest(name, ARRAYS) or f"; known: {', '.join(ARRAYS)}"
            raise UserError(f"`arrays` {name!r} is not known{known}")
    return tuple(name for name in ARRAYS if name in wanted)
