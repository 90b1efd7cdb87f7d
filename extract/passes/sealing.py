"""Seal the stores of a pass, and record what failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

import cache_schema
from cache_schema.format import failures
from closerlook_common.errors import StoreExistsError
from extract.datasets.base import Dataset
from extract.passes.clock import Clock, finished_line
from extract.passes.events import Event, Listener
from extract.passes.faults import raise_if_full, unreadable
from extract.passes.heads import cut_note
from extract.passes.runners import Runner
from extract.passes.waves import Member
from extract.planning.jobs import Job
from extract.planning.options import RunOptions

THREADS = 4
"""Stores that are sealed at a time; most of it is waiting for the disk to say that it has them."""

Members = Sequence[tuple[Member, Job]]
Problems = list[tuple[int, str]]


class Sealing:
    """Seals stores in threads of its own; captions, which need the device, are embedded in the caller's.

    Parameters
    ----------
    options
        Of the run.
    listener
        Called with every event.
    record
        Precision -> what a store's record says about this run.
    fail
        Records and reports that a model failed on a dataset.
    """

    def __init__(
        self,
        options: RunOptions,
        listener: Listener,
        record: Callable[[str], dict[str, Any]],
        fail: Callable[[str, str, BaseException], None],
    ) -> None:
        self._options, self._notify = options, listener
        self._record, self._fail = record, fail
        self._threads = ThreadPoolExecutor(THREADS, "sealer")

    def close(self) -> None:
        """Return when the stores that are complete are sealed."""
        self._threads.shutdown()

    def seal(self, members: Members, runners: Sequence[Runner], clock: Clock, problems: dict[int, Problems]) -> None:
        """Return when every store of a pass is sealed or its failure recorded.

        Parameters
        ----------
        members, runners
            The models of the pass with their jobs, and what ran each.
        clock
            How long the pass took, and why.
        problems
            View of the images -> rows that could not be read, with reasons.
        """
        dataset = members[0][1].dataset
        speed = clock.record()
        shared = {
            "speed": speed,
            "images_per_second": speed["images_per_second"],
            "models_in_pass": len(runners),
        }
        names = ", ".join(member.id for member, _ in members)
        self._notify(Event("rates", names, dataset.card.id, text=finished_line(clock)))
        sealing: list[Future[None]] = []
        for (member, job), runner in zip(members, runners, strict=True):
            record = shared | _unreadable(dataset, problems.get(runner.view, []))
            if dataset.card.role == "pairs":
                self.finish(member, job, runner, record)
            else:
                sealing.append(self._threads.submit(self.finish, member, job, runner, record))
        # The next pass begins when this one is safe, so that a kill costs no more than one.
        for future in sealing:
            future.result()
        if found := sorted(dict(problem for view in problems.values() for problem in view).items()):
            self._notify(Event("failed", "", dataset.card.id, text=unreadable(dataset.image_ids, found)))

    def finish(self, member: Member, job: Job, runner: Runner, record: dict[str, Any]) -> None:
        """Seal one store, unless the pass was interrupted meanwhile."""
        with runner.ending:
            if not runner.dropped and self._is_stored(member, job, runner, record):
                failures.clear_failure(self._options.cache, member.id, job.dataset.card.id)
                failures.clear_failure(self._options.cache, member.id, "")
                self._notify(Event("done", member.id, job.dataset.card.id))

    def _is_stored(self, member: Member, job: Job, runner: Runner, record: dict[str, Any]) -> bool:
        """Return whether the store is sealed now; if not, the failure is recorded."""
        dataset = job.dataset
        try:
            if runner.error is not None:
                raise runner.error
            if dataset.card.role == "pairs" and dataset.captions is not None:
                self._write_texts(member, job, dataset.captions)
            runner.sink.finish(record)
        except StoreExistsError:
            # Two workers raced for the same store; it is the same one, so only time was lost.
            runner.sink.abort()
        except Exception as error:  # noqa: BLE001  # one model's failure must not stop the others
            runner.sink.abort()
            raise_if_full(self._options.cache, error)
            self._fail(member.id, dataset.card.id, error)
            return False
        return True

    def _write_texts(self, member: Member, job: Job, captions: Sequence[Sequence[str]]) -> None:
        dataset = job.dataset
        texts = [text for several in captions for text in several]
        image_index = np.repeat(np.arange(len(dataset)), [len(several) for several in captions])
        cut = member.model.cut_texts(texts)
        record = self._record("fp32") | {"texts_cut": len(cut)}
        if job.extends:
            record["extends"] = list(job.extends)
        if note := cut_note(member.model, f"captions of {dataset.card.id}", texts, cut):
            self._notify(Event("note", member.id, dataset.card.id, text=note))
        try:
            cache_schema.write_texts(
                self._options.cache,
                model=member.model.card,
                dataset=dataset.card,
                embeddings=member.model.encode_texts(texts),
                text=texts,
                image_index=image_index.astype(np.int32),
                identity=job.identity,
                backend=self._options.backend,
                record=record,
            )
        except StoreExistsError:
            return


def _unreadable(dataset: Dataset, problems: Problems) -> dict[str, Any]:
    return {
        "unreadable": [{"image_id": dataset.image_ids[row], "reason": reason} for row, reason in problems[:1000]],
        "n_unreadable": len(problems),
    }
