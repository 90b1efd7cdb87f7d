"""Draw the README's three figures from the demonstration; ``make demo`` first.

Usage: ``python benchmarks/readme_figures.py [--demo demo] [--out benchmarks/readme]``
"""

from __future__ import annotations

import argparse
from pathlib import Path

from analyze.cli import main as analyze

FIGURES = ("factor_accuracy", "ood", "reliability")


def main() -> int:
    """Draw them as PNG; the numbers beside each stay in the demonstration's folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/readme"))
    args = parser.parse_args()
    drawn = args.demo / "readme"
    code = analyze(
        ["figures", str(args.demo / "results.parquet"), "--cache", str(args.demo / "cache"), "-o", str(drawn),
         "--only", ",".join(FIGURES), "--format", "png"]
    )
    args.out.mkdir(parents=True, exist_ok=True)
    for path in drawn.glob("*.png"):
        (args.out / path.name).write_bytes(path.read_bytes())
    return code


if __name__ == "__main__":
    raise SystemExit(main())
