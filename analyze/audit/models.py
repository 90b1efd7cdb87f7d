"""Audit of the models: at chance, near-copies of each other."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from analyze.audit.findings import Finding, listed
from analyze.trends.chance import models_at_chance
from closerlook_common.console.terminal import counted


def at_chance(table: pl.DataFrame) -> Iterator[Finding]:
    """Yield models whose accuracy on the ID set guessing explains (`analyze.trends.chance`)."""
    for model, judged in models_at_chance(table).items():
        yield Finding(
            "at-chance",
            f"{model}: {judged}",
            "check its classifier and its class order; leave it out of fits and means until then",
        )


def near_copies(table: pl.DataFrame) -> Iterator[Finding]:
    """Yield models of one training run, and models with the same numbers everywhere."""
    cards = table.select("model", "lineage").unique(maintain_order=True).filter(pl.col("lineage") != "")
    runs = cards.with_columns(pl.col("lineage").str.split("/").list.head(2).list.join("/").alias("run"))
    for run, models in runs.group_by("run").agg(pl.col("model").unique()).sort("run").iter_rows():
        if len(models) > 1:
            yield Finding(
                "near-copies",
                f"{counted(len(models), 'model')} of the training run {run}: {listed(models)}",
                "count them as one: statistics over models by family, or keep one of them (`where`)",
            )
    for models in _equal_numbers(table):
        yield Finding(
            "near-copies",
            f"{listed(models)} have the same number for every metric",
            "keep one of them: they are the same weights under several names",
        )


def _equal_numbers(table: pl.DataFrame) -> list[list[str]]:
    """Return groups of models whose numbers are all equal, of at least three different numbers."""
    key = ["metric", "dataset", "id_dataset", "score", "calibrator", "subset", "factor", "head", "options"]
    rows = table.filter(pl.col("value").is_not_null() & pl.col("value").is_finite()).sort(key)
    found: dict[int, list[str]] = {}
    for (model,), own in rows.partition_by("model", as_dict=True).items():
        if own["value"].n_unique() >= 3:
            digest = hash((own["value"].to_numpy().tobytes(), tuple(own["metric"]), tuple(own["dataset"])))
            found.setdefault(digest, []).append(str(model))
    return [models for models in found.values() if len(models) > 1]
