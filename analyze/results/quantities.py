"""A number per model by name: ``top1@imagenet-a``, ``ece@imagenet-r[calibrator=temperature]``; result rows ->
values.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field

import polars as pl

from analyze.results.meant import rows_meant
from analyze.results.table import CARD_COLUMNS, VARIANT_COLUMNS
from analyze.results.titles import dataset_title, factor_title, metric_title, score_title
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError, nearest


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
    def parse(cls, text: object) -> Quantity:
        """Read ``METRIC@DATASET[key=value,...]``; a quantity stays what it is.

        Examples
        --------
        >>> str(Quantity.parse("ece@imagenet-r[calibrator=temperature]"))
        'ece@imagenet-r[calibrator=temperature]'
        """
        if isinstance(text, cls):
            return text
        if not isinstance(text, str):
            raise UserError(f"a quantity is a text METRIC@DATASET[key=value], such as top1@imagenet-val; got {text!r}")
        match = re.fullmatch(r"\s*([^@\[\]]+?)\s*(?:@([^\[\]]*?))?\s*(?:\[(.*)\])?\s*", text, re.DOTALL)
        if match is None:
            raise UserError(f"{text!r} is not of the form METRIC@DATASET[key=value], for example top1@imagenet-val")
        metric, dataset, given = match.groups()
        variants: dict[str, str] = {}
        # Options are JSON: a comma counts where another KEY= follows.
        for word in re.split(r",\s*(?=\w+\s*=)", given) if given else []:
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
        text = ",".join(f"{key}={value}" for key, value in self.variants)
        return f"{self.metric}@{self.dataset}" + (f"[{text}]" if text else "")

    def with_variants(self, **text: str) -> Quantity:
        """Return the quantity with values of further variant columns."""
        return Quantity(self.metric, self.dataset, tuple(sorted({**dict(self.variants), **text}.items())))

    def variant(self, column: str) -> str:
        """Return the value asked for in a variant column, empty where none was."""
        return dict(self.variants).get(column, "")

    @property
    def title(self) -> str:
        """Return the quantity as an axis label."""
        words = [metric_title(self.metric)]
        if self.dataset:
            words.append(f"on {dataset_title(self.dataset)}")
        parts = [
            score_title(v) if k == "score" else factor_title(v) if k == "factor" else v
            for k, v in self.variants
            if v and k != "id_dataset"
        ]
        return " ".join(words) + (f" ({', '.join(parts)})" if parts else "")


class SeveralNumbersError(UserError):
    """A quantity means several numbers of one model; the message names what each is called.

    Attributes
    ----------
    choices
        The quantities that it may mean.
    """

    def __init__(self, quantity: Quantity, model: str, choices: list[Quantity]) -> None:
        self.choices = choices
        listed = " or ".join(map(str, choices))
        super().__init__(f"{quantity} means several numbers of model {model}; write {listed}")


def unambiguous(results: pl.DataFrame, quantity: Quantity) -> list[Quantity]:
    """Return a quantity as it is where it means one number a model, else those that it may mean, each by its name."""
    try:
        answers(results, quantity)
    except SeveralNumbersError as error:
        return [found for choice in error.choices for found in unambiguous(results, choice)]
    return [quantity]


def quantities(results: pl.DataFrame) -> list[Quantity]:
    """Return every quantity of a result table that has at least one value, in order of appearance.

    Variants that mean the default (see ``values``) are still spelled out, so that no two rows share a
    quantity.
    """
    present = results.filter(pl.col("value").is_not_null())
    key = ["metric", "dataset", *VARIANT_COLUMNS[:-1]]
    # options that only add to a number (which class was the worst) do not distinguish numbers
    several = pl.struct("model", *key).is_duplicated().any().over(key)
    present = present.with_columns(pl.when(several).then("options").otherwise(pl.lit("")).alias("options"))
    keys = present.select("metric", "dataset", *VARIANT_COLUMNS).unique(maintain_order=True)
    built = []
    for metric, dataset, *given in keys.rows():
        pairs = sorted((k, v) for k, v in zip(VARIANT_COLUMNS, given, strict=True) if v)
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
    quantity = Quantity.parse(quantity)
    known = _known.get()
    if known is None or known.results is not results:
        return _answers(results, quantity, score)
    found = known.found.get((quantity, score))
    if found is None:
        try:
            found = _answers(results, quantity, score)
        except UserError as error:
            found = error
        known.found[quantity, score] = found
    if isinstance(found, UserError):
        raise found.with_traceback(None)
    return found


@dataclass(frozen=True)
class _Known:
    """What quantities of a table were found to mean: rows, or an error."""

    results: pl.DataFrame
    found: dict[tuple[Quantity, str], pl.DataFrame | UserError] = field(default_factory=dict)


_known: ContextVar[_Known | None] = ContextVar("known", default=None)


@contextlib.contextmanager
def looked_up_once(results: pl.DataFrame) -> Iterator[None]:
    """Look each quantity of a table up once inside the context; the table must not be changed there."""
    token = _known.set(_Known(results))
    try:
        yield
    finally:
        _known.reset(token)


def _answers(results: pl.DataFrame, quantity: Quantity, score: str) -> pl.DataFrame:
    chosen = results.filter(pl.col("metric") == quantity.metric, pl.col("dataset") == quantity.dataset)
    if chosen.is_empty():
        raise UserError(f"no row for {quantity}{_near(results, quantity)}")
    given = dict(quantity.variants) | ({"score": score} if score and not quantity.variant("score") else {})
    for column, value in given.items():
        kept = chosen.filter(pl.col(column) == value)
        if kept.is_empty():
            raise UserError(f"no row for {quantity}: {column} is one of {_shown(chosen[column])}")
        chosen = kept
    chosen = chosen.filter(pl.col("value").is_not_null() & pl.col("value").is_not_nan())
    for column in VARIANT_COLUMNS:
        if column not in given:
            kept = rows_meant(chosen, column)
            if kept.is_empty() and not chosen.is_empty():
                first = quantity.with_variants(**{column: min(chosen[column])})
                raise UserError(f"{quantity} does not say which {column}: {_shown(chosen[column])}; write {first}")
            chosen = kept
    doubled = chosen.filter(pl.col("model").is_duplicated())
    if not doubled.is_empty():
        model = doubled["model"][0]
        own = doubled.filter(pl.col("model") == model)
        unclear = [c for c in VARIANT_COLUMNS if own[c].n_unique() > 1]
        if not unclear:
            raise UserError(f"{quantity}: model {model} has {counted(len(own), 'value')}; the table was joined twice?")
        named = sorted(doubled[unclear[0]].unique())
        raise SeveralNumbersError(quantity, model, [quantity.with_variants(**given, **{unclear[0]: v}) for v in named])
    return chosen.sort("model")


def _near(results: pl.DataFrame, quantity: Quantity) -> str:
    metrics = results["metric"].unique().to_list()
    if quantity.metric not in metrics:
        return nearest(quantity.metric, metrics) or f"; metrics are {', '.join(sorted(metrics)[:20])}"
    datasets = results.filter(pl.col("metric") == quantity.metric)["dataset"].unique().sort().to_list()
    names = [f"{quantity.metric}@{name}" + ("" if name else " (a mean over sets)") for name in datasets[:20]]
    more = f" ... ({len(datasets):,} in all)" if len(datasets) > 20 else ""
    return nearest(quantity.dataset, filter(None, datasets)) or f"; write {' or '.join(names)}{more}"


def _shown(column: pl.Series) -> str:
    """Return the distinct values of a column as text, at most twenty of them."""
    values = sorted(value or "(none)" for value in column.unique())
    return ", ".join(values[:20]) + (f" ... ({len(values):,} in all)" if len(values) > 20 else "")


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
        raise UserError("no quantity was given")
    return frame.sort("model")


def id_dataset_of(results: pl.DataFrame) -> str:
    """Return the in-distribution test set of a result table: the one with most top-1 rows among those with
    that role.

    Raises
    ------
    UserError
        Where the table has no in-distribution set with an accuracy.
    """
    found = id_datasets_of(results)
    if not found:
        raise UserError(
            "the result table has no top1 of an in-distribution set (role 'id'): 'analyze metrics CACHE -o FILE'"
            " makes it; another axis is given with `x`"
        )
    return found[0]


def id_datasets_of(results: pl.DataFrame) -> list[str]:
    """Return the in-distribution test sets of a result table, the one that counts where none is named first."""
    found = results.filter(pl.col("role") == "id", pl.col("metric") == "top1")["dataset"].value_counts()
    return [str(name) for name in found.sort(["count", "dataset"], descending=[True, False])["dataset"]]


def several_id_sets(results: pl.DataFrame, other: str) -> str:
    """Return a line that says which of several in-distribution sets is taken, and what decides; empty where there is
    one.

    Parameters
    ----------
    results
        A result table.
    other
        What takes the set ``{other}`` in place of ``{taken}`` in the command.
    """
    sets = id_datasets_of(results)
    if len(sets) < 2:
        return ""
    return (
        f"{len(sets)} in-distribution sets ({', '.join(sets)}): {sets[0]} is taken; to take another,"
        f" {other.format(taken=sets[0], other=sets[1])}."
        f" Where one is a shift: 'python -m cache_schema dataset CACHE {sets[1]} --role shift --shift-of {sets[0]}',"
        " then 'analyze metrics' again."
    )
