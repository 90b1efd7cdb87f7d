"""Many tests at once: p-values adjusted by Holm, and by Benjamini and Hochberg."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from closerlook_common.errors import UserError

Floats = NDArray[np.float64]

P_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "correlations": ("p_value",),
    "line_tests": ("p_value", "slope_p_value", "offset_p_value"),
}
"""Table -> its columns of p-values."""


def holm(p_values: ArrayLike) -> Floats:
    """Return p-values such that rejecting those of at most alpha makes any error with probability alpha at most.

    Parameters
    ----------
    p_values
        (n,) in [0, 1]; NaN are no tests and stay NaN.

    Returns
    -------
    ndarray of float64
        (n,) in [0, 1], none smaller than the p-value itself.

    References
    ----------
    Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979.
    """
    p, tests, order = _ordered(p_values)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)) if len(order) else p[order]
    return _placed(p, tests, order, stepped)


def benjamini_hochberg(p_values: ArrayLike) -> Floats:
    """Return p-values such that of those of at most alpha a share of alpha at most is expected to be wrong.

    Parameters and result as of :func:`holm`. Holds for independent tests and for those that depend positively.

    References
    ----------
    Benjamini and Hochberg, Controlling the false discovery rate, Journal of the Royal Statistical Society B 57, 1995.
    """
    p, tests, order = _ordered(p_values)
    count = len(order)
    raised = p[order] * count / np.arange(1, count + 1)
    stepped = np.minimum.accumulate(raised[::-1])[::-1] if count else raised
    return _placed(p, tests, order, stepped)


def _ordered(p_values: ArrayLike) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    p = np.asarray(p_values, dtype=np.float64).ravel()
    tests = np.flatnonzero(~np.isnan(p))
    if ((p[tests] < 0) | (p[tests] > 1)).any():
        raise UserError("p-values lie between 0 and 1")
    return p, tests, tests[np.argsort(p[tests], kind="stable")]


def _placed(p: Floats, tests: NDArray[np.int64], order: NDArray[np.int64], stepped: Floats) -> Floats:
    adjusted = np.full(len(p), np.nan)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def adjusted(tables: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Add to every table of tests what its p-values are among all the tests of all tables.

    Parameters
    ----------
    tables
        Name -> table; those of ``P_COLUMNS`` hold p-values. R^2 repeats Pearson's test, and quantities that are tied to
        x by construction (column ``tied``) are not tested: both are left out of the count.

    Returns
    -------
    dict of str to polars.DataFrame
        All tables; those of tests with ``P_holm`` and ``P_bh`` for each column ``P_value`` (``p_holm`` for ``p_value``)
        and ``tests``, the number of tests that they were adjusted for.
    """
    found = dict(tables)
    places = [(name, column) for name, columns in P_COLUMNS.items() if name in found for column in columns]
    parts = [_tested(found[name], column) for name, column in places]
    everything = np.concatenate(parts) if parts else np.zeros(0)
    count = int(np.count_nonzero(~np.isnan(everything)))
    ends = np.cumsum([len(part) for part in parts], dtype=np.int64)[:-1]
    for (name, column), by_holm, by_rate in zip(
        places, np.split(holm(everything), ends), np.split(benjamini_hochberg(everything), ends), strict=True
    ):
        stem = column.removesuffix("value")
        columns = {f"{stem}holm": by_holm, f"{stem}bh": by_rate}
        found[name] = found[name].with_columns(
            *(pl.Series(key, numbers).fill_nan(None) for key, numbers in columns.items()), pl.lit(count).alias("tests")
        )
        if name == "correlations":
            found[name] = _same_for_r2(found[name], columns)
    return found


def _tested(table: pl.DataFrame, column: str) -> Floats:
    p = table[column].cast(pl.Float64).fill_null(float("nan")).to_numpy().copy()
    if "method" in table.columns:
        p[(table["method"] == "r2").to_numpy()] = np.nan
    if "tied" in table.columns:
        p[(table["tied"] != "").to_numpy()] = np.nan
    return np.asarray(p, dtype=np.float64)


def _same_for_r2(table: pl.DataFrame, columns: Mapping[str, Floats]) -> pl.DataFrame:
    of_pearson = pl.col("method") == "pearson"
    return table.with_columns(
        pl.when(pl.col("method") == "r2")
        .then(pl.col(name).filter(of_pearson).first().over("x", "y", "among"))
        .otherwise(pl.col(name))
        .alias(name)
        for name in columns
    )
