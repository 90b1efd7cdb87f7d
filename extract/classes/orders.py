"""The order of a classifier's outputs: training frameworks sort class folders in two ways."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from closerlook_common.errors import UserError

ORDERS = ("timm", "torchvision")
"""timm sorts by natural key: case ignored, runs of digits by their number. torchvision sorts as Python does: c10 before
c2, capitals before small letters.
"""


def natural_key(name: str) -> list[int | str]:
    """Return the key that timm sorts class folders by.

    Examples
    --------
    >>> sorted(["c10", "c2", "B"], key=natural_key)
    ['B', 'c2', 'c10']
    """
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name.lower())]


def in_order(names: Sequence[str], order: str) -> list[str]:
    """Return class names as a framework orders them.

    Raises
    ------
    UserError
        timm's key does not distinguish two of the names; their order is then an accident of the training run.
    """
    if order == "torchvision":
        return sorted(names)
    try:
        ordered = sorted(names, key=natural_key)
    except (TypeError, ValueError) as error:  # digits of other scripts are digits to one function and no numbers to int
        raise UserError(f"timm cannot sort the class names: {error}") from error
    for first, second in pairwise(ordered):
        if natural_key(first) == natural_key(second):
            raise UserError(f"timm does not distinguish {first!r} and {second!r}, so that its order is not known")
    return ordered


def differ(names: Sequence[str]) -> tuple[str, str] | None:
    """Return the first place where the two orders differ: the name that timm has there, and torchvision's; or None."""
    plain = in_order(names, "torchvision")
    try:
        natural = in_order(names, "timm")
    except UserError:
        return plain[0], plain[-1]
    return next(((one, other) for one, other in zip(natural, plain, strict=True) if one != other), None)
