"""Bootstrap weights shared by all models of a dataset, so that intervals are cheap and differences are
paired.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.intervals.bootstrap import BootstrapWeights, bootstrap_interval
from analyze.settings import Settings

BUDGET = 400 << 20
"""Bytes of weights that are kept; a dataset of 50,000 images at 1,000 replicates takes 50 MB."""


def resampling_of(settings: Settings) -> Resampling | None:
    """Return the bootstrap that the settings ask for, None for no replicates."""
    boot = settings["bootstrap"]
    if boot["replicates"] <= 0:
        return None
    return Resampling(boot["replicates"], boot["seed"], boot["confidence_level"])


class Resampling:
    """Weights by dataset and number of rows, and intervals from replicates.

    Parameters
    ----------
    replicates, seed
        Of the bootstrap.
    level
        Nominal coverage of the intervals.
    """

    def __init__(self, replicates: int, seed: int = 0, level: float = 0.95) -> None:
        self.replicates = replicates
        self.seed = seed
        self.level = level
        self._kept: OrderedDict[tuple[str, int], NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def options(self) -> list[Any]:
        """Replicates, seed and level: what an interval depends on, JSON-ready."""
        return [self.replicates, self.seed, self.level]

    def described(self) -> str:
        """Return kind, level, replicates and seed, as the result table has them."""
        return f"bootstrap percentile {100 * self.level:g} %, {self.replicates} replicates, seed {self.seed}"

    def weights(self, dataset: str, n: int) -> NDArray[np.uint8]:
        """Return the weights of n rows of a dataset, (n, replicates) uint8.

        They depend on the seed, the dataset's id and n alone: equal for all models, independent between
        datasets.
        """
        key = (dataset, n)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        seed = zlib.crc32(dataset.encode()) ^ (self.seed * 2654435761 % 2**32)
        made = BootstrapWeights(n, replicates=self.replicates, seed=seed).all()
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > 1 and sum(w.nbytes for w in self._kept.values()) > BUDGET:
                self._kept.popitem(last=False)
        return made

    def interval(self, value: float, replicates: NDArray[np.float64]) -> tuple[float, float]:
        """Return the interval of a number from the number on each resample; it holds the number itself."""
        found = bootstrap_interval(value, replicates, level=self.level)
        return min(found.low, value), max(found.high, value)
