"""One device's work: load the models of a unit, run every dataset through them, seal what comes out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
import torch

import cache_schema
from cache_schema import failures
from cache_schema.backends import BACKENDS
from cache_schema.errors import CloserlookError, StoreExistsError
from extract.classes.prompts import PromptSet
from extract.classes.spaces import ClassSpace
from extract.datasets.base import Dataset
from extract.models import build
from extract.models.base import Head, Prepared
from extract.passes import provenance
from extract.passes.claims import Claims
from extract.passes.clock import Clock, finished_line, first_line
from extract.passes.decode import Decoder
from extract.passes.events import Event, Listener
from extract.passes.faults import DeviceLostError, raise_if_full, reason_of, unreadable
from extract.passes.forward import Runner, TextHead, run_pass
from extract.passes.image_rows import DatasetChangedError
from extract.passes.pixel_cache import PixelSource
from extract.passes.prefetch import Prefetcher
from extract.passes.sinks import ReferenceSink, StoreSink
from extract.passes.waves import Member, waves
from extract.planning.options import RunOptions
from extract.planning.plan import HeadJob, Job, Unit, head_identity, is_sealed, is_zero_shot, job_identity, stores_of
from extract.planning.sealed import look_at

POLL_SECONDS = 1.0
SEALERS = 4
"""Stores that are sealed at a time; most of it is waiting for the disk to say that it has them."""

_Members = Sequence[tuple[Member, Job]]


class Worker:
    """Runs units on one device; its decoding processes stay alive from unit to unit.

    Parameters
    ----------
    options
        Of the run.
    listener
        Told of everything that happens.
    """

    def __init__(self, options: RunOptions, listener: Listener) -> None:
        if options.device == "cuda":  # what follows wants to know which
            options = replace(options, device=f"cuda:{torch.cuda.current_device()}")
        self.options, self.tell = options, listener
        self.device = torch.device(options.device)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            # Whatever of a body autocast leaves in float32 stays float32.
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self.decoder = Decoder(options.workers)
        self.pixels = PixelSource(self.decoder, options, listener)
        self.models = Prefetcher(build, most_models=options.resident)
        self.sealers = ThreadPoolExecutor(SEALERS, "sealer")
        self.claims = Claims(options.cache)

    def close(self) -> None:
        """End the decoding processes and the loading of models; stores that are complete are sealed still."""
        self.models.close()
        self.decoder.close()
        self.sealers.shutdown()

    def run(self, unit: Unit, following: Unit | None = None) -> None:
        """Do everything in a unit; what fails is recorded and told, the rest goes on.

        Parameters
        ----------
        unit
            What to do.
        following
            What will be done next, where that is known: its models are read while the device works on this one.
        """
        if unit.jobs:
            height, width = unit.geometry.output_size
            rows = min(self.options.batch_size, max(len(job.dataset) for job in unit.jobs))
            self.decoder.start(rows, height * width * 3)
        self.models.want(unit.models)
        if following is not None:
            self.models.want(following.models)
        # Takes a moment, in which decoders and models get ready.
        import_module(BACKENDS[self.options.backend].partition(":")[0])
        failed = lambda prepared, error: self._fail_model(unit, prepared, error)  # noqa: E731
        for wave in waves(unit.models, self.models, self.options, self.tell, failed):
            self._wave(unit, wave)

    def _wave(self, unit: Unit, wave: list[Member]) -> None:
        jobs: dict[str, list[tuple[Member, Job]]] = {}
        for member in wave:
            digest = member.model.card.weights_digest
            mine = [job for job in unit.jobs if job.model is member.prepared]
            mine = [replace(job, identity=job.identity or job_identity(job, digest, self.options)) for job in mine]
            try:
                self._zero_shot_heads(member, mine, [head for head in unit.heads if head.model is member.prepared])
            except Exception as error:  # noqa: BLE001
                raise_if_full(self.options.cache, error)
                for job in mine:
                    self._fail(member.id, job.dataset.card.id, error)
                continue
            for job in mine:
                jobs.setdefault(job.dataset.card.id, []).append((member, job))
        # What another run is at comes last: mostly it is sealed by then.
        for members in [self._claimed(members) for members in jobs.values()]:
            self._others(members)
        for member in wave:
            if not is_zero_shot(member.prepared):
                self._own_heads(member, [head for head in unit.heads if head.model is member.prepared])

    # -- heads ---------------------------------------------------------------------------------------------------

    def _zero_shot_heads(self, member: Member, jobs: Sequence[Job], heads: Sequence[HeadJob]) -> None:
        if not is_zero_shot(member.prepared):
            return
        wanted: dict[tuple[str, str], tuple[ClassSpace, PromptSet, bool]] = {}
        for job in jobs:
            if job.prompts is not None and job.dataset.class_space is not None:
                key = (job.dataset.class_space.digest, job.prompts.name)
                wanted[key] = (job.dataset.class_space, job.prompts, False)
        for head in heads:
            assert head.prompts is not None
            wanted[head.class_space.digest, head.prompts.name] = (head.class_space, head.prompts, True)
        for key, (space, prompts, write) in wanted.items():
            self.tell(Event("loading", member.id, text=f"text head {space.id}, {prompts.name}"))
            member.heads[key] = member.model.head(space, prompts)
            if write:
                self._write_head(member, space, prompts, member.heads[key])

    def _own_heads(self, member: Member, heads: Sequence[HeadJob]) -> None:
        for head in heads:
            try:
                self._write_head(member, head.class_space, None, member.model.head(head.class_space, None))
            except Exception as error:  # noqa: BLE001
                raise_if_full(self.options.cache, error)
                self._fail(member.id, "", error)

    def _write_head(self, member: Member, space: ClassSpace, prompts: PromptSet | None, head: Head) -> None:
        identity = head_identity(member.prepared, member.model.card.weights_digest, space, prompts)
        try:
            cache_schema.write_head(
                self.options.cache,
                model=replace(member.model.card, head_kind=head.kind),
                class_space=space.id,
                class_names=space.names,
                weight=head.weight,
                bias=head.bias,
                prompt_set=head.prompt_set,
                templates=head.templates,
                logit_scale=head.logit_scale,
                logit_bias=head.logit_bias,
                normalize_features=head.normalize_features,
                affine=head.affine,
                residual=head.residual,
                text_sum=head.text_sum,
                n_templates=head.n_templates or None,
                identity=identity,
                backend=self.options.backend,
                record=self._record(member.model.precision) | (prompts.digests_for(space) if prompts else {}),
            )
        except StoreExistsError:
            return  # another worker was quicker; a head of that identity is that head

    # -- side by side with other runs on the same cache ----------------------------------------------------------

    def _claimed(self, members: _Members) -> list[tuple[Member, Job]]:
        """Run a dataset through the models that nobody else is at; return the others."""
        free: list[tuple[Member, Job]] = []
        taken: list[tuple[Member, Job]] = []
        for member, job in members:
            if not self._sealed_before(member, job):
                is_mine = self.claims.take(member.id, job.dataset.card.id, job.identity)
                (free if is_mine else taken).append((member, job))
        try:
            # Whoever had a claim may have finished between the two questions.
            free = [(member, job) for member, job in free if not self._sealed_before(member, job)]
            if free:
                self._dataset(free)
        finally:
            self.claims.release()
        return taken

    def _others(self, members: _Members) -> None:
        """Wait until nobody else is at these; run what was not finished."""
        told = False
        while members:
            owners = [self.claims.owner(member.id, job.dataset.card.id, job.identity) for member, job in members]
            at_work = next((owner for owner in owners if owner), "")
            if not at_work:
                members = self._claimed(members)
            elif not told:
                told = True
                self.tell(Event("note", text=f"{members[0][1].dataset.card.id}: waiting for {at_work}, which is at it"))
            else:
                time.sleep(POLL_SECONDS)

    def _sealed_before(self, member: Member, job: Job) -> bool:
        if not is_sealed(job, self.options):
            return False
        damage = look_at(stores_of(job, self.options)).damage
        self.tell(Event("failed" if damage else "done", member.id, job.dataset.card.id, text=damage or "sealed before"))
        return True

    def _dataset(self, members: _Members) -> None:
        dataset, geometry = members[0][1].dataset, members[0][1].preprocessing.geometry
        runners = [self._runner(member, job) for member, job in members]
        names = ", ".join(member.id for member, _ in members)
        self.tell(Event("pass", names, dataset.card.id))

        def passed(rows: int) -> None:
            self.claims.beat()
            self.tell(Event("rows", names, dataset.card.id, rows * len(runners)))

        def rates(clock: Clock) -> None:
            if line := first_line(clock, len(dataset), len(runners), self.options.workers):
                self.tell(Event("rates", names, dataset.card.id, text=line))

        try:
            clock, problems = run_pass(
                runners,
                self.pixels.batches(dataset, geometry, self.options.batch_size),
                self.device,
                on_batch=passed,
                on_rates=rates,
                processes=self.options.workers,
            )
            self._check_device([runner.error for runner in runners if runner.error is not None])
            if all(runner.error is not None for runner in runners):
                clock.images = 0
            elif change := self.pixels.watch.change(dataset):
                raise DatasetChangedError(change)
        except BaseException as error:
            for runner in runners:
                runner.drop()
            if not isinstance(error, Exception) or isinstance(error, CloserlookError):
                raise
            raise_if_full(self.options.cache, error)
            self._check_device([error])
            for member, _ in members:
                self._fail(member.id, dataset.card.id, error)
            return
        try:
            self._seal(members, runners, clock, problems)
        except BaseException:
            for runner in runners:
                runner.drop()
            raise

    def _seal(self, members: _Members, runners: list[Runner], clock: Clock, problems: list[tuple[int, str]]) -> None:
        dataset = members[0][1].dataset
        for (member, _), runner in zip(members, runners, strict=True):
            member.largest = runner.largest
        speed = clock.record()
        record: dict[str, Any] = {
            "speed": speed,
            "images_per_second": speed["images_per_second"],
            "models_in_pass": len(runners),
            "unreadable": [{"image_id": dataset.image_ids[row], "reason": reason} for row, reason in problems[:1000]],
            "n_unreadable": len(problems),
        }
        names = ", ".join(member.id for member, _ in members)
        self.tell(Event("rates", names, dataset.card.id, text=finished_line(clock)))
        sealing: list[Future[None]] = []
        for (member, job), runner in zip(members, runners, strict=True):
            if dataset.card.role == "pairs":  # captions need the device
                self._finish(member, job, runner, record)
            else:
                sealing.append(self.sealers.submit(self._finish, member, job, runner, record))
        # The next pass begins when this one is safe, so that a kill costs no more than one.
        for future in sealing:
            future.result()
        if problems:
            self.tell(Event("failed", "", dataset.card.id, text=unreadable(dataset.image_ids, problems)))

    def _check_device(self, errors: Sequence[BaseException]) -> None:
        """Raise `DeviceLostError` where one of these errors has left the device unusable for every model."""
        if not errors or self.device.type != "cuda":
            return
        try:
            torch.cuda.synchronize(self.device)
        except RuntimeError as error:
            reason = reason_of(errors[0])
            raise DeviceLostError(
                f"{self.options.device} does not work any more after an error ({reason}); what is sealed is safe, run"
                " the same command again"
            ) from error

    def _runner(self, member: Member, job: Job) -> Runner:
        card = member.model.card
        space = job.dataset.class_space
        text_head, record = None, self._record(member.model.precision)
        if job.prompts is not None and space is not None:
            head = member.heads[space.digest, job.prompts.name]
            text_head = TextHead(
                torch.from_numpy(head.weight).to(self.device),
                torch.from_numpy(head.bias).to(self.device),
                1.0 if head.logit_scale is None else head.logit_scale,
            )
            record["prompt_set"] = job.prompts.name
            # Of several heads in the cache, this is the one that the stored logits are of.
            record["head_identity"] = head_identity(
                member.prepared, member.model.card.weights_digest, space, job.prompts
            )
        compiled_rows = member.model.compiled_rows
        record |= {
            "identity": job.identity,
            "preprocessing": job.preprocessing.to_record(),
            "compiled": compiled_rows > 0,
        }
        sink_type = ReferenceSink if job.dataset.card.role == "reference" else StoreSink
        sink = sink_type(self.options, card, job.dataset, job.identity, record)
        return Runner(member.model, sink, text_head, compiled_rows=compiled_rows, largest=member.largest)

    def _finish(self, member: Member, job: Job, runner: Runner, record: dict[str, Any]) -> None:
        with runner.ending:
            if not runner.dropped:
                self._end(member, job, runner, record)

    def _end(self, member: Member, job: Job, runner: Runner, record: dict[str, Any]) -> None:
        dataset = job.dataset
        try:
            if runner.error is not None:
                raise runner.error
            if dataset.card.role == "pairs" and dataset.captions is not None:
                self._texts(member, job, dataset)
            runner.sink.finish(record)
        except StoreExistsError:
            # Two workers raced for the same store; it is the same one, so only time was lost.
            runner.sink.abort()
        except Exception as error:  # noqa: BLE001  # one model's failure must not stop the others
            runner.sink.abort()
            raise_if_full(self.options.cache, error)
            self._fail(member.id, dataset.card.id, error)
            return
        failures.clear_failure(self.options.cache, member.id, dataset.card.id)
        failures.clear_failure(self.options.cache, member.id, "")
        self.tell(Event("done", member.id, dataset.card.id))

    def _texts(self, member: Member, job: Job, dataset: Dataset) -> None:
        assert dataset.captions is not None
        texts = [text for captions in dataset.captions for text in captions]
        image_index = np.repeat(np.arange(len(dataset)), [len(captions) for captions in dataset.captions])
        try:
            cache_schema.write_texts(
                self.options.cache,
                model=member.model.card,
                dataset=dataset.card,
                embeddings=member.model.encode_texts(texts),
                text=texts,
                image_index=image_index.astype(np.int32),
                identity=job.identity,
                backend=self.options.backend,
                record=self._record("fp32"),
            )
        except StoreExistsError:
            return

    # -- records -------------------------------------------------------------------------------------------------

    def _record(self, precision: str) -> dict[str, Any]:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        described = provenance.describe_run(
            device=self.options.device,
            device_name=name,
            precision=precision,
            batch_size=self.options.batch_size,
        )
        if self.device.type == "cuda":
            backends = torch.backends
            described["tf32"] = {"matmul": backends.cuda.matmul.allow_tf32, "cudnn": backends.cudnn.allow_tf32}
        return described

    def _fail(self, model: str, dataset: str, error: BaseException) -> None:
        reason = reason_of(error)
        # A cache that can no longer be written to must not hide the failure itself.
        with contextlib.suppress(OSError):
            failures.record_failure(self.options.cache, model, dataset, reason)
        self.tell(Event("failed", model, dataset, text=reason))

    def _fail_model(self, unit: Unit, prepared: Prepared, error: BaseException) -> None:
        jobs = [job for job in unit.jobs if job.model is prepared]
        for job in jobs:
            self._fail(prepared.card.id, job.dataset.card.id, error)
        if not jobs:
            self._fail(prepared.card.id, "", error)
