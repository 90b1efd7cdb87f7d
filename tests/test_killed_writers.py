"""Writers that are killed, terminated, or run twice at once: what was there stays whole, the same command finishes.

``push`` and ``pull`` have tests of their own (test_remote_push.py, test_remote_pull.py), stores and ``extract`` too
(test_store_crash.py, test_faults.py, test_local_engine.py).
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest

import cache_schema
from analyze.cli import main as analyze
from analyze.results import read_results
from cache_schema.cli import main as schema

ROOT = Path(__file__).parents[1]
DYING = """
import os, signal, sys
out, sent, program = sys.argv[1], int(sys.argv[2]), sys.argv[3]

def dying(real):
    def call(source, target, *rest, **more):
        global sent
        if sent and str(os.fspath(target)).startswith(out):
            number, sent = sent, 0
            os.kill(os.getpid(), number)
        return real(source, target, *rest, **more)
    return call

os.rename, os.replace, os.link = dying(os.rename), dying(os.replace), dying(os.link)
import importlib
sys.exit(importlib.import_module(program + ".cli").main(sys.argv[4:]))
"""


def write_cache(folder: Path, *models: str) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 5, 60)
    for model in ("a", "b"):
        logits = rng.normal(size=(60, 5)).astype(np.float32)
        if model in models:
            cache_schema.write_store(
                folder,
                model=cache_schema.ModelCard(id=model),
                dataset=cache_schema.DatasetCard(id="val", role="id"),
                logits=logits,
                labels=labels,
            )


def table(out: Path) -> Any:
    return read_results(out / "r.parquet").sort(pl.all()).to_dict(as_series=False)


def stores(out: Path) -> Any:
    cache = cache_schema.open_cache(out)
    assert not cache.refused()
    return sorted((store.kind, store.model.id, store.digest) for store in cache.stores())


def files(out: Path) -> Any:
    found = {path.name: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file() and path.name[0] != "."}
    assert all(raw.rstrip().endswith((b"</svg>", b"</html>")) for name, raw in found.items() if name[-4:] != ".csv")
    return {name: hashlib.sha256(raw).hexdigest() for name, raw in found.items()}


class Writer(NamedTuple):
    """A command: its program, its words behind the inputs and before the output, what its output holds."""

    program: str
    words: Callable[[Path, Path], list[str]]
    content: Callable[[Path], Any]


WRITERS = {
    "metrics": Writer("analyze", lambda at, out: ["metrics", f"{at}/cache", "-o", f"{out}/r.parquet"], table),
    "summarize": Writer("analyze", lambda at, out: ["summarize", f"{at}/cache", "--to", str(out)], stores),
    "figures": Writer(
        "analyze",
        lambda at, out: ["figures", f"{at}/cache", "-o", str(out), "--format", "svg", "--only", "reliability"],
        files,
    ),
    "report": Writer("analyze", lambda at, out: ["report", f"{at}/all.parquet", "-o", f"{out}/report.html"], files),
    "import": Writer(
        "cache_schema",
        lambda at, out: ["import", f"{at}/x.npz", "--model", "x", "--dataset", "val", "--cache", str(out)],
        stores,
    ),
    "convert": Writer(
        "cache_schema", lambda at, out: ["convert", f"{at}/cache", str(out), "--to", "hdf5"], stores
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("inputs")
    write_cache(at / "cache", "a", "b")
    assert analyze(["metrics", str(at / "cache"), "-o", str(at / "all.parquet")]) == 0
    rng = np.random.default_rng(0)
    np.savez(at / "x.npz", logits=rng.normal(size=(30, 4)).astype(np.float32), labels=rng.integers(0, 4, 30))
    return at


def start(out: Path, sent: int, writer: Writer, words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", DYING, str(out), str(sent), writer.program, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("name", WRITERS)
def test_a_writer_that_is_killed_and_two_at_once(name: str, inputs: Path, tmp_path: Path) -> None:
    writer = WRITERS[name]
    program = analyze if writer.program == "analyze" else schema
    assert program(writer.words(inputs, tmp_path / "wanted")) == 0
    wanted = writer.content(tmp_path / "wanted")

    out = tmp_path / "out"
    out.mkdir()
    before = None
    if name == "metrics":  # into an existing table
        write_cache(tmp_path / "one", "a")
        assert analyze(["metrics", str(tmp_path / "one"), "-o", str(out / "r.parquet")]) == 0
        before = table(out)
    words = writer.words(inputs, out)
    for sent in (signal.SIGKILL, signal.SIGTERM) if name in ("metrics", "summarize") else (signal.SIGKILL,):
        killed = start(out, sent, writer, words)
        _, err = killed.communicate(timeout=120)
        assert killed.returncode == (-9 if sent == signal.SIGKILL else 143), err
        if sent == signal.SIGTERM:
            assert err.strip().splitlines()[-1].endswith("run the same command again to continue."), err
            assert "Traceback" not in err
        if before is not None:
            assert table(out) == before
        elif writer.content is stores:
            assert set(stores(out)) <= (set() if sent == signal.SIGKILL else set(wanted))
        else:
            assert files(out) == {}

    both = [start(out, 0, writer, words) for _ in range(2)]
    parts = [process.communicate(timeout=120) for process in both]
    for process, (_, err) in zip(both, parts, strict=True):
        assert process.returncode in (0, 1, 2), err
        assert "Traceback" not in err
        assert process.returncode == 0 or "exists already" in err, err
    assert 0 in [process.returncode for process in both]
    assert writer.content(out) == wanted
