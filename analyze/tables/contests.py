"""Detectors compared on the same images as printable tables, and as a file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from analyze.evaluate.pairing import BY_ROW
from analyze.results.csv_text import write_csv
from analyze.results.titles import metric_title
from analyze.tables.comparisons import check_output
from analyze.trends.multiplicity import benjamini_hochberg, holm
from closerlook_common.console.terminal import counted
from closerlook_common.user_cache import replaced_whole

if TYPE_CHECKING:
    from rich.table import Table

    from analyze.intervals import PairedDifference
    from analyze.ood.paired import Contest

ALPHA = 0.05
"""Probability of setting apart any detector of a set that is as good as the best."""


class Judged(NamedTuple):
    """Tests of every pair of a contest, corrected over these pairs.

    Attributes
    ----------
    holm, bh
        Pair of places -> p-value after Holm, and after Benjamini and Hochberg; NaN where there is no test.
    tests
        Number of pairs that are tested.
    as_good
        (k,) whether an entry is not distinguished from the best.
    """

    holm: dict[tuple[int, int], float]
    bh: dict[tuple[int, int], float]
    tests: int
    as_good: list[bool]


def judged(contest: Contest) -> Judged:
    """Correct the p-values of a contest over all its pairs, and say which entries are as good as the best.

    The best was picked among all entries: a correction over every pair, not only those with the best, allows for that.
    """
    pairs = list(contest.differences)
    p_values = [contest.differences[pair].p_value for pair in pairs]
    by_holm = dict(zip(pairs, holm(p_values).tolist(), strict=True))
    by_bh = dict(zip(pairs, benjamini_hochberg(p_values).tolist(), strict=True))
    tests = sum(not math.isnan(p) for p in p_values)
    as_good = [
        place == contest.best or not by_holm[min(place, contest.best), max(place, contest.best)] < ALPHA
        for place in range(len(contest.entries))
    ]
    return Judged(by_holm, by_bh, tests, as_good)


def leaders_of(contests: Sequence[Contest], by_intervals: Mapping[str, set[str]]) -> tuple[dict[str, set[str]], bool]:
    """Return the detectors of each set that are not distinguished from the best, and whether all of them are tested.

    Parameters
    ----------
    contests
        One an OOD set.
    by_intervals
        The same by the numbers' own intervals: they decide where a set is too small or too far apart for a test.
    """
    found: dict[str, set[str]] = {}
    whole = True
    for contest in contests:
        marks = judged(contest)
        found[contest.dataset] = kept = set()
        for place, (_, detector) in enumerate(contest.entries):
            pair = (min(place, contest.best), max(place, contest.best))
            tested = place == contest.best or not math.isnan(contest.differences[pair].p_value)
            whole &= tested
            if marks.as_good[place] if tested else detector in by_intervals.get(contest.dataset, ()):
                kept.add(detector)
    return found, whole


def contest_tables(contests: Sequence[Contest]) -> Iterator[Table]:
    """Yield a table for each contest, the best first, with the difference of each from the best."""
    from rich.text import Text

    from closerlook_common.console.terminal import as_text, plain_table, printable

    for contest in contests:
        found = judged(contest)
        several = len({model for model, _ in contest.entries}) > 1
        name = metric_title(contest.metric)
        table = plain_table(f"{contest.dataset}, {name}, {counted(contest.n, 'image')}")
        for title in (*["model"] * several, "detector"):
            table.add_column(title, overflow="fold")
        for title in (name, "less the best", "interval", "p", f"p (Holm, {found.tests} tests)"):
            table.add_column(title, justify="right", no_wrap=True)
        order = np.argsort(np.array(contest.values) * (-1 if contest.higher else 1), kind="stable")
        for place in order.tolist():
            model, detector = contest.entries[place]
            style = "bold" if found.as_good[place] else ""
            cells = [as_text(text) for text in ((model, detector) if several else (detector,))]
            cells.append(Text(f"{contest.values[place]:.4f}", style=style))
            table.add_row(*cells, *map(Text, _beside(contest, found, place)))
        notes = ["bold: not distinguished from the best (Holm, 5 %)"]
        if contest.paired_by == BY_ROW:
            notes.append("paired by row: a store holds no image names")
        for (model, detector), reason in contest.reasons.items():
            notes.append(f"{f'{model} ' * several}{detector}: {reason}")
        table.caption = Text("\n".join(map(printable, notes)))
        yield table


def _beside(contest: Contest, found: Judged, place: int) -> tuple[str, str, str, str]:
    """Return the difference from the best, its interval and both p-values, as they are printed."""
    if place == contest.best:
        return "", "", "", ""
    gap, low, high, p_value = _less_the_best(contest, place)
    pair = (min(place, contest.best), max(place, contest.best))
    interval = "-" if math.isnan(low) else f"[{low:+.4f}, {high:+.4f}]"
    return f"{gap:+.4f}", interval, _p(p_value), _p(found.holm[pair])


def _less_the_best(contest: Contest, place: int) -> tuple[float, float, float, float]:
    pair = (min(place, contest.best), max(place, contest.best))
    found = contest.differences[pair]
    if place < contest.best:
        return found.difference, found.low, found.high, found.p_value
    return -found.difference, -found.high, -found.low, found.p_value


def _p(p_value: float) -> str:
    if math.isnan(p_value):
        return "-"
    return f"{p_value:.4f}" if p_value >= 0.0001 else f"{p_value:.0e}"


def contest_frame(contests: Sequence[Contest]) -> pl.DataFrame:
    """Return every number, and every pair, of contests.

    Returns
    -------
    polars.DataFrame
        Columns ``dataset metric model detector other_model other_detector value low high p_value p_holm p_bh tests test
        as_good n paired_by reason``. An entry's own number has no ``other``; a pair's ``value`` is the first less the
        other, and ``p_holm`` and ``p_bh`` are over the ``tests`` pairs of the same set and metric.
    """
    rows: list[dict[str, object]] = []
    for contest in contests:
        found = judged(contest)
        base = {"dataset": contest.dataset, "metric": contest.metric, "n": contest.n, "paired_by": contest.paired_by}
        for (model, detector), value, good in zip(contest.entries, contest.values, found.as_good, strict=True):
            reason = contest.reasons.get((model, detector), "")
            own = {"model": model, "detector": detector, "value": value, "as_good": good, "reason": reason}
            rows.append({**base, **own})
        for entry, reason in contest.reasons.items():
            if entry not in contest.entries:
                rows.append({**base, "model": entry[0], "detector": entry[1], "reason": reason})
        for (i, j), difference in contest.differences.items():
            names = dict(zip(("model", "detector"), contest.entries[i], strict=True))
            others = dict(zip(("other_model", "other_detector"), contest.entries[j], strict=True))
            corrected = {"p_holm": _known(found.holm[i, j]), "p_bh": _known(found.bh[i, j]), "tests": found.tests}
            rows.append({**base, **names, **others, **_numbers(difference), **corrected})
    texts = ("dataset", "metric", "model", "detector", "other_model", "other_detector")
    numbers = ("value", "low", "high", "p_value", "p_holm", "p_bh")
    more = {
        "tests": pl.Int64(),
        "test": pl.String(),
        "as_good": pl.Boolean(),
        "n": pl.Int64(),
        "paired_by": pl.String(),
    }
    schema = {
        **dict.fromkeys(texts, pl.String()),
        **dict.fromkeys(numbers, pl.Float64()),
        **more,
        "reason": pl.String(),
    }
    return pl.DataFrame(rows, schema=schema)


def _numbers(difference: PairedDifference) -> dict[str, object]:
    names = ("low", "high", "p_value")
    ends = {name: _known(getattr(difference, name)) for name in names}
    return {"value": difference.difference, **ends, "test": difference.method}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def write_contests(contests: Sequence[Contest], path: Path) -> None:
    """Write every number and every pair of contests, as CSV or Parquet by the file's ending."""
    check_output(path)
    frame = contest_frame(contests)
    if path.suffix == ".csv":
        write_csv(frame, path)
    else:
        with replaced_whole(path) as part:
            frame.write_parquet(part)
