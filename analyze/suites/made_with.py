"""The settings that a result table was made with, read back from the options of its rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl

from analyze.results.published import PUBLISHED
from analyze.settings import Settings, study_defaults
from analyze.suites.scores import SCORES
from closerlook_common.errors import UserError


@dataclass(frozen=True)
class _Recorded:
    """Options that some rows name where they are not the study's default.

    Attributes
    ----------
    section, names
        The options.
    rows
        The rows that depend on them.
    where_named
        Only datasets of which some row names the option depend on it: nothing else shows which those are.
    """

    section: str
    names: tuple[str, ...]
    rows: pl.Expr
    where_named: bool = False


def _recorded() -> Iterator[_Recorded]:
    ece, scaled = pl.col("metric") == "ece", pl.col("calibrator") == "temperature"
    top1 = (pl.col("metric") == "top1") & (pl.col("subset") == "") & (pl.col("calibrator") == "")
    yield _Recorded("calibration", ("bins",), ece)
    yield _Recorded("split", ("fraction", "seed", "stratified"), ece & scaled)
    yield _Recorded("calibrators", ("bounds",), ece & scaled)
    yield _Recorded("accuracy", ("confidence_level",), top1)
    yield _Recorded("classes", ("masks", "map_rule"), top1, where_named=True)
    for name, spec in SCORES.items():
        if spec.options:
            rows = (pl.col("metric") == "auroc") & (pl.col("score") == name)
            yield _Recorded("ood", spec.options, rows)


def settings_of(results: pl.DataFrame, given: Settings | None = None) -> Settings:
    """Return the settings that a table's numbers were made with, for curves that are drawn with them.

    Parameters
    ----------
    results
        A result table.
    given
        Settings of a file; the study's defaults with what the rows name when None.

    Raises
    ------
    UserError
        Where rows were made with different values of an option, or with another value than the file has.
    """
    own = results.filter(
        pl.col("value").is_not_null(),
        pl.col("factor") == "",
        pl.col("command") != "ood",
        ~pl.col("store").str.starts_with(f"{PUBLISHED}:"),
    )
    defaults = study_defaults()
    settings = given or defaults
    for recorded in _recorded():
        rows = own.filter(recorded.rows).select("dataset", "options").unique(maintain_order=True)
        options = [(dataset, json.loads(text) if text else {}) for dataset, text in rows.iter_rows()]
        for name in recorded.names:
            default = defaults[recorded.section][name]
            named = {dataset for dataset, stated in options if name in stated}
            values = [
                stated.get(name, default) for dataset, stated in options if dataset in named or not recorded.where_named
            ]
            settings = _agreed(settings, recorded.section, name, values, given is not None)
    return settings


def _agreed(settings: Settings, section: str, name: str, values: list[Any], is_given: bool) -> Settings:
    distinct = [value for number, value in enumerate(values) if value not in values[:number]]
    if len(distinct) > 1:
        several = " and with ".join(f"{name} = {value}" for value in distinct)
        raise UserError(
            f"the result table has numbers made with [{section}] {several}: make a table with one of them"
            " ('analyze metrics CACHE --config FILE -o FILE'), or choose rows with `where`"
        )
    if not distinct or distinct[0] == settings[section][name]:
        return settings
    if is_given:
        raise UserError(
            f"the result table was made with [{section}] {name} = {distinct[0]}, the settings file has"
            f" {settings[section][name]}: give the file that the table was made with, or none"
        )
    return settings.updated(section, **{name: distinct[0]})
