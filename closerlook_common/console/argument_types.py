"""Types for options of the command lines: finite numbers within bounds, files to write."""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)


def parse_whole(text: str) -> int | None:
    """Return the whole number that a text holds in decimal digits, or None.

    Unlike ``str.isdigit`` and ``int`` this refuses digits of other alphabets, underscores, and numbers that a 64-bit
    integer cannot hold.

    Examples
    --------
    >>> parse_whole("16"), parse_whole("1_6"), parse_whole("²"), parse_whole("1e3")
    (16, None, None, None)
    """
    return int(text) if _WHOLE.fullmatch(text.strip()) else None


def output_file(text: str) -> Path:
    """Return the path of a file to write: a type for ``argparse``, checked before anything is computed.

    An existing path must be a regular file: a table written over ``/dev/null`` would replace the device.
    """
    path = Path(text)
    try:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "not a regular file"
            raise argparse.ArgumentTypeError(f"{text} is {kind}; name a file")
        above = next((folder for folder in path.absolute().parents if folder.exists()), None)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be written: {getattr(error, 'strerror', error)}") from None
    if above is not None and not above.is_dir():
        raise argparse.ArgumentTypeError(f"{text} cannot be written: {above} is not a folder")
    if above is not None and not os.access(above, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text} cannot be written: no permission to write in {above}")
    return path


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a type for ``argparse``: a whole number between two bounds, both included.

    Parameters
    ----------
    least, most
        The bounds; None for no upper one.
    """

    def number(text: str) -> int:
        value = parse_whole(text)
        if value is None:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a whole number")
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is below {least}")
        if most is not None and value > most:
            raise argparse.ArgumentTypeError(f"{value} is above {most}")
        return value

    return number


def real_number(
    *, above: float | None = None, least: float | None = None, most: float | None = None, below: float | None = None
) -> Callable[[str], float]:
    """Return a type for ``argparse``: a finite number within bounds; neither NaN nor infinity.

    Parameters
    ----------
    above, below
        Bounds that are not included.
    least, most
        Bounds that are included.
    """

    def number(text: str) -> float:
        try:
            value = float(text if text.isascii() and "_" not in text else "")
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a number") from None
        if not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{text[:40]!r} is not a finite number")
        for fails, problem in (
            (above is not None and value <= above, f"not above {above}"),
            (least is not None and value < least, f"below {least}"),
            (below is not None and value >= below, f"not below {below}"),
            (most is not None and value > most, f"above {most}"),
        ):
            if fails:
                raise argparse.ArgumentTypeError(f"{text} is {problem}")
        return value

    return number
