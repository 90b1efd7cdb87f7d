"""Compile kernels, keep the machine code where it can be trusted, and report a long compilation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core import event

from closerlook_common.console.waiting import Accumulated
from closerlook_common.machine_code import kept_kernel

_KEPT = "compiling the numerical kernels, which are kept for later runs on this machine"
_NOT_KEPT = "compiling the numerical kernels; set NUMBA_CACHE_DIR to a folder of your own to keep them for later runs"


class _Compilation(event.Listener):
    """Says that kernels are being compiled, if that takes long; those that are kept on disk are not compiled again."""

    def __init__(self) -> None:
        self.wait = Accumulated(_KEPT)

    def on_start(self, event: Any) -> None:
        self.wait.begin()

    def on_end(self, event: Any) -> None:
        self.wait.end()


_compilation = _Compilation()
event.register("numba:compile", _compilation)  # type: ignore[no-untyped-call]


def compiled(*, cache: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile with numba; by default a division by zero gives inf instead of a branch that stops vectorisation.

    Parameters
    ----------
    cache
        Keep the kernel on disk. It is compiled by each process where no folder can be written to, and where the folder
        belongs to another user or is open to all. Without it the function can be called by kernels only: the code that
        Python would call it through is left out, a fifth of the time that all kernels take to compile.
    **options
        Of ``numba.njit``.
    """

    def compile_one(function: Callable[..., Any]) -> Any:
        given = {"error_model": "numpy", **options}
        if cache:
            kernel = kept_kernel(function, **given)
            if kernel is not None:
                return kernel
            _compilation.wait = Accumulated(_NOT_KEPT)
            return njit(function, **given)
        bare: dict[str, Any] = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
        return njit(function, **bare, **given)

    return compile_one
