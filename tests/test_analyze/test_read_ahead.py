"""Reading ahead: order, bounds, and errors where they belong."""

from __future__ import annotations

import threading

import pytest

from analyze.reading.read_ahead import read_ahead


@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_come_in_order_and_few_wait(threads):
    begun: list[int] = []
    lock = threading.Lock()

    def read(item: int) -> int:
        with lock:
            begun.append(item)
        return item * item

    for taken, block in enumerate(read_ahead(read, range(20), threads)):
        assert block == taken * taken
        assert len(begun) <= taken + 1 + threads
    assert sorted(begun) == list(range(20))


def test_an_error_comes_with_its_block():
    def read(item: int) -> int:
        if item == 2:
            raise OSError("no block 2")
        return item

    blocks = read_ahead(read, range(5))
    assert [next(blocks), next(blocks)] == [0, 1]
    with pytest.raises(OSError, match="no block 2"):
        next(blocks)
