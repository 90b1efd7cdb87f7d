"""A number per model by name: ``top1@imagenet-a``, ``ece@imagenet-r[calibrator=temperature]``; result rows ->
values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from analyze.results.table import CARD_COLUMNS, VARIANT_COLUMNS
from analyze.results.titles import dataset_title, factor_title, metric_title, score_title
from cache_schema.errors import UserError, nearest

STRICT = ("calibrator", "factor")
"""Variants that must be asked for: without, a quantity means the plain number."""

PREFERRED_HEADS = ("", "openai-80")
"""Which prompt set is meant where a model has several and none is named: its own head, else the study's 80
templates."""

STUDY_SCORES = {"clip-zero-shot": "mcm"}
"""Which OOD score is meant where none is named: MCM for zero-shot CLIP, MSP for every other group."""


@dataclass(frozen=True)
class Quantity:
    """A metric on a dataset, and which of its variants.

    Attributes
    ----------
    metric, dataset
        As in the result table; the dataset may be empty (a mean over sets).
    variants
        Pairs of variant column and value, sorted.
    """

    metric: str
    dataset: str = ""
    variants: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str) -> Quantity:
        """Read ``METRIC@DATASET[key=value,...]``.

        Examples
        --------
        >>> str(Quantity.parse("ece@imagenet-r[calibrator=temperature]"))
        'ece@imagenet-r[calibrator=temperature]'
        """
        match = re.fullmatch(r"\s*([^@\[\]]+?)\s*(?:@([^\[\]]*?))?\s*(?:\[(.*)\])?\s*", text, re.DOTALL)
        if match is None:
            raise UserError(
                f"{text!r} is not of the form METRIC@DATASET[key=value], for example top1@imagenet-val"
            )
        metric, dataset, told = match.groups()
        variants: dict[str, str] = {}
        for word in (told or "").split(",") if told else []:
            key, equals, value = (part.strip() for part in word.partition("="))
            if not equals or key not in VARIANT_COLUMNS:
                raise UserError(
                    f"{text!r}: {word!r} is not a variant{nearest(key, VARIANT_COLUMNS)}"
                    f" Variants are {', '.join(VARIANT_COLUMNS)}."
                )
            variants[key] = value
        return cls(metric, (dataset or "").strip(), tuple(sorted(variants.items())))

    def __str__(self) -> str:
        """Return the text that ``parse`` reads."""
        told = ",".join(f"{key}={value}" for key, value in self.variants)
        return f"{self.metric}@{self.dataset}" + (f"[{told}]" if told else "")

    def variant(self, column: str) -> str:
        """Return the value asked for in a variant column, empty where none was."""
        return dict(self.variants).get(column, "")

    @property
    def title(self) -> str:
        """Return the quantity as an axis label."""
        words = [metric_title(self.metric)]
        if self.dataset:
            words.append(f"on {dataset_title(self.dataset)}")
        told = [
            score_title(v) if k == "score" else factor_title(v) if k == "factor" else v
            for k, v in self.variants
            if v and k != "id_dataset"
        ]
        return " ".join(words) + (f" ({', '.join(told)})" if told else "")


def quantities(results: pl.DataFrame) -> list[Quantity]:
    """Return every quantity of a result table that has at least one value, in order of appearance.

    Variants that mean the default (see ``values``) are still spelled out, so that no two rows share a
    quantity.
    """
    present = results.filter(pl.col("value").is_not_null())
    key = ["metric", "dataset", *VARIANT_COLUMNS[:-1]]
    # options that only add to a number (which class was the worst) do not tell numbers apart
    several = pl.struct("model", *key).is_duplicated().any().over(key)
    present = present.with_columns(pl.when(several).then("options").otherwise(pl.lit("")).alias("options"))
    keys = present.select("metric", "dataset", *VARIANT_COLUMNS).unique(maintain_order=True)
    built = []
    for metric, dataset, *told in keys.rows():
        pairs = sorted((k, v) for k, v in zip(VARIANT_COLUMNS, told, strict=True) if v)
        built.append(Quantity(metric, dataset, tuple(pairs)))
    return built


def values(results: pl.DataFrame, quantity: Quantity | str, *, score: str = "") -> pl.DataFrame:
    """Return one row per model: its number, interval and card.

    Parameters
    ----------
    results
        A result table.
    quantity
        What is wanted. Variants that it does not name are resolved per model: no calibrator, no factor; the
        model's own head, else the 80 study templates; the study's OOD score (MCM for zero-shot CLIP, MSP for
        others); whatever there is where a model has only one.
    score
        OOD score for all models, where the quantity names none.

    Returns
    -------
    polars.DataFrame
        Columns ``model value low high n`` and those of the cards, one row per model that has a value.

    Raises
    ------
    UserError
        Where no row answers, or several do for one model.
    """
    return answers(results, quantity, score=score).select("model", "value", "low", "high", "n", *CARD_COLUMNS)


def answers(results: pl.DataFrame, quantity: Quantity | str, *, score: str = "") -> pl.DataFrame:
    """Return the whole rows that ``values`` takes its numbers from, one per model, sorted by model.

    Parameters and errors as of ``values``; columns are those of the result table.
    """
    quantity = Quantity.parse(quantity) if isinstance(quantity, str) else quantity
    chosen = results.filter(pl.col("metric") == quantity.metric, pl.col("dataset") == quantity.dataset)
    if chosen.is_empty():
        raise UserError(f"no row for {quantity}{_near(results, quantity)}")
    told = dict(quantity.variants) | ({"score": score} if score and not quantity.variant("score") else {})
    for column, value in told.items():
        kept = chosen.filter(pl.col(column) == value)
        if kept.is_empty():
            present = ", ".join(sorted(v or "(none)" for v in chosen[column].unique()))
            raise UserError(f"no row for {quantity}: {column} is one of {present}")
        chosen = kept
    chosen = chosen.filter(pl.col("value").is_not_null() & pl.col("value").is_not_nan())
    for column in VARIANT_COLUMNS:
        if column not in told:
            chosen = _resolve(chosen, column)
    doubled = chosen.filter(pl.col("model").is_duplicated())
    if not doubled.is_empty():
        model = doubled["model"][0]
        own = doubled.filter(pl.col("model") == model)
        unclear = [c for c in VARIANT_COLUMNS if own[c].n_unique() > 1]
        if not unclear:
            raise UserError(f"{quantity}: model {model} has {len(own)} values; the table was joined twice?")
        choices = "; ".join(f"{c}={' or '.join(sorted(own[c].unique()))}" for c in unclear)
        raise UserError(f"{quantity} is ambiguous for model {model}: add [{unclear[0]}=...] ({choices})")
    return chosen.sort("model")


def _resolve(chosen: pl.DataFrame, column: str) -> pl.DataFrame:
    """Keep, for each model, the rows of the variant that is meant where none is named."""
    if column in STRICT:
        return chosen.filter(pl.col(column) == "")
    preferred = pl.lit("")
    if column == "head":
        preferred = pl.lit(PREFERRED_HEADS[1])
    if column == "score":
        preferred = pl.col("group").replace_strict(STUDY_SCORES, default="msp", return_dtype=pl.String)
    return _first_choice(chosen, column, preferred, of=["model"])


def _first_choice(rows: pl.DataFrame, column: str, preferred: pl.Expr, *, of: list[str]) -> pl.DataFrame:
    """Keep, of each group, the rows where a column is empty; else where it is what is preferred; else all."""
    rank = pl.when(pl.col(column) == "").then(0).when(pl.col(column) == preferred).then(1).otherwise(2)
    return rows.filter(rank == rank.min().over(of))


def usual_heads(results: pl.DataFrame) -> pl.DataFrame:
    """Keep, of each number, the rows of the model's own head, else of the 80 study templates, else all."""
    return _first_choice(results, "head", pl.lit(PREFERRED_HEADS[1]), of=["model", "dataset", "metric"])


def _near(results: pl.DataFrame, quantity: Quantity) -> str:
    metrics = results["metric"].unique().to_list()
    if quantity.metric not in metrics:
        return nearest(quantity.metric, metrics) or f"; metrics are {', '.join(sorted(metrics)[:20])}"
    datasets = results.filter(pl.col("metric") == quantity.metric)["dataset"].unique().to_list()
    return (
        nearest(quantity.dataset, datasets)
        or f"; {quantity.metric} is there for {', '.join(sorted(datasets)[:20])}"
    )


def joined(results: pl.DataFrame, wanted: Iterable[Quantity | str], *, score: str = "") -> pl.DataFrame:
    """Return a wide frame: models that have all the quantities, columns ``model``, the cards, and ``0``,
    ``1`` ...

    Each quantity gives the columns ``i``, ``i_low``, ``i_high``, in the order asked for.
    """
    frame: pl.DataFrame | None = None
    for index, quantity in enumerate(wanted):
        part = values(results, quantity, score=score)
        cards = part.select("model", *[c for c in CARD_COLUMNS if c != "role"])
        part = part.select(
            "model",
            pl.col("value").alias(f"{index}"),
            pl.col("low").alias(f"{index}_low"),
            pl.col("high").alias(f"{index}_high"),
        )
        frame = cards.join(part, on="model") if frame is None else frame.join(part, on="model", how="inner")
    if frame is None:
        raise UserError("no quantity was asked for")
    return frame.sort("model")


def id_dataset_of(results: pl.DataFrame) -> str:
    """Return the in-distribution test set of a result table: the one with most top-1 rows among those with
    that role.

    Raises
    ------
    UserError
        Where the table has no in-distribution set with an accuracy.
    """
    found = results.filter(pl.col("role") == "id", pl.col("metric") == "top1")["dataset"].value_counts(
        sort=True
    )
    if found.is_empty():
        raise UserError(
            "the result table has no top1 of an in-distribution set (role 'id'): 'analyze metrics CACHE -o FILE'"
            " makes it; 'analyze trends' takes another axis (--x)"
        )
    top = found["count"][0]
    return str(sorted(found.filter(pl.col("count") == top)["dataset"])[0])
