"""Trends over models as one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from analyze.calls.arguments import Names, Progress, load_plugins, names_of, opened_cache, warn_incomplete, whole_number
from analyze.interactive import Results
from analyze.metrics._checks import switch
from analyze.results.csv_text import write_csv
from analyze.results.quantities import looked_up_once
from analyze.results.selection import Where, select
from analyze.trends.dependence import FLIPS
from analyze.trends.over_models import TrendOptions, agreement_tables, pairs_of, trend_tables
from analyze.trends.pairs import Choices
from cache_schema.reading.cache import Cache
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError


@dataclass(frozen=True)
class Trends:
    """What goes with what over models.

    Attributes
    ----------
    tables
        ``correlations``, ``fits``, ``rank_stability``, ``line_tests``, ``effective_robustness``,
        ``relative_robustness``, ``agreement_lines``, ``agreement_predictions``: those that could be computed.
    problems
        What could not, one line each.
    """

    tables: Mapping[str, pl.DataFrame]
    problems: tuple[str, ...] = field(default=())

    def __getitem__(self, name: str) -> pl.DataFrame:
        """Return a table by name."""
        if name not in self.tables:
            why = f" ({'; '.join(self.problems)})" if self.problems else ""
            raise UserError(f"no table {name!r} among these trends; there are {', '.join(self.tables)}{why}")
        return self.tables[name]

    def write(self, folder: str | Path) -> list[Path]:
        """Write each table as ``NAME.csv`` into a folder, which is made; return the files."""
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        for name, frame in self.tables.items():
            write_csv(frame, root / f"{name}.csv")
        return [root / f"{name}.csv" for name in self.tables]

    def __repr__(self) -> str:
        """Return the names of the tables with their rows, and the problems."""
        tables = [f"{name} ({counted(len(frame), 'row')})" for name, frame in self.tables.items()]
        lines = [f"Trends: {', '.join(tables)}"]
        return "\n".join([*lines, *self.problems])


def trends(
    results: str | Path | pl.DataFrame | Results,
    *,
    x: str | None = None,
    y: Names = (),
    where: Where | None = None,
    by: str = "group",
    scale: str = "probit",
    method: str = "huber",
    baseline: Where | None = None,
    split: float | None = None,
    pair: Mapping[str, str] | None = None,
    cache: str | Path | Cache | None = None,
    pair_by_row: bool = False,
    bootstrap: int = FLIPS,
    seed: int = 0,
    choices: Choices | None = None,
    plugins: str | Path | Sequence[str | Path] = (),
    progress: Progress | None = None,
) -> Trends:
    """Compute correlations, fits and effective robustness over models, as ``analyze trends`` does.

    Parameters
    ----------
    results
        Result table: a path, a frame, or ``Results``.
    x
        Quantity ``METRIC@DATASET[variant=value,...]``; top1 of the in-distribution set when None.
    y
        Quantities that are set against it; every number when empty.
    where
        Only these rows: column -> value or values.
    by
        Also within each ``group``, ``source`` or ``family``; empty for none.
    scale
        Axis for accuracies: ``probit``, ``logit`` or ``linear``; other metrics stay linear.
    method
        Of the fitted line: ``huber``, ``ols`` or ``theil-sen``.
    baseline
        Column -> value: the models of the effective-robustness line; ``{"group": "supervised-in1k"}`` when None.
    split
        Accuracy at which the baseline is fitted in two pieces.
    pair
        Model with an intervention -> the same model without, for relative robustness.
    cache
        Where predictions lie: also agreement on the line, accuracy under shift without its labels.
    pair_by_row
        With ``cache``: pair row i with row i where stores hold no image names.
    bootstrap, seed
        Signs of families that are drawn for a p-value, and their seed.
    choices
        What makes models a family (``Choices(dependence="none")``: ordinary statistics of independent models), which
        images x is of, and which models are left out of fits.
    plugins
        Files of plug-ins to run and use (CONTRIBUTING.md, "Plug-ins").
    progress
        Called with (model, models done, models in all) while the cache is read.

    Returns
    -------
    Trends

    Raises
    ------
    UserError
        Fewer than three models, or a quantity, a column or a model is not known.

    Warns
    -----
    IncompleteWarning
        Something of what was asked for could not be computed.

    Examples
    --------
    >>> closerlook.trends("results.parquet", y="top1@imagenet-a")["correlations"]    # doctest: +SKIP
    """
    load_plugins(plugins)
    for name, value, known in (
        ("scale", scale, ("probit", "logit", "linear")),
        ("method", method, ("huber", "ols", "theil-sen")),
    ):
        if value not in known:
            raise UserError(f"`{name}` {value!r}: choose {', '.join(known)}")
    frame = results.frame if isinstance(results, Results) else Results(results).frame
    frame = select(frame, where) if where else frame
    chosen: dict[str, Any] = {} if baseline is None else {"baseline": baseline}
    chosen |= {} if choices is None else {"choices": choices}
    replicates = whole_number("bootstrap", bootstrap, 1)
    options = TrendOptions(
        by=by, scale=scale, method=method, split=split, changed=pair or {},
        bootstrap=replicates or 1, seed=whole_number("seed", seed, 0) or 0, **chosen,
    )  # fmt: skip
    with looked_up_once(frame):
        tables, problem = trend_tables(frame, pairs_of(frame, x, names_of(y) or ()), options)
    problems = [problem] if problem else []
    if cache is not None:
        names = frame["model"].unique().to_list()
        more, reasons = agreement_tables(
            opened_cache(cache), names, pair_by_row=switch("pair_by_row", pair_by_row), progress=progress
        )
        tables, problems = tables | more, problems + reasons
    warn_incomplete({}, problems)
    return Trends(tables, tuple(problems))
