"""How often the intervals and p-values that are offered keep their promise: simulation, seeded.

    python benchmarks/coverage.py                  # 1,000 draws of each case, some minutes
    python benchmarks/coverage.py --draws 200      # a quick look

Of each case: the share of draws that have an interval ("offered"), the share of those that hold the true value
(nominal 0.95), and the share of all draws whose interval is there and wrong (at most 0.05 wherever intervals are
offered). Of a p-value: the share below 0.05 where its null hypothesis is true.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from record import Recorder

from analyze import metrics
from analyze.intervals import paired_difference, wilson_interval
from analyze.intervals.calibration_intervals import ece_interval
from analyze.intervals.detection_intervals import detection_interval
from analyze.intervals.detection_pairs import NAMES, SortedScores, detection_numbers
from analyze.intervals.detection_points import POINTS, point_interval
from analyze.intervals.means import mean_interval
from analyze.intervals.medians import median_interval
from analyze.intervals.ranking import Ranking
from analyze.intervals.selective_intervals import area_interval, coverage_interval, risk_interval
from analyze.suites.further import skill_parts
from closerlook_common.errors import UserError

TRUTH_ROWS = 1_000_000
"""Rows from which the true values are computed."""

Interval = tuple[float, float] | None
Draw = Callable[[np.random.Generator, int], Any]


class Case(NamedTuple):
    """A population, the sizes to draw from it, and what is computed of a draw.

    Attributes
    ----------
    name
        What is drawn.
    sizes
        Rows of a draw (of each side, for detection: ID and OOD).
    draw
        (rng, n) -> columns.
    truth
        Columns of many rows -> true value by name.
    intervals
        Columns -> interval by name, None where there is none.
    """

    name: str
    sizes: tuple[Any, ...]
    draw: Draw
    truth: Callable[[Any], Mapping[str, float]]
    intervals: Callable[[Any], Mapping[str, Interval]]


def offered(make: Callable[[], Any]) -> Interval:
    """Return the ends of an interval, None where it is refused."""
    try:
        found = make()
    except UserError:
        return None
    return None if math.isnan(found.low) else (found.low, found.high)


def confidences(a: float, b: float, power: float) -> Draw:
    """Return a draw of Beta(a, b) confidences whose odds of being right are those of the confidence, to a power."""

    def draw(rng: np.random.Generator, n: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        confidence = rng.beta(a, b, n)
        odds = (confidence / (1 - confidence)) ** power
        return confidence, rng.random(n) < odds / (1 + odds)

    return draw


def top_label_truth(columns: Any) -> dict[str, float]:
    """Return the true value of everything that has an interval, of many rows."""
    ranking = Ranking(*columns)
    return {
        "accuracy": float(np.mean(columns[1])),
        "ece": ranking.expected_calibration_error(),
        "calibration_gap": ranking.signed_calibration_gap(),
        "coverage_at_risk5": ranking.coverage_at_risk(risk=0.05),
        "risk_at_coverage80": ranking.risk_at_coverage(coverage=0.8),
        **{
            name: float(getattr(ranking, name)())
            for name in ("aurc", "e_aurc", "augrc", "e_augrc", "correctness_auroc")
        },
    }


def top_label_intervals(columns: Any) -> dict[str, Interval]:
    """Return the intervals of a draw."""
    ranking = Ranking(*columns)
    areas = ("aurc", "e_aurc", "augrc", "e_augrc", "correctness_auroc")
    return {
        "accuracy": offered(lambda: wilson_interval(int(columns[1].sum()), len(columns[1]))),
        "ece": offered(lambda: ece_interval(ranking)),
        "calibration_gap": offered(lambda: mean_interval(ranking.gaps, bounded=True)),
        "coverage_at_risk5": offered(lambda: coverage_interval(ranking, risk=0.05)),
        "risk_at_coverage80": offered(lambda: risk_interval(ranking, coverage=0.8)),
        **{name: offered(lambda name=name: area_interval(ranking, name)) for name in areas},  # type: ignore[misc]
    }


def scores(distance: float, spread: float) -> Draw:
    """Return a draw of normal ID and OOD scores."""

    def draw(rng: np.random.Generator, sizes: Any) -> tuple[SortedScores, SortedScores]:
        n, m = (sizes, sizes) if isinstance(sizes, int) else sizes
        return SortedScores.of(rng.normal(distance, 1, n)), SortedScores.of(rng.normal(0, spread, m))

    return draw


def detection_truth(columns: Any) -> dict[str, float]:
    """Return the true values that do not depend on the sizes; the average precision does and is left out."""
    found = detection_numbers(*columns)
    return {name: found[name] for name in ("auroc", "fpr95_id", "fpr95_ood")}


def detection_intervals(columns: Any) -> dict[str, Interval]:
    """Return the intervals of a draw."""
    return {name: offered(lambda name=name: detection_interval(name, *columns)) for name in NAMES[:3]}  # type: ignore[misc]


def point_truth(columns: Any) -> dict[str, float]:
    """Return the true values of points and parts of the ROC curve."""
    inside, outside = (side.values for side in columns)
    area = metrics.partial_auroc(inside, outside, max_fpr=0.1)
    return {"eer": metrics.equal_error_rate(inside, outside), "partial_auroc10": area}


def point_intervals(columns: Any) -> dict[str, Interval]:
    """Return the intervals of a draw."""
    return {name: offered(lambda name=name: point_interval(name, *columns)) for name in POINTS}  # type: ignore[misc]


def losses(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Draw log-losses: mostly small, now and then large."""
    confidence = rng.beta(8, 2, n)
    return -np.log(np.where(rng.random(n) < confidence, confidence, (1 - confidence) / 20))


def rare(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Draw differences of log-losses of which 3 % make up the whole."""
    return np.where(rng.random(n) < 0.03, rng.exponential(8, n), 0.0) - 0.24 + rng.normal(0, 0.1, n)


def of_losses(columns: Any) -> dict[str, Interval]:
    """Return the interval of a mean log-loss."""
    return {"nll": offered(lambda: mean_interval(columns, bounded=False))}


def difference(gaps: Any) -> dict[str, Interval]:
    """Return the interval of a paired difference."""
    rng = np.random.default_rng(0)
    made = lambda: paired_difference(gaps, np.zeros(gaps.size), rng=rng, replicates=999)  # noqa: E731
    return {"paired difference": offered(made)}


def answers(rng: np.random.Generator, n: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Draw log-losses and labels of four classes of unequal size."""
    labels = rng.choice(4, n, p=(0.4, 0.3, 0.2, 0.1))
    z = rng.normal(size=(n, 4)) * 1.5
    z[np.arange(n), labels] += 1.5
    z -= np.log(np.exp(z).sum(axis=1, keepdims=True))
    return -z[np.arange(n), labels], labels


def skill(columns: Any) -> dict[str, float]:
    """Return the skill of the log-loss of many rows."""
    return {"d2_log_loss": skill_parts(*columns, logarithmic=True)[0]}


def of_skill(columns: Any) -> dict[str, Interval]:
    """Return the interval of the skill."""
    value, influence = skill_parts(*columns, logarithmic=True)
    return {"d2_log_loss": offered(lambda: mean_interval(value + influence, bounded=False))}


def ranks(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Draw ranks of retrieval: many first places, a long tail."""
    return np.ceil(np.exp(rng.normal(1.5, 1.5, n)))


def rank_truth(columns: Any) -> dict[str, float]:
    """Return the median of many ranks."""
    return {"median_rank": float(np.median(columns))}


def of_ranks(columns: Any) -> dict[str, Interval]:
    """Return the interval of the median rank."""
    return {"median_rank": offered(lambda: median_interval(columns))}


def mean_of(columns: Any) -> dict[str, float]:
    """Return the mean under both names."""
    return {"nll": float(columns.mean()), "paired difference": float(columns.mean())}


POINT_SIZES = ((200, 100), (1000, 200), (1000, 500), (500, 5000), (2000, 5000))

CASES = (
    *(
        Case(f"Beta({a:g}, {b:g}), odds to the power {power:g}", (300, 1000, 5000), confidences(a, b, power),
             top_label_truth, top_label_intervals)
        for a, b, power in ((8, 2, 1.0), (8, 2, 0.55), (20, 1, 0.7), (2, 2, 0.5))
    ),
    *(
        Case(f"normal scores {distance:g} apart, spread {spread:g}", ((200, 100), (1000, 200), (2000, 5000)),
             scores(distance, spread), detection_truth, detection_intervals)
        for distance, spread in ((0.0, 1.0), (1.0, 1.0), (2.0, 1.5), (4.0, 1.0))
    ),
    *(
        Case(f"normal scores {distance:g} apart, spread {spread:g}", POINT_SIZES, scores(distance, spread),
             point_truth, point_intervals)
        for distance, spread in ((0.0, 1.0), (1.0, 1.0), (2.0, 1.5), (4.0, 1.0))
    ),
    Case("labels and log-losses", (300, 1000, 5000), answers, skill, of_skill),
    Case("ranks of retrieval", (50, 300, 1000, 5000), ranks, rank_truth, of_ranks),
    Case("log-losses", (200, 1000, 5000), losses, mean_of, of_losses),
    Case("differences, 3 % of images decide", (200, 1000, 5000), rare, mean_of, difference),
)  # fmt: skip


def measured(case: Case, draws: int) -> Iterator[tuple[str, str, str, float, float, float]]:
    """Yield case, size, name, offered, covered and wrong of each interval."""
    rng = np.random.default_rng(0)
    truth = case.truth(case.draw(rng, TRUTH_ROWS))
    for size in case.sizes:
        hits: dict[str, list[bool | None]] = {}
        for _ in range(draws):
            for name, ends in case.intervals(case.draw(rng, size)).items():
                found = None if ends is None else bool(ends[0] <= truth[name] <= ends[1])
                hits.setdefault(name, []).append(found)
        for name, all_of in hits.items():
            some = [hit for hit in all_of if hit is not None]
            covered = float(np.mean(some)) if some else math.nan
            yield case.name, str(size), name, len(some) / draws, covered, some.count(False) / draws


def rejections(draws: int) -> Iterator[tuple[str, int, float]]:
    """Yield p-value, size, and how often a true null hypothesis has one below 0.05."""
    rng = np.random.default_rng(0)
    calibrated = confidences(8, 2, 1.0)
    for n in (150, 1000, 5000):
        found: dict[str, list[float]] = {}
        for _ in range(draws):
            columns = calibrated(rng, n)
            for name in ("ece_p", "spiegelhalter_p", "ks_p", "kuiper_p"):
                function = metrics.METRICS[name].function
                assert function is not None
                found.setdefault(name, []).append(function(*columns))
            gaps = rare(rng, max(n, 200))
            pair = paired_difference(gaps, np.zeros(gaps.size), rng=rng, replicates=499)
            found.setdefault("paired difference", []).append(pair.p_value)
            right = rng.random((2, n)) < 0.7
            binary = paired_difference(right[0].astype(float), right[1].astype(float), rng=rng)
            found.setdefault("paired difference of accuracies", []).append(binary.p_value)
        for name, values in found.items():
            yield name, n, float(np.mean(np.array(values) < 0.05))


GROUPS = {
    "accuracy": ("accuracy",), "calibration gap": ("calibration_gap",), "ECE": ("ece",), "NLL": ("nll",),
    "AURC": ("aurc", "e_aurc", "augrc", "e_augrc"), "correctness AUROC": ("correctness_auroc",),
    "risk at coverage": ("risk_at_coverage80",), "coverage at risk": ("coverage_at_risk5",), "AUROC": ("auroc",),
    "FPR95": ("fpr95_id", "fpr95_ood"), "D2": ("d2_log_loss",), "median rank": ("median_rank",),
    "paired difference": ("paired difference",), "EER": ("eer",), "partial AUROC": ("partial_auroc10",),
}  # fmt: skip
"""Row of the table -> the numbers that it takes together."""
TESTS = {
    "ECE": "ece_p", "Spiegelhalter": "spiegelhalter_p", "Kolmogorov-Smirnov": "ks_p", "Kuiper": "kuiper_p",
    "paired difference": "paired difference", "McNemar": "paired difference of accuracies",
}  # fmt: skip
"""Row of the table -> p-value."""


def main() -> None:
    """Print both tables as Markdown, and record what the README shows of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=1000, help="of each case (default: 1000)")
    args = parser.parse_args()
    draws, record = args.draws, Recorder("coverage", parser, args, sizes={"draws": ()}, seeded=True)
    shares: dict[str, list[tuple[float, float, float]]] = {}
    below: dict[str, list[float]] = {}
    print(f"{draws} draws a case; the standard error of a share near 0.95 is {math.sqrt(0.0475 / draws):.3f}\n")
    print("| drawn | rows | interval | offered | covered | there and wrong |\n| --- | --- | --- | --- | --- | --- |")
    for case in CASES:
        for name, size, metric, often, covered, wrong in measured(case, draws):
            shown = f"{covered:.3f}" if often else "-"
            print(f"| {name} | {size} | {metric} | {often:.2f} | {shown} | {wrong:.3f} |", flush=True)
            shares.setdefault(metric, []).append((often, covered, wrong))
    print("\n| p-value | rows | below 0.05 where the null hypothesis is true |\n| --- | --- | --- |")
    for name, n, share in rejections(draws):
        print(f"| {name} | {n} | {share:.3f} |", flush=True)
        below.setdefault(name, []).append(share)
    for group, members in GROUPS.items():
        record.add_shares(f"interval/{group}", [share for name in members for share in shares[name]])
    for row, name in TESTS.items():
        record.add(f"p/{row}", below[name])
    record.write()


if __name__ == "__main__":
    main()
