"""How often statistics over models keep their promise where models come in families: simulation, seeded.

    python benchmarks/coverage_families.py                 # 1,000 draws of each case, some minutes
    python benchmarks/coverage_families.py --draws 200     # a quick look

Two numbers a model share a part within families (intraclass correlation 0.8 or 0.4). Where they have nothing to do with
one another, p < 0.05 should occur in 5 % of draws; where their correlation is 0.6, or they lie about a line, 95 % of
intervals should hold the true value. Next to it what ordinary statistics do, which take models as independent.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from record import Recorder
from scipy import stats

from analyze.trends.correlations import correlation
from analyze.trends.families import Families
from analyze.trends.fits import fit_line
from analyze.trends.line_tests import same_line
from analyze.trends.medians import median

Floats = NDArray[np.float64]

FAMILIES = {
    "5 families of 2 to 6": [6, 4, 3, 2, 2],
    "6 families of 2 to 5": [5, 4, 3, 3, 2, 2],
    "8 families of 2 to 12": [12, 8, 6, 5, 4, 3, 2, 2],
    "12 families of 10": [10] * 12,
    "30 families of 7": [7] * 30,
    "45 families of 1 to 48": np.maximum(1, np.round(210 / np.arange(1, 46) / 4.39)).astype(int).tolist(),
    "54 families of 1 to 60": [60, 30, 20, 10, *[3] * 20, *[1] * 30],
    "40 independent models": [1] * 40,
}
STUDY = [26, 22, 16, 13, 12, *[1] * 9, 9, 8, 8, 7, 6, *[5] * 5, 4, 4, *[3] * 6, *[2] * 12, *[1] * 22]
"""About as the models of the two studies lie by backbone and source."""
LINEAR = {"x_scale": "linear", "y_scale": "linear"}


def draw(rng: np.random.Generator, sizes: list[int], alike: float, rho: float) -> tuple[Floats, Floats, Families]:
    """Return two numbers of correlation rho, alike within families."""
    codes = np.repeat(np.arange(len(sizes)), sizes)
    mix = np.linalg.cholesky([[1, rho], [rho, 1]])
    shared, own = mix @ rng.normal(size=(2, len(sizes))), mix @ rng.normal(size=(2, len(codes)))
    both = np.sqrt(alike) * shared[:, codes] + np.sqrt(1 - alike) * own
    return both[0], both[1], Families(codes.astype(np.int64), "backbone")


def rejections(rng: np.random.Generator, sizes: list[int], alike: float, draws: int) -> dict[str, float]:
    """Return the shares of draws with p < 0.05 where nothing goes with anything."""
    found: dict[str, list[bool]] = {}
    for number in range(draws):
        x, y, families = draw(rng, sizes, alike, 0.0)
        options = {"flips": 999, "seed": number}
        for method in ("pearson", "spearman", "kendall"):
            own = correlation(x, y, method=method, families=families, **options)  # type: ignore[arg-type]
            if np.isfinite(own.p_value):
                found.setdefault(method, []).append(own.p_value < 0.05)
        found.setdefault("ordinary", []).append(stats.pearsonr(x, y).pvalue < 0.05)
        group = np.arange(len(x)) % 2
        lines = same_line(x, 0.5 * x + y, group, families=families, **LINEAR, **options)  # type: ignore[arg-type]
        split = same_line(x, 0.5 * x + y, families.codes % 2, families=families, **LINEAR, **options)  # type: ignore[arg-type]
        for name, test in (("lines, groups within families", lines), ("lines, groups of families", split)):
            if np.isfinite(test.p_value):
                found.setdefault(name, []).append(test.p_value < 0.05)
    return {name: float(np.mean(values)) for name, values in found.items()}


def coverages(rng: np.random.Generator, sizes: list[int], alike: float, draws: int) -> dict[str, float]:
    """Return the shares of offered intervals that hold the true value."""
    truths = {"pearson": 0.6, "spearman": 6 / np.pi * np.arcsin(0.3), "kendall": 2 / np.pi * np.arcsin(0.6)}
    found: dict[str, list[bool]] = {}

    def add(name: str, low: float, high: float, truth: float) -> None:
        if np.isfinite(low):
            found.setdefault(name, []).append(bool(low <= truth <= high))

    for number in range(draws):
        x, y, families = draw(rng, sizes, alike, 0.6)
        for method, truth in truths.items():
            own = correlation(x, y, method=method, families=families, flips=1)
            add(method, own.low, own.high, truth)
        rows = rng.integers(0, len(x), (200, len(x)))
        drawn = [np.corrcoef(x[r], y[r])[0, 1] for r in rows]
        add("ordinary bootstrap", *np.nanquantile(drawn, [0.025, 0.975]), 0.6)
        x, error, families = draw(rng, sizes, alike, 0.0)
        for method in ("huber", "ols", "theil-sen"):
            if method == "theil-sen" and len(x) > 60:
                continue
            line = fit_line(x, 0.9 * x + 0.25 * error, method=method, families=families, seed=number, **LINEAR)  # type: ignore[arg-type]
            (low, high), _ = line.interval()
            add(f"slope, {method}", low, high, 0.9)
            below, above = line.band([1.0])
            add(f"band, {method}", below[0], above[0], 0.9)
        middle = median(error, families)
        add("median", middle.low, middle.high, 0.0)
    return {name: float(np.mean(values)) for name, values in found.items() if len(values) > draws / 2}


def cases() -> Iterator[tuple[str, list[int], float]]:
    """Yield name, sizes of families and how alike they are."""
    for name, sizes in {**FAMILIES, "the study's backbones": STUDY}.items():
        for alike in (0.8, 0.4) if max(sizes) > 1 else (0.0,):
            yield name, sizes, alike


def table(
    title: str, measure: Callable[[np.random.Generator, list[int], float, int], dict[str, float]], draws: int
) -> dict[str, list[dict[str, float]]]:
    """Print a line a case as it is measured; return the shares of each case, by name and by how alike families are."""
    found: dict[str, list[dict[str, float]]] = {}
    print(f"\n{title}\n", flush=True)
    for place, (name, sizes, alike) in enumerate(cases()):
        shares = measure(np.random.default_rng(place), sizes, alike, draws)
        found.setdefault(name, []).append(shares)
        text = ", ".join(f"{key} {share:.3f}" for key, share in shares.items())
        print(f"{name}, {sum(sizes)} models, alike {alike:g}: {text}", flush=True)
    return found


TESTS = {
    "ordinary": "ordinary", "pearson": "pearson", "spearman": "spearman", "kendall": "kendall",
    "lines within": "lines, groups within families", "lines apart": "lines, groups of families",
}  # fmt: skip
"""Column of the table -> test."""
INTERVALS = {
    "correlations": ("pearson", "spearman", "kendall"),
    "lines": ("slope, huber", "band, huber", "slope, ols", "band, ols"),
    "theil-sen": ("slope, theil-sen", "band, theil-sen"),
    "median": ("median",),
    "ordinary bootstrap": ("ordinary bootstrap",),
}
"""Row of the table -> the intervals that it takes together."""


def main() -> None:
    """Print both tables, and record what the README shows of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    args = parser.parse_args()
    record = Recorder("coverage_families", parser, args, sizes={"draws": (500,)}, seeded=True)
    for case, of_case in table("share of p < 0.05 where nothing goes with anything", rejections, args.draws).items():
        for row, test in TESTS.items():
            tested = [shares[test] for shares in of_case if test in shares]
            record.add(f"p/{case}/{row}", tested, detail="" if tested else "no p-value")
    measured = table("share of 95 % intervals that hold the true value", coverages, args.draws)
    everything = [shares for of_case in measured.values() for shares in of_case]
    for row, names in INTERVALS.items():
        held = [shares[name] for shares in everything for name in names if name in shares]
        record.add(f"interval/{row}", (min(held), max(held)) if held else None, detail="" if held else "no interval")
    record.write()


if __name__ == "__main__":
    main()
