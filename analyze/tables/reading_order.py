"""The rows of a result table in the order in which somebody reads them."""

from __future__ import annotations

import polars as pl

from analyze.metrics.registry import METRICS

ORDER = "_order"
HEADLINES = tuple(row.name for row in sorted(METRICS.values(), key=lambda row: row.headline) if row.headline)
"""Metrics that come first, in this order; the others follow as the table has them."""
ROLES = ("id", "shift", "ood")


def in_reading_order(results: pl.DataFrame) -> pl.DataFrame:
    """Sort by what a reader looks for first: in-distribution before shifted sets, headline metrics before details.

    A column ``_order`` keeps where each row stood.
    """
    last = {row.name: len(HEADLINES) + 1 for row in METRICS.values() if row.footnote}
    ranks = {**{name: rank for rank, name in enumerate(HEADLINES)}, **last}
    roles = {role: rank for rank, role in enumerate(ROLES)}
    return (
        results.with_row_index(ORDER)
        .sort(
            pl.col("role").replace_strict(roles, default=len(roles), return_dtype=pl.Int64),
            pl.col("metric").replace_strict(ranks, default=len(HEADLINES), return_dtype=pl.Int64),
            ORDER,
        )
    )  # fmt: skip
