"""What a reviewer would object to in a result table, and in the cache that it was made from.

Imports evaluate, results and trends; commands import it. A check takes a table and yields findings, one line each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import polars as pl

from analyze.audit import fairness, models, statistics
from analyze.audit.findings import Finding

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache

__all__ = ["CHECKS", "Finding", "audit"]

CHECKS: Mapping[str, Callable[[pl.DataFrame], Iterator[Finding]]] = {
    "at-chance": models.at_chance,
    "near-copies": models.near_copies,
    "unequal-n": fairness.unequal_n,
    "missing-models": fairness.missing_models,
    "unmatched-classes": fairness.unmatched_classes,
    "biased-by-n": fairness.biased_by_n,
    "few-images": statistics.few_images,
    "mixed-options": fairness.mixed_options,
    "mixed-versions": fairness.mixed_versions,
    "tuned-on-test": statistics.tuned_on_test,
    "selection-on-test": statistics.selected_on_test,
    "missing-intervals": statistics.missing_intervals,
    "many-tests": statistics.many_tests,
}
"""Name of a check -> the check, in the order of the report."""


def audit(table: pl.DataFrame, cache: Cache | None = None, *, only: Iterable[str] = ()) -> list[Finding]:
    """Return what a reviewer would object to.

    Parameters
    ----------
    table
        A result table.
    cache
        The cache that it was made from: some things only its stores show.
    only
        Names of checks; all when empty.

    Returns
    -------
    list of Finding
        In the order of `CHECKS`; empty where nothing was found.

    Raises
    ------
    UserError
        For an unknown name; the nearest is given.
    """
    from closerlook_common.errors import UserError, nearest

    wanted = list(only) or list(CHECKS)
    for name in wanted:
        if name not in CHECKS:
            raise UserError(f"no check {name!r}{nearest(name, CHECKS) or ';'} checks: {', '.join(CHECKS)}")
    # A table of an older version has no lineages and no numbers of classes: what needs them finds nothing.
    for column, kind in (("lineage", pl.String()), ("classes", pl.Int64())):
        if column not in table.columns:
            table = table.with_columns(pl.lit("" if column == "lineage" else None).cast(kind).alias(column))
    found = [finding for name, check in CHECKS.items() if name in wanted for finding in check(table)]
    if cache is not None:
        from analyze.audit.stores import of_cache

        found += [finding for finding in of_cache(cache) if finding.kind in wanted]
    order = list(CHECKS)
    return sorted(dict.fromkeys(found), key=lambda finding: order.index(finding.kind))
