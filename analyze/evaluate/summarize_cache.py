"""Summaries of a whole cache: every prediction store, and the ID sets on the classes of the shifted sets."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from analyze.evaluate.cases import build_cases, subset_name
from analyze.evaluate.cells import cell_key
from analyze.evaluate.whole_cache import choose
from analyze.intervals.resampling import Resampling, resampling_of
from analyze.predictions.summaries import SUMMARY_VERSION, Summary, write
from analyze.reading.sources import Source, sources_of
from analyze.settings import Settings
from cache_schema.errors import CloserlookError

if TYPE_CHECKING:
    from cache_schema.cache import Cache

SUITES = {"accuracy", "calibration", "detection", "conformal", "summaries"}


@dataclass
class Summarized:
    """What came of it: summaries written and unchanged, their bytes and images, and failures by model and dataset."""

    written: int = 0
    unchanged: int = 0
    n_bytes: int = 0
    n_images: int = 0
    failures: dict[str, str] = field(default_factory=dict)


def summarize_cache(
    cache: Cache,
    to: str | Path,
    *,
    settings: Settings,
    models: Sequence[str] | None = None,
    backend: str = "zarr",
    jobs: int | None = None,
    progress: Callable[[str, int, int], None] = lambda _model, _done, _all: None,
) -> Summarized:
    """Summarize every prediction store of a cache.

    A summary is left as it is where it was made from the same stores with the same options.

    Parameters
    ----------
    cache
        An open cache.
    to
        Folder of the cache that the summaries are written to.
    settings
        Options: the split, temperatures, GEN and conformal sets that the summaries hold; with a bootstrap also the
        interval of the classwise error, which needs all probabilities.
    models
        Ids or patterns; all when None.
    backend
        ``zarr`` or ``hdf5``.
    jobs
        Models at a time.
    progress
        Called with (model, models done, models in all).
    """
    sources = [s for s in sources_of(cache) if not s.is_summary]
    chosen = choose({s.model for s in sources}, models, "model")
    present = _present(Path(to))
    done = Summarized()
    lock = threading.Lock()
    resampling = resampling_of(settings)
    jobs = max(1, min(jobs or os.cpu_count() or 1, max(len(chosen), 1)))
    threads = max(1, (os.cpu_count() or 1) // jobs)

    def work(model: str) -> None:
        own = [s for s in sources if s.model == model]
        _one_model(own, to, settings, backend, threads, resampling, present, done, lock)

    with ThreadPoolExecutor(jobs) as pool:
        pending = {pool.submit(work, name): name for name in chosen}
        try:
            for count, future in enumerate(as_completed(pending), 1):
                name = pending[future]
                try:
                    future.result()
                except (CloserlookError, OSError) as error:
                    with lock:
                        done.failures[name] = str(error)
                progress(name, count, len(pending))
        except BaseException:
            for future in pending:
                future.cancel()
            raise
    return done


def _present(folder: Path) -> dict[tuple[str, str, str], str]:
    """Keys of the summaries that are there already: (model, dataset, variant) -> key."""
    if not folder.is_dir():
        return {}
    from cache_schema import open_cache

    found = {}
    for store in open_cache(folder).stores("summary"):
        name = (store.header["model"]["id"], store.header["dataset"]["id"], store.details["variant"])
        found[name] = str(store.record.get("key", ""))
    return found


def _key(sources: Sequence[Source], source: Source, settings: Settings) -> str:
    inside = [s.digest for s in sources if s.role == "id"]
    sections = ("split", "calibrators", "calibration", "ood", "conformal", "bootstrap", "classes")
    return cell_key(
        summary=SUMMARY_VERSION,
        inputs=[source.digest, source.card_key, inside],
        options={section: dict(settings[section]) for section in sections},
    )


def _one_model(
    sources: list[Source],
    to: str | Path,
    settings: Settings,
    backend: str,
    threads: int,
    resampling: Resampling | None,
    present: dict[tuple[str, str, str], str],
    done: Summarized,
    lock: threading.Lock,
) -> None:
    if not sources:
        return
    model = sources[0].model
    keys = {s.dataset: _key(sources, s, settings) for s in sources}
    if all(present.get((model, dataset, "")) == key for dataset, key in keys.items()):
        with lock:
            done.unchanged += sum(keys.get(name) == key for (whose, name, _), key in present.items() if whose == model)
        return
    built = build_cases(sources, settings, SUITES, threads=threads, resampling=resampling)
    wanted: list[tuple[Summary, str]] = []
    for (inside, other), summary in built.subsets.items():
        if isinstance(summary, Summary):
            wanted.append((summary, keys[inside]))
        else:
            built.problems[f"{inside} on {subset_name(other)}"] = summary
    # The sets' own last: a model that has all of them counts as done.
    wanted += [(case.summary, keys[name]) for name, case in built.cases.items()]
    for summary, key in wanted:
        if present.get((model, summary.dataset.id, summary.variant)) == key:
            with lock:
                done.unchanged += 1
            continue
        store = write(to, summary, backend=backend, key=key, overwrite=True)
        with lock:
            done.written += 1
            done.n_bytes += store.n_bytes()
            done.n_images += len(store)
    with lock:
        done.failures.update({f"{model} on {name}": reason for name, reason in built.problems.items()})
