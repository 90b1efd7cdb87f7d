"""Published tables as result rows: timm's ``results-*.csv``, open_clip's results, and any CSV of model,
dataset, accuracy.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import polars as pl
from scipy import stats

from analyze.results.table import conform
from cache_schema.errors import UserError, nearest

PUBLISHED = "published"
"""Prefix of the column ``store`` of imported rows: no store stands behind them."""


class _Set(NamedTuple):
    dataset: str
    n: int
    role: str = "shift"
    subset: str = ""


TIMM_SETS: Mapping[str, _Set] = {
    "results-imagenet": _Set("imagenet-val", 50_000, "id"),
    "results-imagenet-real": _Set("imagenet-real", 46_837, "id"),
    # ImageNetV2's own lettering: a = threshold-0.7, b = matched-frequency, c = top-images
    "results-imagenetv2-matched-frequency": _Set("imagenet-v2-b", 10_000),
    "results-sketch": _Set("imagenet-sketch", 50_889),
    "results-imagenet-a": _Set("imagenet-a", 7_500),
    "results-imagenet-r": _Set("imagenet-r", 30_000),
    # validation images of the 200 classes of each set
    "results-imagenet-a-clean": _Set("imagenet-val", 10_000, "id", "imagenet-a-classes"),
    "results-imagenet-r-clean": _Set("imagenet-val", 10_000, "id", "imagenet-r-classes"),
}
"""Name of timm's file -> what it is about."""

OPEN_CLIP_SETS: Mapping[str, _Set] = {
    "ImageNet 1k": _Set("imagenet-val", 50_000, "id"),
    "ImageNet v2": _Set("imagenet-v2-b", 10_000),
    "ImageNet Sketch": _Set("imagenet-sketch", 50_889),
    "ImageNet-A": _Set("imagenet-a", 7_500),
    "ImageNet-R": _Set("imagenet-r", 30_000),
    "ObjectNet": _Set("objectnet", 18_574),
}
"""Columns of open_clip's table that are plain top-1 accuracies. ImageNet-O's is not: its folder names are not
labels."""

FORMATS = ("auto", "timm", "open_clip", "csv")

_CLIP_TAG = re.compile(r"(openai|laion|datacomp|metaclip|dfn|webli|clip)")
_GROUP_RULES: tuple[tuple[str, str], ...] = (
    (
        r"(openai|laion\w*|datacomp\w*|metaclip\w*|dfn\w*|webli|clip).*ft_in(12k|22k|21k)_in1k",
        "clip-ft-in12k",
    ),
    (r"(openai|laion\w*|datacomp\w*|metaclip\w*|dfn\w*|webli|clip).*ft_in1k", "clip-ft-in1k"),
    (r"(dino|mae|moco|swav|simclr|ijepa|beit)(?!.*in2[12]k)", "contrastive"),
    (r"(in2[12]k|in12k|m[0-9]+m|swag|ig1b|wsl|ssl|swsl|jft|bamboo|goog)", "more-data"),
    (r"in1k", "supervised-in1k"),
)
_SOURCES: tuple[tuple[str, str], ...] = (
    (r"openai", "wit"),
    (r"laion_?aesthetic|laiona", "laion-aesthetic"),
    (r"laion_?400m", "laion-400m"),
    (r"laion_?5b", "laion-5b"),
    (r"laion_?2b", "laion-2b"),
    (r"datacomp", "datacomp-1b"),
    (r"dfn5b", "dfn-5b"),
    (r"dfn2b", "dfn-2b"),
    (r"metaclip", "metaclip"),
    (r"webli", "webli"),
    (r"yfcc15m", "yfcc-15m"),
    (r"cc12m", "cc-12m"),
    (r"commonpool", "commonpool"),
    (r"in2[12]k", "imagenet-21k"),
    (r"in12k", "imagenet-12k"),
    (r"in1k", "imagenet-1k"),
)


def _first(rules: tuple[tuple[str, str], ...], text: str) -> str:
    return next((name for pattern, name in rules if re.search(pattern, text)), "unknown")


def read_published(
    path: str | Path, *, layout: str = "auto", dataset: str = "", percent: bool = False
) -> pl.DataFrame:
    """Read a published table as rows of a result table.

    Parameters
    ----------
    path
        A CSV file.
    layout
        ``timm`` (columns model, img_size, top1, top5 ... in percent; the file's name tells the dataset),
        ``open_clip`` (columns name, pretrained, one column a dataset, fractions), ``csv`` (columns model,
        dataset and accuracy, or metric and value; any card column is kept), or ``auto`` (by the header).
    dataset
        Dataset of a timm file with another name; for ``csv`` files without a column ``dataset``.
    percent
        Whether a ``csv`` file's accuracies are in percent. Never guessed.

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
        raise UserError(f"no layout {layout!r}{nearest(layout, FORMATS, told=True)}")
    if not path.is_file():
        raise UserError(f"no file {path}")
    try:
        table = pl.read_csv(path, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path} is not a CSV file: {str(error).splitlines()[0]}") from error
    if layout == "auto":
        layout = _layout_of(table, path)
    read = {"timm": _timm, "open_clip": _open_clip, "csv": _plain}[layout]
    rows = read(table, path, dataset, percent)
    rows = rows.with_columns(
        pl.lit(f"{PUBLISHED}:{path.name}").alias("store"), pl.lit(1).alias("metric_version")
    )
    return conform(_text_filled(_with_intervals(rows)))


def join_published(
    results: pl.DataFrame, published: pl.DataFrame, *, both: bool = False
) -> tuple[pl.DataFrame, int]:
    """Stand published rows behind one's own.

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
    clash = published.join(
        results.filter(pl.col("value").is_not_null()).select(key).unique(), on=key, how="semi"
    )
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
        f"{path.name} is no table that is known here: timm's has model, img_size, top1, top5; open_clip's"
        " has name, pretrained and datasets; others need model, dataset and accuracy"
    )


def _timm(table: pl.DataFrame, path: Path, dataset: str, percent: bool) -> pl.DataFrame:
    about = TIMM_SETS.get(path.stem)
    if dataset:
        about = _Set(dataset, 0)
    if about is None:
        raise UserError(
            f"{path.name}: the name does not tell the dataset{nearest(path.stem, TIMM_SETS)}"
            " Name it with --dataset."
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
    told = pl.col("name").map_elements(
        _timm_card, return_dtype=pl.Struct({"group": pl.String, "source": pl.String})
    )
    rows = (
        base.with_columns(told.alias("card"))
        .unnest("card")
        .unpivot(
            ["top1", "top5"],
            index=["model", "group", "source", "input_size", "parameters"],
            variable_name="metric",
        )
    )
    return rows.with_columns(
        pl.lit(about.dataset).alias("dataset"),
        pl.lit(about.role).alias("role"),
        pl.lit(about.subset).alias("subset"),
        pl.lit(about.n or None, dtype=pl.Int64).alias("n"),
        pl.lit("higher").alias("direction"),
    )


def _timm_card(name: str) -> dict[str, str]:
    tag = name.partition(".")[2]
    clip = f"{tag} clip" if "clip" in name else tag
    group = _first(_GROUP_RULES, clip) if _CLIP_TAG.search(clip) else _first(_GROUP_RULES[2:], tag)
    return {"group": group, "source": _first(_SOURCES, tag)}


def _open_clip(table: pl.DataFrame, path: Path, dataset: str, percent: bool) -> pl.DataFrame:
    present = [column for column in table.columns if column in OPEN_CLIP_SETS]
    sets = pl.DataFrame(
        [(column, *OPEN_CLIP_SETS[column][:3]) for column in present],
        orient="row",
        schema={"column": pl.String, "dataset": pl.String, "n": pl.Int64, "role": pl.String},
    )
    size = (
        (pl.col("params (M)") * 1e6).round().cast(pl.Int64) if "params (M)" in table.columns else pl.lit(None)
    )
    base = table.select(
        (pl.col("name") + "/" + pl.col("pretrained")).alias("model"),
        size.cast(pl.Int64).alias("parameters"),
        pl.col("pretrained")
        .map_elements(lambda tag: _first(_SOURCES, tag), return_dtype=pl.String)
        .alias("source"),
        *present,
    )
    rows = base.unpivot(present, index=["model", "parameters", "source"], variable_name="column").join(
        sets, on="column"
    )
    return rows.with_columns(
        pl.lit("top1").alias("metric"),
        pl.lit("clip-zero-shot").alias("group"),
        pl.lit("higher").alias("direction"),
    ).drop("column")


def _plain(table: pl.DataFrame, path: Path, dataset: str, percent: bool) -> pl.DataFrame:
    if "dataset" not in table.columns:
        if not dataset:
            raise UserError(f"{path.name} has no column dataset: add one, or name the dataset with --dataset")
        table = table.with_columns(pl.lit(dataset).alias("dataset"))
    if "value" not in table.columns:
        table = table.rename({"accuracy": "value"})
    if "metric" not in table.columns:
        table = table.with_columns(pl.lit("top1").alias("metric"), pl.lit("higher").alias("direction"))
    table = table.with_columns(pl.col("value").cast(pl.Float64) / (100 if percent else 1))
    high = table.filter(
        pl.col("metric").is_in(["top1", "top5"]), (pl.col("value") > 1) | (pl.col("value") < 0)
    )
    if not high.is_empty():
        row = high.row(0, named=True)
        raise UserError(
            f"{path.name}: accuracy {row['value']:g} of {row['model']} is no fraction"
            + ("" if percent else "; use --percent if the table is in percent")
        )
    return table


def _with_intervals(rows: pl.DataFrame) -> pl.DataFrame:
    """Clopper-Pearson intervals of accuracies over a known number of images, where the table has none of its
    own.
    """
    if "n" not in rows.columns or {"low", "high"} & set(rows.columns):
        return rows
    n = rows["n"].cast(pl.Float64).to_numpy()
    hits = (rows["value"] * rows["n"]).round().to_numpy()
    low = stats.beta.ppf(0.025, hits, n - hits + 1)
    high = stats.beta.ppf(0.975, hits + 1, n - hits)
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
