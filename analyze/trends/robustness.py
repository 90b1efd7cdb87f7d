"""Effective and relative robustness, lines that accuracy and agreement lie on, and whether two groups share a
line.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from analyze.results import CARD_COLUMNS, conform
from analyze.results.quantities import Quantity, id_dataset_of, joined, values
from analyze.results.selection import Where, select
from analyze.trends.fits import Line, PiecewiseLine, fit_line, fit_piecewise
from analyze.trends.scales import transform, untransform
from cache_schema.errors import UserError

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
        ``model x y expected value low high`` and the cards: ``value = y - expected`` in accuracy (fractions),
        with the interval that the baseline's bootstrap gives (of the line; the model's own sampling error is
        not in it).
    line
        The baseline's fit.
    x, y
        What was compared.
    baseline
        The population the line was fitted on.
    """

    table: pl.DataFrame
    line: Line | PiecewiseLine
    x: Quantity
    y: Quantity
    baseline: Mapping[str, Any]

    def __repr__(self) -> str:
        """Return one readable line."""
        middle = float(np.median(self.table["value"].to_numpy()))
        return (
            f"effective robustness of {len(self.table)} models on {self.y} against {self.x}"
            f" (baseline {_said(self.baseline)}): median {middle:+.3f}"
        )

    def _repr_html_(self) -> str:
        return f"{html.escape(repr(self))}{self.table._repr_html_()}"

    def to_results(self) -> pl.DataFrame:
        """Return the numbers as rows of a result table (metric ``effective_robustness``)."""
        line = self.line.below if isinstance(self.line, PiecewiseLine) else self.line
        options = {
            "against": str(self.x),
            "baseline": _said(self.baseline),
            "fit": line.method,
            "of": self.y.metric,
            "scale": line.x_scale,
        }
        if isinstance(self.line, PiecewiseLine):
            options["split"] = str(self.line.split)
        told = {key: value for key, value in self.y.variants if key != "options"}
        return conform(
            self.table.select(
                "model",
                "value",
                "low",
                "high",
                *CARD_COLUMNS,
                *(pl.lit(value).alias(key) for key, value in told.items()),
                dataset=pl.lit(self.y.dataset),
                metric=pl.lit("effective_robustness"),
                direction=pl.lit("higher"),
                metric_version=pl.lit(1),
                options=pl.lit(json.dumps(options, sort_keys=True)),
                n=pl.lit(line.n),
            ).with_columns(pl.lit("").alias("reason"))
        )


def effective_robustness(
    results: pl.DataFrame,
    y: Quantity | str,
    *,
    x: Quantity | str | None = None,
    baseline: Where = BASELINE,
    scale: str = "logit",
    method: str = "ols",
    split: float | None = None,
    n_boot: int = 1000,
    seed: int = 0,
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
    n_boot, seed
        Bootstrap over the baseline's models.

    Raises
    ------
    UserError
        Where a quantity is not there, or fewer than three baseline models have both.
    """
    x, y = _axes(results, x, y)
    frame = joined(results, [x, y])
    chosen = frame.join(_population(results, baseline), on="model", how="semi")
    if len(chosen) < 3:
        raise UserError(
            f"effective robustness needs three baseline models with {x} and {y};"
            f" {_said(baseline)} has {len(chosen)}: name another with --baseline group=..."
        )
    options: dict[str, Any] = {
        "method": method,
        "x_scale": scale,
        "y_scale": scale,
        "n_boot": n_boot,
        "seed": seed,
    }
    line: Line | PiecewiseLine = (
        fit_line(chosen["0"], chosen["1"], **options)
        if split is None
        else fit_piecewise(chosen["0"], chosen["1"], split=split, **options)
    )
    expected = line.predict(frame["0"].to_numpy())
    low, high = line.band(frame["0"].to_numpy())
    reached = frame["1"].to_numpy()
    roles = values(results, y).select("model", "role")
    table = (
        frame.select(
            "model",
            pl.col("0").alias("x"),
            pl.col("1").alias("y"),
            *[c for c in CARD_COLUMNS if c != "role"],
        )
        .with_columns(
            pl.Series("expected", expected),
            pl.Series("value", reached - expected),
            pl.Series("low", reached - high),
            pl.Series("high", reached - low),
        )
        .join(roles, on="model")
    )
    return EffectiveRobustness(table.sort("value", descending=True), line, x, y, dict(baseline))


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
    y = Quantity.parse(y) if isinstance(y, str) else y
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


def factor_effective_robustness(
    results: pl.DataFrame, *, dataset: str | None = None, **options: Any
) -> pl.DataFrame:
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


@dataclass(frozen=True)
class LineTest:
    """Whether two or more groups lie on one line.

    Attributes
    ----------
    f, p_value
        F test of one common line against a line for each group (both slope and intercept free).
    slope_p_value
        Of equal slopes, given separate intercepts.
    offset_p_value
        Of equal intercepts, given a common slope.
    n, groups
        Models in all, and the groups compared.
    """

    f: float
    p_value: float
    slope_p_value: float
    offset_p_value: float
    n: int
    groups: tuple[str, ...]

    def __repr__(self) -> str:
        """Return one readable line."""
        verdict = "on different lines" if self.p_value < 0.05 else "no sign of different lines"
        return (
            f"{' / '.join(self.groups)}: {verdict} (F = {self.f:.2f}, p = {self.p_value:.2g};"
            f" slopes p = {self.slope_p_value:.2g}, offsets p = {self.offset_p_value:.2g}; {self.n} models)"
        )


def same_line(
    x: ArrayLike, y: ArrayLike, groups: ArrayLike, *, x_scale: str = "probit", y_scale: str = "probit"
) -> LineTest:
    """Test whether groups of models lie on one line (analysis of covariance, ordinary least squares).

    Parameters
    ----------
    x, y, groups
        One value a model.
    x_scale, y_scale
        Axes on which the lines are straight.

    Raises
    ------
    UserError
        Fewer than two groups, or a group of fewer than three models.
    """
    import statsmodels.api as sm

    a, b = transform(x, x_scale), transform(y, y_scale)
    names, codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    counts = np.bincount(codes)
    if len(names) < 2 or counts.min() < 3:
        said = ", ".join(f"{name} ({count})" for name, count in zip(names, counts, strict=True))
        raise UserError(f"a test of lines needs two groups of at least three models each, got {said}")
    offsets = (codes[:, None] == np.arange(1, len(names))).astype(np.float64)
    pooled = sm.OLS(b, sm.add_constant(a)).fit()
    parallel = sm.OLS(b, np.column_stack([np.ones(len(a)), a, offsets])).fit()
    free = sm.OLS(b, np.column_stack([np.ones(len(a)), a, offsets, offsets * a[:, None]])).fit()
    if pooled.ssr <= 1e-12 * max(float(pooled.centered_tss), float((b**2).sum())):
        return LineTest(0.0, 1.0, 1.0, 1.0, len(a), tuple(map(str, names)))  # one line through every model
    with np.errstate(divide="ignore", invalid="ignore"):  # a line through every model of each group: F is infinite
        f, p_value, _ = free.compare_f_test(pooled)
        slopes, shifts = free.compare_f_test(parallel)[1], parallel.compare_f_test(pooled)[1]
    return LineTest(
        float(f),
        float(p_value),
        float(slopes),
        float(shifts),
        len(a),
        tuple(map(str, names)),
    )


@dataclass(frozen=True)
class AgreementOnTheLine:
    """Accuracy under shift predicted without its labels (Baek et al. 2022).

    Attributes
    ----------
    accuracy_line, agreement_line
        Probit lines of shifted against standard accuracy over models, and of agreement over pairs of models.
    predicted
        ``model id shifted predicted``: the standard accuracy mapped by the agreement's line (ALine-S), beside the
        true one where it is known.
    mean_absolute_error
        Of the prediction, where shifted accuracies are known; NaN otherwise.
    """

    accuracy_line: Line | None
    agreement_line: Line
    predicted: pl.DataFrame
    mean_absolute_error: float

    def __repr__(self) -> str:
        """Return both lines and how far the prediction is off."""
        error = self.mean_absolute_error
        said = f"; off by {error:.4f} on average" if np.isfinite(error) else ""
        return (
            f"shifted accuracy of {len(self.predicted)} models predicted from agreement{said}\n"
            f"accuracy, {self.accuracy_line}\nagreement, {self.agreement_line}"
        )

    def _repr_html_(self) -> str:
        return "<br>".join(map(html.escape, repr(self).splitlines())) + self.predicted._repr_html_()


def agreement_on_the_line(
    accuracy: pl.DataFrame, agreement: pl.DataFrame, *, method: str = "ols", scale: str = "probit"
) -> AgreementOnTheLine:
    """Fit the agreement's line and predict shifted accuracies with it.

    Parameters
    ----------
    accuracy
        Columns ``model``, ``id`` and, where known, ``shifted``: accuracies in [0, 1].
    agreement
        One row a pair of models, columns ``id`` and ``shifted``: shares of images with the same prediction.
    method, scale
        Of the lines.
    """
    options: dict[str, Any] = {"method": method, "x_scale": scale, "y_scale": scale}
    # Pairs share their models: a bootstrap over pairs would promise too much, and 210 models have 21,945 of them.
    line = fit_line(agreement["id"], agreement["shifted"], n_boot=0, **options)
    at = transform(accuracy["id"].to_numpy(), scale)
    predicted = untransform(line.slope * at + line.intercept, scale)
    own, error = None, float("nan")
    if "shifted" in accuracy.columns:
        own = fit_line(accuracy["id"], accuracy["shifted"], **options)
        error = float(np.mean(np.abs(predicted - accuracy["shifted"].to_numpy())))
    known = [name for name in ("model", "id", "shifted") if name in accuracy.columns]
    table = accuracy.select(known).with_columns(pl.Series("predicted", predicted))
    return AgreementOnTheLine(own, line, table, error)


def _axes(results: pl.DataFrame, x: Quantity | str | None, y: Quantity | str) -> tuple[Quantity, Quantity]:
    y = Quantity.parse(y) if isinstance(y, str) else y
    if x is None:
        return Quantity("top1", id_dataset_of(results)), y
    return (Quantity.parse(x) if isinstance(x, str) else x), y


def _population(results: pl.DataFrame, baseline: Where) -> pl.DataFrame:
    return select(results, baseline).select("model").unique()


def _said(where: Mapping[str, Any]) -> str:
    return ",".join(
        f"{key}={value if isinstance(value, str) else '|'.join(map(str, value))}"
        for key, value in where.items()
    )
