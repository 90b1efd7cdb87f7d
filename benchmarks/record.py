"""The figures of the benchmarks in one file, ``benchmarks/figures.json``: what was measured, when and on what machine.

A script makes a ``Recorder``, adds a figure under each of its declared names (``declared.py``) and calls ``write``,
which replaces the rows of these names and no other. Rows that a person should look at before a table quotes them go to
``figures-trial.json`` instead: those of a run with other sizes than the tables', and times that were measured while
other programs used the processor.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from declared import DECLARED

HERE = Path(__file__).resolve().parent
FOLDER = "CLOSERLOOK_BENCHMARK_FIGURES"
"""Environment variable: a folder for both files, in place of ``benchmarks``."""
NOT_RECORDED = "not recorded"
BUSY_CORES = 0.25
"""Cores that other programs use, from which on a machine counts as busy."""
PLACES = ("folder", "json", "photographs", "task", "memory_of")
"""Options that name a file or a folder, or that a script hands to itself: not part of the recorded command."""
MARK = re.compile(r"(>=|<=|<|>) (\d+(?:\.\d+)?)")
WORDS = {">=": "at least", "<=": "at most", "<": "under", ">": "over"}


@dataclass(frozen=True)
class Machine:
    """What a figure was measured on; what is not known is "not recorded".

    Attributes
    ----------
    cpu
        Model of the processor.
    cores
        Number of cores.
    python, numpy
        Versions.
    other
        What else bears on the figures: a GPU, further versions, settings of the BLAS.
    """

    cpu: str = NOT_RECORDED
    cores: int | str = NOT_RECORDED
    python: str = NOT_RECORDED
    numpy: str = NOT_RECORDED
    other: str = ""

    def __str__(self) -> str:
        shown = {
            "processor": (self.cpu, "{}"), "cores": (self.cores, "{} cores"), "Python": (self.python, "Python {}"),
            "numpy": (self.numpy, "numpy {}"),
        }  # fmt: skip
        unknown = [name for name, (value, _) in shown.items() if value == NOT_RECORDED]
        if len(unknown) == len(shown):
            unknown = ["machine"]
        known = [text.format(value) for value, text in shown.values() if value != NOT_RECORDED]
        parts = [", ".join(filter(None, [*known, self.other]))]
        parts += [f"{' and '.join(unknown)} {NOT_RECORDED}"] if unknown else []
        return "; ".join(filter(None, parts))


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of a benchmark.

    Attributes
    ----------
    name
        ``script/part/quantity``, as declared.
    figure
        The number, or several that belong together; none where there is only a ``detail``.
    unit
        Unit of the figure.
    ratio
        Ratio to the peer or to the limit, where there is one.
    mark
        What is asked of the ratio, or of the figure where there is no ratio: ``>= 20``, ``flat``, or nothing.
    detail
        What belongs to this figure alone, such as the range of several runs.
    command, date, machine
        Of the run: the command line, the day (``2026-11-25``) and the machine, "not recorded" where it is not known.
    note
        Of the run: "nothing else running", "busy machine".
    """

    name: str
    figure: tuple[float, ...]
    unit: str
    ratio: float | None = None
    mark: str = ""
    detail: str = ""
    command: str = NOT_RECORDED
    date: str = NOT_RECORDED
    machine: Machine = field(default_factory=Machine)
    note: str = ""

    def __post_init__(self) -> None:
        numbers = [*self.figure, *([] if self.ratio is None else [self.ratio])]
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"{self.name}: {numbers} holds a number that is not finite")
        if not self.figure and not self.detail:
            raise ValueError(f"{self.name}: neither a figure nor a detail")
        if self.mark not in ("", "flat") and not MARK.fullmatch(self.mark):
            raise ValueError(f"{self.name}: the mark {self.mark!r} is not like '>= 20', 'flat' or ''")
        if self.date != NOT_RECORDED:
            datetime.date.fromisoformat(self.date)

    def __format__(self, spec: str) -> str:
        """Return the numbers, separated by commas, in a format of floats; the detail where there is no number."""
        texts = ["0" if number == 0 and spec.endswith("e") else format(number, spec) for number in self.figure]
        return ", ".join(re.sub(r"(e[+-])0+(?=\d)", r"\1", text) for text in texts) or self.detail

    @property
    def asked(self) -> str:
        """The mark in words, without its unit."""
        found = MARK.fullmatch(self.mark)
        return f"{WORDS[found[1]]} {float(found[2]):,g}" if found else self.mark

    @property
    def verdict(self) -> str:
        """``met`` or ``missed``; nothing where the mark is not a number."""
        found = MARK.fullmatch(self.mark)
        if not found:
            return ""
        limit = float(found[2])
        numbers = self.figure if self.ratio is None else (self.ratio,)
        compare: dict[str, Callable[[float], bool]] = {
            ">=": lambda number: number >= limit, "<=": lambda number: number <= limit,
            "<": lambda number: number < limit, ">": lambda number: number > limit,
        }  # fmt: skip
        return "met" if all(map(compare[found[1]], numbers)) else "missed"

    @property
    def aside(self) -> str:
        """The detail in brackets, after a space; nothing where there is none."""
        return f" ({self.detail})" if self.detail else ""


def read(path: Path) -> dict[str, Row]:
    """Return the rows of a file by name; none where the file is missing."""
    rows: dict[str, Row] = {}
    for run in json.loads(path.read_text(encoding="utf-8"))["runs"] if path.exists() else []:
        shared = {"command": run["command"], "date": run["date"], "note": run["note"]}
        for name, entry in run["figures"].items():
            if name in rows:
                raise ValueError(f"{path.name}: {name} is there twice")
            given = {**entry, "figure": tuple(entry["figure"])}
            rows[name] = Row(name=name, machine=Machine(**run["machine"]), **shared, **given)
    return rows


def text_of(rows: Iterable[Row]) -> str:
    """Return the text of a file: runs by the name of their first row, one line a row, what is empty left out."""
    runs: dict[tuple[str, str, Machine, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.name):
        runs.setdefault((row.command, row.date, row.machine, row.note), []).append(row)
    blocks = []
    for (command, date, machine, note), members in runs.items():
        lines = []
        for row in members:
            entry: dict[str, Any] = {"figure": list(row.figure), "unit": row.unit}
            optional = {"ratio": row.ratio, "mark": row.mark, "detail": row.detail}
            entry |= {name: value for name, value in optional.items() if value not in (None, "")}
            lines.append(f"    {json.dumps(row.name)}: {json.dumps(entry, ensure_ascii=False)}")
        head = {"command": command, "date": date, "machine": asdict(machine), "note": note}
        shared = [f"   {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}," for key, value in head.items()]
        blocks.append("\n".join(["  {", *shared, '   "figures": {', ",\n".join(lines), "   }", "  }"]))
    return '{\n "runs": [\n' + ",\n".join(blocks) + "\n ]\n}\n"


def merge(path: Path, rows: Iterable[Row]) -> None:
    """Put rows into a file in place of those of the same names; the others stay as they are."""
    merged = {**read(path), **{row.name: row for row in rows}}
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text_of(merged.values()), encoding="utf-8")
    partial.replace(path)


def folder() -> Path:
    """Return the folder of both files."""
    return Path(os.environ.get(FOLDER) or HERE)


def this_machine(other: str = "", environment: Mapping[str, str] = os.environ) -> Machine:
    """Return the machine that this process runs on.

    Parameters
    ----------
    other
        What else the script knows: a GPU, further versions.
    environment
        Of the processes that measure; settings of the BLAS in it are part of the machine.
    """
    import numpy

    names = [
        line.split(":")[1].strip()
        for line in (Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else [])
        if line.startswith("model name")
    ]
    given = [f"{k}={v}" for k, v in sorted(environment.items()) if k.startswith(("OPENBLAS_", "OMP_", "MKL_"))]
    cpu = next(iter(names), platform.processor() or platform.machine())
    known = ", ".join(filter(None, [other, " ".join(given)]))
    return Machine(cpu, os.cpu_count() or NOT_RECORDED, platform.python_version(), numpy.__version__, known)


def busy_cores(seconds: float = 0.5) -> float:
    """Return how many cores are in use while this process waits, 0 where the system does not say (Linux does)."""
    counters = Path("/proc/stat")
    if not counters.exists():
        return 0.0
    before = counters.read_text()
    time.sleep(seconds)
    return cores_between(before, counters.read_text())


def cores_between(before: str, after: str) -> float:
    """Return how many cores were in use between two states of ``/proc/stat``."""
    first, second = ([int(word) for word in text.splitlines()[0].split()[1:9]] for text in (before, after))
    passed = [b - a for a, b in zip(first, second, strict=True)]
    cores = sum(bool(re.match(r"cpu\d", line)) for line in after.splitlines())
    idle = passed[3] + passed[4]  # nothing to do; waiting for the disk
    return cores * (1 - idle / sum(passed)) if sum(passed) else 0.0


def command_of(script: str, parser: argparse.ArgumentParser, args: argparse.Namespace) -> str:
    """Return the command line with the options that differ from their defaults; those that name places are left out."""
    words = [f"python benchmarks/{script}.py"]
    for name, value in vars(args).items():
        if name == "part":
            words.insert(1, str(value))
        elif name not in PLACES and value != parser.get_default(name):
            several = isinstance(value, (list, tuple))
            values = [] if value is True else [str(one) for one in (value if several else [value])]
            words += [f"--{name.replace('_', '-')}", *values]
    return " ".join(words)


def spread(numbers: Sequence[float]) -> tuple[float, ...]:
    """Return the least, the median and the largest of some numbers, nothing of none."""
    return (min(numbers), statistics.median(numbers), max(numbers)) if numbers else ()


class Recorder:
    """Collects the rows of one run of a script.

    Parameters
    ----------
    script
        Name of the script, a key of ``DECLARED``.
    parser, args
        Of the command line.
    sizes
        Options that decide what is measured, each with the values besides its default that the tables may quote.
    seeded
        The figures do not depend on how busy the machine is.
    other, environment
        For ``this_machine``.
    """

    def __init__(
        self,
        script: str,
        parser: argparse.ArgumentParser,
        args: argparse.Namespace,
        *,
        sizes: Mapping[str, Sequence[Any]],
        seeded: bool = False,
        other: str = "",
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.script, self.seeded, self.machine = script, seeded, this_machine(other, environment)
        self.command = command_of(script, parser, args)
        self.different = [
            f"--{name} {getattr(args, name)}"
            for name, more in sizes.items()
            if getattr(args, name) not in (parser.get_default(name), *more)
        ]
        self.rows: dict[str, tuple[tuple[float, ...], float | None, str]] = {}
        self.busy = 0.0 if seeded else busy_cores()

    def add(
        self, name: str, figure: float | Sequence[float] | None, *, ratio: float | None = None, detail: str = ""
    ) -> None:
        """Add a figure under a declared name (without the script's); a name is given once a run."""
        if name not in DECLARED[self.script]:
            raise KeyError(f"declared.py has no row {name!r} of {self.script}.py")
        if name in self.rows:
            raise KeyError(f"{name!r} was measured twice in one run")
        numbers = () if figure is None else figure if isinstance(figure, Sequence) else (figure,)
        rounded = tuple(float(f"{number:.6g}") for number in numbers)
        self.rows[name] = (rounded, None if ratio is None else float(f"{ratio:.6g}"), detail)

    def add_shares(self, name: str, cases: Sequence[tuple[float, float, float]]) -> None:
        """Add what a table shows of simulated intervals.

        Parameters
        ----------
        name
            Beginning of the three rows ``cases``, ``covered`` and ``wrong``.
        cases
            Of each case: the share of draws with an interval, the share of those that hold the true value, and the
            share of all draws whose interval is there and wrong. Cases in which less than half of the draws have an
            interval count for the last alone.
        """
        covered = [one for often, one, _ in cases if often >= 0.5]
        self.add(f"{name}/cases", len(covered))
        self.add(f"{name}/covered", spread(covered), detail="" if covered else "no interval")
        self.add(f"{name}/wrong", max(wrong for _, _, wrong in cases))

    def write(self) -> Path:
        """Write the rows into the file they belong to, and print which one and why; return its path."""
        busy = max(self.busy, 0.0 if self.seeded else busy_cores())
        reasons = [f"other sizes than the tables' ({', '.join(self.different)})"] if self.different else []
        note = ""
        if busy > BUSY_CORES:
            note = f"busy machine: {busy:.1f} cores used by other programs"
            reasons.append(note)
        path = folder() / ("figures-trial.json" if reasons else "figures.json")
        today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
        run = {"command": self.command, "date": today, "machine": self.machine, "note": note}
        merge(path, [
            Row(name=f"{self.script}/{name}", figure=figure, unit=DECLARED[self.script][name][0], ratio=ratio,
                mark=DECLARED[self.script][name][1], detail=detail, **run)  # type: ignore[arg-type]
            for name, (figure, ratio, detail) in self.rows.items()
        ])  # fmt: skip
        print(f"{len(self.rows)} rows written to {path}" + (f": {'; '.join(reasons)}" if reasons else ""))
        return path
