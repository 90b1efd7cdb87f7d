"""Rates and times left of a run are those of its clock."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from extract.commands import progress
from extract.commands.progress import Reporter
from extract.passes.events import Event
from extract.passes.pace import Pace


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.floats(0.5, 1000), st.floats(0, 100), st.floats(0, 1e6))
def test_a_steady_run_is_foretold(batches: list[int], speed: float, loading: float, start: float) -> None:
    """Jobs of batches of 10 rows at ``speed`` rows a second: after the first batch the end is known."""
    pace = Pace({("m", str(job)): 10 * n for job, n in enumerate(batches)})
    now, end = start + loading, start + loading + 10 * sum(batches) / speed
    for job, n in enumerate(batches):
        pace.begin("m", str(job), now)
        for _ in range(n):
            now += 10 / speed
            pace.advance("m", str(job), 10, now)
            assert pace.rate() == pytest.approx(speed, rel=1e-3)
            assert now + (pace.seconds_left(now) or 0) == pytest.approx(end, rel=1e-6, abs=1e-3)
        pace.end("m", str(job))
    assert (pace.done, pace.left) == (pace.total, 0)


def test_waits_between_passes_are_part_of_the_time_left_and_not_of_the_rate() -> None:
    pace = Pace({("a", "x"): 1000, ("b", "x"): 1000})
    pace.begin("a", "x", 100.0)
    for second in range(1, 11):
        pace.advance("a", "x", 100, 100.0 + second)
    pace.end("a", "x")
    assert pace.seconds_left(110.0) == pytest.approx(10)
    pace.begin("b", "x", 130.0)  # loading took 20 s
    assert pace.seconds_left(130.0) == pytest.approx(30)


def test_what_was_sealed_failed_or_began_again_is_counted_as_it_is() -> None:
    rows = {("a", "x"): 100, ("b", "x"): 100, ("c", "x"): 100, ("c", "y"): 50}
    pace = Pace(rows)
    pace.end("a", "x")  # sealed before: no work, and none left
    assert (pace.total, pace.left, pace.rate()) == (250, 250, None)
    pace.begin("b, c", "x", 0.0)
    pace.advance("b, c", "x", 80, 1.0)
    assert pace.left == 170
    pace.begin("b, c", "x", 2.0)  # its process was lost
    assert pace.left == 250
    pace.advance("b, c", "x", 200, 4.0)
    assert (pace.done, pace.left) == (200, 50)
    pace.end("c", "")  # the model failed as a whole
    assert pace.left == 0


def test_lines_hold_the_rate_and_the_time_left(monkeypatch: pytest.MonkeyPatch, clock: Any) -> None:
    monkeypatch.setattr(progress.time, "monotonic", clock.now)
    out = io.StringIO()
    reporter = Reporter({("m", "pets"): 10_000, ("m", "cats"): 2_000}, 1, Console(file=out, width=200))
    clock.advance(60)  # loading
    reporter(Event("loading", "m"))
    reporter(Event("done", "m", "cats", text="sealed before"))
    reporter(Event("pass", "m", "pets"))
    for _ in range(30):
        clock.advance(1)
        reporter(Event("rows", "m", "pets", rows=100))
    reporter._patience.end()
    lines = [line for line in out.getvalue().splitlines() if "images x models" in line]
    assert lines[0] == "model 1 of 1, pets: 100 of 10,000 images x models, 100 a second, 1 min 39 s left."
    assert lines[1] == "model 1 of 1, pets: 2,100 of 10,000 images x models, 100 a second, 1 min 19 s left."
