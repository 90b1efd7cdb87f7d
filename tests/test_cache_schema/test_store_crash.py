"""Killed, stopped and racing writers: a published store is whole, or there is none."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import cache_schema
from cache_schema.writing.staging import Stage, clean_stale, is_live, publish, stages
from cache_schema.writing.validate import problems
from closerlook_common.errors import CacheError, StoreExistsError

BACKENDS = ("zarr", "hdf5")

WRITER = """
import os, signal, sys
import numpy as np
import cache_schema
from cache_schema.writing import builder, staging, writer
from cache_schema.format import schema
from cache_schema.backends import hdf5, zarr_v3

schema.ROWS_A_CHUNK = 4  # 100 rows are then four shards

def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def write(where, backend, step):
    if step == "before the seal":
        zarr_v3.ZarrFiles.seal = hdf5.Hdf5Files.seal = kill
    if step == "within the seal":
        zarr_v3.sync_folder = hdf5.digest_file = kill
    if step == "before the rename":
        staging.publish = kill
    if step == "after the rename":
        staging.sync_folder = kill
    logits = np.random.default_rng(0).normal(size=(100, 10)).astype("f4")
    writing = cache_schema.StoreWriter(
        where, model=cache_schema.ModelCard(id="m"), dataset=cache_schema.DatasetCard(id="d"), n_images=100,
        n_classes=10, image_ids=[str(i) for i in range(100)], labels=np.arange(100) % 10, backend=backend,
    )
    if step == "after the header":
        kill()
    writing.append(logits[:70])
    if step == "half the rows":
        kill()
    if step == "waiting":
        print("waiting", flush=True)
        sys.stdin.read()
    writing.append(logits[70:])
    writing.close()

# Each write is a child of its own, forked before anything is written: Python's start is most of the time.
where, backend, *steps = sys.argv[1:]
for step in steps:
    child = os.fork()
    if child == 0:
        write(os.path.join(where, step.partition(", ")[0]), backend, step)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
STEPS = (
    "after the header",
    "half the rows",
    "before the seal",
    "within the seal",
    "before the rename",
    "after the rename",
)


@pytest.mark.parametrize("backend", BACKENDS)
def test_killed_at_every_step(tmp_path: Path, backend: str, run_python: Callable[..., Any]) -> None:
    done = run_python(WRITER, tmp_path, backend, "undisturbed", *STEPS)
    assert done.stdout.split() == ["0", *[str(-signal.SIGKILL)] * len(STEPS)], done.stderr
    (undisturbed,) = cache_schema.open_cache(tmp_path / "undisturbed").stores()
    for step in STEPS:
        found = cache_schema.open_cache(tmp_path / step).stores()
        if step == "after the rename":
            assert [store.digest for store in found] == [undisturbed.digest]
            clean_stale(tmp_path / step)
            continue
        assert found == [], step
        (stage,) = stages(tmp_path / step)
        assert problems(next(stage.glob("d-*"))), f"{step}: what is staged must not pass as a store"
        assert clean_stale(tmp_path / step) == [stage]
    run_python(WRITER, tmp_path, backend, *(f"{step}, again" for step in STEPS[:-1]))
    for step in STEPS:
        (store,) = cache_schema.open_cache(tmp_path / step).stores()
        assert store.digest == undisturbed.digest
        assert problems(store.path) == []
        assert stages(tmp_path / step) == []


@pytest.fixture
def waiting_writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path), "zarr", "waiting"],
        env=env,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        yield process
        process.kill()


def test_a_live_stage_stays_and_a_dead_one_goes(tmp_path: Path, waiting_writer: subprocess.Popen[str]) -> None:
    cache = tmp_path / "waiting"
    (stage,) = stages(cache)
    pid = int(stage.name.split("-")[-4])  # .staged-<host>-<pid>-<token>-d-<identity8>.zarr
    assert is_live(stage, idle_hours=0)
    assert clean_stale(cache, idle_hours=0) == []
    os.kill(pid, signal.SIGKILL)
    assert waiting_writer.stdout is not None
    assert waiting_writer.stdout.readline() == f"{-signal.SIGKILL}\n"
    assert clean_stale(cache) == [stage]
    assert stages(cache) == []


def test_a_stage_of_another_machine_counts_by_its_age(tmp_path: Path) -> None:
    stage = tmp_path / "m" / ".staged-node7-4711-0123abcd-d-12345678.zarr"
    stage.mkdir(parents=True)
    (stage / "owner.json").write_text('{"host": "node7", "pid": 4711, "boot": "another"}')
    assert is_live(stage)
    assert clean_stale(tmp_path) == []
    for path in (stage / "owner.json", stage):
        os.utime(path, (0, 0))
    assert clean_stale(tmp_path) == [stage]


@pytest.mark.parametrize("days", [-30, 30])
def test_a_wrong_clock_takes_nothing_from_a_writer_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """Of two nodes' clocks one is always ahead; what counts is the time that the file system gives its files."""
    stage = tmp_path / "m" / ".staged-node7-4711-0123abcd-d-12345678.zarr"
    stage.mkdir(parents=True)
    (stage / "owner.json").write_text('{"host": "node7", "pid": 4711, "boot": "another"}')
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + days * 86400)
    assert clean_stale(tmp_path) == []
    assert list((tmp_path / "m").iterdir()) == [stage]
    os.utime(stage / "owner.json", (now - 2 * 86400, now - 2 * 86400))
    os.utime(stage, (now - 2 * 86400, now - 2 * 86400))
    assert clean_stale(tmp_path) == [stage]


@pytest.mark.parametrize("harm", ["removed", "moved", "removed whole"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stage_that_was_taken_away_is_not_published(
    tmp_path: Path, backend: str, harm: str, model: Any, dataset: Any, outputs: dict[str, Any], monkeypatch
) -> None:
    """What is written afterwards would be a store without its first rows, and sealed."""
    monkeypatch.setattr("cache_schema.format.schema.ROWS_A_CHUNK", 4)
    cache = tmp_path / "cache"
    about = {"model": model, "dataset": dataset, "n_images": 70, "n_classes": 10, "image_ids": outputs["image_ids"]}
    writer = cache_schema.StoreWriter(cache, labels=outputs["labels"], backend=backend, **about)
    writer.append(outputs["logits"][:50], valid=outputs["valid"][:50])
    (stage,) = stages(cache)
    if harm == "moved":
        cache.rename(tmp_path / "elsewhere")
    else:
        shutil.rmtree(stage if harm == "removed" else cache)

    def finish() -> None:
        writer.append(outputs["logits"][50:], valid=outputs["valid"][50:])
        writer.close()

    with pytest.raises((CacheError, OSError), match=r"removed or moved|No such file"):
        finish()
    writer.abort()
    assert not cache.exists() or cache_schema.open_cache(cache).stores() == []
    again = cache_schema.StoreWriter(cache, labels=outputs["labels"], backend=backend, **about)
    again.append(outputs["logits"], valid=outputs["valid"])
    assert problems(again.close().path) == []


def test_publishing_never_overwrites(tmp_path: Path) -> None:
    for kind in ("file", "folder"):
        staged, target = tmp_path / f"staged-{kind}", tmp_path / f"target-{kind}"
        for path in (staged, target):
            if kind == "file":
                path.write_text(path.name)
            else:
                path.mkdir()
                (path / "content").write_text(path.name)
        with pytest.raises(StoreExistsError, match="exists already"):
            publish(staged, target)
        kept = target if kind == "file" else target / "content"
        assert kept.read_text() == target.name
        assert staged.exists()


def test_publishing_where_there_are_no_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("cache_schema.writing.staging.os.link", no_links)
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    publish(tmp_path / "one", tmp_path / "target")
    with pytest.raises(StoreExistsError):
        publish(tmp_path / "two", tmp_path / "target")
    assert (tmp_path / "target").read_text() == "1"


@pytest.mark.parametrize("backend", BACKENDS)
def test_racing_writers_lose_time_but_no_data(
    tmp_path: Path, backend: str, model: Any, dataset: Any, outputs: dict[str, Any]
) -> None:
    """All start before any has published; one wins, the others are notified, the winner's store is whole."""
    gate = threading.Barrier(3)
    results: list[object] = []

    def race() -> None:
        writer = cache_schema.StoreWriter(
            tmp_path,
            model=model,
            dataset=dataset,
            n_images=70,
            n_classes=10,
            image_ids=outputs["image_ids"],
            labels=outputs["labels"],
            backend=backend,
        )
        writer.append(outputs["logits"], valid=outputs["valid"])
        gate.wait()
        try:
            results.append(writer.close().digest)
        except StoreExistsError as error:
            results.append(error)

    threads = [threading.Thread(target=race) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    won = [result for result in results if isinstance(result, str)]
    assert len(won) == 1
    assert len(results) == 3
    (store,) = cache_schema.open_cache(tmp_path).stores()
    assert store.digest == won[0]
    assert problems(store.path) == []
    assert stages(tmp_path) == []


FULL_DISK = """
import resource, signal, sys
import numpy as np
import cache_schema
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    cache_schema.write_store(
        sys.argv[1], backend=sys.argv[2],
        model=cache_schema.ModelCard(id="m"), dataset=cache_schema.DatasetCard(id="d"),
        logits=np.random.default_rng(0).normal(size=(2000, 100)).astype("f4"), labels=np.zeros(2000, int),
    )
except OSError as error:
    print(type(error).__name__, error.errno)
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_file_that_cannot_grow_leaves_nothing(tmp_path: Path, backend: str, run_python: Callable[..., Any]) -> None:
    done = run_python(FULL_DISK, tmp_path, backend)
    assert done.stdout.startswith("OSError"), done.stdout + done.stderr
    assert cache_schema.open_cache(tmp_path).stores() == []
    assert stages(tmp_path) == []


def test_a_stage_may_vanish_while_it_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its writer is done: the lock goes first, then the rest, one by one."""
    stage = Stage(tmp_path / "m" / "d-12345678.zarr")
    (stage.path / "logits" / "c").mkdir(parents=True)
    (stage.folder / "owner.json").unlink()
    scandir = os.scandir

    def vanishing(path: Any) -> Any:
        if not isinstance(path, int) and os.fspath(path).endswith("logits"):
            shutil.rmtree(stage.folder)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", vanishing)
    assert clean_stale(tmp_path) == []
    assert not stage.folder.exists()
    stage.remove()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_images(tmp_path: Path, run_python: Callable[..., Any]) -> None:
    done = run_python(MEMORY, tmp_path)
    few, many = (int(word) for word in done.stdout.split())
    assert many < few + 2.5e6, done.stderr  # 20,000 rows more: 8 MB of float16 logits; ids and labels about 1 MB


MEMORY = """
import sys, tracemalloc
import numpy as np
import cache_schema
block = np.random.default_rng(0).normal(size=(1000, 200)).astype("f4")
def peak(n):
    ids = np.char.mod("%07d", np.arange(n)).tolist()
    labels = np.zeros(n, np.int32)
    tracemalloc.start()
    with cache_schema.StoreWriter(
        f"{sys.argv[1]}/{n}", model=cache_schema.ModelCard(id="m"), dataset=cache_schema.DatasetCard(id="d"),
        n_images=n, n_classes=200, image_ids=ids, labels=labels,
    ) as writer:
        for _ in range(n // 1000):
            writer.append(block)
    for rows in writer.store.blocks(1024):
        assert rows.logits.shape[1] == 200
    top = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return top
peak(1000)
print(peak(10_000), peak(30_000))
"""
