"""Writers that are killed at any point of their writing, in the middle of a write too, over an earlier output.

The earlier output stays whole, what is new is whole or not there, the same command finishes afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import cache_schema
from analyze.cli import main as analyze
from analyze.results import read_results
from cache_schema.cli import main as schema

ROOT = Path(__file__).parents[1]
POINTS = 6
"""Changes at which each writer is killed, spread over all that it makes."""
SHARES = (0.0, 0.4, 0.95)
"""Parts of its largest file at which it is killed in the middle of a write."""
Content = dict[str, str]


def write_cache(folder: Path, models: str, backend: str = "zarr") -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 5, 400)
    for model in "ab":
        logits, features = rng.normal(size=(400, 5)).astype(np.float32), rng.normal(size=(400, 8)).astype(np.float32)
        if model in models:
            cache_schema.write_store(
                folder, model=cache_schema.ModelCard(id=model), dataset=cache_schema.DatasetCard(id="val", role="id"),
                logits=logits, features=features, labels=labels, backend=backend,
            )  # fmt: skip


def rows(out: Path) -> Content:
    table = read_results(out / "r.parquet").to_dicts() if (out / "r.parquet").exists() else []
    numbers = ("value", "low", "high", "n", "interval", "reason")
    return {repr([item for item in sorted(row.items()) if item[0] not in numbers]): repr(row) for row in table}


def stores(out: Path) -> Content:
    cache = cache_schema.open_cache(out)
    assert not cache.refused()
    return readable(out)


def readable(out: Path) -> Content:
    """Return what can be used of a cache at an address, where a copy that broke off is there and refused."""
    found = {}
    for store in cache_schema.open_cache(out).stores():
        for name in store.array_names:
            store.read(name)
        found[f"{store.kind} {store.model.id} {store.path.name}"] = store.digest
    return found


def files(out: Path) -> Content:
    found = {path.name: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file() and path.name[0] != "."}
    assert all(raw.rstrip().endswith((b"</svg>", b"</html>")) for name, raw in found.items() if name[-4:] != ".csv")
    return {name: hashlib.sha256(raw).hexdigest() for name, raw in found.items()}


class Writer(NamedTuple):
    """A command: its program, its words, those that make an earlier output, what an output holds."""

    program: str
    words: Callable[[Path, Path], list[str]]
    earlier: Callable[[Path, Path], list[str]]
    content: Callable[[Path], Content]


def figures(at: str, out: Path) -> list[str]:
    return ["figures", at, "-o", str(out), "--format", "svg", "--only", "reliability"]


def pull(at: str, out: Path) -> list[str]:
    return ["pull", f"file://{at}", str(out)]


def push(at: str, out: Path) -> list[str]:
    return ["push", at, f"file://{out}"]


def convert(at: str, out: Path) -> list[str]:
    return ["convert", at, str(out), "--to", "hdf5"]


def imported(at: Path, out: Path, model: str) -> list[str]:
    return ["import", f"{at}/x.npz", "--model", model, "--dataset", "val", "--cache", str(out)]


WRITERS = {
    "metrics": Writer(
        "analyze",
        lambda at, out: ["metrics", f"{at}/both", "-o", f"{out}/r.parquet"],
        lambda at, out: ["metrics", f"{at}/one", "-o", f"{out}/r.parquet"],
        rows,
    ),
    "summarize": Writer(
        "analyze",
        lambda at, out: ["summarize", f"{at}/both", "--to", str(out)],
        lambda at, out: ["summarize", f"{at}/one", "--to", str(out)],
        stores,
    ),
    "figures": Writer(
        "analyze", lambda at, out: figures(f"{at}/both", out), lambda at, out: figures(f"{at}/one", out), files
    ),
    "report": Writer(
        "analyze",
        lambda at, out: ["report", f"{at}/both.parquet", "-o", f"{out}/report.html"],
        lambda at, out: ["report", f"{at}/one.parquet", "-o", f"{out}/report.html"],
        files,
    ),
    "import": Writer(
        "cache_schema", lambda at, out: imported(at, out, "x"), lambda at, out: imported(at, out, "w"), stores
    ),
    "convert": Writer(
        "cache_schema", lambda at, out: convert(f"{at}/both", out), lambda at, out: convert(f"{at}/one", out), stores
    ),
    "push zarr": Writer(
        "cache_schema", lambda at, out: push(f"{at}/both", out), lambda at, out: push(f"{at}/one", out), readable
    ),
    "push hdf5": Writer(
        "cache_schema", lambda at, out: push(f"{at}/both5", out), lambda at, out: push(f"{at}/one5", out), readable
    ),
    "pull zarr": Writer(
        "cache_schema", lambda at, out: pull(f"{at}/both", out), lambda at, out: pull(f"{at}/one", out), stores
    ),
    "pull hdf5": Writer(
        "cache_schema", lambda at, out: pull(f"{at}/both5", out), lambda at, out: pull(f"{at}/one5", out), stores
    ),
}
ADDS = {"import"}
"""What is earlier is of another model and is not part of what is wanted."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("inputs")
    for end, backend in (("", "zarr"), ("5", "hdf5")):
        write_cache(at / f"one{end}", "a", backend)
        shutil.copytree(at / f"one{end}", at / f"both{end}")
        write_cache(at / f"both{end}", "b", backend)
    for name in ("one", "both"):
        assert analyze(["metrics", str(at / name), "-o", str(at / f"{name}.parquet")]) == 0
    rng = np.random.default_rng(0)
    np.savez(at / "x.npz", logits=rng.normal(size=(300, 40)).astype(np.float32), labels=rng.integers(0, 40, 300))
    return at


Run = Callable[..., tuple[int, int, str]]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Return a function that runs a command in a process of its own, which may die."""
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(ROOT / "tests" / "dying_commands.py")],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert server.stdin is not None
    assert server.stdout is not None

    def ask(writer: Writer, words: list[str], out: Path, **how: Any) -> tuple[int, int, str]:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps({"program": writer.program, "words": words, "out": str(out), **how}) + "\n")
        server.stdin.flush()
        status, changes, printed = json.loads(server.stdout.readline())
        return status, changes, printed

    yield ask
    server.stdin.close()
    assert server.wait(60) == 0
    server.stdout.close()


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_that_dies_anywhere(name: str, inputs: Path, run: Run, tmp_path: Path) -> None:
    writer = WRITERS[name]

    def begun(folder: str) -> tuple[Path, Content]:
        """Make the earlier output."""
        out = tmp_path / folder
        out.mkdir()
        status, _, printed = run(writer, writer.earlier(inputs, out), out)
        assert status == 0, printed
        content = writer.content(out)
        assert content
        return out, content

    whole, before = begun("whole")
    status, changes, printed = run(writer, writer.words(inputs, whole), whole)
    assert status == 0, printed
    assert changes > 2
    wanted = writer.content(whole)
    assert wanted != before
    largest = max(path.stat().st_size for path in whole.rglob("*") if path.is_file())

    step = max(1, changes // POINTS)
    kills: list[dict[str, int]] = [
        {"change": change, "signal": sent}
        for sent in (signal.SIGKILL, signal.SIGTERM)
        for change in range(1, changes + 1, step if sent == signal.SIGKILL else 3 * step)
    ]
    kills += [{"bytes": int(share * (largest - 1))} for share in SHARES]
    out, _ = begun("out")
    died = 0
    for number, kill in enumerate(kills):
        if writer.content(out) == wanted:
            out, _ = begun(f"before kill {number}")
        status, _, printed = run(writer, writer.words(inputs, out), out, **kill)
        died += status != 0
        assert "Traceback" not in printed, (kill, printed)
        expected = {-kill["signal"], 143} if "signal" in kill else {-signal.SIGXFSZ}
        assert status in expected | {0, 1}, (kill, status, printed)
        now = writer.content(out)
        assert set(before) <= set(now), kill
        assert all(text in (before.get(key), wanted.get(key)) for key, text in now.items()), kill
    assert died > len(kills) // 2
    status, _, printed = run(writer, writer.words(inputs, out), out)
    assert status == 0, printed
    assert writer.content(out) == wanted


@pytest.mark.parametrize("name", ["push zarr", "push hdf5", "pull zarr", "pull hdf5"])
def test_two_copies_at_once(name: str, inputs: Path, tmp_path: Path) -> None:
    writer = WRITERS[name]
    (tmp_path / "out").mkdir()
    words = writer.words(inputs, tmp_path / "out")
    both = [
        subprocess.Popen(
            [sys.executable, "-m", writer.program, *words], env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]  # fmt: skip
    printed = [process.communicate(timeout=120)[0] for process in both]
    assert "Traceback" not in "".join(printed)
    assert 0 in [process.returncode for process in both], printed
    assert (analyze if writer.program == "analyze" else schema)(words) == 0
    wanted = {store.digest for store in cache_schema.open_cache(inputs / "both").stores()}
    assert set(writer.content(tmp_path / "out").values()) == wanted
    assert cache_schema.open_cache(tmp_path / "out").refused() == []
