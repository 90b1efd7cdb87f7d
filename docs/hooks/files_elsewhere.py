"""Pages that are files of the repository: the specification, the benchmarks, the changelog."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _text(path: Path) -> str:
    """Return a file whose links to other files of the repository became plain text."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"\[([^\]]+)\]\((?!https?:|#)[^)]+\)", r"\1", text)


def specification() -> str:
    """Return SPEC.md, wherever it lies in ``cache_schema``."""
    (path,) = (ROOT / "cache_schema").rglob("SPEC.md")
    return _text(path)


def benchmarks() -> str:
    """Return the benchmarks' README."""
    return _text(ROOT / "benchmarks" / "README.md")


def benchmark_table(heading: str) -> str:
    """Return the table of the benchmarks' README whose first cell is a heading, and the run that its figures are of."""
    parts = re.findall(r"<!-- figures: .+? -->\n(.*?)<!-- end of figures -->", benchmarks(), re.DOTALL)
    (found,) = (part for part in parts if part.lstrip().startswith(f"| {heading} |"))
    return str(found).strip()


TABLES = {
    "[coverage of intervals]": "interval",
    "[coverage of detection]": "mean over sets, or difference",
    "[size of tests]": "p-value",
    "[size of paired tests]": "equal scores",
    "[size of tests over families]": "families",
    "[coverage over families]": "interval over models",
    "[coverage of effective robustness]": "effective robustness",
}
"""Beginning of a line that a page has in place of a table of the benchmarks -> first cell of the table."""


def with_tables(markdown: str) -> str:
    """Return a page with the benchmarks' tables where it names them."""
    for mark, heading in TABLES.items():
        if mark in markdown:
            line = next(line for line in markdown.splitlines() if line.startswith(mark))
            markdown = markdown.replace(line, benchmark_table(heading))
    return markdown


def changelog() -> str:
    """Return CHANGELOG.md."""
    return _text(ROOT / "CHANGELOG.md")
