"""Audit of what is compared with what: the same images, classes, options and versions for all models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import polars as pl

from analyze.audit.findings import Finding, listed
from analyze.results import VARIANT_COLUMNS
from analyze.results.quantities import id_datasets_of
from closerlook_common.console.terminal import counted

UNEQUAL = 0.001
"""Share of images by which two models may differ: some files cannot be read by everyone."""

BIASED = ("ece", "ece_mass", "ece_mass100", "ece_l2", "mce", "classwise_ece", "ks_error", "kuiper_error", "smece")
"""Errors that rise as images become fewer, calibrated or not."""

_KEY = ["metric", "dataset", *(c for c in VARIANT_COLUMNS if c != "options")]


def _present(table: pl.DataFrame) -> pl.DataFrame:
    return table.filter(pl.col("value").is_not_null())


def unequal_n(table: pl.DataFrame) -> Iterator[Finding]:
    """Yield datasets whose numbers are of other images for some models."""
    rows = _present(table).filter(pl.col("metric") == "top1", pl.col("subset") == "", pl.col("n").is_not_null())
    spread = rows.group_by("dataset", "calibrator", maintain_order=True).agg(
        pl.col("n").min().alias("least"), pl.col("n").max().alias("most"), pl.col("model"), pl.col("n").alias("each")
    )
    for dataset, _, least, most, models, each in spread.iter_rows():
        if least < (1 - UNEQUAL) * most:
            fewer = [model for model, n in zip(models, each, strict=True) if n < (1 - UNEQUAL) * most]
            yield Finding(
                "unequal-n",
                f"{dataset}: {least:,} to {most:,} images, fewer for {listed(fewer)}",
                "run these models on the whole dataset again, or compare on common images (analyze compare)",
            )


def biased_by_n(table: pl.DataFrame) -> Iterator[Finding]:
    """Yield errors that are compared between sets or factors of unequal size without a correction."""
    rows = _present(table).filter(pl.col("metric").is_in(BIASED), pl.col("n").is_not_null(), pl.col("calibrator") == "")
    corrected = set(_present(table).filter(pl.col("metric") == "ece_debiased")["factor"].unique())
    for by in ("factor", "dataset"):
        part = rows.filter((pl.col("factor") != "") if by == "factor" else (pl.col("factor") == ""))
        for metric, least, most, groups in (
            part.group_by("metric", maintain_order=True)
            .agg(pl.col("n").min().alias("a"), pl.col("n").max().alias("b"), pl.col(by).unique())
            .iter_rows()
        ):
            has = bool(corrected & set(groups)) if by == "factor" else "" in corrected
            if len(groups) > 1 and most >= 3 * least and not (metric == "ece" and has):
                yield Finding(
                    "biased-by-n",
                    f"{metric} of {counted(len(groups), by)} with {least:,} to {most:,} images is biased upward where"
                    " images are few",
                    "compare ece_debiased, or ece with ece_if_calibrated next to it, never raw errors of unequal n",
                )


def unmatched_classes(table: pl.DataFrame) -> Iterator[Finding]:
    """Yield sets of fewer classes than the ID set without the ID accuracy on the same classes next to them."""
    for inside in id_datasets_of(table)[:1]:
        rows = _present(table).filter(pl.col("metric") == "top1", pl.col("factor") == "", pl.col("calibrator") == "")
        known = rows.filter(pl.col("dataset") == inside, pl.col("subset") == "")["classes"].drop_nulls().to_list()
        if not known:
            return
        whole = max(known)
        fewer = rows.filter(pl.col("role") == "shift", pl.col("classes") < whole, pl.col("subset") == "")
        matched = set(rows.filter(pl.col("dataset") == inside)["subset"].unique())
        for dataset, classes in fewer.group_by("dataset").agg(pl.col("classes").max()).sort("dataset").iter_rows():
            if f"classes:{dataset}" not in matched:
                yield Finding(
                    "unmatched-classes",
                    f"{dataset} has {classes:,} classes and {inside} is measured on all {whole:,}",
                    f"set [accuracy] on_subsets = true and compare with top1@{inside}[subset=classes:{dataset}]",
                )
    robust = _present(table).filter(pl.col("metric") == "effective_robustness")
    few = dict(
        _present(table)
        .filter(pl.col("metric") == "top1", pl.col("subset") == "", pl.col("classes").is_not_null())
        .select("dataset", "classes")
        .iter_rows()
    )
    for dataset, options in robust.select("dataset", "options").unique(maintain_order=True).iter_rows():
        against = str(_options(options).get("against", ""))
        base = against.partition("@")[2].partition("[")[0]
        if few.get(dataset, 0) < few.get(base, 0) and "subset=classes:" not in against:
            yield Finding(
                "unmatched-classes",
                f"effective robustness on {dataset} ({few[dataset]:,} classes) is against {against} ({few[base]:,})",
                f"take 'analyze trends --x top1@{base}[subset=classes:{dataset}]'",
            )


def _options(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text) if text else {}
    except json.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def mixed_options(table: pl.DataFrame) -> Iterator[Finding]:
    """Yield numbers that some models have with other options than the others."""
    rows = _present(table).filter(pl.col("command") == "metrics")
    shared = ("bins", "fraction", "seed", "stratified", "masks", "map_rule", "alpha", "threshold", "aupr")
    for metric, dataset, options, models in (
        rows.group_by("metric", "dataset", "calibrator", "score", "subset", "factor", maintain_order=True)
        .agg(pl.col("options"), pl.col("model"))
        .select("metric", "dataset", "options", "model")
        .iter_rows()
    ):
        given = {}
        for model, text in zip(models, options, strict=True):
            own = _options(text)
            given[model] = json.dumps({key: own[key] for key in shared if key in own}, sort_keys=True)
        kinds = sorted(set(given.values()))
        if len(kinds) > 1:
            few = min(kinds, key=lambda kind: sum(value == kind for value in given.values()))
            yield Finding(
                "mixed-options",
                f"{metric} on {dataset} is computed with {' and with '.join(kinds)}, with {few} for"
                f" {listed(m for m, kind in given.items() if kind == few)}",
                "run 'analyze metrics --config FILE' for all models with one file",
            )


def mixed_versions(table: pl.DataFrame) -> Iterator[Finding]:
    """Yield metrics whose rows are of several versions: they are not comparable."""
    rows = (
        _present(table)
        .group_by("command", "metric", "calibrator", "score", maintain_order=True)
        .agg(pl.col("metric_version").unique().sort().alias("versions"))
    )
    several = rows.filter(pl.col("versions").list.len() > 1)
    if several.height:
        names = listed(several["metric"].to_list())
        yield Finding(
            "mixed-versions",
            f"rows of several versions of {names} are in one table",
            "run 'analyze metrics' again: rows of older versions are replaced",
        )


def missing_models(table: pl.DataFrame) -> Iterator[Finding]:
    """Yield datasets that only some of the models have: means over models are then of different models."""
    rows = _present(table).filter(pl.col("metric") == "top1", pl.col("subset") == "", pl.col("calibrator") == "")
    models = set(rows["model"])
    for dataset, own in rows.group_by("dataset").agg(pl.col("model").unique()).sort("dataset").iter_rows():
        missing = models - set(own)
        if missing:
            yield Finding(
                "missing-models",
                f"{dataset} has no accuracy of {counted(len(missing), 'model')} of {len(models):,}: {listed(missing)}",
                "run them, or leave them out everywhere (`where`)",
            )
