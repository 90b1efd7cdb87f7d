"""What is left of a long run goes on in processes: the same numbers, and none of them is left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache_schema
from analyze.evaluate import evaluate, processes
from analyze.evaluate.cells import Cells
from analyze.evaluate.engine import Cell, Computed, Ledger, Running
from analyze.results import read_results

ROOT = Path(__file__).parents[2]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Go on in processes as soon as one work is done."""
    monkeypatch.setattr(processes, "TRIAL_SECONDS", 0.0)
    monkeypatch.setattr(processes, "LEAST_SECONDS", 0.0)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 5, 300)
    for index in range(5):
        for dataset, role in (("val", "id"), ("far", "ood")):
            logits = rng.normal(size=(300, 5)).astype(np.float32)
            logits[np.arange(300), labels] += 2.0 if role == "id" else 0.0
            cache_schema.write_store(
                tmp_path / "cache",
                model=cache_schema.ModelCard(id=f"m{index}"),
                dataset=cache_schema.DatasetCard(id=dataset, role=role),
                logits=logits,
                labels=labels if role == "id" else np.full(300, -1),
            )
    return tmp_path / "cache"


COMMAND = """
import sys
from analyze.cli import main
from analyze.evaluate import processes
if __name__ == "__main__":
    processes.TRIAL_SECONDS, processes.LEAST_SECONDS = 0.0, float(sys.argv[1])
    answers = processes._answers
    processes._answers = lambda works, *more: print(len(works), "in processes") or answers(works, *more)
    sys.exit(main(sys.argv[2:]))
"""


def test_processes_give_the_table_of_threads(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "command.py").write_text(COMMAND)

    def run(least: str, out: str) -> str:
        words = ["metrics", str(cache), "--plugins", str(ROOT / "examples" / "own_metric.py"), "--jobs", "2", "-o", out]
        done = subprocess.run(
            [sys.executable, "command.py", least, *words], cwd=tmp_path, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "in processes" in run("0", "processes.parquet")
    assert "in processes" not in run("1e9", "threads.parquet")
    one, other = (read_results(tmp_path / f"{name}.parquet") for name in ("processes", "threads"))
    assert one.equals(other, null_equal=True)
    assert "confidence_when_wrong" in one["metric"].to_list()
    run("0", "processes.parquet")
    assert read_results(tmp_path / "processes.parquet").equals(one, null_equal=True)


@pytest.mark.usefixtures("at_once")
def test_a_model_that_cannot_be_read_stops_no_other(cache: Path) -> None:
    opened = cache_schema.open_cache(cache)
    wanted = evaluate(opened).table
    (next((cache / "m4").glob("val-*")) / "zarr.json").write_text("{}")
    found = evaluate(cache_schema.open_cache(cache), running=Running(jobs=2, processes=True))
    rest = wanted.filter(wanted["model"] != "m4")
    assert found.table.filter(found.table["model"] != "m4").equals(rest, null_equal=True)


@dataclass
class Single:
    """A work of one cell."""

    name: str
    problems: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def cells(self) -> list[Cell]:
        return [Cell(self.name, self.name)]

    def compute(self, missing: Sequence[Cell], threads: int) -> Iterator[Computed]:
        for cell in missing:
            yield Computed(cell, [])


@dataclass
class Slow(Single):
    """One that takes a while."""

    def compute(self, missing: Sequence[Cell], threads: int) -> Iterator[Computed]:
        time.sleep(0.2)
        yield from super().compute(missing, threads)


KNOWN = [Single(f"known {index}") for index in range(200)]
SLOW = [Slow(f"slow {index}") for index in range(30)]


def spread(works: list[Single], function: Any, *words: object, take: Any = lambda *_: None) -> dict[str, str]:
    """Run works by a function of the standard library; returns the failures."""
    ledger = Ledger(works, Cells(None), lambda *_: None, None)
    processes.run_spread(works, ledger, Running(jobs=2), function, lambda _: words, take)
    return ledger.result().failures


WORKS = [Single(str(index)) for index in range(6)]


def test_works_that_are_known_say_nothing_of_the_time_that_the_others_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "TRIAL_SECONDS", 0.3)
    monkeypatch.setattr(processes, "LEAST_SECONDS", 0.9)
    ledger = Ledger([*KNOWN, *SLOW], Cells(None), lambda *_: None, None)
    for work in KNOWN:
        ledger.kept.put(work.name, [])
    taken: list[str] = []
    processes.run_spread(
        ledger.works, ledger, Running(jobs=2), float, lambda _: ("1",), lambda work, _: taken.append(work.name)
    )
    assert taken
    assert set(taken) < {work.name for work in SLOW}


@pytest.mark.usefixtures("at_once")
def test_a_process_that_is_killed_is_a_failure_of_its_works() -> None:
    failures = spread(WORKS, os._exit, 9)
    assert failures
    assert all("`jobs` 1" in reason for reason in failures.values())


@pytest.mark.usefixtures("at_once")
def test_an_interruption_ends_the_processes() -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    begun = time.monotonic()
    ledger = Ledger(WORKS, Cells(None), lambda *_: None, None)
    seconds = iter([0.0, *[300.0] * 10])
    with pytest.raises(KeyboardInterrupt):
        processes.run_spread(WORKS, ledger, Running(jobs=2), time.sleep, lambda _: (next(seconds),), interrupted)
    assert time.monotonic() - begun < 120
    assert multiprocessing.active_children() == []


SCRIPT = """
import multiprocessing, sys, time
sys.path.insert(0, {tests!r})
from closerlook_common.child_processes import begin_child
from concurrent.futures import ProcessPoolExecutor
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, begin_child) as pool:
        futures = [pool.submit(time.sleep, 0.1), pool.submit(time.sleep, 300), pool.submit(time.sleep, 300)]
        futures[0].result()
        print(*[process.pid for process in multiprocessing.active_children()], flush=True)
        time.sleep(300)
"""


def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(SCRIPT.format(tests=str(ROOT)))
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


SLOW_METRIC = """
import os, pathlib, time
from closerlook.plugins import Metric


def slow(correct):
    pathlib.Path(f"at-work-{os.getpid()}").touch()
    time.sleep(0.5)
    return float(correct.mean())


METRICS = (Metric("slow", "Slow", "higher", "fraction", columns=("correct",), function=slow),)
"""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_command_that_is_stopped_says_so_and_nothing_else(
    cache: Path, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    """No traceback of a process, and no warning of semaphores that one left behind."""
    (tmp_path / "command.py").write_text(COMMAND)
    (tmp_path / "slow.py").write_text(SLOW_METRIC)
    words = ["metrics", str(cache), "--plugins", "slow.py", "--only", "slow", "--jobs", "2", "-o", "out.parquet"]
    parent = subprocess.Popen(
        [sys.executable, "command.py", "0", *words], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(pids := at_work(tmp_path) - {parent.pid}) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(pids) == 2
    os.killpg(parent.pid, sent)
    error = parent.communicate(timeout=60)[1]
    assert parent.returncode == code, error
    lines = [line for line in error.splitlines() if line and not line.startswith("computing")]
    assert len(lines) == 1, error
    assert lines[0].startswith("analyze: interrupted; finished work is kept")
    assert not any(map(alive, pids))


def at_work(folder: Path) -> set[int]:
    return {int(path.name.rpartition("-")[2]) for path in folder.glob("at-work-*")}
