"""Builds the miniature: datasets and models as a graph of small tasks, spread over processes."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import IO, Any, NamedTuple

from examples.miniature.lists import models_txt
from examples.miniature.recipes import FULL, Recipe, Size, quick_size
from examples.miniature.stamps import is_trained, weights_stamp
from examples.miniature.writing import dataset_stamp, datasets_toml, is_finished, write_dataset

try:
    import fcntl
except ImportError:  # not on Windows: two builds into one folder are then the user's own care
    fcntl = None  # type: ignore[assignment]


class Step(NamedTuple):
    """Progress of one task: ``done`` of ``total`` images; ``seconds`` since it started."""

    task: str
    done: int
    total: int
    seconds: float


Progress = Callable[[Step], None]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A dataset to render (``recipe`` is None) or a training run, and what must be there first."""

    id: str
    total: int
    needs: tuple[str, ...]
    stamp: str
    recipe: Recipe | None = None


def build(
    out: Path,
    *,
    quick: bool = False,
    jobs: int | None = None,
    progress: Progress = lambda _: None,
) -> None:
    """Build the miniature study in a folder; what is finished there already is kept.

    Every dataset and every training run is a task of its own: made next to its place, moved there by a rename,
    and stamped with a digest of what it depends on. So a build that was stopped, in whatever way, goes on
    with what is missing, and a changed recipe is made again with all that depends on it. Pictures and weights
    do not depend on ``jobs``: each task has its own seed and runs on one thread (what holds across machines
    is stated in `examples.miniature.training`).

    Parameters
    ----------
    out
        Made if need be. It gets ``datasets/``, ``weights/``, ``models.txt``, ``datasets.toml``, ``study.toml``.
    quick
        A fortieth of the pictures, two short runs: for tests of the code, useless as models.
    jobs
        Processes; 1 works in this one. None: one a processor, at most 8. With several, a script that calls
        this needs ``if __name__ == "__main__":``.
    progress
        Called with a `Step` now and then, in this process.
    """
    size = quick_size() if quick else FULL
    (out / "weights").mkdir(parents=True, exist_ok=True)
    (out / "datasets").mkdir(exist_ok=True)
    with _lock(out):
        for left in (*out.glob(".staged-*"), *out.glob("*/.staged-*")):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        tasks = _tasks(size)
        waiting = {task.id: task for task in tasks if not _finished(out, task)}
        for task in tasks:
            if task.id not in waiting:
                progress(Step(task.id, task.total, task.total, 0.0))
        jobs = min(jobs or min(8, _processors()), max(1, len(waiting)))
        if jobs == 1:
            for task in waiting.values():  # the order of the tasks respects what they need
                _work(task, out, _Meter(task, progress))
        else:
            _run_in_processes(waiting, out, jobs, progress)
        _write(out / "datasets.toml", datasets_toml())
        _write(out / "study.toml", Path(__file__).with_name("study.toml").read_text(encoding="utf-8"))
        _write(out / "models.txt", models_txt(size))


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Let one build at a time into the folder; the system lets go of the lock when a build is killed."""
    with (out / ".lock").open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(path: Path, text: str) -> None:
    staged = path.with_name(f".staged-{path.name}")
    staged.write_text(text, encoding="utf-8")
    staged.replace(path)


def _tasks(size: Size) -> list[Task]:
    """Return the tasks; what is needed comes before what needs it."""
    stamps = {name: dataset_stamp(name, n) for name, n in size.counts.items()}
    first = [name for name in ("train", "web") if name in stamps]
    rest = [name for name in stamps if name not in first]
    tasks = [Task(id=f"data/{name}", total=size.counts[name], needs=(), stamp=stamps[name]) for name in (*first, *rest)]
    made_by: dict[str, Task] = {}
    for recipe in size.recipes:
        start = made_by.get(recipe.start)
        needs = [f"data/{name}" for name in recipe.data] + ([start.id] if start else [])
        stamp = weights_stamp(recipe, stamps, start.stamp if start else "")
        task = Task(id=f"model/{recipe.id}", total=sum(recipe.samples), needs=tuple(needs), stamp=stamp, recipe=recipe)
        tasks.append(task)
        made_by |= dict.fromkeys(recipe.models(), task)
    return tasks


def _finished(out: Path, task: Task) -> bool:
    if task.recipe is None:
        return is_finished(out / task.id.replace("data/", "datasets/"), task.stamp)
    return is_trained(out / "weights", task.recipe, task.stamp)


def _work(task: Task, out: Path, report: Callable[[int], None]) -> None:
    if task.recipe is None:
        name = task.id.removeprefix("data/")
        write_dataset(out / "datasets" / name, name, task.total, report)
    else:
        from examples.miniature.zoo import train

        train(task.recipe, out, task.stamp, report)


class _Meter:
    """Adds up a task's progress and passes it on, a few times a second at most."""

    def __init__(self, task: Task, send: Progress) -> None:
        self.task, self.send, self.done = task, send, 0
        self.start = time.monotonic()
        self.last = 0.0

    def __call__(self, n: int) -> None:
        self.done = min(self.done + n, self.task.total)
        now = time.monotonic()
        if now - self.last > 0.2 or self.done == self.task.total:
            self.last = now
            self.send(Step(self.task.id, self.done, self.task.total, now - self.start))


def _run_in_processes(waiting: Mapping[str, Task], out: Path, jobs: int, progress: Progress) -> None:
    context = multiprocessing.get_context("spawn")
    steps, stop = context.Queue(), context.Event()
    todo, running, done = dict(waiting), dict[Future[None], Task](), set[str]()
    with ProcessPoolExecutor(jobs, context, _start_worker, (steps, stop)) as pool:
        try:
            while todo or running:
                ready = [t for t in todo.values() if not any(n in waiting and n not in done for n in t.needs)]
                for task in ready[: jobs - len(running)]:  # no more: what becomes ready may come before others
                    running[pool.submit(_work_in_process, task, out)] = todo.pop(task.id)
                for future in wait(running, timeout=0.2, return_when=FIRST_COMPLETED).done:
                    task = running.pop(future)
                    future.result()
                    done.add(task.id)
                while not steps.empty():
                    progress(steps.get())
        finally:  # a failure or Ctrl-C: the others stop at their next step and leave nothing half done
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            while not steps.empty():
                progress(steps.get())
            steps.close()


_steps: Any = None
_stop: Any = None


def _start_worker(steps: Any, stop: Any) -> None:
    """Set a worker up: Ctrl-C is the parent's business, and a worker dies with its parent."""
    global _steps, _stop
    _steps, _stop = steps, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()


def _die_with(sentinel: int | IO[Any]) -> None:
    connection.wait([sentinel])  # type: ignore[list-item]
    os._exit(1)


class _Stopped(Exception):
    """Raised in a worker when the build is stopped."""


def _work_in_process(task: Task, out: Path) -> None:
    meter = _Meter(task, _steps.put)

    def report(n: int) -> None:
        if _stop.is_set():
            raise _Stopped
        meter(n)

    _work(task, out, report)
