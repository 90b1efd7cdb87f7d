"""Find and check the datasets on disk: found, count, expected, problem and mend.

Without options it checks datasets.toml, or, where there is none, lists the datasets that are known by name.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from extract.datasets.finding import Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--datasets", type=Path, metavar="TOML", help="check these (default: datasets.toml here)"
    )
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="look for known datasets in the folders below it"
    )
    parser.add_argument(
        "--write", type=Path, metavar="TOML", help="with --root: write what is found and whole"
    )


def run(args: argparse.Namespace) -> int:
    """Print the table; returns 1 if a dataset has a problem."""
    from cache_schema.errors import UserError

    if args.write is not None and args.root is None:
        raise UserError("--write writes what --root DIR finds; give --root as well")
    if args.root is not None and args.datasets is not None:
        raise UserError("--datasets checks a file and --root looks for datasets: give one of them")
    if args.write is not None and args.write.exists():
        raise UserError(f"{args.write} exists and is left as it is; give --write another name")
    default = Path("datasets.toml")
    if args.root is None and args.datasets is None and not default.is_file():
        _print_known()
        return 0
    findings = _findings(args.root, args.datasets or default)
    _print(findings, listing=args.root is not None)
    if args.write is not None:
        _write(args.write, findings)
    return 1 if any(finding.problem for finding in findings) else 0


def _findings(root: Path | None, file: Path) -> list[Finding]:
    from rich.console import Console

    from extract.datasets.finding import check, find
    from extract.datasets.specs import read_datasets_toml

    console = Console(stderr=True)
    with console.status("listing") as status:
        if root is not None:
            return find(root, progress=lambda name: status.update(f"looking for {name}"))
        specs = read_datasets_toml(file)
        return check(specs, progress=lambda name: status.update(f"listing {name}"))


def _print(findings: list[Finding], *, listing: bool) -> None:
    from rich.markup import escape

    from extract.datasets.recipes.base import counts

    table = _table("dataset", "role", "found", "count", "expected", "problem and mend")
    for finding in findings:
        if listing and finding.path is None:
            continue
        dataset = finding.dataset
        found = dataset.root if dataset is not None else finding.path
        remarks = finding.problem or "; ".join(dataset.problems if dataset is not None else ())
        table.add_row(
            escape(finding.name),
            dataset.card.role if dataset is not None else "",
            escape(str(found)),
            f"{len(dataset):,}" if dataset is not None else "",
            counts(finding.recipe) if finding.recipe is not None else "",
            escape(remarks),
            style="red" if finding.problem else "yellow" if remarks else None,
        )
    console = _console()
    if table.row_count:
        console.print(table)
    absent = [finding.name for finding in findings if listing and finding.path is None]
    if absent:
        console.print(f"Not found: {escape(', '.join(_short(absent)))}.", soft_wrap=True)


def _short(names: list[str]) -> list[str]:
    """Return names with ImageNet-C's 95 as one."""
    kept = [name for name in names if not name.startswith("imagenet-c-")]
    corruptions = len(names) - len(kept)
    return [*kept, f"imagenet-c-* ({corruptions})"] if corruptions else kept


def _print_known() -> None:
    from rich.markup import escape

    from extract.datasets.recipes import all_recipes
    from extract.datasets.recipes.base import counts

    table = _table("dataset", "role", "what it is", "expected", "note")
    for recipe in all_recipes().values():
        if recipe.name.startswith("imagenet-c-") and not recipe.name.startswith("imagenet-c-gaussian_noise-"):
            continue
        table.add_row(recipe.name, recipe.role, recipe.title, counts(recipe), escape(recipe.note))
    console = _console()
    console.print(table)
    console.print("ImageNet-C: 19 corruptions in 5 severities each, as for gaussian_noise.")
    console.print("No datasets.toml here; 'extract datasets --root DIR --write datasets.toml' makes one.")


def _console() -> Console:
    """Return a console that does not squeeze a table into 80 columns when it is piped."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160)


def _table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        right = column in ("count", "expected")
        table.add_column(
            column, justify="right" if right else "left", overflow="fold", no_wrap=column == "dataset"
        )
    return table


def _write(path: Path, findings: list[Finding]) -> None:
    from cache_schema.errors import UserError
    from extract.datasets.specs import DatasetSpec, write_datasets_toml

    whole = [finding for finding in findings if finding.dataset is not None and finding.path is not None]
    if not whole:
        raise UserError(f"nothing to write to {path}: no dataset was found whole")
    lines = [
        "Datasets found by 'extract datasets --root'; a table named after a known dataset follows its recipe."
    ]
    lines += [f"{finding.name} is left out: {finding.problem}" for finding in findings if finding.problem]
    specs = [
        DatasetSpec(name=finding.name, path=finding.path) for finding in whole if finding.path is not None
    ]
    write_datasets_toml(path, specs, header="\n".join(lines))
    print(f"{len(specs)} datasets written to {path}")
