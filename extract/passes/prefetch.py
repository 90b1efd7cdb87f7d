"""The next models are built and their weights read while the device works on the present ones."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable

from extract.models.base import Built, Prepared

AHEAD_SHARE = 1 / 16
"""Models that wait may fill this share of the machine's memory; one may wait whatever its size."""

_JOIN_SECONDS = 10.0


class Prefetcher:
    """Builds models in a thread, in the order in which they will be taken.

    Parameters
    ----------
    build
        Reads a model into the machine's memory; what it raises is raised by `take`.
    most_bytes
        Models are built ahead until those that wait take this much; None for `AHEAD_SHARE` of the machine's memory.
    most_models
        How many may wait; 0 for as many as memory allows.

    Notes
    -----
    All models are built in the one thread, so constructors that seed the global random generator never meet.
    """

    def __init__(
        self, build: Callable[[Prepared], Built], *, most_bytes: int | None = None, most_models: int = 0
    ) -> None:
        self._build = build
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self._most_bytes = int(AHEAD_SHARE * total) if most_bytes is None else most_bytes
        self._most_models = most_models
        self._changed = threading.Condition()
        self._wanted: deque[Prepared] = deque()
        self._building: Prepared | None = None
        self._ready: dict[int, tuple[Prepared, Built | Exception]] = {}
        self._taker: Prepared | None = None
        self._closed = False
        self._thread: threading.Thread | None = None

    def want(self, models: Iterable[Prepared]) -> None:
        """Say which models will be taken next, after those that were named before; naming one twice does nothing."""
        with self._changed:
            known = {id(model) for model in self._wanted} | self._ready.keys() | {id(self._building)}
            self._wanted.extend(model for model in models if id(model) not in known)
            if self._thread is None and self._wanted:
                self._thread = threading.Thread(target=self._loop, name="models", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def take(self, prepared: Prepared) -> Built:
        """Return a built model, waiting for it; it is no longer held here. Raises what building it raised."""
        self.want([prepared])
        with self._changed:
            # Usually it is the first already; a model that is waited for is loaded before the others.
            if any(model is prepared for model in self._wanted):
                self._wanted = deque([prepared, *(model for model in self._wanted if model is not prepared)])
            self._taker = prepared
            self._changed.notify_all()
            self._changed.wait_for(lambda: id(prepared) in self._ready or self._closed)
            self._taker = None
            _, result = self._ready.pop(id(prepared), (prepared, RuntimeError("the prefetcher is closed")))
            self._changed.notify_all()
        if isinstance(result, Exception):
            raise result
        return result

    def close(self) -> None:
        """Drop everything that waits and end the thread; a model that is being built may outlast this briefly."""
        with self._changed:
            self._closed = True
            self._wanted.clear()
            self._ready.clear()
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)

    def _may_build(self) -> bool:
        if not self._wanted:
            return False
        if self._wanted[0] is self._taker or not self._ready:
            return True
        held = sum(result.weight_bytes() for _, result in self._ready.values() if isinstance(result, Built))
        return held < self._most_bytes and not 0 < self._most_models <= len(self._ready)

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._may_build())
                if self._closed:
                    return
                prepared = self._building = self._wanted.popleft()
            result: Built | Exception
            try:
                result = self._build(prepared)
            except Exception as error:  # noqa: BLE001  # it is the taker's to handle
                result = error
            with self._changed:
                self._building = None
                if not self._closed:
                    self._ready[id(prepared)] = prepared, result
                del result
                self._changed.notify_all()
