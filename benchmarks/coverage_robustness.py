"""How often intervals of effective robustness hold the true value: simulation, seeded.

    python benchmarks/coverage_robustness.py                 # 1,000 draws of each case, some minutes
    python benchmarks/coverage_robustness.py --draws 200     # a quick look

Baseline models come in families and scatter about a line between the probits of two accuracies; the accuracies are
those of drawn images. Models of another group lie 0.2 above the line: 24 models in eight families, of which the median
and one model are asked for. "Images of its own" gives each model other images, as an interval of one accuracy takes it;
"shared images" gives all models the same ones, of which some are hard for every model (correlation of correctness 0.5
on the probit scale).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from record import Recorder
from scipy.special import ndtr, ndtri

from analyze.metrics.proportions import wilson_interval
from analyze.trends.families import Families
from analyze.trends.fits import fit_line
from analyze.trends.medians import median
from analyze.trends.robustness_intervals import Ends, median_ends, robustness_ends

Floats = NDArray[np.float64]

SLOPE, INTERCEPT, LIFT, SCATTER, ALIKE = 1.1, -0.4, 0.2, 0.08, 0.6
"""The line on the probit scale, the other group's distance, the standard deviation about the line, its share of
families."""
GROUP = [6, 5, 4, 3, 2, 2, 1, 1]
BASELINES = {
    "12 families of 5": [5] * 12,
    "30 families of 1 to 20": [20, 12, 8, 5, 4, 4, 3, 3, 3, *[2] * 9, *[1] * 12],
    "40 independent models": [1] * 40,
}
SETS = {"factor of 150": 150, "factor of 1,000": 1_000, "set of 10,000": 10_000}
STANDARD = 20_000
"""Images of the standard accuracy."""


@dataclass(frozen=True)
class Population:
    """True accuracies of the baseline's models and of the group's, and their families."""

    x: Floats
    y: Floats
    families: Families
    baseline: NDArray[np.bool_]

    @classmethod
    def draw(cls, rng: np.random.Generator, sizes: list[int]) -> Population:
        """Return models drawn at random."""
        codes = np.repeat(np.arange(len(sizes) + len(GROUP)), [*sizes, *GROUP])
        baseline = codes < len(sizes)
        middle = rng.normal(0.6, 0.25, codes.max() + 1)[codes] + rng.normal(0, 0.1, len(codes))
        about = np.sqrt(ALIKE) * rng.normal(size=codes.max() + 1)[codes]
        about = SCATTER * (about + np.sqrt(1 - ALIKE) * rng.normal(size=len(codes)))
        shifted = SLOPE * middle + INTERCEPT + about + np.where(baseline, 0.0, LIFT)
        return cls(ndtr(middle), ndtr(shifted), Families(codes.astype(np.int64), "backbone"), baseline)


def observed(rng: np.random.Generator, true: Floats, images: int, shared: bool) -> Ends:
    """Return accuracies of drawn images with Wilson's intervals."""
    if shared:  # of a part of the images each model is right or wrong together with the others
        hard = rng.normal(size=images)
        chance = ndtr(ndtri(true)[:, None] * np.sqrt(2) - hard)
        right = (rng.random((len(true), images)) < chance).sum(axis=1)
    else:
        right = rng.binomial(images, true)
    ends = [wilson_interval(int(count), images) for count in right]
    return Ends(right / images, np.array([e.low for e in ends]), np.array([e.high for e in ends]))


def of(ends: Ends, rows: NDArray[np.bool_]) -> Ends:
    """Return the ends of some models."""
    return Ends(*(part[rows] for part in ends))


def true_median() -> float:
    """Return the median distance from the line of all models that the group could have."""
    rng = np.random.default_rng(1)
    middle = rng.normal(0.6, np.hypot(0.25, 0.1), 2_000_000)
    shifted = SLOPE * middle + INTERCEPT + LIFT + SCATTER * rng.normal(size=len(middle))
    return float(np.median(ndtr(shifted) - ndtr(SLOPE * middle + INTERCEPT)))


TRUE_MEDIAN = true_median()


def coverages(rng: np.random.Generator, sizes: list[int], images: int, shared: bool, draws: int) -> dict[str, float]:
    """Return the shares of intervals that hold the true value: of one model of the group, and of its median."""
    held: dict[str, list[bool]] = {"model": [], "median": []}
    for _ in range(draws):
        models = Population.draw(rng, sizes)
        x = observed(rng, models.x, STANDARD, shared)
        y = observed(rng, models.y, images, shared)
        inside = models.baseline & (x.value * (1 - x.value) * y.value * (1 - y.value) > 0)
        own = Families.of(models.families.codes[inside])
        line = fit_line(x.value[inside], y.value[inside], method="ols", families=own)
        low, high = robustness_ends(of(x, ~models.baseline), of(y, ~models.baseline), line)
        true = models.y - ndtr(SLOPE * ndtri(models.x) + INTERCEPT)
        held["model"].append(bool(low[0] <= true[~models.baseline][0] <= high[0]))
        value = (y.value - line.predict(x.value))[~models.baseline]
        group = Families.of(models.families.codes[~models.baseline])
        low_median, high_median = median_ends(median(value, group), x.value[~models.baseline], line)
        held["median"].append(bool(low_median <= TRUE_MEDIAN <= high_median))
    return {name: float(np.mean(found)) for name, found in held.items()}


def main() -> None:
    """Print a line a case, and record the least, median and greatest share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000)
    args = parser.parse_args()
    record = Recorder("coverage_robustness", parser, args, sizes={"draws": (1000,)}, seeded=True)
    for kind, shared in (("images of its own", False), ("shared images", True)):
        found: dict[str, list[float]] = {"model": [], "median": []}
        for place, (name, sizes) in enumerate(BASELINES.items()):
            for name_of_set, images in SETS.items():
                shares = coverages(np.random.default_rng([place, images]), sizes, images, shared, args.draws)
                print(f"{kind}, {name}, {name_of_set}: {shares}", flush=True)
                for row, share in shares.items():
                    found[row].append(share)
        for row, held in found.items():
            record.add(f"{kind}/{row}/cases", len(held))
            record.add(f"{kind}/{row}/covered", (min(held), float(np.median(held)), max(held)))
    record.write()


if __name__ == "__main__":
    main()
