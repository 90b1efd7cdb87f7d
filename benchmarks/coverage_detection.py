"""How often intervals of means over OOD sets, and tests of two scores on the same images, keep their promise.

    python benchmarks/coverage_detection.py                  # 1,000 draws of each case, a quarter of an hour
    python benchmarks/coverage_detection.py --draws 200      # a quick look
    python benchmarks/coverage_detection.py --metrics aupr_in,aupr_out

Scores are normal; three OOD sets have the same ID images, two scores agree to the correlation that is printed.
Columns as of ``coverage.py``. The average precision depends on the sizes of the sets: its true value is the mean over
the draws.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from record import Recorder, spread

from analyze.intervals import PairedDifference
from analyze.intervals.detection_pairs import NAMES, SortedScores, detection_numbers
from analyze.intervals.detection_points import POINTS, point_part
from analyze.intervals.influences import Influence, check_comparable, detection_influence, paired_detection
from analyze.intervals.set_means import SetMeans, part_of
from analyze.metrics import equal_error_rate, partial_auroc
from closerlook_common.errors import UserError

TRUTH_ROWS = 1_000_000
SIZES = ((200, 100), (1000, 200), (2000, 1000), (500, 5000))
DISTANCES = ((0.5, 1.0, 1.5), (1.5, 2.0, 2.5), (0.0, 1.0, 3.5), (3.0, 4.0, 4.0))
SPREAD = 1.2

sort = SortedScores.of


def influence(metric: str, inside: SortedScores, outside: SortedScores) -> Influence | None:
    """Return the influences on a number, None where it is not tested."""
    try:
        check_comparable(metric, inside, outside)
    except UserError:
        return None
    return detection_influence(metric, inside, outside)


def ends_of(metric: str, inside: SortedScores, sets: list[SortedScores]) -> tuple[float, float] | None:
    """Return the ends of the interval of a mean over sets, None where there is none."""
    means = SetMeans()
    make = point_part if metric in POINTS else part_of
    for place, outside in enumerate(sets):
        means.add(metric, "", str(place), make(metric, inside, outside))
    try:
        interval = means.interval(metric, "all")
    except UserError:
        return None
    return interval.low, interval.high


def numbers_of(inside: SortedScores, outside: SortedScores) -> dict[str, float]:
    """Return every detection number."""
    columns = inside.values, outside.values
    further = {"eer": equal_error_rate(*columns), "partial_auroc10": partial_auroc(*columns, max_fpr=0.1)}
    return detection_numbers(inside, outside) | further


def depends_on_sizes(metric: str) -> bool:
    """Return whether the true value of a metric depends on the sizes of the sets."""
    return metric.startswith("aupr")


def shares(hits: list[bool | None]) -> tuple[float, float, float]:
    """Return the share of draws that are offered, of those that hold, and of all that are there and wrong."""
    some = [hit for hit in hits if hit is not None]
    covered = float(np.mean(some)) if some else math.nan
    return len(some) / len(hits), covered, some.count(False) / len(hits)


def means(draws: int, metrics: Sequence[str]) -> Iterator[tuple[str, str, str, float, float, float]]:
    """Yield case, size, metric, offered, covered and wrong of each mean over three sets."""
    rng = np.random.default_rng(0)
    for distances, (n, m) in itertools.product(DISTANCES, SIZES):
        large = sort(rng.normal(0, 1, TRUTH_ROWS))
        numbers = [numbers_of(large, sort(rng.normal(-d, SPREAD, TRUTH_ROWS))) for d in distances]
        found: dict[str, list[tuple[float, float] | None]] = {name: [] for name in metrics}
        values: dict[str, list[float]] = {name: [] for name in metrics}
        for _ in range(draws):
            inside = sort(rng.normal(0, 1, n))
            sets = [sort(rng.normal(-d, SPREAD, m)) for d in distances]
            for name in metrics:
                if depends_on_sizes(name):
                    values[name].append(float(np.mean([detection_numbers(inside, s)[name] for s in sets])))
                found[name].append(ends_of(name, inside, sets))
        for name in metrics:
            truth = np.mean(values[name] if depends_on_sizes(name) else [number[name] for number in numbers])
            hits = [None if ends is None else bool(ends[0] <= truth <= ends[1]) for ends in found[name]]
            yield f"{distances} apart", f"{n} + {m}", name, *shares(hits)


def both(
    rng: np.random.Generator, n: int, m: int, distance: float, share: float, gain: float
) -> list[NDArray[np.float64]]:
    """Draw two scores of ID and of OOD images; the second's OOD images lie ``gain`` times as far away."""
    sides = []
    for size, middle, width in ((n, 0.0, 1.0), (m, -distance, SPREAD)):
        common, own = rng.normal(0, math.sqrt(share), size), rng.normal(0, math.sqrt(1 - share), (2, size))
        sides.append(middle * np.array([[1.0], [gain]]) + width * (common + own))
    return sides


def pairs(draws: int, metrics: Sequence[str]) -> Iterator[tuple[str, str, str, float, float, float, float, float]]:
    """Yield case, size, metric; offered, covered and wrong of the interval of a difference; p < 0.05 without one.

    The last number is the share of draws without a difference that have a p-value.
    """
    rng = np.random.default_rng(1)
    for distance, share, (n, m) in itertools.product((0.5, 1.0, 2.0, 3.0, 4.0), (0.0, 0.5, 0.95), SIZES):
        inside, outside = both(rng, TRUTH_ROWS, TRUTH_ROWS, distance, 0.0, 1.15)
        numbers = [detection_numbers(sort(inside[k]), sort(outside[k])) for k in (0, 1)]
        ends: dict[str, list[PairedDifference | None]] = {name: [] for name in metrics}
        gaps: dict[str, list[float]] = {name: [] for name in metrics}
        below: dict[str, list[float]] = {name: [] for name in metrics}
        for _, gain in itertools.product(range(draws), (1.0, 1.15)):
            inside, outside = both(rng, n, m, distance, share, gain)
            sides = [(sort(inside[k]), sort(outside[k])) for k in (0, 1)]
            for name in metrics:
                parts = [influence(name, *side) for side in sides]
                found = None if None in parts else paired_detection(*parts)  # type: ignore[arg-type]
                if gain > 1:
                    ends[name].append(found)
                    first, second = (detection_influence(name, *side).value for side in sides)
                    gaps[name].append(first - second)
                elif found is not None:
                    below[name].append(found.p_value < 0.05)
        for name in metrics:
            truth = float(np.mean(gaps[name])) if depends_on_sizes(name) else numbers[0][name] - numbers[1][name]
            hits = [None if e is None else bool(e.low <= truth <= e.high) for e in ends[name]]
            size = float(np.mean(below[name])) if below[name] else math.nan
            case = f"{distance:g} apart, correlation {share:g}"
            yield case, f"{n} + {m}", name, *shares(hits), size, len(below[name]) / draws


GROUPS = {
    "AUROC": NAMES[:1], "FPR95": NAMES[1:3], "AUPR": NAMES[3:], "EER": ("eer",), "partial AUROC": ("partial_auroc10",),
}  # fmt: skip
"""Row of the table -> the numbers that it takes together."""


def main() -> None:
    """Print both tables as Markdown, and record what the README shows of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000, help="of each case (default: 1000)")
    every = ",".join((*NAMES, *POINTS))
    parser.add_argument("--metrics", default=every, help="comma-separated (default: all)")
    args = parser.parse_args()
    draws, chosen = args.draws, args.metrics.split(",")
    compared = [name for name in chosen if name in NAMES]
    record = Recorder("coverage_detection", parser, args, sizes={"draws": (500,)}, seeded=True)
    of_means: dict[str, list[tuple[float, float, float]]] = {name: [] for name in chosen}
    of_pairs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in compared}
    below: dict[str, list[float]] = {name: [] for name in compared}
    print(f"{draws} draws a case; the standard error of a share near 0.95 is {math.sqrt(0.0475 / draws):.3f}\n")
    print("| mean over three sets | rows | metric | offered | covered | there and wrong |\n|" + " --- |" * 6)
    for case, size, name, offered, covered, wrong in means(draws, chosen):
        of_means[name].append((offered, covered, wrong))
        print(f"| {case} | {size} | {name} | {offered:.3f} | {covered:.3f} | {wrong:.3f} |", flush=True)
    print("\n| two scores | rows | metric | offered | covered | there and wrong | p < 0.05 |\n|" + " --- |" * 7)
    for case, size, name, offered, covered, wrong, rejected, tested in pairs(draws, compared) if compared else ():
        of_pairs[name].append((offered, covered, wrong))
        below[name] += [rejected] if tested >= 0.5 else []
        print(
            f"| {case} | {size} | {name} | {offered:.3f} | {covered:.3f} | {wrong:.3f} | {rejected:.3f} |", flush=True
        )
    for group, members in GROUPS.items():
        if any(name not in chosen for name in members):
            continue
        record.add_shares(f"mean/{group}", [share for name in members for share in of_means[name]])
        if any(name not in compared for name in members):
            continue
        record.add_shares(f"difference/{group}", [share for name in members for share in of_pairs[name]])
        some = [share for name in members for share in below[name]]
        record.add(f"p/{group}/cases", len(some))
        record.add(f"p/{group}/below", spread(some), detail="" if some else "no p-value")
    record.write()


if __name__ == "__main__":
    main()
