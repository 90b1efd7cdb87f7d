"""Results in a notebook: the common five questions, one line each.

>>> results = Results("results.parquet")                                   # doctest: +SKIP
>>> results.table()                          # how did every model do?     # doctest: +SKIP
>>> results.best("ece", on="imagenet-r")     # which is best at this?      # doctest: +SKIP
>>> results.model("ViT-B-16/openai")         # what about this one?        # doctest: +SKIP
>>> results.trend("top1@imagenet-a")         # what goes with accuracy?    # doctest: +SKIP
>>> results.figure("ood")                    # and as a picture?           # doctest: +SKIP
"""

from __future__ import annotations

import html
import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from analyze.intervals.winners import as_good_as_best
from analyze.results import read_results, store_digests
from analyze.results.meant import plain_numbers, usual_heads
from analyze.results.quantities import Quantity, answers, id_dataset_of, values
from analyze.results.selection import Where, select
from analyze.results.table import checked_frame
from analyze.results.titles import dataset_title, metric_title
from analyze.tables import Table, build_tables
from analyze.tables.plain_options import plain_options
from analyze.tables.reading_order import HEADLINES
from analyze.tables.writers import to_html, to_markdown
from analyze.trends import natural_scale
from analyze.trends.correlations import Correlation, correlation
from analyze.trends.fits import Line, fit_line
from analyze.trends.paired_winners import as_good_in_table
from analyze.trends.pairs import DEFAULT, Choices, pair_of
from analyze.trends.robustness import EffectiveRobustness, effective_robustness
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError, nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cache_schema import Store


@dataclass(frozen=True)
class Tables:
    """Pages of a table that show themselves in a notebook.

    Attributes
    ----------
    pages
        Of ``analyze.tables.build_tables``.
    """

    pages: tuple[Table, ...]

    def __iter__(self) -> Iterator[Table]:
        return iter(self.pages)

    def __len__(self) -> int:
        return len(self.pages)

    def __repr__(self) -> str:
        """Return the pages as Markdown."""
        return to_markdown(self.pages)

    def _repr_html_(self) -> str:
        page = to_html(self.pages)
        return page[page.index("<body>") + len("<body>") : page.index("</body>")]


@dataclass(frozen=True)
class Trend:
    """How one number goes with another over models.

    Attributes
    ----------
    x, y
        The quantities.
    pearson, spearman, kendall
        Over the models that are not left out, with intervals over families of models; Pearson on the scales.
    line
        Huber fit on the scales (probit for accuracies).
    points
        ``model x y group source mark``, of all models; ``mark`` says why one is left out, or to be looked at twice.
    """

    x: Quantity
    y: Quantity
    pearson: Correlation
    spearman: Correlation
    kendall: Correlation
    line: Line
    points: pl.DataFrame

    def __repr__(self) -> str:
        """Return a few readable lines."""
        slope, _ = self.line.interval()
        fit = f"slope {self.line.slope:.2f} [{slope[0]:.2f}, {slope[1]:.2f}]"
        scales = f"{self.line.x_scale} x {self.line.y_scale}"
        lines = [
            f"{self.y} against {self.x}",
            *map(repr, (self.pearson, self.spearman, self.kendall)),
            f"{fit} ({scales})",
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        first, *rest = repr(self).splitlines()
        return f"<b>{html.escape(first)}</b><br>" + "<br>".join(map(html.escape, rest))


def _with_stores(rows: pl.DataFrame, cache: str | Path) -> pl.DataFrame:
    """Add the stores that have the digests of the column ``store``."""
    import cache_schema

    by_digest = {store_digests(store.digest): store for store in cache_schema.open_cache(cache).stores()}
    given: dict[str, list[str]] = {"path": [], "weights": [], "made_by": []}
    for digests in rows["store"]:
        stores = [by_digest[digest] for digest in digests.split(",") if digest in by_digest]
        given["path"].append(", ".join(store.title for store in stores))
        given["weights"].append(", ".join(dict.fromkeys(store.model.weights_digest for store in stores)))
        given["made_by"].append(", ".join(dict.fromkeys(_writing(store) for store in stores)))
    return rows.with_columns(pl.Series(name, cells, dtype=pl.String()) for name, cells in given.items())


def _writing(store: Store) -> str:
    imported = store.record.get("imported_from")
    text = f"import of {imported}" if imported else str(store.record.get("command") or "unknown")
    return f"{text} ({store.header['seal']['written']})"


class Results:
    """A result table with the common questions as methods.

    Parameters
    ----------
    source
        Path of a table that ``analyze metrics`` wrote (Parquet, or CSV), or a frame of polars or pandas of its columns.

    Attributes
    ----------
    frame
        The long table itself (polars).
    """

    def __init__(self, source: str | Path | pl.DataFrame | Any) -> None:
        if isinstance(source, str | Path):
            self.frame = read_results(source)
        else:
            self.frame = checked_frame(source, "the frame")

    def to_pandas(self) -> Any:
        """Return the long table as a pandas frame; pandas has to be installed, pyarrow has not.

        Raises
        ------
        UserError
            Where pandas is not installed.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ModuleNotFoundError:
            raise UserError("to_pandas needs pandas: pip install pandas") from None
        return pandas.DataFrame(self.frame.to_dict(as_series=False))

    @property
    def models(self) -> list[str]:
        """Names of the models."""
        return sorted(self.frame["model"].unique().to_list())

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets, in order of appearance."""
        return [d for d in self.frame["dataset"].unique(maintain_order=True).to_list() if d]

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics."""
        return sorted(self.frame["metric"].unique().to_list())

    def where(self, **conditions: str | Sequence[str]) -> Results:
        """Return the results that meet conditions: ``results.where(group="clip-*", dataset=["sun", "places"])``."""
        return Results(select(self.frame, conditions))

    def values(self, quantity: Quantity | str) -> pl.DataFrame:
        """Return a number per model: ``results.values("ece@imagenet-a[calibrator=temperature]")``."""
        return values(self.frame, quantity)

    def table(
        self,
        *,
        rows: str | Sequence[str] = "model",
        columns: str | Sequence[str] = "metric",
        best: bool = True,
        where: Where | None = None,
        **options: Any,
    ) -> Tables:
        """Return how every model did, as tables; options are those of ``analyze.tables.build_tables``.

        The in-distribution set alone where no dataset is chosen and datasets are neither rows nor columns; each model
        under its usual prompts where no ``head`` is chosen; without the options that are a detector's defaults, unless
        ``options`` is chosen; where nothing is chosen at all, the headline metrics alone, each once: not calibrated, of
        all images (a note says what is left out).
        """
        asked = [[name] if isinstance(name, str) else list(name) for name in (rows, columns)]
        named = {name.removesuffix("!") for name in (*asked[0], *asked[1], *(where or ()))}
        chosen = select(self.frame, where) if where else self.frame
        if "dataset" not in named:
            chosen = chosen.filter(pl.col("dataset") == id_dataset_of(chosen))
        if "head" not in named:
            chosen = usual_heads(chosen)
        if "options" not in named:
            chosen = plain_options(chosen)
        few = chosen
        if where is None and asked[1] == ["metric"]:
            few = plain_numbers(chosen.filter(pl.col("metric").is_in(HEADLINES)), keep=sorted(named))
            few = chosen if few.is_empty() else few
        pages = build_tables(few, rows=asked[0], columns=asked[1], best=best, **options)
        if len(few) < len(chosen):
            more = chosen["metric"].n_unique() - few["metric"].n_unique()
            text = f"{more} more metrics, calibrated or by subset too: where={{'metric': 'ece*'}}, where={{}} for all"
            pages = [replace(page, notes=(*page.notes, text)) for page in pages]
        return Tables(tuple(pages))

    def origin(self, quantity: Quantity | str, *, cache: str | Path | None = None) -> pl.DataFrame:
        """Return where a number of each model comes from: ``results.origin("ece@imagenet-a", cache="cache")``.

        Parameters
        ----------
        quantity
            As for ``values``.
        cache
            The cache that it was computed from; its stores are looked up by their digests.

        Returns
        -------
        polars.DataFrame
            Columns ``model value low high n options metric_version command store`` (digests, comma-separated), one row
            per model, by model; with a cache also ``path`` (of each of these stores that is there), ``weights`` (digest
            of the model's weights) and ``made_by`` (the command that wrote the store, and when).

        Raises
        ------
        UserError
            As ``values`` does, and where there is no cache.
        """
        columns = ("model", "value", "low", "high", "n", "options", "metric_version", "command", "store")
        rows = answers(self.frame, quantity).select(columns)
        return rows if cache is None else _with_stores(rows, cache)

    def best(self, metric: str, *, on: str | None = None, n: int = 10, cache: str | Path | None = None) -> pl.DataFrame:
        """Return the n best models by a metric, best first, with intervals, and which of them are as good as the best.

        Parameters
        ----------
        metric
            May name variants as a quantity does: ``ece[calibrator=temperature]``.
        on
            Dataset; the in-distribution set when None.
        n
            Models to return.
        cache
            Where predictions lie: models are compared on the same images instead of by intervals (top1, nll, brier; of
            OOD detection, AUROC, FPR@95 and AUPR by scores that need no fit).

        Returns
        -------
        polars.DataFrame
            ``model METRIC as_good low high n group source``. ``as_good`` is true where a model cannot be
            distinguished from the best of all (5 %, Tukey), and null without an interval or predictions.
        """
        wanted = Quantity.parse(metric)
        wanted = Quantity(wanted.metric, wanted.dataset or on or id_dataset_of(self.frame), wanted.variants)
        found = values(self.frame, wanted)
        direction = self.frame.filter(pl.col("metric") == wanted.metric)["direction"].to_list()[0]
        if direction not in ("higher", "lower"):
            raise UserError(f"{wanted.metric} has no direction in which it is better")
        found = found.sort("value", "model", descending=[direction == "higher", False])
        found = found.with_columns(self._as_good(found, wanted, higher=direction == "higher", cache=cache))
        return found.head(n).select(
            "model", pl.col("value").alias(wanted.metric), "as_good", "low", "high", "n", "group", "source"
        )

    def _as_good(self, found: pl.DataFrame, wanted: Quantity, *, higher: bool, cache: str | Path | None) -> pl.Series:
        if cache is not None:
            tested = as_good_in_table(self.frame, wanted, found["model"].to_list(), cache)
            return pl.Series("as_good", [tested.get(model) for model in found["model"]], dtype=pl.Boolean)
        numbers = [found[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in ("value", "low", "high")]
        marked = pl.Series("as_good", as_good_as_best(*numbers, higher=higher))
        known = pl.Series(np.isfinite(numbers[1]) & np.isfinite(numbers[2])) | (found["value"] == found["value"][0])
        return pl.DataFrame({"as_good": marked, "known": known}).select(
            pl.when("known").then("as_good").otherwise(None).alias("as_good")
        )["as_good"]

    def model(self, name: str) -> Tables:
        """Return one model's numbers: sets down, metrics across."""
        if name not in self.models:
            raise UserError(f"no model {name!r} in these results{nearest(name, self.models)}")
        own = self.frame.filter(
            pl.col("model") == name,
            pl.col("factor") == "",
            pl.col("dataset") != "",
            pl.col("calibrator").is_in(["", "temperature"]),
            pl.col("subset") == "",
        )
        return Tables(tuple(build_tables(own, rows=["dataset"], columns=["metric"])))

    def trend(
        self,
        y: Quantity | str,
        x: Quantity | str | None = None,
        *,
        scale: str = "probit",
        choices: Choices = DEFAULT,
    ) -> Trend:
        """Return how y goes with x (default: top1 of the in-distribution set) over models.

        ``choices`` say which images x is of, which models are left out, and what makes models a family.
        """
        first = Quantity.parse(x) if x is not None else Quantity("top1", id_dataset_of(self.frame))
        second = Quantity.parse(y)
        pair = pair_of(self.frame, first, second, choices)
        frame, families = pair.fitted, pair.families(choices.dependence)
        scales: dict[str, Any] = {"x_scale": natural_scale(pair.x, scale), "y_scale": natural_scale(second, scale)}
        drawn: dict[str, Any] = {"flips": choices.flips, "seed": choices.seed, "families": families}
        pearson, spearman, kendall = (
            correlation(frame["0"], frame["1"], method=method, **drawn, **scales)
            for method in ("pearson", "spearman", "kendall")
        )
        line = fit_line(frame["0"], frame["1"], families=families, **scales)
        points = pair.everyone.select(
            "model", pl.col("0").alias("x"), pl.col("1").alias("y"), "group", "source", "mark"
        )
        return Trend(pair.x, second, pearson, spearman, kendall, line, points)

    def effective_robustness(self, y: Quantity | str, **options: Any) -> EffectiveRobustness:
        """Return accuracy beyond the baseline's line; options of ``analyze.trends.robustness.effective_robustness``."""
        return effective_robustness(self.frame, y, **options)

    def figure(self, name: str, *, width: str | float = "neurips", **options: Any) -> Figure:
        """Return a figure of ``analyze.figures.FIGURES`` that is drawn from a result table."""
        from analyze.figures.pages import compose, figure_spec, prepare

        if figure_spec(name).needs != "results":
            raise UserError(f"figure {name} looks at single images: 'analyze figures CACHE --only {name}'")
        return compose(name, prepare(name, self.frame, **options), width=width)

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        """Return what is in the table, in a few lines."""
        groups = self.frame.unique("model")["group"].value_counts(sort=True)
        by_group = ", ".join(f"{count} {group}" for group, count in groups.rows())
        missing = int((self.frame["value"].is_null()).sum())
        lines = [
            f"Results: {len(self.frame):,} numbers of {counted(len(self.models), 'model')} ({by_group})",
            f"datasets: {_listed([dataset_title(d) for d in self.datasets])}",
            f"metrics: {_listed([metric_title(m) for m in self.metrics])}",
        ]
        return "\n".join(lines + ([f"{missing} without a value (column 'reason')"] if missing else []))

    def _repr_html_(self) -> str:
        first, *rest = repr(self).splitlines()
        text = "<br>".join(map(html.escape, rest))
        return f"<div><b>{html.escape(first)}</b><br>{text}{self.frame.head(5)._repr_html_()}</div>"


def _listed(names: list[str], n: int = 12) -> str:
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")
