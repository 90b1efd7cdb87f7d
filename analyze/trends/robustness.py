"""Effective and relative robustness: accuracy beyond a baseline's line, and what an intervention gains."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analyze.results import CARD_COLUMNS, conform
from analyze.results.quantities import Quantity, id_dataset_of, values
from analyze.results.selection import Where, select
from analyze.trends.families import families_of
from analyze.trends.fits import Line, PiecewiseLine, fit_line, fit_piecewise
from analyze.trends.marks import AGAINST, BEYOND, CHANCE
from analyze.trends.medians import median
from analyze.trends.pairs import DEFAULT, Choices, PairOfNumbers, pair_of
from analyze.trends.robustness_intervals import DESCRIBED, NO_INTERVAL, Ends, median_ends, robustness_ends
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError

BASELINE: Mapping[str, str] = {"group": "supervised-in1k"}
"""The population that effective robustness is measured against: models that saw ImageNet-1k alone (Taori et
al.)."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class EffectiveRobustness:
    """How far models lie above the baseline's line.

    Attributes
    ----------
    table
        ``model x y expected value low high mark n`` and the cards: ``value = y - expected`` in accuracy (fractions),
        with an interval that holds the sampling error of both accuracies and the line's; NaN where an accuracy has no
        interval. ``n`` is that of the shifted set. ``mark`` says why a reader should look twice: the model is at
        chance, comes from CLIP, the set was built against it, or it lies beyond the baseline's range.
    line
        The baseline's fit, without models at chance and those that the set was built against.
    x, y
        What was compared, x as it was taken.
    baseline
        The population the line was fitted on.
    axis
        Which images x is of (``same classes`` ...); empty where there is no choice.
    dependence
        What makes models a family.
    """

    table: pl.DataFrame
    line: Line | PiecewiseLine
    x: Quantity
    y: Quantity
    baseline: Mapping[str, Any]
    axis: str = ""
    dependence: str = "backbone"

    def __repr__(self) -> str:
        """Return one readable line."""
        middle = float(np.median(self.table["value"].to_numpy()))
        return (
            f"effective robustness of {counted(len(self.table), 'model')} on {self.y} against {self.x}"
            f" (baseline {_words(self.baseline)}): median {middle:+.3f}"
        )

    def _repr_html_(self) -> str:
        return f"{html.escape(repr(self))}{self.table._repr_html_()}"

    def to_results(self) -> pl.DataFrame:
        """Return the numbers as rows of a result table (metric ``effective_robustness``)."""
        line = self.line.below if isinstance(self.line, PiecewiseLine) else self.line
        options = {
            "against": str(self.x),
            "baseline": _words(self.baseline),
            "fit": line.method,
            "of": self.y.metric,
            "scale": line.x_scale,
            "baseline_models": line.n,
        }
        if self.axis:
            options["axis"] = self.axis
        if isinstance(self.line, PiecewiseLine):
            options["split"] = str(self.line.split)
        variants = {key: value for key, value in self.y.variants if key != "options"}
        return conform(
            self.table.select(
                "model",
                "value",
                "low",
                "high",
                *CARD_COLUMNS,
                *(pl.lit(value).alias(key) for key, value in variants.items()),
                dataset=pl.lit(self.y.dataset),
                metric=pl.lit("effective_robustness"),
                direction=pl.lit("higher"),
                metric_version=pl.lit(3),
                options=pl.lit(json.dumps(options, sort_keys=True)),
                n="n",
                interval=pl.when(pl.col("low").is_nan()).then(pl.lit(NO_INTERVAL)).otherwise(pl.lit(DESCRIBED)),
            ).with_columns(pl.lit("").alias("reason"), pl.col("low", "high").fill_nan(None))
        )

    def medians(self, by: str = "group") -> pl.DataFrame:
        """Return the median of each group of models, with an interval over its families and the line's error.

        Models at chance, and those that the set was built against, are left out.

        Parameters
        ----------
        by
            Column of the cards.

        Returns
        -------
        polars.DataFrame
            ``dataset factor group value low high n families n_effective interval axis``.
        """
        rows = []
        kept = self.table.filter(~pl.col("mark").is_in([CHANCE, AGAINST]))
        for (name,), part in kept.group_by(by, maintain_order=True):
            found = median(part["value"], families_of(part, self.dependence))
            low, high = median_ends(found, part["x"].to_numpy(), self.line)
            rows.append(
                {
                    "dataset": self.y.dataset,
                    "factor": self.y.variant("factor"),
                    by: str(name),
                    "value": found.value,
                    "low": low,
                    "high": high,
                    "n": found.n,
                    "families": found.families,
                    "n_effective": found.n_effective,
                    "interval": found.interval if np.isfinite(low) else _no_median(found.interval),
                    "axis": self.axis,
                }
            )
        return pl.DataFrame(rows).with_columns(pl.col("low", "high").fill_nan(None))


def _no_median(interval: str) -> str:
    return interval if interval.startswith("none") else "none: the baseline's line has no interval"


def effective_robustness(
    results: pl.DataFrame,
    y: Quantity | str,
    *,
    x: Quantity | str | None = None,
    baseline: Where = BASELINE,
    scale: str = "logit",
    method: str = "ols",
    split: float | None = None,
    choices: Choices = DEFAULT,
    pair: PairOfNumbers | None = None,
) -> EffectiveRobustness:
    """Accuracy beyond what the baseline's line predicts from the standard accuracy (Taori et al. 2020).

    ``rho(f) = y(f) - beta(x(f))``, where ``beta`` is a line fitted on the baseline models only, on the given
    scale, and mapped back to accuracy.

    Parameters
    ----------
    results
        A result table.
    y, x
        Shifted (or factor) accuracy and standard accuracy; x defaults to top1 of the in-distribution set.
    baseline
        Which models the line is fitted on; default: supervised on ImageNet-1k.
    scale, method
        Of the fit. Defaults (logit, OLS) are those of the authors' testbed; the study's figures use probit
        and Huber.
    split
        x at which the baseline is fitted in two pieces, as the authors do for ImageNet-A; None for one line.
    choices
        Which images x is of, which models are left out of the line, and what makes models a family.
    pair
        The two numbers, where :func:`analyze.trends.pairs.pair_of` has them already.

    Raises
    ------
    UserError
        Where a quantity is not there, or fewer than three baseline models have both.
    """
    x, y = _axes(results, x, y)
    pair = pair or pair_of(results, x, y, choices)
    frame = pair.everyone
    chosen = pair.fitted.join(_population(results, baseline), on="model", how="semi", maintain_order="left")
    if len(chosen) < 3:
        raise UserError(
            f"effective robustness needs three baseline models with {pair.x} and {y};"
            f" {_words(baseline)} has {len(chosen)}: {_other_baselines(results, frame)}"
        )
    options: dict[str, Any] = {
        "method": method,
        "x_scale": scale,
        "y_scale": scale,
        "families": families_of(chosen, choices.dependence),
        "seed": choices.seed,
    }
    line: Line | PiecewiseLine = (
        fit_line(chosen["0"], chosen["1"], **options)
        if split is None
        else fit_piecewise(chosen["0"], chosen["1"], split=split, **options)
    )
    expected = line.predict(frame["0"].to_numpy())
    low, high = robustness_ends(_ends(frame, "0"), _ends(frame, "1"), line)
    lowest, highest = float(chosen["0"].min()), float(chosen["0"].max())  # type: ignore[arg-type]
    outside = ~pl.col("0").is_between(lowest, highest) & (pl.col("mark") == "")
    roles = values(results, y).select("model", "role", "n")
    table = (
        frame.with_columns(pl.when(outside).then(pl.lit(BEYOND)).otherwise("mark").alias("mark"))
        .select(
            "model",
            pl.col("0").alias("x"),
            pl.col("1").alias("y"),
            "mark",
            *[c for c in CARD_COLUMNS if c != "role"],
        )
        .with_columns(
            pl.Series("expected", expected),
            pl.Series("value", frame["1"].to_numpy() - expected),
            pl.Series("low", low),
            pl.Series("high", high),
        )
        .join(roles, on="model")
    )
    return EffectiveRobustness(
        table.sort("value", descending=True), line, pair.x, y, dict(baseline), pair.axis, choices.dependence
    )


def _ends(frame: pl.DataFrame, name: str) -> Ends:
    """Return a number of a frame's models with the ends of its intervals, NaN where it has none."""
    columns = (
        frame[f"{name}{end}"].cast(pl.Float64).fill_null(float("nan")).to_numpy() for end in ("", "_low", "_high")
    )
    return Ends(*columns)


def relative_robustness(results: pl.DataFrame, y: Quantity | str, pairs: Mapping[str, str]) -> pl.DataFrame:
    """Return what an intervention gains under shift: ``tau = y(changed) - y(standard)`` (Taori et al. 2020).

    Parameters
    ----------
    results
        A result table.
    y
        The shifted accuracy.
    pairs
        Model with the intervention -> the same model without it.

    Returns
    -------
    polars.DataFrame
        ``model standard y y_standard value``, one row a pair.
    """
    y = Quantity.parse(y)
    number = dict(values(results, y).select("model", "value").rows())
    missing = [m for pair in pairs.items() for m in pair if m not in number]
    if missing:
        raise UserError(f"no {y} for model {missing[0]}")
    return pl.DataFrame(
        {
            "model": list(pairs),
            "standard": list(pairs.values()),
            "y": [number[m] for m in pairs],
            "y_standard": [number[m] for m in pairs.values()],
            "value": [number[a] - number[b] for a, b in pairs.items()],
        }
    )


def factor_effective_robustness(results: pl.DataFrame, *, dataset: str | None = None, **options: Any) -> pl.DataFrame:
    """Effective robustness on each visual factor's images, as rows of a result table.

    ``options`` are those of ``effective_robustness``; the dataset defaults to the in-distribution set.
    """
    dataset = dataset or id_dataset_of(results)
    rows = results.filter(pl.col("metric") == "factor_accuracy", pl.col("dataset") == dataset)
    if rows.is_empty():
        raise UserError(f"no factor_accuracy of {dataset}: make the rows with 'analyze factors'")
    return pl.concat(
        effective_robustness(
            results, Quantity("factor_accuracy", dataset, (("factor", factor),)), **options
        ).to_results()
        for factor in rows["factor"].unique(maintain_order=True)
    )


def _axes(results: pl.DataFrame, x: Quantity | str | None, y: Quantity | str) -> tuple[Quantity, Quantity]:
    y = Quantity.parse(y)
    if x is None:
        return Quantity("top1", id_dataset_of(results)), y
    return Quantity.parse(x), y


def _population(results: pl.DataFrame, baseline: Where) -> pl.DataFrame:
    if baseline == BASELINE and results.filter(pl.col("group") == BASELINE["group"]).is_empty():
        return results.clear().select("model")  # the default, so no misspelling
    return select(results, baseline).select("model").unique()


def _other_baselines(results: pl.DataFrame, frame: pl.DataFrame) -> str:
    """Return what a baseline could be: the groups and families of three models or more, or the models by name."""
    has = results.join(frame.select("model"), on="model", how="semi")
    found = [
        f"{by}={name}"
        for by in ("group", "family")
        for name, n in has.group_by(by).agg(pl.col("model").n_unique()).sort(by).iter_rows()
        if name != "unknown" and n >= 3
    ]
    named = f"another `baseline` ({', '.join(found[:4])})" if found else "three models as `baseline` (model=A,B,C)"
    return f"name {named}, or give models a group= in the model list before they are run"


def _words(where: Mapping[str, Any]) -> str:
    return ",".join(
        f"{key}={value if isinstance(value, str) else '|'.join(map(str, value))}" for key, value in where.items()
    )
