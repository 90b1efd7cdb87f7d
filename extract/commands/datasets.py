"""Find and check the datasets on disk: found, count, expected, problem and fix.

Without options, check datasets.toml; if there is none, list the datasets that are known by name.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from closerlook_common.console.messages import line, sentence
from closerlook_common.console.terminal import counted, escaped

if TYPE_CHECKING:
    from extract.datasets.finding import Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--datasets", type=Path, metavar="TOML", help="check these (default: datasets.toml here)")
    parser.add_argument("--root", type=Path, metavar="DIR", help="look for known datasets in the folders below it")
    parser.add_argument("--write", type=Path, metavar="TOML", help="with --root: write what is found and whole")


def run(args: argparse.Namespace) -> int:
    """Print the table; returns 1 if a dataset has a problem."""
    from closerlook_common.errors import UserError

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
    _print(findings, args.root)
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
            return find(root, progress=lambda name: status.update(escaped(f"looking for {name}")))
        specs = read_datasets_toml(file)
        return check(specs, progress=lambda name: status.update(escaped(f"listing {name}")))


def _print(findings: list[Finding], root: Path | None) -> None:
    from extract.commands.listing import Column, Row, print_rows, wide_console
    from extract.datasets.recipes.base import counts

    columns = [Column("dataset"), Column("role"), Column("count", right=True), Column("expected", right=True)]
    columns += [Column("found"), Column("problem and fix", prose=True)]
    rows, absent = [], []
    for finding in findings:
        dataset = finding.dataset
        place = dataset.root if dataset is not None else finding.path
        if place is None and root is not None:
            absent.append(finding.name)
            continue
        count = len(dataset) if dataset is not None else finding.count
        remarks = finding.problem or "; ".join(dataset.problems if dataset is not None else ())
        cells = [
            finding.name,
            dataset.card.role if dataset is not None else finding.recipe.role if finding.recipe is not None else "",
            f"{count:,}" if count is not None else "",
            counts(finding.recipe) if finding.recipe is not None else "",
            _relative(place, root),
            remarks,
        ]
        rows.append(Row(cells, "red" if finding.problem else "yellow" if remarks else ""))
    console = wide_console(160)
    if rows:
        print_rows(console, columns, rows)
    whole = sum(finding.dataset is not None for finding in findings)
    bad = sum(bool(finding.problem) for finding in findings)
    found = f"{whole} found whole" + (f", {bad} with a problem" if bad else "")
    found += f", below {root}" if root is not None else ""
    console.print(line(found), soft_wrap=True)
    if absent:
        console.print(line(f"Not found: {', '.join(_short(absent))}"), soft_wrap=True)


def _relative(place: Path | None, root: Path | None) -> str:
    if place is None:
        return ""
    return str(place.relative_to(root)) if root is not None and place.is_relative_to(root) else str(place)


def _short(names: list[str]) -> list[str]:
    """Return names with ImageNet-C's 95 as one."""
    kept = [name for name in names if not name.startswith("imagenet-c-")]
    corruptions = len(names) - len(kept)
    return [*kept, f"imagenet-c-* ({corruptions})"] if corruptions else kept


def _print_known() -> None:
    from extract.commands.listing import Column, Row, print_rows, wide_console
    from extract.datasets.recipes import all_recipes
    from extract.datasets.recipes.base import counts

    columns = [Column("dataset"), Column("role"), Column("expected", right=True), Column("what it is", prose=True)]
    rows = []
    for recipe in all_recipes().values():
        name, note = recipe.name, f": {recipe.note}" if recipe.note else ""
        if name.startswith("imagenet-c-"):
            if name != "imagenet-c-gaussian_noise-1":
                continue
            name, note = "imagenet-c-CORRUPTION-SEVERITY", ": 19 corruptions in 5 severities each" + note
        title = recipe.title.replace(" gaussian noise, severity 1", "")
        rows.append(Row([name, recipe.role, counts(recipe), title + note]))
    console = wide_console(160)
    print_rows(console, columns, rows)
    found = "No datasets.toml here; 'extract datasets --root DIR --write datasets.toml' makes one."
    console.print(line(found), soft_wrap=True)


def _write(path: Path, findings: list[Finding]) -> None:
    from closerlook_common.errors import UserError
    from extract.datasets.specs import DatasetSpec, write_datasets_toml

    whole = [finding for finding in findings if finding.dataset is not None and finding.path is not None]
    if not whole:
        raise UserError(f"nothing to write to {path}: no dataset was found whole")
    lines = ["Datasets found by 'extract datasets --root'; a table named after a known dataset follows its recipe."]
    lines += [f"{finding.name} is left out: {finding.problem}" for finding in findings if finding.problem]
    specs = [DatasetSpec(name=finding.name, path=finding.path) for finding in whole if finding.path is not None]
    write_datasets_toml(path, specs, header="\n".join(lines))
    print(sentence(f"{counted(len(specs), 'dataset')} written to {path}"))
