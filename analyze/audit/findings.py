"""What a reviewer objects to, one finding a line: the kind, what was found, and the fix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One objection.

    Attributes
    ----------
    kind
        Name of the check, as in ``--only``.
    found
        What was found, with numbers and names.
    fix
        What to do about it.
    """

    kind: str
    found: str
    fix: str

    def __str__(self) -> str:
        """Return the line that the command prints."""
        return f"{self.kind}: {self.found}. Fix: {self.fix}."


def listed(names: Iterable[str], most: int = 3) -> str:
    """Return names in order, those beyond a few as their number.

    Examples
    --------
    >>> listed(["b", "a", "d", "c"])
    'a, b, c and 1 more'
    """
    ordered = sorted(set(names))
    shown = ", ".join(ordered[:most])
    return shown if len(ordered) <= most else f"{shown} and {len(ordered) - most} more"
