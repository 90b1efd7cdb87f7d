"""Parsed headers of many stores: those used lately as objects, all others packed, so that memory stays bounded."""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections import OrderedDict
from typing import Any

MOST_AWAKE = 2048
"""Documents that are kept as objects, some 25 KB each; packed one takes about 1 KB."""

_lock = threading.Lock()
_awake: OrderedDict[Resting, None] = OrderedDict()


class Resting:
    """A JSON document that is packed when ``MOST_AWAKE`` others were used since, and unpacked when it is asked for."""

    def __init__(self) -> None:
        self._value: dict[str, Any] | None = None
        self._packed = b""

    def get(self) -> dict[str, Any] | None:
        """Return the document, None before there is one."""
        value = self._value
        if value is None and self._packed:
            value = json.loads(zlib.decompress(self._packed))
        if value is not None:
            self._wake(value)
        return value

    def set(self, value: dict[str, Any]) -> None:
        """Keep a document that does not change any more."""
        self._packed = b""
        self._wake(value)

    def _wake(self, value: dict[str, Any]) -> None:
        with _lock:
            self._value = value
            _awake[self] = None
            _awake.move_to_end(self)
            if len(_awake) > MOST_AWAKE:
                _awake.popitem(last=False)[0]._rest()

    def _rest(self) -> None:
        if not self._packed:
            self._packed = zlib.compress(json.dumps(self._value, separators=(",", ":")).encode(), 1)
        self._value = None


def _new_lock() -> None:
    """Start with a free lock after a fork: another thread may have held it."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)
