"""Ranks of models: do two metrics order them alike, which models differ over many datasets, how sure is a rank."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import stats

from analyze.results.quantities import Quantity, joined
from analyze.trends.correlations import correlation
from analyze.trends.families import families_of
from analyze.trends.pairs import DEFAULT, Choices
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError


def rank_stability(
    results: pl.DataFrame,
    wanted: Sequence[Quantity | str],
    *,
    top: int = 10,
    choices: Choices = DEFAULT,
    left_out: Iterable[str] = (),
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
    choices
        What makes models a family, for the interval of Kendall's tau.
    left_out
        Models that do not count (those at chance).

    Returns
    -------
    polars.DataFrame
        ``x y kendall low high top_overlap n families interval``; values count as better by each metric's own direction.
    """
    keys = [Quantity.parse(q) for q in wanted]
    if len(keys) < 2:
        raise UserError("rank stability needs at least two quantities")
    signs = [_sign(results, key) for key in keys]
    rows = []
    for i, first in enumerate(keys):
        for j in range(i + 1, len(keys)):
            pair = joined(results, [first, keys[j]]).filter(~pl.col("model").is_in(list(left_out)))
            a, b = pair["0"].to_numpy() * signs[i], pair["1"].to_numpy() * signs[j]
            families = families_of(pair, choices.dependence)
            found = correlation(a, b, method="kendall", families=families, flips=choices.flips, seed=choices.seed)
            k = min(top, len(a))
            best = [set(np.argsort(-side, kind="stable")[:k].tolist()) for side in (a, b)]
            overlap = len(best[0] & best[1]) / k if k else float("nan")
            ends = (found.value, found.low, found.high)
            rows.append((str(first), str(keys[j]), *ends, overlap, found.n, found.families, found.interval))
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
            "families": pl.Int64,
            "interval": pl.String,
        },
    )


@dataclass(frozen=True)
class RankTest:
    """Average ranks over datasets and the difference that counts (Demšar 2006).

    Attributes
    ----------
    table
        ``model group source rank rank_low rank_high``, best (smallest) rank first. The interval holds the average rank
        of the models' true numbers on these sets, with 95 % or more; NaN where a number has no interval.
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
        """Return the result of the test, in one line."""
        best, rank = self.table.row(0, named=True)["model"], float(self.table["rank"][0])
        tied = int((self.table["rank"] <= rank + self.critical_difference).sum()) - 1
        return (
            f"{counted(len(self.table), 'model')} ranked over {counted(self.n_datasets, 'set')}:"
            f" best {best} (average rank {rank:.2f});"
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
    keys = [Quantity.parse(q) for q in wanted]
    frame = joined(results, keys)
    if len(frame) < 3 or len(keys) < 2:
        raise UserError(f"ranks need three models and two datasets, got {len(frame)} and {len(keys)}")
    scores = np.column_stack([frame[str(i)].to_numpy() * _sign(results, key) for i, key in enumerate(keys)])
    ranks = stats.rankdata(-scores, axis=0)
    k, n = scores.shape
    p_value = float(stats.friedmanchisquare(*scores).pvalue)
    width = float(stats.studentized_range.ppf(1 - alpha, k, np.inf) / np.sqrt(2) * np.sqrt(k * (k + 1) / (6 * n)))
    low, high = rank_intervals(frame, len(keys), [_sign(results, key) for key in keys])
    table = (
        frame.select("model", "group", "source")
        .with_columns(pl.Series("rank", ranks.mean(1)), pl.Series("rank_low", low), pl.Series("rank_high", high))
        .sort("rank")
    )
    return RankTest(table, p_value, width, n, alpha)


def rank_intervals(
    frame: pl.DataFrame, n_sets: int, signs: Sequence[float], *, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the ends of each model's average rank over sets, (models,) each; NaN where a number has no interval.

    On each set a model ranks behind those that are better beyond doubt and before those that are worse beyond doubt.
    Doubt is a normal test of two numbers with their own errors, at a level that all comparisons of a model on all sets
    share (Bonferroni): the interval holds with ``level`` or more. Numbers of the same images err alike, which makes
    their difference surer than it is taken for.

    Parameters
    ----------
    frame
        Of ``joined``: ``0 0_low 0_high`` ... with intervals of 95 %.
    n_sets, signs
        Number of sets, and 1 or -1 for each: -1 where lower is better.
    level
        Nominal coverage of each model's interval.

    References
    ----------
    Goldstein and Spiegelhalter, League tables and their limitations, JRSS A 159, 1996; Mogstad, Romano, Shaikh and
    Wilhelm, Inference for ranks with applications to mobility across neighbourhoods, Review of Economic Studies
    91, 2024.
    """
    k = len(frame)
    low, high = np.zeros(k), np.zeros(k)
    surely = float(stats.norm.isf((1 - level) / 2 / max((k - 1) * n_sets, 1)))
    for place, sign in enumerate(signs):
        value, first, last = (
            frame[f"{place}{end}"].cast(pl.Float64).fill_null(float("nan")).to_numpy() for end in ("", "_low", "_high")
        )
        error = (last - first) / 2 / float(stats.norm.ppf(0.975))
        apart = sign * (value[:, None] - value) / np.maximum(np.hypot(error[:, None], error), 1e-300)
        lost = np.isnan(error).any()
        low += np.nan if lost else 1 + (apart < -surely).sum(axis=1)
        high += np.nan if lost else k - (apart > surely).sum(axis=1)
    return low / n_sets, high / n_sets


def _sign(results: pl.DataFrame, quantity: Quantity) -> float:
    directions = results.filter(pl.col("metric") == quantity.metric)["direction"].unique().to_list()
    if directions == ["lower"]:
        return -1.0
    if directions == ["higher"]:
        return 1.0
    raise UserError(f"{quantity.metric} has no direction in which it is better; ranks need one")
