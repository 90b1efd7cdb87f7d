"""All trends of a result table: correlations, lines, ranks and robustness of every chosen pair of numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from analyze import trends
from analyze.results.quantities import Quantity
from analyze.results.selection import check_column
from analyze.results.titles import is_share_of_images
from analyze.trends.agreement_lines import agreement_lines, lines_table
from analyze.trends.chance import models_at_chance
from analyze.trends.dependence import FLIPS
from analyze.trends.multiplicity import adjusted
from analyze.trends.pairs import Choices, PairOfNumbers, pair_of
from analyze.trends.ranks import rank_stability
from analyze.trends.robustness import BASELINE, EffectiveRobustness
from closerlook_common.errors import UserError

if TYPE_CHECKING:
    from cache_schema.reading.cache import Cache

Pair = tuple[Quantity, Quantity]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class TrendOptions:
    """How trends are computed.

    Attributes
    ----------
    by
        Column of the model card whose groups are also shown alone; empty for none.
    scale
        Axis for accuracies: ``probit``, ``logit`` or ``linear``.
    method
        Of the fitted line: ``huber``, ``ols`` or ``theil-sen``.
    baseline
        Condition -> values: the models of the effective-robustness line.
    split
        Accuracy at which the baseline is fitted in two pieces; None for one.
    changed
        Model with an intervention -> the model without, for relative robustness.
    bootstrap, seed
        Signs of families that are drawn for a p-value, and their seed.
    choices
        Which images x is of, which models are left out, what makes models a family.
    """

    by: str = "group"
    scale: str = "probit"
    method: str = "huber"
    baseline: Mapping[str, str | Sequence[str]] = field(default_factory=lambda: dict(BASELINE))
    split: float | None = None
    changed: Mapping[str, str] = field(default_factory=dict)
    bootstrap: int = FLIPS
    seed: int = 0
    choices: Choices = field(default_factory=Choices)


def pairs_of(results: pl.DataFrame, x: str | None = None, y: Sequence[str] = ()) -> list[Pair]:
    """Return the pairs of quantities to look at.

    Parameters
    ----------
    results
        A result table.
    x
        Quantity on the horizontal axis; top1 of the in-distribution set when None.
    y
        Quantities that are set against it; every number when empty.

    Raises
    ------
    UserError
        The table has too few models, or a quantity cannot be read.
    """
    n_models = results["model"].n_unique()
    if n_models < trends.MIN_MODELS:
        models = "model" if n_models == 1 else "models"
        raise UserError(f"trends over models need {trends.MIN_MODELS} of them; the table has {n_models} {models}")
    pairs = trends.default_pairs(results, x or None)
    if y:
        first = pairs[0][0] if pairs else Quantity.parse(x or "")
        pairs = [(first, Quantity.parse(name)) for name in y]
    return pairs


def trend_tables(
    results: pl.DataFrame, pairs: Iterable[Pair], options: TrendOptions
) -> tuple[dict[str, pl.DataFrame], str]:
    """Compute the trends of pairs of quantities.

    Parameters
    ----------
    results
        A result table.
    pairs
        Of ``pairs_of``.
    options
        How.

    Returns
    -------
    tables : dict of str to polars.DataFrame
        ``correlations`` and, where they can be had, ``fits``, ``rank_stability``, ``relative_robustness``,
        ``line_tests``, ``effective_robustness``, ``robustness_medians``, ``marked_models``. P-values are also given as
        they are among all of them (:func:`analyze.trends.multiplicity.adjusted`).
    problem : str
        What could not be fitted, the last of several; empty where everything could.
    """
    if options.by:
        check_column(options.by)
    choices = replace(options.choices, flips=options.bootstrap, seed=options.seed)
    common: dict[str, Any] = {"by": options.by, "scale": options.scale, "choices": choices}
    parts: dict[str, list[pl.DataFrame]] = {}
    problem = ""
    chance = models_at_chance(results, level=choices.chance_level, classes=choices.classes)
    out = () if choices.keep_chance else tuple(chance)
    directed = set(results.filter(pl.col("direction").is_in(["higher", "lower"]))["metric"])
    for x, y in pairs:
        pair = pair_of(results, x, y, choices, chance=chance)
        parts.setdefault("correlations", []).append(trends.correlation_table(results, [pair], **common))
        _add_left_out(parts, pair)
        try:
            parts.setdefault("fits", []).append(trends.fit_table(results, [pair], methods=(options.method,), **common))
        except UserError as error:
            problem = f"no line for {y}: {error}"
        if y.metric in directed and x.metric in directed:
            stable = rank_stability(results, [x, y], choices=choices, left_out=out)
            parts.setdefault("rank_stability", []).append(stable)
        if options.changed and is_share_of_images(y.metric):
            gained = trends.relative_robustness(results, y, dict(options.changed))
            parts.setdefault("relative_robustness", []).append(gained.with_columns(pl.lit(str(y)).alias("on")))
        if options.by:
            parts.setdefault("line_tests", []).append(trends.line_tests(results, [pair], **common))
        if y.metric in (x.metric, "factor_accuracy") and is_share_of_images(x.metric):
            try:
                found = _robustness(results, pair, options, choices)
            except UserError as error:
                problem = f"no effective robustness on {y}: {error}"
                continue
            rows = found.to_results().join(found.table.select("model", "mark"), on="model", maintain_order="left")
            parts.setdefault("effective_robustness", []).append(rows)
            parts.setdefault("robustness_medians", []).append(found.medians(options.by or "group"))
    return adjusted({name: pl.concat(frames) for name, frames in parts.items() if frames}), problem


def _robustness(
    results: pl.DataFrame, pair: PairOfNumbers, options: TrendOptions, choices: Choices
) -> EffectiveRobustness:
    return trends.effective_robustness(
        results,
        pair.y,
        x=pair.x,
        baseline=options.baseline,
        scale=options.scale,
        method=options.method,
        split=options.split,
        choices=choices,
        pair=pair,
    )


def _add_left_out(parts: dict[str, list[pl.DataFrame]], pair: PairOfNumbers) -> None:
    """Add the models that a pair's fits leave out, and those that are marked in them."""
    rows = [(str(pair.y), model, "left out", reason) for model, reason in pair.left_out.items()]
    marked = pair.fitted.filter(pl.col("mark") != "")
    rows += [(str(pair.y), model, "kept", mark) for model, mark in marked.select("model", "mark").rows()]
    if rows:
        schema = dict.fromkeys(("y", "model", "fits", "why"), pl.String)
        parts.setdefault("marked_models", []).append(pl.DataFrame(rows, schema=schema, orient="row"))


def agreement_tables(
    cache: Cache, models: Iterable[str], *, pair_by_row: bool = False, progress: Progress | None = None
) -> tuple[dict[str, pl.DataFrame], list[str]]:
    """Compute agreement on the line: accuracy under shift without its labels, from every model's predictions.

    Parameters
    ----------
    cache
        An open cache.
    models
        Of the result table; those that the cache does not hold are left out.
    pair_by_row
        Pair row i with row i where stores hold no image names.
    progress
        Called with (model, models done, models in all).

    Returns
    -------
    tables : dict of str to polars.DataFrame
        ``agreement_lines`` and ``agreement_predictions``, or nothing.
    problems : list of str
        What could not be computed, one line each.

    Raises
    ------
    UserError
        The cache holds none of the models.
    """
    held = sorted({card.id for card in cache.models()} & set(models))
    if not held:
        raise UserError(f"{cache.title} holds none of the result table's models")
    try:
        how: dict[str, Any] = {} if progress is None else {"progress": progress}
        found, reasons = agreement_lines(cache, models=held, pair_by_row=pair_by_row, **how)
    except UserError as error:  # the other tables can be had all the same
        return {}, [f"no agreement on the line: {error}"]
    problems = [f"no agreement on {dataset}: {reason}" for dataset, reason in reasons.items()]
    if not found:
        return {}, problems or ["no agreement on the line: no dataset has two models"]
    predicted = [lines.predicted.with_columns(pl.lit(name).alias("dataset")) for name, lines in found.items()]
    return {"agreement_lines": lines_table(found), "agreement_predictions": pl.concat(predicted)}, problems
