"""Weights in NumPy's archives: their sizes are checked before a library reads them, as an archive may be compressed."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np

from closerlook_common.errors import UserError

_MOST_EXPANSION = 8
"""Trained weights hardly compress; a file that expands by more was made to."""


def check_npz(path: Path) -> None:
    """Raise where a file is not an archive of plain arrays, or expands to much more than it holds.

    Raises
    ------
    UserError
        The message begins with "it" and names no file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if sum(entry.file_size for entry in entries) > _MOST_EXPANSION * path.stat().st_size:
                raise UserError(f"it expands to more than {_MOST_EXPANSION} times its size; save it uncompressed")
            for entry in entries:
                with archive.open(entry) as file:
                    version = np.lib.format.read_magic(file)
                    reader = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
                    shape, _, dtype = reader[version[0]](file)
                if dtype.hasobject or math.prod(shape) * dtype.itemsize > entry.file_size:
                    raise UserError(f"its array {entry.filename} is of {dtype} and {shape}, which it does not hold")
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"it is not an archive of numpy.savez: {' '.join(str(error).split())[:200]}") from error
