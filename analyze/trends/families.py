"""Which models belong together: families by lineage or by a column, and how many independent models they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from analyze.results.selection import check_column
from analyze.results.table import CARD_COLUMNS
from cache_schema.format.model_names.lineages import LEVELS, at_level
from cache_schema.importing.tables import check_csv
from closerlook_common.csv_files import first_line, separator_of
from closerlook_common.errors import UserError
from closerlook_common.input_files import require_regular_file

Floats = NDArray[np.float64]

INDEPENDENT = "none"
"""Dependence under which each model is a family of its own, known to be untrue of most studies."""
BY_DEFAULT = "backbone"
COLUMNS = tuple(name for name in CARD_COLUMNS if name not in ("role", "parameters", "input_size", "samples_seen"))


@dataclass(frozen=True, eq=False)
class Families:
    """A division of n models into families.

    Attributes
    ----------
    codes
        (n,) family of each model, 0 to ``count - 1``.
    by
        What made them: a level of the lineage, a column, or ``none``.
    """

    codes: NDArray[np.int64]
    by: str = BY_DEFAULT

    @classmethod
    def of(cls, labels: ArrayLike, by: str = "labels") -> Families:
        """Return the families that equal labels make, one label a model."""
        _, codes = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
        return cls(codes.astype(np.int64).ravel(), by)

    @classmethod
    def independent(cls, n: int) -> Families:
        """Return n families of one model each."""
        return cls(np.arange(n, dtype=np.int64), INDEPENDENT)

    def __len__(self) -> int:
        return len(self.codes)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """(families,) models in each."""
        return np.bincount(self.codes).astype(np.int64)

    @property
    def count(self) -> int:
        """Number of families."""
        return len(self.sizes)

    @cached_property
    def effective_count(self) -> float:
        """Equally large families that would weigh as evenly: ``(sum m)^2 / sum m^2`` (Kish)."""
        return float(self.sizes.sum() ** 2 / (self.sizes.astype(np.float64) ** 2).sum()) if len(self) else 0.0

    def sums(self, values: Floats) -> Floats:
        """Return (families, ...) sums over the models of each family, of values (n, ...)."""
        found = np.zeros((self.count, *values.shape[1:]))
        np.add.at(found, self.codes, values)
        return found

    def without_each(self) -> Floats:
        """Return (families, n) weights, 0 for the models of one family and 1 for the others."""
        return np.asarray(self.codes[None] != np.arange(self.count)[:, None], dtype=np.float64)

    def rows(self, keep: NDArray[np.bool_]) -> Families:
        """Return the families of some of the models."""
        _, codes = np.unique(self.codes[keep], return_inverse=True)
        return Families(codes.astype(np.int64), self.by)


def families_of(frame: pl.DataFrame, by: str = BY_DEFAULT) -> Families:
    """Return the families of a frame's models.

    Parameters
    ----------
    frame
        Columns ``model`` and ``lineage`` (or the column that ``by`` names), one row a model.
    by
        A level of the lineage (``backbone``, ``run``, ``checkpoint``), a column of the cards (``group``, ``source``
        ...), or ``none``. A model without a value is a family of its own.

    Raises
    ------
    UserError
        Another name, answered with the nearest.
    """
    if by == INDEPENDENT:
        return Families.independent(len(frame))
    if by not in LEVELS:
        check_column(by, (*LEVELS, *COLUMNS, INDEPENDENT))
    labels = frame["lineage" if by in LEVELS else by].fill_null("").to_list()
    if by in LEVELS:
        labels = [at_level(label, by) for label in labels]
    # A tab cannot be part of a label that somebody wrote into a list or a table.
    named = [label or f"\t{model}" for label, model in zip(labels, frame["model"], strict=True)]
    return Families.of(named, by)


def with_families(results: pl.DataFrame, path: str | Path) -> pl.DataFrame:
    """Return a result table whose lineages are replaced by those of a CSV file with columns model and family.

    Models that the file does not name keep their lineage.

    Raises
    ------
    UserError
        Where the file is missing, is not such a table, or names no model of the results.
    """
    path = Path(path)
    require_regular_file(path, "table of families")
    try:
        separator = separator_of(first_line(path), ("model", "family"))
        check_csv(path, separator)
        table = pl.read_csv(path, separator=separator, infer_schema=False, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path} is not a CSV file: {str(error).splitlines()[0]}") from error
    if not {"model", "family"} <= set(table.columns):
        raise UserError(f"{path.name} needs the columns model and family, it has {', '.join(table.columns)}")
    doubled = table.filter(pl.struct("model", "family").n_unique().over("model") > 1)
    if not doubled.is_empty():
        raise UserError(f"{path.name} gives model {doubled['model'][0]} two families")
    own = dict(table.select("model", "family").drop_nulls().unique().rows())
    if not set(own) & set(results["model"]):
        raise UserError(f"{path.name} names none of the result table's models")
    given = pl.col("model").replace_strict(own, default=None, return_dtype=pl.String)
    return results.with_columns(pl.coalesce(given, "lineage").alias("lineage"))


def intraclass_correlation(values: ArrayLike, families: Families) -> float:
    """Return how alike the models of a family are: the intraclass correlation by analysis of variance, in [0, 1].

    0 where no family has two models, or all lie in one family; NaN values are not allowed.

    References
    ----------
    Donner and Koval, The estimation of intraclass correlation in the analysis of family data, Biometrics 36, 1980.
    """
    v = np.asarray(values, dtype=np.float64)
    n, count, sizes = len(v), families.count, families.sizes
    if count in (1, n):
        return 0.0
    means = families.sums(v) / sizes
    between = float((sizes * (means - v.mean()) ** 2).sum()) / (count - 1)
    within = float(((v - means[families.codes]) ** 2).sum()) / (n - count)
    typical = (n - float((sizes**2).sum()) / n) / (count - 1)
    total = between + (typical - 1) * within
    return float(np.clip((between - within) / total, 0.0, 1.0)) if total > 0 else 0.0


def effective_models(families: Families, *columns: Sequence[float] | Floats) -> float:
    """Return how many independent models n dependent ones are worth, between the number of families and n.

    ``n / (1 + (sum m^2 / n - 1) r)``, with r the product of the intraclass correlations of the columns that a
    statistic multiplies: two for a correlation or a slope, one for a mean or a median.

    References
    ----------
    Moulton, An illustration of a pitfall in estimating the effects of aggregate variables on micro units, Review of
    Economics and Statistics 72, 1990.
    """
    n = len(families)
    if not n:
        return 0.0
    alike = float(np.prod([intraclass_correlation(np.asarray(c, dtype=np.float64), families) for c in columns]))
    return n / (1 + (float((families.sizes.astype(np.float64) ** 2).sum()) / n - 1) * alike)
