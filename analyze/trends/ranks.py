"""Ranks of models: do two metrics order them alike, and which models differ over many datasets (Nemenyi)."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from analyze.results.quantities import Quantity, joined
from analyze.trends.correlations import correlation
from cache_schema.errors import UserError


def rank_stability(
    results: pl.DataFrame,
    wanted: Sequence[Quantity | str],
    *,
    top: int = 10,
    n_boot: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """Return, for every pair of quantities, how alike they order the models.

    Parameters
    ----------
    results
        A result table.
    wanted
        At least two quantities.
    top
        ``top_overlap`` is the share of the ``top`` best models that both name.
    n_boot, seed
        Bootstrap over models for the interval of Kendall's tau.

    Returns
    -------
    polars.DataFrame
        ``x y kendall low high top_overlap n``; values count as better by each metric's own direction.
    """
    keys = [Quantity.parse(q) if isinstance(q, str) else q for q in wanted]
    if len(keys) < 2:
        raise UserError("rank stability needs at least two quantities")
    signs = [_sign(results, key) for key in keys]
    rows = []
    for i, first in enumerate(keys):
        for j in range(i + 1, len(keys)):
            pair = joined(results, [first, keys[j]])
            a, b = pair["0"].to_numpy() * signs[i], pair["1"].to_numpy() * signs[j]
            found = correlation(a, b, method="kendall", n_boot=n_boot, seed=seed)
            k = min(top, len(a))
            best = [set(np.argsort(-side, kind="stable")[:k].tolist()) for side in (a, b)]
            overlap = len(best[0] & best[1]) / k if k else float("nan")
            rows.append((str(first), str(keys[j]), found.value, found.low, found.high, overlap, found.n))
    return pl.DataFrame(
        rows,
        orient="row",
        schema={
            "x": pl.String,
            "y": pl.String,
            "kendall": pl.Float64,
            "low": pl.Float64,
            "high": pl.Float64,
            "top_overlap": pl.Float64,
            "n": pl.Int64,
        },
    )


@dataclass(frozen=True)
class RankTest:
    """Average ranks over datasets and the difference that counts (Demšar 2006).

    Attributes
    ----------
    table
        ``model rank group``, best (smallest) rank first.
    friedman_p_value
        Of all models being equal.
    critical_difference
        Nemenyi: average ranks that differ by less are not distinguishable at ``alpha``.
    n_datasets, alpha
        Datasets ranked over, and the level.
    """

    table: pl.DataFrame
    friedman_p_value: float
    critical_difference: float
    n_datasets: int
    alpha: float

    def __repr__(self) -> str:
        """Return what the test says, in one line."""
        best, rank = self.table.row(0, named=True)["model"], float(self.table["rank"][0])
        tied = int((self.table["rank"] <= rank + self.critical_difference).sum()) - 1
        return (
            f"{len(self.table)} models ranked over {self.n_datasets} sets: best {best} (average rank {rank:.2f});"
            f" Friedman p = {self.friedman_p_value:.2g}; {tied} others within the critical difference"
            f" {self.critical_difference:.2f} (alpha {self.alpha:g})"
        )

    def _repr_html_(self) -> str:
        return f"{html.escape(repr(self))}{self.table._repr_html_()}"


def rank_test(results: pl.DataFrame, wanted: Sequence[Quantity | str], *, alpha: float = 0.05) -> RankTest:
    """Rank models on each quantity (mid-ranks, 1 = best by the metric's direction) and test the averages.

    Raises
    ------
    UserError
        Fewer than three models have all quantities, or fewer than two quantities.
    """
    keys = [Quantity.parse(q) if isinstance(q, str) else q for q in wanted]
    frame = joined(results, keys)
    if len(frame) < 3 or len(keys) < 2:
        raise UserError(f"ranks need three models and two datasets, got {len(frame)} and {len(keys)}")
    scores = np.column_stack([frame[str(i)].to_numpy() * _sign(results, key) for i, key in enumerate(keys)])
    ranks = stats.rankdata(-scores, axis=0)
    k, n = scores.shape
    p_value = float(stats.friedmanchisquare(*scores).pvalue)
    width = float(
        stats.studentized_range.ppf(1 - alpha, k, np.inf) / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n))
    )
    table = (
        frame.select("model", "group", "source").with_columns(pl.Series("rank", ranks.mean(1))).sort("rank")
    )
    return RankTest(table, p_value, width, n, alpha)


def _sign(results: pl.DataFrame, quantity: Quantity) -> float:
    directions = results.filter(pl.col("metric") == quantity.metric)["direction"].unique().to_list()
    if directions == ["lower"]:
        return -1.0
    if directions == ["higher"]:
        return 1.0
    raise UserError(f"{quantity.metric} has no direction in which it is better; ranks need one")
