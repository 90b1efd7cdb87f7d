"""Draw the README's three figures from the demonstration; run ``make demo`` first, then ``make pictures``.

The same tables give the same bytes: pixels of a fixed number of colours, no date, no name of a program.
"""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path

from PIL import Image

import cache_schema
from analyze.curves import curves
from analyze.figures.pages import compose, prepare
from analyze.figures.style import figure_style
from analyze.results import read_results

WIDTH, DPI, COLOURS = "icml", 180, 256
MODELS = ("resnet", "wit-cnn-10k", "simclr-byobnet", "laion-cnn-16k")
"""Of the reliability diagrams: one model each that is right, timid or too sure."""


def main() -> int:
    """Draw them, and say how large they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("demo"), help="where 'make demo' left its table and cache")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder of the pictures")
    args = parser.parse_args()
    results = read_results(args.demo / "results.parquet")
    drawn, problems = curves(
        cache_schema.open_cache(args.demo / "cache"), models=MODELS, datasets=["mini-val"], kinds=["reliability"]
    )
    for what, text in problems.items():
        print(f"{what}: {text}")
    for name in ("factor_accuracy", "ood", "reliability"):
        page = compose(name, prepare(name, drawn if name == "reliability" else results), width=WIDTH)
        pixels = BytesIO()
        with figure_style():
            page.savefig(pixels, format="png", dpi=DPI, pad_inches=0.08)
        path = args.out / f"{name.replace('_', '-')}.png"
        # The default method drops rare colours, and with them whole groups of models.
        image = Image.open(pixels).convert("RGB")
        image = image.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        image.save(path, optimize=True)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB, {image.width} x {image.height}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
