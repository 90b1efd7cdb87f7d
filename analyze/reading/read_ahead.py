"""Reading ahead: blocks are read and prepared by other threads while the caller works on the one before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")


def read_ahead(read: Callable[[Item], Read], items: Iterable[Item], threads: int = 1) -> Iterator[Read]:
    """Yield ``read(item)`` of each item in turn; as many as there are threads are read meanwhile.

    Parameters
    ----------
    read
        Reads one block; an exception is raised where its block would be yielded.
    items
        What to read, in order.
    threads
        Threads that read, and blocks that wait at most, besides the one that is worked on.
    """
    waiting: deque[Future[Read]] = deque()
    left = iter(items)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        try:
            waiting.extend(pool.submit(read, item) for item in islice(left, max(1, threads)))
            while waiting:
                block = waiting.popleft().result()
                waiting.extend(pool.submit(read, item) for item in islice(left, 1))
                yield block
        finally:
            for future in waiting:
                future.cancel()
