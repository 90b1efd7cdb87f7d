"""Write the figures of ``figures.json`` into the tables of the READMEs.

    python benchmarks/write_tables.py                  # rewrite what lies between the markers
    python benchmarks/write_tables.py --check          # change nothing; exit code 1 where a table differs
    python benchmarks/write_tables.py --take probe/    # first move rows from figures-trial.json to figures.json

``layouts.md`` holds the tables with placeholders. A page names a layout between ``<!-- figures: NAME -->`` and
``<!-- end of figures -->``; each table is followed by the command, the date and the machine of its figures, unless its
layout links to the page where they are stated.
"""

from __future__ import annotations

import argparse
import datetime
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from string import Formatter

from record import HERE, NOT_RECORDED, Row, folder, merge, read, text_of

ROOT = HERE.parent
PAGES = ("README.md", "benchmarks/README.md", "docs")
"""Files, and folders of pages, that may hold markers."""
LAYOUT = re.compile(r"<!-- layout: (.+?) -->\n(.*?)(?=<!-- layout:|\Z)", re.DOTALL)
BLOCK = re.compile(r"(<!-- figures: (.+?) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
DIGIT = re.compile(r"(?<![\w-])\d")
"""A number; not the digits of a word such as float32 or kNN-50."""
STATED_THERE = "(benchmarks/README.md)"
"""The link of a layout that leaves command, date and machine of its rows to the page of all benchmarks."""


def layouts(path: Path = HERE / "layouts.md") -> dict[str, str]:
    """Return the tables with placeholders by name."""
    found = LAYOUT.findall(path.read_text(encoding="utf-8"))
    names = [name for name, _ in found]
    if len(set(names)) != len(names):
        raise ValueError(f"{path.name} has a layout twice: {names}")
    return {name: text.strip() for name, text in found}


def names_in(layout: str) -> list[str]:
    """Return the rows of which a layout shows more than the mark, in order, each once."""
    fields = [field for _, field, _, _ in Formatter().parse(layout) if field and not field.endswith(".asked")]
    return list(dict.fromkeys(re.sub(r"\.(ratio|verdict|aside)$", "", field) for field in fields))


class Filler(Formatter):
    """Puts rows into a layout; a name with dots and an unknown attribute are errors."""

    def get_field(self, field_name: str, args: object, kwargs: Mapping[str, Row]) -> tuple[object, str]:
        """Return the row, or one of its four attributes."""
        found = re.fullmatch(r"(.+?)(?:\.(ratio|asked|verdict|aside))?", field_name)
        assert found is not None
        if found[1] not in kwargs:
            raise KeyError(f"figures.json has no row {found[1]!r}")
        row = kwargs[found[1]]
        value = getattr(row, found[2]) if found[2] else row
        if value is None:
            raise ValueError(f"{field_name}: the row has no ratio")
        return value, found[1]


def typed_by_hand(layout: str) -> list[str]:
    """Return the cells with a number of their own in columns that hold placeholders."""
    rows = [line.strip("|").split("|") for line in layout.splitlines() if line.startswith("|")][2:]
    filled = {place for row in rows for place, cell in enumerate(row) if "{" in cell}
    bare = [(row[place], re.sub(r"\{[^}]*\}", "", row[place])) for row in rows for place in sorted(filled)]
    return [cell.strip() for cell, rest in bare if DIGIT.search(rest)]


def day(date: str) -> str:
    """Return a date in words."""
    if date == NOT_RECORDED:
        return f"date {NOT_RECORDED}"
    found = datetime.date.fromisoformat(date)
    return f"{found.day} {found:%B %Y}"


def origin(rows: list[Row]) -> str:
    """Return the lines below a table: command, date, machine and note of each run that it quotes."""
    runs: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        runs.setdefault((row.command, row.date, row.machine, row.note), []).append(row)
    lines = []
    most = max(runs.values(), key=len)
    for members in sorted(runs.values(), key=len):
        row = members[0]
        command = f"command {NOT_RECORDED}" if row.command == NOT_RECORDED else f"`{row.command}`"
        which = ""
        if len(runs) > 1:
            scripts = {member.name.split("/")[0] for member in members}
            others = {member.name.split("/")[0] for member in rows if member not in members}
            alone = scripts.isdisjoint(others)
            shown = sorted(scripts) if alone else [member.name.split("/", 1)[1] for member in members]
            which = f" ({', '.join(shown)})" if alone or members is not most else " (all other rows)"
        text = f"Measured{which}: {command}, {day(row.date)}; {row.machine}{row.note and '; ' + row.note}."
        lines.append(textwrap.fill(text, 118, break_long_words=False, break_on_hyphens=False))
    return "\n\n".join(lines)


def filled(layout: str, rows: Mapping[str, Row]) -> str:
    """Return a table with its figures, and where they come from."""
    table = Filler().vformat(layout, (), rows)
    if STATED_THERE in layout:
        return table
    return f"{table}\n\n{origin([rows[name] for name in names_in(layout)])}"


def written(page: str, tables: Mapping[str, str], rows: Mapping[str, Row]) -> str:
    """Return a page with the tables between its markers made again."""
    if page.count("<!-- figures:") != page.count("<!-- end of figures -->"):
        raise ValueError("a marker '<!-- figures: NAME -->' lacks its '<!-- end of figures -->', or the other way")
    return BLOCK.sub(lambda found: f"{found[1]}\n{filled(tables[found[2]], rows)}\n\n{found[3]}", page)


def pages() -> list[Path]:
    """Return the files that may hold markers."""
    found: list[Path] = []
    for name in PAGES:
        found += sorted((ROOT / name).rglob("*.md")) if (ROOT / name).is_dir() else [ROOT / name]
    return found


def take(prefix: str) -> int:
    """Move rows from ``figures-trial.json`` to ``figures.json``; return how many.

    Parameters
    ----------
    prefix
        Beginning of their names.
    """
    trial = folder() / "figures-trial.json"
    rows = read(trial)
    taken = {name: row for name, row in rows.items() if name.startswith(prefix)}
    if taken:
        merge(folder() / "figures.json", taken.values())
        trial.write_text(text_of(row for name, row in rows.items() if name not in taken), encoding="utf-8")
    return len(taken)


def main() -> int:
    """Rewrite the pages, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--check", action="store_true", help="change nothing; exit code 1 where a table differs")
    either.add_argument(
        "--take", metavar="PREFIX", help="first move the rows of these names from figures-trial.json to figures.json"
    )
    args = parser.parse_args()
    kept = folder() / "figures.json"
    if args.take and not take(args.take):
        parser.exit(2, f"write_tables.py: figures-trial.json has no row whose name begins with {args.take!r}\n")
    rows, tables, differing = read(kept), layouts(), []
    for path in pages():
        text = path.read_text(encoding="utf-8")
        new = written(text, tables, rows)
        if new != text:
            differing.append(path.relative_to(ROOT).as_posix())
            if not args.check:
                path.write_text(new, encoding="utf-8")
    changed = "differ from figures.json" if args.check else "written"
    print(f"{', '.join(differing)}: {changed}" if differing else "every table is up to date")
    return int(args.check and bool(differing))


if __name__ == "__main__":
    raise SystemExit(main())
