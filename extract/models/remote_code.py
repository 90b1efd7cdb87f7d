"""Python in the folder of a tokenizer or a model: it runs only where the user's own model line allows it.

A configuration can point at such code in several ways (``trust_remote_code`` among a tokenizer's arguments,
``auto_map`` in a file of its folder, the name of a kernel), and transformers may ask at the terminal, where ``yes |``
would answer. So the functions of transformers that import foreign code are replaced, once a process, by ones that
refuse unless the calling context was allowed it.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from closerlook_common.errors import UserError

OPTION = "trust_remote_code"

_IMPORTERS = (
    ("transformers.dynamic_module_utils", "get_cached_module_file"),
    ("transformers.dynamic_module_utils", "get_class_in_module"),
    ("transformers.integrations.hub_kernels", "get_kernel"),
)
"""Functions that fetch or import code; every caller in transformers looks them up in their module."""

_allowed: ContextVar[bool] = ContextVar("remote_code_allowed", default=False)


class RemoteCodeError(UserError):
    """Something asked to run code of its own, and the model's line does not allow it."""


@contextmanager
def remote_code(allowed: bool, where: str, of: str) -> Iterator[None]:
    """Allow or refuse foreign code to whatever transformers does inside.

    Parameters
    ----------
    allowed
        Whether the user's own line says ``trust_remote_code=yes``.
    where
        The line, for the message.
    of
        Whose code it would be, for the message, such as ``the tokenizer NAME``.

    Raises
    ------
    RemoteCodeError
        Code was asked for and is not allowed.
    """
    _guard()
    token = _allowed.set(allowed)
    try:
        yield
    except RemoteCodeError:
        raise _refused(where, of) from None
    except ValueError as error:
        # What transformers itself says where code is needed and not trusted.
        if allowed or OPTION not in str(error):
            raise
        raise _refused(where, of) from error
    finally:
        _allowed.reset(token)


def _refused(where: str, of: str) -> RemoteCodeError:
    return RemoteCodeError(
        f"{where}: {of} comes with Python code of its own, which is not run; if you have read the code and trust it,"
        f" add {OPTION}=yes to the model's line"
    )


@functools.cache
def _guard() -> None:
    for module_name, name in _IMPORTERS:
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue  # transformers is not installed, or is one that has no kernels
        if (function := getattr(module, name, None)) is not None:
            setattr(module, name, _guarded(function))
    try:
        module = importlib.import_module("transformers.dynamic_module_utils")
        module.__dict__["TIME_OUT_REMOTE_CODE"] = 0  # it never asks
    except ImportError:
        return


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if not _allowed.get():
            raise RemoteCodeError("code of its own is not allowed")
        return function(*args, **kwargs)

    return guarded
