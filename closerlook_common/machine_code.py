"""Machine code that numba keeps on disk, where only this user, or the one who installed the package, could have put it.

numba keeps what it compiled next to the source if it can write there, else in the user's home, and unpickles it: a
folder of somebody else could hold anything. Imports numba, so that only modules of kernels import this.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

from closerlook_common.errors import UserError
from closerlook_common.user_cache import require_own


def kept_kernel(function: Callable[..., Any], **options: Any) -> Any | None:
    """Return a function that is compiled once per machine.

    Parameters
    ----------
    function
        What to compile.
    **options
        Of ``numba.njit``.

    Returns
    -------
    Any or None
        The compiled function; None where no folder can be written to, and where the folder belongs to another user or
        is open to all.
    """
    try:
        kernel = njit(function, cache=True, **options)
    except RuntimeError:  # numba found no folder that it can write to
        return None
    source = Path(function.__code__.co_filename)
    return kernel if is_own(Path(kernel.stats.cache_path), source) else None


def is_own(folder: Path, source: Path) -> bool:
    """Return whether kernels in a folder can be trusted: it is next to their source, or belongs to this user only."""
    if folder.parent == source.parent:
        return True
    try:
        require_own(folder, "")
    except UserError:
        return False
    return True
