"""One ``extract`` command from its options to its summary."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from closerlook_common.cluster import connected
from closerlook_common.console.argument_types import parse_whole
from closerlook_common.console.command_line import EXIT_INTERRUPTED
from closerlook_common.console.messages import line, problem
from closerlook_common.console.terminal import as_text, counted, plain_table, printable
from closerlook_common.console.waiting import waiting
from closerlook_common.errors import CloserlookError, UserError
from closerlook_common.user_cache import require_own
from extract.classes.words import word_lists
from extract.commands.dataset_options import dataset_specs, resolve_datasets, study_datasets
from extract.commands.devices import device_of, devices_of, has_bf16
from extract.commands.progress import print_failures
from extract.commands.roles import with_settled_roles
from extract.planning.arrays import arrays_of, why_not_compiled
from extract.planning.jobs import Job
from extract.planning.mismatches import is_zero_shot
from extract.planning.options import RunOptions, shard_of
from extract.planning.plan import DAMAGED, MISSING, REFUSED, SEALED, SKIPPED, Plan, make_plan, with_class_spaces
from extract.studies.study import Study, read_study

if TYPE_CHECKING:
    from extract.classes.prompts import PromptSet
    from extract.commands.progress import Reporter, Tally
    from extract.commands.request import RunRequest
    from extract.models.base import Prepared
    from extract.models.spec import ModelSpec

PATIENCE_SECONDS = 2.0

SPREAD_MODELS = 8
"""Models of one piece of work where several devices or jobs share it."""

_FAILED = (DAMAGED, REFUSED)
"""States of jobs that are reported as failures before anything runs."""

BATCH_SIZES = {"cpu": 32, "cuda": 256}


@dataclass(frozen=True)
class Outcome:
    """What came of a request.

    Attributes
    ----------
    plan, options
        What was asked for, and how it was run.
    tally
        What became of the jobs that were to be done; None where they were only planned.
    failed
        (model, dataset, reason) of everything that failed, jobs included.
    """

    plan: Plan
    options: RunOptions
    tally: Tally | None
    failed: list[tuple[str, str, str]]


def run_session(request: RunRequest) -> int:
    """Run one ``extract`` command.

    Returns
    -------
    int
        0 where everything asked for is sealed or was skipped with a reason; 1 where something failed.
    """
    console = Console(stderr=True)
    begun = time.monotonic()
    with _ending_in_order():
        outcome = carry_out(request, console)
    if outcome.tally is None:
        _print_plan(outcome.plan, outcome.options, console)
        print_failures(outcome.failed, console)
        return int(bool(outcome.failed))
    return _summary(outcome.plan, outcome.tally, outcome.failed, outcome.options, console, time.monotonic() - begun)


def carry_out(request: RunRequest, console: Console) -> Outcome:
    """Plan a request and run what is missing in the cache; what happens is printed on the console.

    Raises
    ------
    UserError
        An option, a file of models or datasets cannot be used, or nothing is left to run.
    """
    _check(request)  # before a cluster is waited for
    with connected(request.address) if request.engine == "ray" else contextlib.nullcontext():
        plan, options, failed = plan_of(request, console, record_roles=not request.dry_run)
        if request.dry_run:
            return Outcome(plan, options, None, failed)
        tally = _run(plan, options, request, console).tally
        _record_models(plan, failed, options)
    return Outcome(plan, options, tally, failed + tally.failed)


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """Handle the signal that job schedulers send before they kill like Ctrl-C: no incomplete files are left.

    A second signal within `PATIENCE_SECONDS`, as when a scheduler and a terminal both send one, is ignored; a later one
    ends the process at once.
    """
    asked: list[float] = []

    def stop(*_: object) -> None:
        if not asked:
            asked.append(time.monotonic())
            raise KeyboardInterrupt
        if time.monotonic() - asked[0] > PATIENCE_SECONDS:
            os._exit(EXIT_INTERRUPTED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            # Once asked, this process does nothing but end.
            signal.signal(number, signal.SIG_IGN if asked else handler)


def plan_of(
    request: RunRequest, console: Console, *, record_roles: bool = False
) -> tuple[Plan, RunOptions, list[tuple[str, str, str]]]:
    """Return the plan, its options, and (model, dataset, reason) of what cannot be used.

    With ``record_roles`` the cache takes over the roles that the datasets were given.
    """
    failed: list[tuple[str, str, str]] = []
    study = read_study(request.study) if request.study else None
    request = _settled(request, study)
    options = _options(request)  # before anything that takes long
    wanted = _model_specs(request)
    specs = study_datasets(study, request, console) if study is not None else dataset_specs(request, console)
    models = _prepare(wanted, failed)
    datasets = resolve_datasets(specs, failed, console)
    if not datasets:
        raise UserError(f"no dataset is left to run on: {failed[-1][2] if failed else 'none was named'}")
    datasets = with_settled_roles(specs, datasets, options.cache, console, record=record_roles)
    plan = make_plan(models, with_class_spaces(datasets), options)
    if options.words and not any(map(is_zero_shot, plan.models)):
        raise UserError("`words` are embedded by zero-shot models, and none of these models is one")
    for space, prompts in {(head.class_space, head.prompts) for head in plan.heads if head.prompts is not None}:
        prompts.texts(space)  # raises now what would fail once a model later
    failed += [(job.model.card.id, job.dataset.card.id, job.reason) for job in plan.jobs if job.state in _FAILED]
    failed += [(head.model.card.id, "", head.reason) for head in plan.heads if head.state == DAMAGED]
    return plan, options, failed


def _settled(request: RunRequest, study: Study | None) -> RunRequest:
    """Return the request with what it leaves open taken from the study."""
    if study is None:
        return request
    if request.model_list or request.models or request.dataset or request.specs or request.datasets:
        raise UserError("`study` names the models and datasets: remove `model_list` and `dataset`, or change the file")
    return replace(
        request,
        model_list=tuple(study.model_lists),
        cache=request.cache or study.cache,
        store=request.store or study.store,
        precision=request.precision or study.precision,
        features_dtype=request.features_dtype or study.features_dtype,
        arrays=",".join(study.arrays) if request.arrays is None else request.arrays,
        prompts=",".join(study.prompts) if request.prompts is None else request.prompts,
        words=request.words or study.words,
    )


def _model_specs(request: RunRequest) -> list[ModelSpec]:
    from extract.libraries import get
    from extract.zoo.model_list import read_model_list

    if not request.model_list and not request.models:
        raise UserError(
            "name the models: --model-list models.txt, or a built-in list as --model-list @clip-zero-shot-51"
        )
    specs: dict[str, ModelSpec] = {}
    for source in (request.models, *map(read_model_list, request.model_list)):
        for spec in source:
            if spec.id in specs and not spec.is_run_like(specs[spec.id], get(spec.library).confirming_options):
                raise UserError(
                    f"two models are called {spec.id!r} ({specs[spec.id].where} and {spec.where}): give one an id="
                )
            specs.setdefault(spec.id, spec)
    return list(specs.values())


def _prepare(specs: Sequence[ModelSpec], failed: list[tuple[str, str, str]]) -> list[Prepared]:
    from extract.libraries import prepare

    prepared = []
    for spec in specs:
        try:
            with waiting(f"looking for the weights of {printable(spec.id)}"):
                prepared.append(prepare(spec))
        except CloserlookError as error:
            failed.append((spec.id, "", str(error)))
    if specs and not prepared:
        raise UserError(f"no model is left to run: {failed[-1][2]}")
    return prepared


def _check(request: RunRequest) -> None:
    """Raise UserError for options that contradict each other or would have no effect."""
    shard_of(request.shard)
    if request.pixel_cache is not None and request.pixel_cache.exists() and not request.pixel_cache.is_dir():
        raise UserError(f"`pixel_cache` {request.pixel_cache}: that is a file, and pixels are kept in a folder")
    if request.pixel_cache is not None:
        require_own(request.pixel_cache, "name another folder with `pixel_cache`", shared=True)
    if request.address and request.engine != "ray":
        raise UserError("`address` names a Ray cluster: give `engine` ray too, or remove it")
    if request.devices and request.engine == "ray":
        raise UserError(
            "`devices` names devices of this machine; remove it: `engine` ray uses all devices of the cluster"
        )


def _options(request: RunRequest) -> RunOptions:
    arrays = arrays_of(request.arrays or "")
    if request.compile and (reason := why_not_compiled(arrays)):
        raise UserError(f"{reason}: leave out one of `arrays` and `compile`")
    device, decoders = device_of(request)
    kind = device.partition(":")[0]
    batch_size, workers = BATCH_SIZES.get(kind, 32), decoders
    if request.batch_size != "auto":
        batch_size = _number("`batch_size`", request.batch_size, 1)
    if request.workers != "auto":
        workers = _number("`workers`", request.workers, 0)
    precision = request.precision or "auto"
    if precision == "auto":
        precision = "bf16" if kind == "cuda" and (request.engine == "ray" or has_bf16(device)) else "fp32"
    return RunOptions(
        cache=request.cache or Path("cache"),
        backend=request.store or "zarr",
        device=device,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        prompts=_prompt_sets("openai-80" if request.prompts is None else request.prompts),
        words=word_lists(tuple(request.words)),
        features_dtype=request.features_dtype or "float16",
        arrays=arrays,
        pixel_cache=request.pixel_cache,
        pixel_cache_bytes=int(request.pixel_cache_gb * (1 << 30)),
        compile=request.compile,
        resident=request.resident,
    )


def _prompt_sets(text: str) -> tuple[PromptSet, ...]:
    from extract.classes.prompts import prompt_set

    sets: dict[str, PromptSet] = {}
    for word in filter(None, map(str.strip, text.split(","))):
        found = prompt_set(word)
        if sets.setdefault(found.name, found).digest != found.digest:
            raise UserError(f"two prompt sets are called {found.name!r}: rename a file")
    return tuple(sets.values())


def _number(option: str, text: str, least: int) -> int:
    value = parse_whole(text)
    if value is None or value < least:
        raise UserError(f"{option} takes auto or a whole number from {least} on, not {text!r}")
    return value


def _run(plan: Plan, options: RunOptions, request: RunRequest, console: Console) -> Reporter:
    from cache_schema.writing.staging import clean_stale
    from extract.commands.progress import Reporter
    from extract.engines import engine
    from extract.passes.claims import clean_claims
    from extract.passes.faults import check_writable

    shard, devices = shard_of(request.shard), devices_of(request) if request.engine == "local" else [options.device]
    count = len(devices) if request.engine == "local" else 0  # of a cluster, which may grow
    largest = SPREAD_MODELS if count != 1 or shard[1] > 1 else 0
    units = plan.units(shard=shard, largest=largest, devices=count)
    rows = {(job.model.card.id, job.dataset.card.id): len(job.dataset) for unit in units for job in unit.jobs}
    reporter = Reporter(rows, len({model.card.id for unit in units for model in unit.models}), console)
    if units:
        check_writable(options.cache)
        clean_stale(options.cache)
        clean_claims(options.cache)
        try:
            with reporter:
                engine(request.engine)(units, options, reporter, devices=devices, address=request.address)
        except BaseException:
            # A signal may come between the making of a stage or claim and the record of it that removes it.
            with contextlib.suppress(OSError):  # the error that ended the run is the one to report
                clean_stale(options.cache)
                clean_claims(options.cache)
            raise
    return reporter


def _record_models(plan: Plan, failed: Sequence[tuple[str, str, str]], options: RunOptions) -> None:
    """Keep in the cache which models cannot be used at all, and forget it of those that have everything."""
    from cache_schema.format.failures import clear_failure, record_failure

    if not options.cache.is_dir():
        return
    usable = {model.card.id for model in plan.models}
    owing = {job.model.card.id for job in plan.jobs if job.state in (MISSING, *_FAILED)}
    owing |= {head.model.card.id for head in plan.heads if head.state in (MISSING, DAMAGED)}
    with contextlib.suppress(OSError):  # a cache that may only be read
        for model, _, reason in failed:
            if model and model not in usable:
                record_failure(options.cache, model, "", reason)
        for model in usable - owing:
            clear_failure(options.cache, model, "")


def _print_plan(plan: Plan, options: RunOptions, console: Console) -> None:
    table = plain_table(f"what would run into {options.cache}")
    for column in ("model", "dataset", "images", "state"):
        table.add_column(column, overflow="fold", justify="right" if column == "images" else "left")
    for job in plan.jobs:
        state = job.state if not job.reason else f"{job.state}: {job.reason}"
        table.add_row(*map(as_text, (job.model.card.id, job.dataset.card.id, f"{len(job.dataset):,}", state)))
    console.print(table)
    text = (
        f"{counted(plan.count(MISSING), 'store')} to make, {plan.count(SEALED)} sealed, {plan.count(SKIPPED)} skipped"
    )
    for unit in plan.units():
        if models := len({job.model.card.id for job in unit.jobs}):
            ways = f", {len(unit.geometries)} ways to resize and crop" if len(unit.geometries) > 1 else ""
            text += "; each image is decoded once for every group of models that fits the device"
            text += f" ({counted(models, 'model')}{ways})"
    console.print(line(text), soft_wrap=True)


def _summary(
    plan: Plan,
    tally: Tally,
    failed: list[tuple[str, str, str]],
    options: RunOptions,
    console: Console,
    seconds: float,
) -> int:
    skipped = [job for job in plan.jobs if job.state == SKIPPED]
    for (dataset, reason), models in _by_reason(skipped).items():
        console.print(problem("skipped", "yellow", f"{_some(models)} on {dataset}: {reason}"), soft_wrap=True)
    failing = {dataset for model, dataset, _ in failed if not model}
    sealed = {(job.dataset.card.id, job.reason): None for job in plan.jobs if job.state == SEALED and job.reason}
    for dataset, reason in (one for one in sealed if one[0] not in failing):
        console.print(problem("sealed", "yellow", f"{dataset}: {reason}"), soft_wrap=True)
    counts = line(
        f"{len(tally.done)} done, {plan.count(SEALED) + tally.sealed} sealed before,"
        f" {len(skipped)} skipped, {len(failed)} failed in {seconds:.0f} s; the cache is {options.cache}"
    )
    counts.highlight_words([f"{len(failed)} failed"], "red" if failed else "green")
    console.print(counts, soft_wrap=True)
    print_failures(failed[: len(failed) - len(tally.failed)], console)
    if tally.failed:  # their reasons were printed when they failed
        jobs = counted(len(tally.failed), "failure")
        where = f"reasons are above, and 'extract status {options.cache}' lists those of models"
        console.print(line(f"{jobs} while running: {where}", "red"), soft_wrap=True)
    return int(bool(failed))


def _by_reason(skipped: Sequence[Job]) -> dict[tuple[str, str], list[str]]:
    """Return (dataset, reason) -> models: a list of hundreds is skipped for a handful of reasons."""
    found: dict[tuple[str, str], list[str]] = {}
    for job in skipped:
        found.setdefault((job.dataset.card.id, job.reason), []).append(job.model.card.id)
    return found


def _some(names: Sequence[str]) -> str:
    if len(names) <= 3:
        return ", ".join(names)
    return f"{len(names)} models ({', '.join(names[:2])} ...)"
