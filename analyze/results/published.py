"""Published tables as result rows: timm's ``results-*.csv``, open_clip's results, and any CSV of model,
dataset, accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import polars as pl
from scipy import stats

from analyze.results.csv_text import unguarded
from analyze.results.table import conform
from cache_schema.format.model_names.card_fields import derive
from cache_schema.importing.decimal_commas import with_decimal_commas
from cache_schema.importing.tables import check_csv, not_numeric
from closerlook_common.console.waiting import waiting
from closerlook_common.csv_files import first_line, separator_of
from closerlook_common.errors import UserError, nearest
from closerlook_common.input_files import require_regular_file

PUBLISHED = "published"
"""Prefix of the column ``store`` of imported rows: they have no store."""


class _Set(NamedTuple):
    dataset: str
    n: int
    role: str = "shift"
    subset: str = ""
    classes: int | None = 1000


TIMM_SETS: Mapping[str, _Set] = {
    "results-imagenet": _Set("imagenet-val", 50_000, "id"),
    "results-imagenet-real": _Set("imagenet-real", 46_837, "id"),
    # ImageNetV2's own lettering: a = threshold-0.7, b = matched-frequency, c = top-images
    "results-imagenetv2-matched-frequency": _Set("imagenet-v2-b", 10_000),
    "results-sketch": _Set("imagenet-sketch", 50_889),
    "results-imagenet-a": _Set("imagenet-a", 7_500, classes=200),
    "results-imagenet-r": _Set("imagenet-r", 30_000, classes=200),
    # validation images of the 200 classes of each set
    "results-imagenet-a-clean": _Set("imagenet-val", 10_000, "id", "classes:imagenet-a", 200),
    "results-imagenet-r-clean": _Set("imagenet-val", 10_000, "id", "classes:imagenet-r", 200),
}
"""Name of timm's file -> what it is about."""

OPEN_CLIP_SETS: Mapping[str, _Set] = {
    "ImageNet 1k": _Set("imagenet-val", 50_000, "id"),
    "ImageNet v2": _Set("imagenet-v2-b", 10_000),
    "ImageNet Sketch": _Set("imagenet-sketch", 50_889),
    "ImageNet-A": _Set("imagenet-a", 7_500, classes=200),
    "ImageNet-R": _Set("imagenet-r", 30_000, classes=200),
    "ObjectNet": _Set("objectnet", 18_574, classes=113),
}
"""Columns of open_clip's table that are plain top-1 accuracies. ImageNet-O's is not: its folder names are not
labels."""

_NUMBERS = ("top1", "top5", "accuracy", "value", "low", "high", "params (M)", *OPEN_CLIP_SETS)
"""Columns of numbers; timm's ``param_count`` has commas between thousands."""

FORMATS = ("auto", "timm", "open_clip", "csv")


def read_published(
    path: str | Path, *, layout: str = "auto", dataset: str = "", percent: bool = False, level: float = 0.95
) -> pl.DataFrame:
    """Read a published table as rows of a result table.

    Parameters
    ----------
    path
        A CSV file.
    layout
        ``timm`` (columns model, img_size, top1, top5 ... in percent; the file's name gives the dataset),
        ``open_clip`` (columns name, pretrained, one column a dataset, fractions), ``csv`` (columns model,
        dataset and accuracy, or metric and value; any card column is kept), or ``auto`` (by the header).
    dataset
        Dataset of a timm file with another name; for ``csv`` files without a column ``dataset``.
    percent
        Whether a ``csv`` file's accuracies are in percent. Never guessed.
    level
        Nominal coverage of the intervals.

    Returns
    -------
    polars.DataFrame
        Result rows; accuracies as fractions with Clopper-Pearson intervals where the number of images is
        known; ``store`` says ``published:FILE``.

    Raises
    ------
    UserError
        Where the file is not of that layout.
    """
    path = Path(path)
    if layout not in FORMATS:
        raise UserError(f"no layout {layout!r}{nearest(layout, FORMATS, list_all=True)}")
    require_regular_file(path, "table")
    try:
        with waiting(f"reading {path}"):
            separator = separator_of(first_line(path))
            check_csv(path, separator)
            table = unguarded(pl.read_csv(path, separator=separator, infer_schema_length=None, glob=False))
            table = with_decimal_commas(table, path, separator, _NUMBERS, others=("param_count",))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path} is not a CSV file: {str(error).splitlines()[0]}") from error
    if layout == "auto":
        layout = _layout_of(table, path)
    for name in table.columns:
        if name in _NUMBERS and not (table[name].dtype.is_numeric() or table[name].dtype == pl.Null):
            raise UserError(f"{path.name}: column {name!r} {not_numeric(table[name])}")
    read = {"timm": _timm, "open_clip": _open_clip, "csv": _plain}[layout]
    try:
        rows = read(table, path, dataset, percent)
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{path.name} is not a table of layout {layout}: {str(error).splitlines()[0]}") from error
    rows = rows.with_columns(pl.lit(f"{PUBLISHED}:{path.name}").alias("store"), pl.lit(1).alias("metric_version"))
    rows = rows.with_columns(pl.lit("import-results").alias("command"))
    return conform(_text_filled(_with_intervals(rows, level)))


def join_published(results: pl.DataFrame, published: pl.DataFrame, *, both: bool = False) -> tuple[pl.DataFrame, int]:
    """Append published rows to measured ones.

    Parameters
    ----------
    results, published
        Result tables.
    both
        Keep published rows of numbers that were also measured, under the model's name with ``(published)``
        behind.

    Returns
    -------
    tuple of (polars.DataFrame, int)
        The joined table, and how many published rows gave way to measured ones (or were renamed).
    """
    key = ["model", "dataset", "metric", "subset", "calibrator", "factor"]
    clash = published.join(results.filter(pl.col("value").is_not_null()).select(key).unique(), on=key, how="semi")
    rest = published.join(clash.select(key).unique(), on=key, how="anti")
    kept = [results, rest]
    if both and not clash.is_empty():
        names = clash["model"].unique()
        renamed = pl.when(pl.col("model").is_in(names.implode())).then(pl.col("model") + " (published)")
        kept = [results, published.with_columns(renamed.otherwise("model").alias("model"))]
    return conform(pl.concat(kept)), len(clash)


def _layout_of(table: pl.DataFrame, path: Path) -> str:
    columns = set(table.columns)
    if {"model", "img_size", "top1", "top5"} <= columns:
        return "timm"
    if {"name", "pretrained"} <= columns and columns & set(OPEN_CLIP_SETS):
        return "open_clip"
    if "model" in columns and columns & {"accuracy", "value"}:
        return "csv"
    raise UserError(
        f"{path.name} is not a table that is known here: timm's has model, img_size, top1, top5; open_clip's"
        " has name, pretrained and datasets; others need model, dataset and accuracy"
    )


def _timm(table: pl.DataFrame, path: Path, dataset: str, percent: bool) -> pl.DataFrame:
    about = TIMM_SETS.get(path.stem)
    if dataset:
        about = _Set(dataset, 0, classes=None)
    if about is None:
        raise UserError(
            f"{path.name}: its name gives no dataset; name it with `dataset`{nearest(path.stem, TIMM_SETS)}"
        )
    several = pl.col("model").is_duplicated()
    sized = pl.col("model") + "@" + pl.col("img_size").cast(pl.String)
    base = table.select(
        pl.when(several).then(sized).otherwise("model").alias("model"),
        pl.col("model").alias("name"),
        pl.col("top1") / 100,
        pl.col("top5") / 100,
        pl.col("img_size").cast(pl.Int64).alias("input_size"),
        (pl.col("param_count").cast(pl.String).str.replace_all(",", "").cast(pl.Float64) * 1e6)
        .round()
        .cast(pl.Int64)
        .alias("parameters"),
    )
    cards = pl.DataFrame([_card("timm", name) for name in base["name"]])
    rows = pl.concat([base, cards], how="horizontal").unpivot(
        ["top1", "top5"],
        index=["model", *cards.columns, "input_size", "parameters"],
        variable_name="metric",
    )
    return rows.with_columns(
        pl.lit(about.dataset).alias("dataset"),
        pl.lit(about.role).alias("role"),
        pl.lit(about.subset).alias("subset"),
        pl.lit(about.n or None, dtype=pl.Int64).alias("n"),
        pl.lit(about.classes, dtype=pl.Int64).alias("classes"),
        pl.lit("higher").alias("direction"),
    )


def _card(library: str, name: str) -> dict[str, str]:
    """Return what the name of a model says about it, by the rules that ``extract`` goes by."""
    known = derive(library, name)
    return {key: str(known[key]) for key in ("group", "source", "family", "lineage")}


def _open_clip(table: pl.DataFrame, path: Path, dataset: str, percent: bool) -> pl.DataFrame:
    present = [column for column in table.columns if column in OPEN_CLIP_SETS]
    sets = pl.DataFrame(
        [(column, *(known := OPEN_CLIP_SETS[column])[:3], known.classes) for column in present],
        orient="row",
        schema={"column": pl.String, "dataset": pl.String, "n": pl.Int64, "role": pl.String, "classes": pl.Int64},
    )
    size = (pl.col("params (M)") * 1e6).round().cast(pl.Int64) if "params (M)" in table.columns else pl.lit(None)
    base = table.select(
        (pl.col("name") + "/" + pl.col("pretrained")).alias("model"),
        size.cast(pl.Int64).alias("parameters"),
        *present,
    )
    cards = pl.DataFrame([_card("open_clip", name) for name in base["model"]])
    base = pl.concat([base, cards], how="horizontal")
    rows = base.unpivot(present, index=["model", "parameters", *cards.columns], variable_name="column").join(
        sets, on="column"
    )
    return rows.with_columns(
        pl.lit("top1").alias("metric"),
        pl.lit("higher").alias("direction"),
    ).drop("column")


def _plain(table: pl.DataFrame, path: Path, dataset: str, percent: bool) -> pl.DataFrame:
    if "dataset" not in table.columns:
        if not dataset:
            raise UserError(f"{path.name} has no column dataset: add one, or name the dataset with `dataset`")
        table = table.with_columns(pl.lit(dataset).alias("dataset"))
    if "value" not in table.columns:
        table = table.rename({"accuracy": "value"})
    if "metric" not in table.columns:
        table = table.with_columns(pl.lit("top1").alias("metric"), pl.lit("higher").alias("direction"))
    table = table.with_columns(pl.col("value").cast(pl.Float64) / (100 if percent else 1))
    high = table.filter(pl.col("metric").is_in(["top1", "top5"]), (pl.col("value") > 1) | (pl.col("value") < 0))
    if not high.is_empty():
        row = high.row(0, named=True)
        raise UserError(
            f"{path.name}: accuracy {row['value']:g} of {row['model']} is no fraction"
            + ("" if percent else "; use `percent` if the table is in percent")
        )
    return table


def _with_intervals(rows: pl.DataFrame, level: float) -> pl.DataFrame:
    """Clopper-Pearson intervals of accuracies over a known number of images, where the table has none of its
    own.
    """
    if "n" not in rows.columns or {"low", "high"} & set(rows.columns):
        return rows
    n = rows["n"].cast(pl.Float64).to_numpy()
    hits = (rows["value"] * rows["n"]).round().to_numpy()
    low = stats.beta.ppf((1 - level) / 2, hits, n - hits + 1)
    high = stats.beta.ppf((1 + level) / 2, hits + 1, n - hits)
    frame = rows.with_columns(pl.Series("low", low), pl.Series("high", high)).with_columns(
        pl.when(pl.col("value") <= 0).then(0.0).otherwise("low").alias("low"),
        pl.when(pl.col("value") >= 1).then(1.0).otherwise("high").alias("high"),
    )
    return frame.with_columns(pl.col("low", "high").fill_nan(None))


def _text_filled(rows: pl.DataFrame) -> pl.DataFrame:
    """Unknown groups say so; empty text is empty, not null."""
    for name in ("group", "source", "family"):
        kept = pl.col(name).cast(pl.String) if name in rows.columns else pl.lit(None, dtype=pl.String)
        rows = rows.with_columns(kept.fill_null("unknown").alias(name))
    return rows.with_columns(pl.col(pl.String).fill_null(""))
