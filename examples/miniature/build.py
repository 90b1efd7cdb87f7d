"""Builds the miniature: datasets and models as a graph of small tasks, spread over processes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from closerlook_common.child_processes import begin_child
from examples.miniature.datasets import DATASETS, STAMP, datasets_toml, write_dataset
from examples.miniature.models import QUICK, RECIPES, Recipe, models_txt

VERSION = 1
"""Raised by hand whenever pixels, captions or a training loop change, so that an older build is made again."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A dataset of n pictures to render or a recipe to train, what must be there first, and a digest of all that."""

    id: str
    stamp: str
    needs: tuple[str, ...] = ()
    n: int = 0
    recipe: Recipe | None = None


def build(out: Path, *, quick: bool = False, jobs: int | None = None, done: Callable[[str], None] = print) -> None:
    """Build the miniature study in a folder; what is finished there already is kept.

    Every dataset and every training run is a task: made next to its place, moved there by a rename, and stamped with a
    digest of what it depends on. So a build that was stopped, in whatever way, goes on with what is missing, and a
    changed recipe is made again with all that depends on it. Pictures and weights do not depend on ``jobs``: each task
    has its own seed and runs on one thread.

    Parameters
    ----------
    out
        Made if need be. It gets ``datasets/``, ``weights/``, and last the lists and the study file.
    quick
        A fortieth of the pictures, two short runs: for tests of the code, useless as models.
    jobs
        Processes; 1 works in this one. None: one a processor, at most 8. With several, a script that calls this needs
        ``if __name__ == "__main__":``.
    done
        Called with a line about each task that was finished.
    """
    (out / "weights").mkdir(parents=True, exist_ok=True)
    (out / "datasets").mkdir(exist_ok=True)
    with _lock(out):
        for left in (*out.glob(".staged-*"), *out.glob("*/.staged-*")):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        waiting = [task for task in tasks(quick=quick) if not _finished(out, task)]
        jobs = min(jobs or min(8, len(os.sched_getaffinity(0))), len(waiting))
        for number, task in enumerate(_all_done(waiting, out, jobs), start=1):
            done(f"{number} of {len(waiting)}: {task.id}")
        _write(out / "datasets.toml", datasets_toml())
        _write(out / "study.toml", Path(__file__).with_name("study.toml").read_text(encoding="utf-8"))
        _write(out / "models.txt", models_txt(QUICK if quick else RECIPES))


def tasks(*, quick: bool = False) -> list[Task]:
    """Return the tasks; what is needed comes before what needs it."""
    found: dict[str, Task] = {}
    for name, dataset in DATASETS.items():
        n = max(24, dataset.n // 40 // 4 * 4) if quick else dataset.n
        found[name] = Task(id=f"datasets/{name}", n=n, stamp=_digest([name, n]))
    for recipe in QUICK if quick else RECIPES:
        needs = [found[name] for name in (*(name for name, _ in recipe.stages), recipe.start) if name]
        stamp = _digest([asdict(recipe), *(need.stamp for need in needs)])
        ids = tuple(need.id for need in needs)
        task = Task(id=f"weights/{recipe.id}", needs=ids, recipe=recipe, stamp=stamp)
        found |= dict.fromkeys(recipe.models(), task)
    return list({task.id: task for task in found.values()}.values())


def _digest(what: object) -> str:
    return hashlib.sha256(json.dumps([VERSION, what], sort_keys=True).encode()).hexdigest()


def stored_stamp(path: Path) -> str:
    """Return the stamp of a dataset's folder or a weight file; empty where it is not whole."""
    try:
        if path.suffix != ".safetensors":
            return (path / STAMP).read_text(encoding="utf-8")
        with safe_open(path, framework="np") as file:
            return str((file.metadata() or {}).get("stamp", ""))
    except (OSError, SafetensorError):
        return ""


def _finished(out: Path, task: Task) -> bool:
    paths = [out / task.id]
    if task.recipe is not None:
        paths = [out / "weights" / f"{name}.safetensors" for name in task.recipe.models()]
    return all(stored_stamp(path) == task.stamp for path in paths)


def _work(task: Task, out: Path) -> None:
    if task.recipe is None:
        write_dataset(out / task.id, Path(task.id).name, task.n, task.stamp)
    else:
        from examples.miniature.training import train

        train(task.recipe, out, task.stamp)


def _all_done(waiting: list[Task], out: Path, jobs: int) -> Iterator[Task]:
    """Do the tasks and yield each when it is done."""
    if jobs <= 1:
        for task in waiting:
            _work(task, out)
            yield task
        return
    left, running = list(waiting), dict[Future[None], Task]()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), begin_child) as pool:
        while left or running:
            undone = {task.id for task in (*left, *running.values())}
            ready = [task for task in left if not undone & set(task.needs)]
            for task in ready[: jobs - len(running)]:  # no more: what becomes ready may come before others
                left.remove(task)
                running[pool.submit(_work, task, out)] = task
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                future.result()
                yield running.pop(future)


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Let one build at a time into the folder; the system lets go of the lock when a build is killed."""
    with (out / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write(path: Path, text: str) -> None:
    staged = path.with_name(f".staged-{path.name}")
    staged.write_text(text, encoding="utf-8")
    staged.replace(path)
