"""Detectors' options as a reader wants them: what is a detector's default goes without saying."""

from __future__ import annotations

import json

import polars as pl

from analyze.detectors import DETECTORS, get
from analyze.results import KEY_COLUMNS
from analyze.settings import canonical

SAME = 1e-6
"""Numbers of one score by two commands that differ by less are one number."""


def plain_options(results: pl.DataFrame) -> pl.DataFrame:
    """Return results without the default hyper-parameters of detectors in the column ``options``.

    What a detector was fitted on goes too where all its numbers name the same. Where a row would then mean the
    same number as one of another command it is left out, unless its value is another: then its options stay.
    """
    ours = pl.col("command") == "ood"
    rows = results.filter(ours)
    if rows.is_empty():
        return results
    fits: dict[str, set[str]] = {}
    for score, text in rows.filter(pl.col("value").is_not_null()).select("score", "options").unique().iter_rows():
        fits.setdefault(score, set()).add(str((json.loads(text) if text else {}).get("fit")))
    pairs = rows.select("score", "options").unique()
    plain = [_plain(score, text, len(fits.get(score, ())) <= 1) for score, text in pairs.iter_rows()]
    table = pairs.with_columns(plain=pl.Series(plain, dtype=pl.String))
    numbered = results.with_row_index("place").join(table, on=["score", "options"], how="left")
    numbered = numbered.with_columns(plain=pl.when(ours).then("plain").otherwise("options"))
    key = [*(name for name in KEY_COLUMNS if name != "options"), "plain"]
    others = numbered.filter(~ours).select(*key, other="value")
    numbered = numbered.join(others, on=key, how="left", maintain_order="left")
    meets = ours & pl.struct(key).is_duplicated()
    same = ((pl.col("value") - pl.col("other")).abs() < SAME) | (
        pl.col("value").is_null() & pl.col("other").is_not_null()
    )
    numbered = numbered.filter(~(meets & same.fill_null(False)))
    options = pl.when(ours & pl.struct(key).is_duplicated()).then("options").otherwise("plain")
    return numbered.sort("place").with_columns(options=options).select(results.columns)


def _plain(score: str, text: str, one_fit: bool) -> str:
    given = json.loads(text) if text else {}
    usual = get(score).hyper_parameters if score in DETECTORS else {}
    kept = {
        name: value
        for name, value in given.items()
        if name not in usual or value != json.loads(json.dumps(usual[name]))
    }
    kept.pop("plugin", None)  # the digest of its code
    if one_fit:
        kept.pop("fit", None)
    return canonical(kept)
