"""A result table packed for a page: models by quantities as compressed columns, names in dictionaries."""

from __future__ import annotations

import base64
import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analyze.figures.style import GROUP_COLOURS
from analyze.results import VARIANT_COLUMNS
from analyze.results.meant import with_default_heads, with_study_scores
from analyze.results.quantities import Quantity, id_dataset_of, quantities
from analyze.results.titles import (
    dataset_title,
    factor_title,
    in_percent,
    is_share_of_images,
    metric_title,
    score_title,
)
from analyze.tables.variants import SUBSETS, all_option_words, option_words
from analyze.trends import NOT_TRENDS
from cache_schema.format.records import GROUPS
from closerlook_common.errors import UserError

VALUE_BITS, INTERVAL_BITS = 17, 12
"""Bits of mantissa that are kept: relative steps of 4e-6 and 1e-4, far below what an interval leaves open."""
DIGEST_LENGTH = 12

LIGHT_COLOURS: Mapping[str, str] = {**GROUP_COLOURS, "self-supervised": "#D493C2"}
"""Group of models -> colour on a light page; dots there have no dark edge that a pale one would need."""

DARK_COLOURS: Mapping[str, str] = {
    "supervised-in1k": "#E8E8E8",
    "clip-zero-shot": "#5AA9E6",
    "more-data": "#35C3A2",
    "clip-ft-in1k": "#F08A5D",
    "clip-ft-in12k": "#F5C15C",
    "self-supervised": "#E59BCB",
    "unknown": "#8A8A8A",
}
"""Group of models -> colour on a dark page."""


def shuffled(array: NDArray[Any]) -> str:
    """Return an array as text: bytes of equal weight side by side (they compress), deflated, base64."""
    flat = np.ascontiguousarray(array).reshape(-1)
    planes = flat.view(np.uint8).reshape(flat.size, flat.itemsize).T
    return base64.b64encode(zlib.compress(np.ascontiguousarray(planes).tobytes(), 9)).decode("ascii")


def rounded(array: NDArray[np.float32], bits: int) -> NDArray[np.float32]:
    """Round to a number of bits of mantissa (the others become zero); NaN and infinities stay."""
    raw = np.ascontiguousarray(array, dtype=np.float32).view(np.uint32).astype(np.uint64)
    drop = np.uint64(23 - bits)
    up = (raw + (np.uint64(1) << (drop - np.uint64(1)))) >> drop << drop
    out = up.astype(np.uint32).view(np.float32)
    return np.where(np.isfinite(array), out, array).astype(np.float32)


class Names:
    """A dictionary that is being built: name -> place."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}

    def place(self, name: str) -> int:
        """Return the place of a name, a new one where it was not there."""
        return self.places.setdefault(name, len(self.places))

    def column(self, names: list[str]) -> list[int]:
        """Return the places of a list of names."""
        return [self.place(name) for name in names]


def pack(
    results: pl.DataFrame, *, title: str = "Results", made_from: str = "", curves: pl.DataFrame | None = None
) -> dict[str, Any]:
    """Return what the page needs, JSON-ready.

    Parameters
    ----------
    results
        A result table.
    title, made_from
        Heading, and the name of what it was made from.
    curves
        Rows of ``analyze.curves``; reliability diagrams of the in-distribution set are shown on the models' cards.

    Raises
    ------
    UserError
        Where the table holds no number.
    """
    count = int(results["value"].is_not_null().sum())
    results = with_default_heads(with_study_scores(results))
    present = results.filter(pl.col("value").is_not_null())
    if present.is_empty():
        raise UserError("the result table holds no number to report")
    models = present.unique("model", maintain_order=True).sort("model")
    keys = quantities(results)
    directions = dict(present.select("metric", "direction").unique("metric", keep="first", maintain_order=True).rows())
    names = {name: Names() for name in ("group", "source", "family")}
    place_of_model = {model: i for i, model in enumerate(models["model"])}
    try:
        ground = id_dataset_of(results)
    except UserError:
        ground = str(present["dataset"][0])
    packed: dict[str, Any] = {
        "title": title,
        "made_from": made_from,
        "count": count,
        "ground": ground,
        "models": {
            "id": models["model"].to_list(),
            **{name: names[name].column(models[name].to_list()) for name in names},
            **{name: models[name].to_list() for name in ("parameters", "input_size", "samples_seen")},
        },
        "names": {name: list(found.places) for name, found in names.items()},
        "group_titles": dict(GROUPS),
        "colours": {"light": dict(LIGHT_COLOURS), "dark": dict(DARK_COLOURS)},
        "datasets": [
            {"id": d, "title": dataset_title(d) or "means", "role": r}
            for d, r in present.select("dataset", "role").unique("dataset", maintain_order=True).rows()
        ],
        "quantities": _stated_apart([_described(key, directions[key.metric]) for key in keys], keys),
        **_cells(results, keys, place_of_model),
    }
    packed["reliability"] = _reliability(curves, place_of_model, ground)
    return packed


DETECTION = ("auroc", "fpr95_id", "fpr95_ood", "aupr_in", "aupr_out")
"""Metrics that an OOD detector has on each OOD set."""


def _words(column: str, value: str, dataset: str) -> str:
    """Return a variant's value as a reader wants it; empty where it says nothing."""
    if column == "options":
        return option_words(value)
    if column == "subset" and not dataset:
        return SUBSETS.get(value, value)
    return {"score": score_title, "factor": factor_title}.get(column, str)(value)


def _stated_apart(described: list[dict[str, Any]], keys: list[Quantity]) -> list[dict[str, Any]]:
    """Add the whole options where words that leave some out would give two quantities one name."""
    names = ("metric", "dataset", "variant", "id_dataset")
    found = Counter(tuple(one[name] for name in names) for one in described)
    for one, key in zip(described, keys, strict=True):
        if found[tuple(one[name] for name in names)] > 1 and key.variant("options"):
            one["variant"] = f"{one['variant']}, {all_option_words(key.variant('options'))}".removeprefix(", ")
    return described


def _described(key: Quantity, direction: str) -> dict[str, Any]:
    given = {k: v for k, v in key.variants if k != "id_dataset"}
    order = sorted(given, key=lambda column: (column != "score", column != "factor", column))
    shown = [words for column in order if (words := _words(column, given[column], key.dataset))]
    detector = (
        key.metric in DETECTION and key.dataset != "" and "score" in given and not set(given) - {"score", "options"}
    )
    usual = not set(given) - {"score"} and key.metric not in NOT_TRENDS
    return {
        "metric": key.metric,
        "dataset": key.dataset,
        "title": metric_title(key.metric),
        "variant": ", ".join(shown),
        "factor": key.variant("factor"),
        "score": key.variant("score"),
        "usual": usual,
        "detector": detector and given["score"] != "study" and "full_spectrum" not in given.get("options", ""),
        "id_dataset": key.variant("id_dataset"),
        "direction": direction,
        "proportion": is_share_of_images(key.metric),
        "fraction": in_percent(key.metric),
        "text": str(key),
    }


def _cells(results: pl.DataFrame, keys: list[Quantity], place_of_model: dict[str, int]) -> dict[str, Any]:
    """Return the numbers, column by column: value, low, high, n, stores, options; and why some are missing.

    ``versions`` are those of the metric in the numbers of each quantity.
    """
    shape = (len(keys), len(place_of_model))
    place = {(key.metric, key.dataset, *(key.variant(c) for c in VARIANT_COLUMNS)): i for i, key in enumerate(keys)}
    loose = {k[:-1]: i for k, i in place.items() if k[-1] == ""}
    numbers = {name: np.full(shape, np.nan, np.float32) for name in ("value", "low", "high")}
    words = {name: Names() for name in ("n", "store", "options")}
    codes = {name: np.zeros(shape, np.uint32) for name in words}
    for found in words.values():
        found.place("")
    reasons, missing = Names(), []
    versions: list[set[int]] = [set() for _ in keys]
    columns = (
        "metric",
        "dataset",
        *VARIANT_COLUMNS,
        "model",
        "value",
        "low",
        "high",
        "n",
        "store",
        "reason",
        "own_head",
        "metric_version",
    )
    for row in results.select(columns).iter_rows():
        key, (model, value, low, high, n, store, reason, head, version) = row[:-9], row[-9:]
        at = place.get(key, loose.get(key[:-1], -1))
        if at < 0 or model not in place_of_model:
            continue
        spot = (at, place_of_model[model])
        if value is None:
            if reason:
                missing.append([spot[0], spot[1], reasons.place(reason)])
            continue
        if version is not None:
            versions[at].add(version)
        for name, number in (("value", value), ("low", low), ("high", high)):
            numbers[name][spot] = np.nan if number is None else number
        for name, text in (("n", str(n or "")), ("store", _short(store)), ("options", _stated(head, key[-1]))):
            codes[name][spot] = words[name].place(text)
    return {
        "cells": {
            "value": shuffled(rounded(numbers["value"], VALUE_BITS)),
            "low": shuffled(rounded(numbers["low"], INTERVAL_BITS)),
            "high": shuffled(rounded(numbers["high"], INTERVAL_BITS)),
            **{name: shuffled(codes[name]) for name in codes},
        },
        "words": {name: list(found.places) for name, found in words.items()},
        "versions": [sorted(found) for found in versions],
        "missing": missing,
        "reasons": list(reasons.places),
    }


def _stated(head: str, options: str) -> str:
    """Return what else a number rests on: the prompt set and options that are not the default."""
    return " · ".join(part for part in (f"prompts {head}" if head else "", options) if part)


def _short(stores: str) -> str:
    """Shorten digests of stores; what names a published file stays whole."""
    return ",".join(part if ":" in part else part[:DIGEST_LENGTH] for part in stores.split(","))


def _reliability(curves: pl.DataFrame | None, place_of_model: dict[str, int], ground: str) -> dict[str, Any] | None:
    if curves is None:
        return None
    rows = curves.filter(
        pl.col("curve") == "reliability", pl.col("dataset") == ground, pl.col("model").is_in(list(place_of_model))
    )
    if rows.is_empty():
        return None
    series = rows["series"].unique(maintain_order=True).to_list()
    bins = max(rows.group_by("model", "series").len()["len"].to_list())
    fields = ("x_low", "x_high", "x", "y", "y_low", "y_high", "weight")
    table = np.full((len(place_of_model), len(series), bins, len(fields)), np.nan, np.float32)
    for (model, name), part in rows.group_by("model", "series", maintain_order=True):
        numbers = part.select(fields).to_numpy().astype(np.float32)
        table[place_of_model[str(model)], series.index(str(name)), : len(numbers)] = numbers
    return {
        "dataset": ground,
        "series": series,
        "bins": bins,
        "fields": list(fields),
        "numbers": shuffled(rounded(table, INTERVAL_BITS)),
    }
