"""The AUROC of every detector on every OOD set, over the models of a run."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from analyze.intervals.influences import Influence
from analyze.intervals.winners import as_good_as_best
from analyze.ood.effects import SPREAD, KeptEffects, variant_name
from analyze.ood.inputs import OodOptions
from analyze.ood.paired import Contest, Entry, contest_of
from analyze.ood.resuming import plain_options_of
from analyze.ood.scoring import asked_options
from closerlook_common.errors import UserError


def leaderboard(table: pl.DataFrame, models: Sequence[str], options: OodOptions) -> pl.DataFrame:
    """Return detectors by OOD set, the best first by their mean over the sets.

    Parameters
    ----------
    table
        A result table, with the rows of the run.
    models, options
        Of the run.

    Returns
    -------
    polars.DataFrame
        Columns ``score``, ``models`` (that have a number on every set) and one a set: the mean AUROC over these models.
    """
    rows = _rows(table, models, options)
    sets = rows["dataset"].unique(maintain_order=True).to_list()
    means = rows.group_by("score", "dataset", maintain_order=True).agg(pl.col("value").mean(), models="model")
    if means.is_empty():
        return pl.DataFrame(schema={"score": pl.String, "models": pl.Int64})
    wide = means.with_columns(models=pl.col("models").list.n_unique()).pivot(
        on="dataset", index=["score", "models"], values="value"
    )
    order = pl.mean_horizontal(sets)
    return wide.sort(order, descending=True, maintain_order=True).select("score", "models", *sets)


def contests_on(board: pl.DataFrame, kept: KeptEffects, options: OodOptions) -> list[Contest]:
    """Test every pair of detectors of a leaderboard on the same images, one contest an OOD set.

    Parameters
    ----------
    board
        Of ``leaderboard``: means of AUROC over models.
    kept
        What each image adds to them.
    options
        Of the run.

    Raises
    ------
    UserError
        Where it is not known what the images add to a number of the board, or detectors are of other images.
    """
    influences: dict[str, dict[Entry, Influence]] = {name: {} for name in board.columns[2:]}
    untested: dict[str, dict[Entry, str]] = {name: {} for name in influences}
    images: dict[str, set[tuple[str, str]]] = {name: set() for name in influences}
    for row in board.iter_rows(named=True):
        detector = str(row["score"])
        means = kept.means(variant_name(options.id_dataset, detector, asked_options(detector, options)))
        for name in influences:
            if name not in means or abs(means[name][1].value - row[name]) > SPREAD:
                raise UserError(f"what each image adds to {detector} on {name} was not kept")
            effect, influence = means[name]
            influences[name]["", detector] = influence
            images[name].add(effect.images)
            if effect.untested:
                untested[name]["", detector] = effect.untested
    if any(len(found) > 1 for found in images.values()):
        raise UserError("the detectors are of models whose stores hold other images")
    level = options.confidence_level
    return [contest_of(name, "auroc", found, untested[name], level=level) for name, found in influences.items()]


def _rows(table: pl.DataFrame, models: Sequence[str], options: OodOptions) -> pl.DataFrame:
    """Return the AUROCs of the run's detectors, of the models that have one on every set."""
    wanted = pl.DataFrame(
        [(name, asked_options(name, options)) for name in options.detectors],
        schema={"score": pl.String, "asked": pl.String},
        orient="row",
    ).unique()
    rows = table.filter(
        pl.col("command") == "ood",
        pl.col("metric") == "auroc",
        pl.col("dataset") != "",
        pl.col("id_dataset") == options.id_dataset,
        pl.col("model").is_in(list(models)),
        ~pl.col("options").str.contains('"full_spectrum"'),
        pl.col("value").is_not_null(),
    ).with_columns(asked=pl.col("options").map_elements(plain_options_of, return_dtype=pl.String))
    rows = rows.join(wanted, on=["score", "asked"], how="semi")
    count = rows["dataset"].n_unique()
    return rows.filter(pl.col("dataset").n_unique().over("score", "model") == count)


def leaders(table: pl.DataFrame, models: Sequence[str], options: OodOptions) -> dict[str, set[str]]:
    """Return, for each OOD set, the detectors that cannot be distinguished from the best by their intervals.

    Parameters
    ----------
    table, models, options
        As of ``leaderboard``, whose means are compared. The ends of a mean are the means of the ends: numbers of the
        same images err alike, so that errors do not average out.
    """
    board = leaderboard(table, models, options)
    found: dict[str, set[str]] = {}
    for name in board.columns[2:]:
        rows = _rows(table, models, options).filter(pl.col("dataset") == name)
        means = rows.group_by("score", maintain_order=True).agg(pl.col("value", "low", "high").mean())
        means = means.join(board.select("score"), on="score", how="semi")
        ends = [
            means[column].cast(pl.Float64).fill_null(float("nan")).to_numpy() for column in ("value", "low", "high")
        ]
        kept = as_good_as_best(*ends, higher=True)
        found[name] = set(means["score"].filter(pl.Series(kept)))
    return found
