"""One device's work: load the models of a unit, run every dataset through them, seal what comes out."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch

from cache_schema.backends import BACKENDS
from cache_schema.format import failures
from closerlook_common.errors import CloserlookError, UserError
from extract.libraries import build
from extract.models import view_recipe
from extract.models.base import Prepared
from extract.passes import patches, provenance
from extract.passes.asking import Asked
from extract.passes.claims import Claims
from extract.passes.clock import Clock, first_line
from extract.passes.decode import Decoder
from extract.passes.events import Event, Listener
from extract.passes.faults import DeviceLostError, raise_if_full, reason_of
from extract.passes.forward import run_pass
from extract.passes.heads import HeadKey, Heads, head_key
from extract.passes.image_rows import DatasetChangedError
from extract.passes.pixel_cache import PixelSource
from extract.passes.pixel_room import most_bytes
from extract.passes.prefetch import Prefetcher
from extract.passes.runners import Runner, Sink, TextHead
from extract.passes.sealing import Members, Sealing
from extract.passes.sharing import Sharing
from extract.passes.sinks import ReferenceSink, StoreSink
from extract.passes.waves import Member, waves
from extract.planning.arrays import ARRAYS
from extract.planning.jobs import Job, geometry_of, head_identity, identified, is_sealed, keeps_statistics, stores_of
from extract.planning.mismatches import is_zero_shot, why_not_affine
from extract.planning.options import RunOptions
from extract.planning.plan import Unit
from extract.planning.sealed import look_at

POLL_SECONDS = 1.0

PART_DETAILS = {patches.PATCHES: patches.DETAILS, view_recipe.ARRAY: view_recipe.DETAILS}
"""Further arrays -> how they are made, for the details of their store."""


class Worker:
    """Runs units on one device; its decoding processes stay alive from unit to unit.

    Parameters
    ----------
    options
        Of the run.
    listener
        Called with every event.
    """

    def __init__(self, options: RunOptions, listener: Listener) -> None:
        if options.device == "cuda":  # what follows wants to know which
            options = replace(options, device=f"cuda:{torch.cuda.current_device()}")
        self.options, self.notify = options, listener
        self.device = torch.device(options.device)
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            # Whatever of a body autocast leaves in float32 stays float32.
            torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        self.room = most_bytes()  # before any of it is taken
        self.decoder = Decoder(options.workers)
        self.pixels = PixelSource(self.decoder, options, listener)
        self.models = Prefetcher(build, most_models=options.resident)
        self.sealing = Sealing(options, listener, self._record, self._fail)
        self.claims = Claims(options.cache)
        self.heads = Heads(options, listener, self._record, self._fail)

    def close(self) -> None:
        """End the decoding processes and the loading of models; stores that are complete are sealed still."""
        self.models.close()
        self.decoder.close()
        self.sealing.close()

    def run(self, unit: Unit, following: Unit | None = None) -> None:
        """Do everything in a unit; what fails is recorded and reported, the rest goes on.

        Parameters
        ----------
        unit
            What to do.
        following
            What will be done next, where that is known: its models are read while the device works on this one.
        """
        self.sharing = Sharing(unit, self.options, self.room)
        if unit.jobs:
            self.decoder.start(*self.sharing.largest())
        self.models.want(unit.models)
        if following is not None:
            self.models.want(following.models)
        # Takes a moment, in which decoders and models get ready.
        import_module(BACKENDS[self.options.backend].partition(":")[0])
        failed = lambda prepared, error: self._fail_model(unit, prepared, error)  # noqa: E731
        for wave in waves(unit.models, self.models, self.options, self.notify, failed):
            self._wave(unit, wave)

    def _wave(self, unit: Unit, wave: list[Member]) -> None:
        jobs: dict[str, list[tuple[Member, Job]]] = {}
        refused: dict[str, dict[HeadKey, Exception]] = {}
        for member in wave:
            digest = member.model.card.weights_digest
            mine = [job for job in unit.jobs if job.model is member.prepared]
            mine = [job if job.identity else identified(job, digest, self.options) for job in mine]
            refused[member.id] = self.heads.zero_shot(
                member, mine, [h for h in unit.heads if h.model is member.prepared]
            )
            for job in mine:
                error = refused[member.id].get(head_key(job)) or _why_no_views(member, job)
                if error is not None:
                    self._fail(member.id, job.dataset.card.id, error)
                else:
                    jobs.setdefault(job.dataset.card.id, []).append((member, job))
        # Stores that another run has claimed come last: by then they are usually sealed.
        passes = [members for together in jobs.values() for members in self._passes(together)]
        for members in [self._claimed(members) for members in passes]:
            self._others(members)
        for member in wave:
            heads = [head for head in unit.heads if head.model is member.prepared]
            if not is_zero_shot(member.prepared):
                self.heads.own(member, heads)
            # Not before: a sealed dataset clears what is recorded of the model.
            unused = set(map(head_key, heads)) - set(
                map(head_key, (job for job in unit.jobs if job.model is member.prepared))
            )
            for key in unused & refused[member.id].keys():
                self._fail(member.id, "", refused[member.id][key])

    def _passes(self, members: Members) -> list[Members]:
        """Divide a dataset's models by how many geometries have room together."""
        dataset = members[0][1].dataset
        groups = self.sharing.passes(dataset, (geometry_of(job) for _, job in members))
        return [[(member, job) for member, job in members if geometry_of(job) in group] for group in groups]

    # -- side by side with other runs on the same cache ----------------------------------------------------------

    def _claimed(self, members: Members) -> list[tuple[Member, Job]]:
        """Run a dataset through the models whose stores no other run has claimed; return the others."""
        free: list[tuple[Member, Job]] = []
        taken: list[tuple[Member, Job]] = []
        try:
            for member, job in members:
                if not self._sealed_before(member, job):
                    is_mine = self.claims.take(member.id, job.dataset.card.id, job.identity)
                    (free if is_mine else taken).append((member, job))
            # The owner of a claim may have finished between the two checks.
            free = [(member, job) for member, job in free if not self._sealed_before(member, job)]
            if free:
                self._dataset(free)
        finally:
            self.claims.release()
        return taken

    def _others(self, members: Members) -> None:
        """Wait until no other run has claimed these; run what was not finished."""
        given = False
        while members:
            owners = [self.claims.owner(member.id, job.dataset.card.id, job.identity) for member, job in members]
            at_work = next((owner for owner in owners if owner), "")
            if not at_work:
                members = self._claimed(members)
            elif not given:
                given = True
                self.notify(
                    Event("note", text=f"{members[0][1].dataset.card.id}: waiting for {at_work}, which has claimed it")
                )
            else:
                time.sleep(POLL_SECONDS)

    def _sealed_before(self, member: Member, job: Job) -> bool:
        if not is_sealed(job, self.options):
            return False
        damage = look_at(stores_of(job, self.options)).damage
        self.notify(
            Event("failed" if damage else "done", member.id, job.dataset.card.id, text=damage or "sealed before")
        )
        return True

    def _dataset(self, members: Members) -> None:
        dataset = members[0][1].dataset
        geometries = list(dict.fromkeys(geometry_of(job) for _, job in members))
        runners = [self._runner(member, job, geometries.index(geometry_of(job))) for member, job in members]
        names = ", ".join(member.id for member, _ in members)
        self.notify(Event("pass", names, dataset.card.id))

        def passed(rows: int) -> None:
            self.claims.beat()
            self.notify(Event("rows", names, dataset.card.id, rows * len(runners)))

        def rates(clock: Clock) -> None:
            if line := first_line(clock, len(dataset), len(runners), self.options.workers):
                self.notify(Event("rates", names, dataset.card.id, text=line))

        ahead = self.sharing.ahead(dataset, geometries)
        try:
            clock, problems = run_pass(
                runners,
                self.pixels.batches(dataset, geometries, self.sharing.rows(dataset, geometries), ahead),
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
            for (member, _), runner in zip(members, runners, strict=True):
                member.largest = runner.largest
            self.sealing.seal(members, runners, clock, problems)
        except BaseException:
            for runner in runners:
                runner.drop()
            raise

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

    def _runner(self, member: Member, job: Job, view: int) -> Runner:
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
        if job.extends:
            record["extends"] = list(job.extends)
        sink: Sink
        arrays: tuple[str, ...] = ()
        if keeps_statistics(job):
            sink = ReferenceSink(self.options, card, job.dataset, job.identity, record)
        else:
            arrays = job.arrays
            parts = {name: {**PART_DETAILS.get(name, {}), **_own_details(member, name)} for name in arrays}
            sink = StoreSink(self.options, card, job.dataset, job.identity, record, parts)
        return Runner(
            member.model,
            sink,
            text_head,
            tuple(name for name in arrays if ARRAYS[name].inner),
            view_recipe.ARRAY in arrays,
            Asked.of(job.dataset),
            compiled_rows=compiled_rows,
            largest=member.largest,
            view=view,
        )

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
        self.notify(Event("failed", model, dataset, text=reason))

    def _fail_model(self, unit: Unit, prepared: Prepared, error: BaseException) -> None:
        jobs = [job for job in unit.jobs if job.model is prepared]
        for job in jobs:
            self._fail(prepared.card.id, job.dataset.card.id, error)
        if not jobs:
            self._fail(prepared.card.id, "", error)


def _own_details(member: Member, array: str) -> Mapping[str, Any]:
    """Return what a store's details say of an array, as far as the model decides it."""
    return member.model.part_details(array) if ARRAYS[array].inner else {}


def _why_no_views(member: Member, job: Job) -> Exception | None:
    """Return why views cannot be chosen, which of some models shows only when they are loaded."""
    reason = why_not_affine(member.model.card.head_kind) if view_recipe.ARRAY in job.arrays else ""
    return UserError(f"`arrays` {view_recipe.ARRAY}: {reason}; run this model without them") if reason else None
