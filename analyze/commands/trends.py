"""Correlations, fits and effective robustness over models, overall and by group.

    analyze trends results.parquet
    analyze trends results.parquet --y ece@imagenet-r[calibrator=temperature] --y auroc@textures --by source
        -o trends
    analyze trends results.parquet --y top1@imagenet-a --baseline group=supervised-in1k --split 0.7613
    analyze trends results.parquet --cache CACHE          # agreement on the line, from every model's predictions

A quantity is METRIC@DATASET[variant=value,...]. Without --y, the in-distribution accuracy is set against
every number.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl
    from rich.console import Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options of ``analyze trends``."""
    parser.add_argument("results", metavar="RESULTS", help="result table (Parquet)")
    parser.add_argument(
        "--x", default="", metavar="QUANTITY", help="default: top1 of the in-distribution set"
    )
    parser.add_argument(
        "--y", action="append", default=[], metavar="QUANTITY", help="repeatable; default: every number"
    )
    parser.add_argument(
        "--where", action="append", default=[], metavar="KEY=VALUE", help="only these rows; repeatable"
    )
    parser.add_argument(
        "--by",
        default="group",
        metavar="COLUMN",
        help="also within each group, source or family; '' for none (default: group)",
    )
    parser.add_argument(
        "--scale",
        default="probit",
        choices=("probit", "logit", "linear"),
        help="axis for accuracies (default: probit; other metrics stay linear)",
    )
    parser.add_argument(
        "--method", default="huber", choices=("huber", "ols", "theil-sen"), help="fit (default: huber)"
    )
    parser.add_argument(
        "--baseline",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="population of the effective-robustness line (default: group=supervised-in1k)",
    )
    parser.add_argument(
        "--split",
        type=float,
        metavar="ACCURACY",
        help="fit the baseline in two pieces at this x (the authors' choice for ImageNet-A)",
    )
    parser.add_argument(
        "--pair",
        action="append",
        default=[],
        metavar="CHANGED=STANDARD",
        help="relative robustness: a model and the same one without the intervention; repeatable",
    )
    parser.add_argument(
        "--cache",
        metavar="CACHE",
        help="where predictions lie: also agreement on the line, accuracy under shift without its labels",
    )
    parser.add_argument(
        "--bootstrap", type=int, default=1000, metavar="N", help="replicates over models (default: 1000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.add_argument("-o", "--output", metavar="DIR", help="write the tables there as CSV")


def run(args: argparse.Namespace) -> int:
    """Run ``analyze trends``."""
    import polars as pl
    from rich.console import Console
    from rich.progress import track

    from analyze import trends
    from analyze.results import read_results
    from analyze.results.quantities import Quantity
    from analyze.results.selection import check_column, parse_where, select
    from analyze.results.titles import PROPORTIONS
    from analyze.trends.ranks import rank_stability
    from analyze.trends.robustness import BASELINE
    from cache_schema.errors import UserError

    if args.by:
        check_column(args.by)
    results = select(read_results(args.results), parse_where(args.where))
    pairs = trends.default_pairs(results, args.x or None)
    if args.y:
        pairs = [(pairs[0][0] if pairs else Quantity.parse(args.x), Quantity.parse(y)) for y in args.y]
    common: dict[str, Any] = {"by": args.by, "scale": args.scale}
    drawn: dict[str, Any] = {"n_boot": args.bootstrap, "seed": args.seed}
    baseline = parse_where(args.baseline) if args.baseline else dict(BASELINE)
    parts: dict[str, list[pl.DataFrame]] = {}
    untold = ""
    changed = parse_pairs(args.pair)
    directed = set(results.filter(pl.col("direction").is_in(["higher", "lower"]))["metric"])
    for x, y in track(pairs, "trends", console=Console(stderr=True), transient=True):
        parts.setdefault("correlations", []).append(
            trends.correlation_table(results, [(x, y)], **common, **drawn)
        )
        try:
            parts.setdefault("fits", []).append(
                trends.fit_table(results, [(x, y)], methods=(args.method,), **common, **drawn)
            )
        except UserError as error:
            untold = f"no line for {y}: {error}"
        if y.metric in directed and x.metric in directed:
            parts.setdefault("rank_stability", []).append(rank_stability(results, [x, y], **drawn))
        if changed and y.metric in PROPORTIONS:
            gained = trends.relative_robustness(results, y, changed)
            parts.setdefault("relative_robustness", []).append(gained.with_columns(pl.lit(str(y)).alias("on")))
        if args.by:
            parts.setdefault("line_tests", []).append(
                trends.line_tests(results, [(x, y)], by=args.by, scale=args.scale)
            )
        if y.metric in (x.metric, "factor_accuracy") and x.metric in PROPORTIONS:
            try:
                found = trends.effective_robustness(
                    results,
                    y,
                    x=x,
                    baseline=baseline,
                    scale=args.scale,
                    method=args.method,
                    split=args.split,
                    **drawn,
                )
            except UserError as error:
                untold = f"no effective robustness on {y}: {error}"
                continue
            parts.setdefault("effective_robustness", []).append(found.to_results())
    written = {name: pl.concat(frames) for name, frames in parts.items() if frames}
    robust = "effective_robustness" in written
    if args.cache:
        written |= _agreement(args.cache, sorted(results["model"].unique()))
    console = Console()
    _print(written["correlations"], console)
    if robust:
        _print_robustness(written["effective_robustness"], console)
    for name, title in PLAIN_TABLES.items():
        if name in written:
            _print_plain(written[name], title, console)
    if untold:
        console.print(untold, style="yellow", markup=False)
    if args.output:
        folder = Path(args.output)
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in written.items():
            frame.write_csv(folder / f"{name}.csv")
        console.print(f"wrote {', '.join(f'{n}.csv' for n in written)} to {folder}", markup=False)
    return 0


PLAIN_TABLES = {
    "relative_robustness": "relative robustness (accuracy that the intervention gains)",
    "agreement_lines": "accuracy and agreement on the line (least squares on probit axes)",
}


def parse_pairs(words: list[str]) -> dict[str, str]:
    """Read ``CHANGED=STANDARD`` words: model with an intervention -> the model without."""
    from cache_schema.errors import UserError

    pairs = {}
    for word in words:
        changed, equals, standard = (part.strip() for part in word.partition("="))
        if not (changed and equals and standard):
            raise UserError(f"--pair {word!r}: give two models, CHANGED=STANDARD")
        pairs[changed] = standard
    return pairs


def _agreement(cache: str, models: list[str]) -> dict[str, pl.DataFrame]:
    import polars as pl
    from rich.console import Console

    import cache_schema
    from analyze.commands.progress import model_progress
    from analyze.trends.agreement_lines import agreement_lines, lines_table
    from cache_schema.errors import UserError

    console = Console(stderr=True)
    opened = cache_schema.open_cache(cache)
    held = sorted({card.id for card in opened.models()} & set(models))
    if not held:
        raise UserError(f"{cache} holds none of the result table's models")
    with model_progress(console) as advance:
        found, problems = agreement_lines(opened, models=held, progress=advance)
    for dataset, said in problems.items():
        console.print(f"no agreement on {dataset}: {said}", style="yellow", markup=False)
    if not found:
        return {}
    predicted = [lines.predicted.with_columns(pl.lit(name).alias("dataset")) for name, lines in found.items()]
    return {"agreement_lines": lines_table(found), "agreement_predictions": pl.concat(predicted)}


def _print_plain(table: pl.DataFrame, title: str, console: Console) -> None:
    from rich.text import Text

    from cache_schema.console.terminal import plain_table

    drawn = plain_table(title)
    for name, kind in table.schema.items():
        drawn.add_column(name.replace("_", " "), justify="right" if kind.is_numeric() else "left", overflow="fold")
    for row in table.rows():
        drawn.add_row(*(Text(f"{v:.3f}" if isinstance(v, float) else "–" if v is None else str(v)) for v in row))
    console.print(drawn)
    console.print()


MOST = 24
"""Quantities that are printed; where there are more, the ones that go closest with x."""


def _strongest(table: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Return the rows to print, and how many quantities they leave out."""
    import polars as pl

    names = table["y"].unique(maintain_order=True)
    if len(names) <= MOST:
        return table, 0
    everyone = table.filter(pl.col("among") == "all")
    ranked = everyone.filter(pl.col("method") == "spearman", pl.col("value").is_not_nan())
    best = ranked.sort(pl.col("value").abs(), descending=True, maintain_order=True)["y"].head(MOST).to_list()
    place = {name: rank for rank, name in enumerate(best)}
    kept = everyone.filter(pl.col("y").is_in(best))
    order = pl.col("y").replace_strict(place, return_dtype=pl.Int64)
    return kept.sort(order, maintain_order=True), len(names) - len(best)


def _print(table: pl.DataFrame, console: Console) -> None:
    import polars as pl
    from rich.text import Text

    from analyze.trends.correlations import TITLES
    from cache_schema.console.terminal import plain_table

    for (x,), whole in table.group_by("x", maintain_order=True):
        part, hidden = _strongest(whole)
        drawn = plain_table(f"against {x}")
        drawn.add_column("", overflow="fold", min_width=24)
        drawn.add_column("models", justify="right")
        shown = ("pearson", "spearman", "kendall")[: 3 if console.width >= 120 else 1 + (console.width >= 96)]
        for method in shown:
            drawn.add_column(TITLES[method], justify="right", no_wrap=True)
        for (y, among), cells in part.group_by("y", "among", maintain_order=True):
            number = {
                m: (v, low, high) for m, v, low, high in cells.select("method", "value", "low", "high").rows()
            }
            drawn.add_row(
                Text(str(y) if among == "all" else f"  {among}", style="" if among == "all" else "dim"),
                str(cells["n"][0]),
                *(f"{v:+.2f} [{low:+.2f}, {high:+.2f}]" for v, low, high in (number[m] for m in shown)),
            )
        console.print(drawn)
        console.print()
        if hidden:
            told = f"{hidden} weaker ones and all groups are in correlations.csv (-o DIR); name some with --y"
            console.print(told, style="dim", highlight=False)
    few = table.filter(pl.col("n") < 10)
    if not few.is_empty():
        console.print("Intervals from fewer than ten models are rough.", style="dim")


def _print_robustness(table: pl.DataFrame, console: Console) -> None:
    import polars as pl
    from rich.text import Text

    from cache_schema.console.terminal import plain_table

    medians = table.group_by("dataset", "factor", "group", maintain_order=True).agg(pl.col("value").median())
    groups = medians["group"].unique(maintain_order=True).to_list()
    drawn = plain_table("median effective robustness (accuracy above the baseline's line)")
    drawn.add_column("", overflow="fold", min_width=18)
    for group in groups:
        drawn.add_column(Text(group.replace("-", "\n")), justify="right", no_wrap=True, min_width=7)
    for (dataset, factor), part in medians.group_by("dataset", "factor", maintain_order=True):
        number = dict(part.select("group", "value").rows())
        cells = [f"{number[g]:+.3f}" if number.get(g) is not None else "–" for g in groups]
        drawn.add_row(Text(str(factor or dataset)), *cells)
    console.print(drawn)
    console.print()
