"""Bins of confidence: their edges, and which row falls into which."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analyze.metrics._checks import Bools, Floats, Integers

Edges = NDArray[np.float64]


def width_edges(n_bins: int) -> Edges:
    """Return 0, 1/n ... 1, each the double nearest to its fraction (``np.arange`` steps would drift)."""
    return np.arange(n_bins + 1) / n_bins


def mass_edges(confidences: Floats, n_bins: int) -> Edges:
    """Return edges between groups of nearly equal size; equal confidences never part.

    The sorted rows are cut as ``np.array_split`` cuts them, an edge is the middle between the neighbours of
    a cut, and equal edges are merged, so that ties give fewer bins. This is the rule of Kumar et al.
    (2019).
    """
    return middle_edges(np.sort(confidences).astype(np.float64), n_bins)


def middle_edges(ordered: NDArray[np.float64], n_bins: int) -> Edges:
    """Return the edges of :func:`mass_edges` for confidences that are sorted already."""
    n = ordered.size
    parts = min(n_bins, n)
    small, larger = divmod(n, parts)
    cuts = np.arange(1, parts) * small + np.minimum(np.arange(1, parts), larger)
    middles = (ordered[cuts - 1] + ordered[cuts]) / 2
    inner = np.unique(middles)
    return np.concatenate([[0.0], inner[(inner > 0) & (inner < 1)], [1.0]])


def bin_numbers(confidences: Floats, edges: Edges) -> Integers:
    """Return for each row the bin (lo, hi] it falls into; 0 belongs to the first bin and 1 to the last."""
    inner = edges[1:-1]
    numbers: Integers = np.searchsorted(inner, confidences.astype(np.float64, copy=False), side="left")
    return numbers


@dataclass(frozen=True)
class BinSums:
    """Per-bin totals, everything a binned calibration error is made of.

    Attributes
    ----------
    edges
        (B + 1,) edges.
    counts
        (B,) rows.
    confidence
        (B,) sum of confidences, float64.
    correct
        (B,) number of right rows, float64.
    """

    edges: Edges
    counts: NDArray[np.float64]
    confidence: NDArray[np.float64]
    correct: NDArray[np.float64]


def edges_of(confidences: Floats, n_bins: int, binning: str) -> Edges:
    """Return the edges of the named binning (``width`` or ``mass``)."""
    return width_edges(n_bins) if binning == "width" else mass_edges(confidences, n_bins)


def bin_sums(confidences: Floats, correct: Bools, edges: Edges, weights: NDArray[np.float64] | None = None) -> BinSums:
    """Return the totals of each bin, summed in float64; of weighted rows sums of weights."""
    numbers = bin_numbers(confidences, edges)
    n_bins = edges.size - 1
    if weights is not None:
        columns = (weights, weights * confidences, weights * correct)
        return BinSums(edges, *(np.bincount(numbers, column, n_bins).astype(np.float64) for column in columns))
    return BinSums(
        edges,
        np.bincount(numbers, minlength=n_bins).astype(np.float64),
        np.bincount(numbers, weights=confidences, minlength=n_bins).astype(np.float64, copy=False),
        np.bincount(numbers, weights=correct, minlength=n_bins).astype(np.float64, copy=False),
    )
