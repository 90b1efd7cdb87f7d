"""Models at chance: an accuracy on the in-distribution set that guessing would reach too."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from scipy import stats

from analyze.results.quantities import id_datasets_of

LEVEL = 0.01
"""Level of the exact binomial test: above it, guessing explains the accuracy."""
KNOWN_CLASSES: Mapping[str, int] = {"imagenet-val": 1000, "imagenet-real": 1000}
"""In-distribution sets whose number of classes is known where a table does not say it."""


def models_at_chance(
    results: pl.DataFrame, *, level: float = LEVEL, classes: Mapping[str, int] | None = None
) -> dict[str, str]:
    """Return models whose accuracy on the in-distribution set is not above 1 / classes.

    Such a model has no trained head, or was run with the wrong classes, and would decide every line by itself.

    Parameters
    ----------
    results
        A result table, with the column ``classes`` or a set whose classes are known.
    level
        Of the exact one-sided binomial test: a model is at chance where its p-value is above it.
    classes
        Further in-distribution sets -> their number of classes.

    Returns
    -------
    dict of str to str
        Model -> its accuracy and how it was judged; empty also where the number of classes or of images is not known.
    """
    sets = id_datasets_of(results)
    if not sets:
        return {}
    ground = sets[0]
    plain = {"metric": "top1", "dataset": ground, "subset": "", "calibrator": "", "factor": ""}
    rows = results.filter(
        *(pl.col(name) == value for name, value in plain.items()), pl.col("value").is_between(0, 1), pl.col("n") > 0
    )
    given = {**KNOWN_CLASSES, **(classes or {})}.get(ground)
    count = pl.lit(given, dtype=pl.Int64)
    if "classes" in rows.columns and ground not in (classes or {}):
        count = pl.coalesce(pl.col("classes"), count)
    # Of several numbers of a model (prompt sets), the best decides.
    rows = rows.with_columns(count.alias("c")).filter(pl.col("c") > 1).sort("value").unique("model", keep="last")
    hits = np.round(rows["value"].to_numpy() * rows["n"].to_numpy())
    by_guessing = stats.binom.sf(hits - 1, rows["n"].to_numpy(), 1 / rows["c"].to_numpy())
    found = rows.filter(pl.Series(by_guessing > level)).sort("model")
    return {
        model: f"accuracy {value:.4g} on {ground} is not above 1/{c} (exact binomial test, level {level:g})"
        for model, value, c in found.select("model", "value", "c").rows()
    }
