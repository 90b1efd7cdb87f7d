"""Which variant of a number is meant where none is named: the only place that decides it."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from analyze.results.table import VARIANT_COLUMNS

STRICT = ("calibrator", "factor")
"""Variants that must be asked for: without, a quantity means the plain number."""

PREFERRED_HEADS = ("", "openai-80")
"""Which prompt set is meant where a model has several and none is named: its own head, else the study's 80
templates."""

STUDY_SCORES = {"clip-zero-shot": "mcm"}
"""Which OOD score is meant where none is named: MCM for zero-shot CLIP, MSP for every other group."""


def study_score(group: str) -> str:
    """Return the OOD score that is meant for a model of a group where none is named."""
    return STUDY_SCORES.get(group, "msp")


def rows_meant(chosen: pl.DataFrame, column: str) -> pl.DataFrame:
    """Keep, for each model, the rows of the variant that is meant where none is named."""
    if column in STRICT:
        return chosen.filter(pl.col(column) == "")
    preferred = pl.lit("")
    if column == "head":
        preferred = pl.lit(PREFERRED_HEADS[1])
    if column == "score":
        preferred = _study_scores()
    return _first_choice(chosen, column, preferred, of=["model"])


def _first_choice(rows: pl.DataFrame, column: str, preferred: pl.Expr, *, of: list[str]) -> pl.DataFrame:
    """Keep, of each group, the rows where a column is empty; else where it is what is preferred; else all."""
    rank = pl.when(pl.col(column) == "").then(0).when(pl.col(column) == preferred).then(1).otherwise(2)
    return rows.filter(rank == rank.min().over(of))


def usual_heads(results: pl.DataFrame) -> pl.DataFrame:
    """Keep, of each number, the rows of the model's own head, else of the 80 study templates, else all."""
    return _first_choice(results, "head", pl.lit(PREFERRED_HEADS[1]), of=["model", "dataset", "metric"])


def plain_numbers(results: pl.DataFrame, *, keep: Sequence[str] = ()) -> pl.DataFrame:
    """Return each number once, as it is quoted: not calibrated, of the whole set, of no factor, with default options.

    Means over datasets keep their subset (``near``, ``far``, ``all``), and scores stay apart. Options that no other row
    of the number does without (a detector's) stay too.

    Parameters
    ----------
    results
        A result table.
    keep
        Columns of which every variant stays.
    """
    is_plain = {
        "calibrator": pl.col("calibrator") == "",
        "subset": (pl.col("subset") == "") | (pl.col("dataset") == ""),
        "factor": pl.col("factor") == "",
    }
    chosen = results
    for column, plain in is_plain.items():
        if column not in keep:
            chosen = chosen.filter(plain)
    if "options" in keep:
        return chosen
    bare = pl.col("options") == ""
    number = [name for name in ("model", "dataset", "metric", *VARIANT_COLUMNS) if name != "options"]
    return chosen.filter(bare | ~bare.any().over(number))


def with_study_scores(results: pl.DataFrame) -> pl.DataFrame:
    """Add the study's OOD score (MCM for zero-shot CLIP, MSP for others) as rows of score ``study``, where both are."""
    if not {"msp", "mcm"} <= set(results["score"].unique()):
        return results
    chosen = results.filter(pl.col("score") == _study_scores()).with_columns(pl.lit("study").alias("score"))
    return pl.concat([results, chosen])


def with_default_heads(results: pl.DataFrame) -> pl.DataFrame:
    """Empty the column ``head`` where it names a model's default prompt set, and keep the name in ``own_head``.

    The default is what ``quantities.values`` takes for each number: a model's own head, else the study's 80 templates,
    else the only one. Zero-shot models and classifiers then share a column, also where some numbers (retrieval) have no
    head at all.
    """
    number = ["model", "metric", "dataset"]
    rank = pl.col("head").replace_strict({name: i for i, name in enumerate(PREFERRED_HEADS)}, default=9)
    first = pl.col("head").sort_by(rank, "head").first().over(number)
    sole = (rank < 9).any().over(number) | (pl.col("head").n_unique().over(number) == 1)
    default = sole & (pl.col("head") == first)
    return results.with_columns(
        pl.when(default).then(pl.lit("")).otherwise("head").alias("head"), pl.col("head").alias("own_head")
    )


def _study_scores() -> pl.Expr:
    """Return the score that is meant for the group of each row."""
    return pl.col("group").replace_strict(STUDY_SCORES, default=study_score(""), return_dtype=pl.String)
