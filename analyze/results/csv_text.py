"""CSV that a spreadsheet shows as text: no name in it is taken for a formula."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from closerlook_common.user_cache import replaced_whole

FORMULA = r"^'*[=+\-@\t\r\n\x{FF1D}\x{FF0B}\x{FF0D}\x{FF20}]"
"""What a spreadsheet would run, after any apostrophes that were put before it."""


def guarded(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame whose texts and headings no spreadsheet runs.

    An apostrophe is put before what looks like a formula. Numbers are left alone, and ``unguarded`` takes the
    apostrophes off again.
    """
    text = pl.col(pl.String)
    safe = frame.with_columns(pl.when(text.str.contains(FORMULA)).then("'" + text).otherwise(text).name.keep())
    heads = pl.Series(frame.columns, dtype=pl.String)
    return safe.rename(dict(zip(frame.columns, _guard(heads), strict=True)))


def unguarded(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame as it was before ``guarded``."""
    text = pl.col(pl.String)
    safe = frame.with_columns(
        pl.when(text.str.contains("^'" + FORMULA[1:])).then(text.str.slice(1)).otherwise(text).name.keep()
    )
    heads = pl.Series(frame.columns, dtype=pl.String)
    marked = heads.str.contains("^'" + FORMULA[1:])
    return safe.rename({name: name[1:] for name, is_marked in zip(frame.columns, marked, strict=True) if is_marked})


def csv_text(frame: pl.DataFrame) -> str:
    """Return a frame as CSV without formulas."""
    return guarded(frame).write_csv()


def write_csv(frame: pl.DataFrame, path: str | Path) -> None:
    """Write a frame as CSV without formulas."""
    with replaced_whole(Path(path)) as part:
        guarded(frame).write_csv(part)


def _guard(texts: pl.Series) -> list[str]:
    return [("'" + text) if found else text for text, found in zip(texts, texts.str.contains(FORMULA), strict=True)]
