"""k nearest neighbours as DINO evaluates them: cosines to a bank, votes weighted by ``exp(cosine / T)``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analyze.probes.banks import Bank, unit_rows
from closerlook_common.errors import UserError

NEIGHBOURS, TEMPERATURE = 20, 0.07
"""DINO's protocol."""

QUERIES = 1024
"""Rows that are compared with the bank at a time."""


class NearestNeighbours:
    """A classifier by the neighbours in a bank, read block by block.

    Parameters
    ----------
    bank
        Labelled rows; each is scaled to unit length.
    k
        Neighbours; all rows of a bank that has fewer.
    temperature
        Votes weigh ``exp(cosine / temperature)``.

    References
    ----------
    Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers", and the file ``eval_knn.py`` of
    facebookresearch/dino: k = 20, T = 0.07, after Wu et al. 2018.
    """

    def __init__(self, bank: Bank, k: int = NEIGHBOURS, temperature: float = TEMPERATURE) -> None:
        if k < 1 or not temperature > 0:
            raise UserError(f"k {k} must be at least 1, and the temperature {temperature:g} above 0")
        if not len(bank):
            raise UserError("neighbours need labelled rows, and there are none")
        self.bank, self.k, self.temperature = bank, min(k, len(bank)), temperature

    def log_probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the logarithm of each class's share of the votes.

        Parameters
        ----------
        features : ndarray of shape (b, D)
            Finite, not scaled.

        Returns
        -------
        ndarray of shape (b, C)
            At most 0; -inf for a class without a neighbour.
        """
        parts = [self._of_some(features[start : start + QUERIES]) for start in range(0, len(features), QUERIES)]
        return np.concatenate(parts) if parts else np.zeros((0, self.bank.n_classes))

    def _of_some(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        queries = unit_rows(np.asarray(features, dtype=np.float64))
        nearest = np.full((len(queries), self.k), -np.inf)
        classes = np.zeros((len(queries), self.k), dtype=np.int64)
        for block, labels in self.bank.blocks():
            cosines = queries @ (block if self.bank.unit else unit_rows(block)).T
            labels_of = np.broadcast_to(labels, cosines.shape)
            if len(labels) > self.k:
                best = np.argpartition(cosines, len(labels) - self.k, axis=1)[:, -self.k :]
                cosines = np.take_along_axis(cosines, best, axis=1)
                labels_of = labels[best]
            both = np.concatenate([nearest, cosines], axis=1)
            kept = np.argpartition(both, both.shape[1] - self.k, axis=1)[:, -self.k :]
            nearest = np.take_along_axis(both, kept, axis=1)
            classes = np.take_along_axis(np.concatenate([classes, labels_of], axis=1), kept, axis=1)
        votes = np.zeros((len(queries), self.bank.n_classes))
        weights = np.exp((nearest - nearest.max(axis=1, keepdims=True)) / self.temperature)
        np.add.at(votes, (np.arange(len(queries))[:, None], classes), weights)
        with np.errstate(divide="ignore"):
            found: NDArray[np.float64] = np.log(votes) - np.log(votes.sum(axis=1, keepdims=True))
        return found
