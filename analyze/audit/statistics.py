"""Audit of what is claimed: intervals, few images, many tests, choices made on the test set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analyze.audit.findings import Finding, listed
from closerlook_common.console.terminal import counted

LEVEL = 0.05
FEW = 200
"""Images below which a number of a factor or a set is mostly noise."""
_NO_NUMBER = ("invalid_images", "worst_class")


def _numbers(table: pl.DataFrame) -> pl.DataFrame:
    return table.filter(pl.col("value").is_not_null(), ~pl.col("metric").is_in(_NO_NUMBER))


def missing_intervals(table: pl.DataFrame) -> Iterator[Finding]:
    """Yield numbers without an interval by reason: those that could have one, and those without a word."""
    rows = _numbers(table).filter(pl.col("low").is_null())
    bootstrap = rows.filter(pl.col("interval").str.contains("needs a bootstrap"))
    if bootstrap.height:
        yield Finding(
            "missing-intervals",
            f"{counted(bootstrap.height, 'number')} of {listed(bootstrap['metric'])} have no interval, since"
            " no bootstrap was run",
            "set [bootstrap] replicates = 1000 and run 'analyze metrics' again",
        )
    silent = rows.filter(pl.col("interval") == "", ~pl.col("metric").str.ends_with("_p"))
    if silent.height:
        yield Finding(
            "missing-intervals",
            f"{counted(silent.height, 'number')} of {listed(silent['metric'])} have no interval and no reason for it",
            "compute them from stores ('analyze metrics'); published numbers: state that they have none",
        )
    never = rows.filter(pl.col("interval").str.starts_with("none: "), ~pl.col("interval").str.contains("bootstrap"))
    never = never.filter(~pl.col("interval").str.contains("a test"))
    # Reasons that differ in a count alone are one finding.
    never = never.with_columns(pl.col("interval").str.replace(r"^none: [\d,]+ ", "none: few "))
    for reason, metrics in never.group_by("interval", maintain_order=True).agg(pl.col("metric").unique()).iter_rows():
        yield Finding(
            "missing-intervals",
            f"{listed(metrics)} {'has' if len(metrics) == 1 else 'have'} no interval: {reason.removeprefix('none: ')}",
            "do not rank models by them; print them next to a number that has an interval",
        )


def few_images(table: pl.DataFrame) -> Iterator[Finding]:
    """Yield sets and factors whose numbers rest on few images."""
    rows = _numbers(table).filter(pl.col("n") < FEW, pl.col("metric").is_in(["top1", "factor_accuracy", "ece"]))
    groups = rows.group_by("dataset", "factor", maintain_order=True).agg(pl.col("n").min())
    if groups.height:
        named = [
            f"{f'factor {factor} of ' if factor else ''}{dataset} ({n:,})" for dataset, factor, n in groups.iter_rows()
        ]
        yield Finding(
            "few-images",
            f"{counted(groups.height, 'set')} or factors rest on fewer than {FEW} images: {listed(named)}",
            "print n and the interval next to every such number",
        )


def many_tests(table: pl.DataFrame) -> Iterator[Finding]:
    """Yield p-values of a table that are below 5 % alone and not together."""
    rows = _numbers(table).filter(pl.col("metric").str.ends_with("_p"), pl.col("value").is_between(0, 1))
    for metric in rows["metric"].unique(maintain_order=True):
        values = np.sort(rows.filter(pl.col("metric") == metric)["value"].to_numpy())
        alone = int((values < LEVEL).sum())
        holm, hochberg = holm_rejections(values), benjamini_hochberg_rejections(values)
        if values.size > 1 and holm < alone:
            yield Finding(
                "many-tests",
                f"{alone:,} of {values.size:,} p-values of {metric} are below {LEVEL:g}, after Holm's correction"
                f" {holm:,}, after Benjamini and Hochberg's {hochberg:,}",
                "report the corrected ones and the number of tests",
            )


def holm_rejections(ordered: NDArray[np.float64]) -> int:
    """Return how many of rising p-values Holm's procedure rejects at `LEVEL`."""
    passed = ordered <= LEVEL / (ordered.size - np.arange(ordered.size))
    return int(ordered.size if passed.all() else np.argmin(passed))


def benjamini_hochberg_rejections(ordered: NDArray[np.float64]) -> int:
    """Return how many of rising p-values are rejected at a false-discovery rate of `LEVEL` (Benjamini and Hochberg)."""
    passed = np.flatnonzero(ordered <= LEVEL * np.arange(1, ordered.size + 1) / ordered.size)
    return int(passed[-1]) + 1 if passed.size else 0


def tuned_on_test(table: pl.DataFrame) -> Iterator[Finding]:
    """Yield fits and sweeps that saw the images, or the kind of images, that they are tested on."""
    rows = table.filter(pl.col("value").is_not_null())
    fitted = rows.filter(
        pl.col("calibrator") != "", pl.col("dataset") == pl.col("id_dataset"), pl.col("metric").is_in(["ece", "nll"])
    )
    whole = rows.filter(
        pl.col("metric") == "ece", pl.col("calibrator") == "", pl.col("subset") == "", pl.col("factor") == ""
    )
    sizes = dict(zip(zip(whole["model"], whole["dataset"], strict=True), whole["n"], strict=True))
    same = {
        (model, dataset, calibrator)
        for model, dataset, calibrator, factor, n in fitted.select(
            "model", "dataset", "calibrator", "factor", "n"
        ).iter_rows()
        if not factor and n is not None and n == sizes.get((model, dataset))
    }
    for dataset, calibrator in sorted({(d, c) for _, d, c in same}):
        models = [m for m, d, c in same if (d, c) == (dataset, calibrator)]
        yield Finding(
            "tuned-on-test",
            f"{calibrator} of {listed(models)} is tested on all images of {dataset}, the set that it was fitted on",
            "fit it on a part ([split] fraction) and test on the rest",
        )
    swept = rows.filter(pl.col("options").str.contains('"sweep"', literal=True))
    sets = set(rows.filter(pl.col("role") == "ood")["dataset"])
    for options, scores in swept.group_by("options", maintain_order=True).agg(pl.col("score").unique()).iter_rows():
        on = str(_value(options, "sweep"))
        if on in sets:
            yield Finding(
                "tuned-on-test",
                f"hyper-parameters of {listed(scores)} were chosen on {on}, which is also a test set of this table",
                "sweep on an OOD set that is not tested (`sweep`), or take the defaults",
            )


def _value(options: str, key: str) -> Any:
    try:
        return json.loads(options).get(key, "")
    except (json.JSONDecodeError, AttributeError):
        return ""


def selected_on_test(table: pl.DataFrame) -> Iterator[Finding]:
    """Yield choices that the table invites to make on the test sets: detectors, prompt sets, calibrators."""
    rows = table.filter(pl.col("value").is_not_null())
    for column, metric, what, fix in (
        ("score", "auroc", "OOD score", "name one beforehand, or choose on an OOD set that is not reported"),
        ("head", "top1", "prompt set", "name one beforehand, or choose on images that are not tested"),
        ("calibrator", "ece", "calibrator", "name one beforehand, or choose by cross-validation on the fitted part"),
    ):
        part = rows.filter(pl.col("metric") == metric, pl.col(column) != "")
        several = part.group_by("model", "dataset").agg(pl.col(column).unique().alias("all"))
        most = several.filter(pl.col("all").list.len() > 1)
        if most.height:
            kinds = max(most["all"].list.len().to_list())
            yield Finding(
                "selection-on-test",
                f"up to {kinds} {what}s are compared on one test set: the best of them there is biased upward",
                fix,
            )
