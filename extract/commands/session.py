"""One ``extract`` command from its options to its summary."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from cache_schema.cluster import connected
from cache_schema.console.command_line import EXIT_INTERRUPTED
from cache_schema.console.terminal import plain_table
from cache_schema.errors import CloserlookError, UserError, nearest
from extract.commands.devices import device_of, devices_of, has_bf16
from extract.commands.progress import print_failures
from extract.datasets import DatasetSpec, read_datasets_toml, spec_from_table
from extract.datasets.base import Dataset
from extract.planning.options import RunOptions, shard_of
from extract.planning.plan import DAMAGED, MISSING, SEALED, SKIPPED, Job, Plan, make_plan, with_class_spaces
from extract.studies.study import Study, read_study

if TYPE_CHECKING:
    from extract.classes.prompts import PromptSet
    from extract.commands.progress import Reporter
    from extract.models.base import Prepared
    from extract.zoo.model_list import ModelSpec

DEFAULT_DATASETS = Path("datasets.toml")
MINIATURE = Path("miniature")
PATIENCE_SECONDS = 2.0

SPREAD_MODELS = 8
"""Models of one piece of work where several devices or jobs share it."""

BATCH_SIZES = {"cpu": 32, "cuda": 256}


def run_session(args: argparse.Namespace) -> int:
    """Run one ``extract`` command.

    Returns
    -------
    int
        0 where everything asked for is sealed or was skipped with a reason; 1 where something failed.
    """
    console = Console(stderr=True)
    begun = time.monotonic()
    _refuse_odd_words(args)  # before a cluster is waited for
    with _ending_in_order(), connected(args.address) if args.engine == "ray" else contextlib.nullcontext():
        plan, options, failed = plan_of(args, console)
        if args.dry_run:
            _print_plan(plan, options, console)
            print_failures(failed, console)
            return int(bool(failed))
        reporter = _run(plan, options, args, console)
        _record_models(plan, failed, options)
    return _summary(plan, reporter, failed, options, console, time.monotonic() - begun)


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """Treat the signal that job schedulers send before they kill as Ctrl-C: nothing half is left behind.

    Signals that come twice, as from a scheduler and from a terminal, do not disturb the first one's work; who asks
    again after `PATIENCE_SECONDS` means it.
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


def plan_of(args: argparse.Namespace, console: Console) -> tuple[Plan, RunOptions, list[tuple[str, str, str]]]:
    """Return the plan, its options, and (model, dataset, reason) of what cannot be used."""
    failed: list[tuple[str, str, str]] = []
    study = read_study(args.study) if args.study else None
    _settle(args, study)
    options = _options(args)  # before anything that takes long
    if study is not None and study.where == "@miniature":
        _build_miniature(console)
    wanted = _model_specs(args)
    specs = _study_datasets(study, args, console) if study is not None else _dataset_specs(args, console)
    models = _prepare(wanted, failed)
    datasets = _resolve(specs, failed)
    if not datasets:
        raise UserError(f"no dataset is left to run on: {failed[-1][2] if failed else 'none was named'}")
    plan = make_plan(models, with_class_spaces(datasets), options)
    for space, prompts in {(head.class_space, head.prompts) for head in plan.heads if head.prompts is not None}:
        prompts.texts(space)  # raises now what would fail once a model later
    failed += [(job.model.card.id, job.dataset.card.id, job.reason) for job in plan.jobs if job.state == DAMAGED]
    failed += [(head.model.card.id, "", head.reason) for head in plan.heads if head.state == DAMAGED]
    return plan, options, failed


def _settle(args: argparse.Namespace, study: Study | None) -> None:
    """Fill in what the command line leaves open: from the study, else the defaults."""
    if study is not None:
        if args.model_list or args.dataset or args.datasets:
            raise UserError(
                "--study names the models and datasets: leave --model-list and --dataset away, or change the file"
            )
        args.model_list = list(study.model_lists)
    said = {
        "cache": study.cache if study else Path("cache"),
        "store": study.store if study else "zarr",
        "precision": study.precision if study else "auto",
        "features_dtype": study.features_dtype if study else "float16",
        "prompts": ",".join(study.prompts) if study else "openai-80",
    }
    for name, value in said.items():
        if getattr(args, name) is None:
            setattr(args, name, value)


def _study_datasets(study: Study, args: argparse.Namespace, console: Console) -> list[DatasetSpec]:
    specs, missing = study.datasets()
    if missing:
        console.print(
            f"left out, for {study.datasets_file} does not name them: {', '.join(missing)}",
            highlight=False, soft_wrap=True,
        )  # fmt: skip
    return _with_references(specs, args.reference)


def _model_specs(args: argparse.Namespace) -> list[ModelSpec]:
    from extract.zoo.model_list import read_model_list

    if not args.model_list:
        raise UserError(
            "name the models: --model-list models.txt, or a built-in list as --model-list @clip-zero-shot-51"
        )
    specs: dict[str, ModelSpec] = {}
    for source in args.model_list:
        for spec in read_model_list(source):
            if spec.id in specs and not spec.is_run_like(specs[spec.id]):
                raise UserError(
                    f"two models are called {spec.id!r} ({specs[spec.id].where} and {spec.where}): give one an id="
                )
            specs.setdefault(spec.id, spec)
    return list(specs.values())


def _dataset_specs(args: argparse.Namespace, console: Console) -> list[DatasetSpec]:
    specs = []
    for text in args.dataset:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise UserError(f"--dataset takes NAME=PATH, as in --dataset pets=/data/pets; not {text!r}")
        specs.append(spec_from_table(name, {"path": path}, Path.cwd(), where=f"--dataset {name}"))
    toml = args.datasets
    if toml is None and not specs:
        if DEFAULT_DATASETS.is_file():
            toml = DEFAULT_DATASETS
            console.print(f"no dataset is named: taking {toml}", highlight=False)
        else:
            toml = MINIATURE / "datasets.toml"
            console.print(
                "no dataset is named and there is no datasets.toml here: taking the built-in miniature study"
                f" ({MINIATURE}/), whose numbers mean nothing beyond itself",
                highlight=False, soft_wrap=True,
            )  # fmt: skip
            _build_miniature(console)
    if toml is not None:
        specs += read_datasets_toml(toml)
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two datasets are called {name!r}: give one another name")
    return _with_references(specs, args.reference)


def _build_miniature(console: Console) -> None:
    from extract.miniature.progress import build_shown

    build_shown(MINIATURE, console)


def _with_references(specs: list[DatasetSpec], references: Sequence[str]) -> list[DatasetSpec]:
    """Make the named datasets references: streamed, their statistics kept instead of their rows."""
    by_name = {spec.name: spec for spec in specs}
    for text in references:
        name, _, option = text.partition(":")
        if name not in by_name:
            raise UserError(f"--reference {name}: no dataset of that name{nearest(name, by_name)}")
        key, equals, value = option.partition("=")
        if option and not (key == "per_class" and equals and value.isdigit() and int(value) > 0):
            raise UserError(f"--reference takes NAME or NAME:per_class=N, not {text!r}")
        per_class = int(value) if option else by_name[name].per_class
        by_name[name] = replace(by_name[name], role="reference", per_class=per_class)
    return list(by_name.values())


def _prepare(specs: Sequence[ModelSpec], failed: list[tuple[str, str, str]]) -> list[Prepared]:
    from extract.models import prepare

    prepared = []
    for spec in specs:
        try:
            prepared.append(prepare(spec))
        except CloserlookError as error:
            failed.append((spec.id, "", str(error)))
    if specs and not prepared:
        raise UserError(f"no model is left to run: {failed[-1][2]}")
    return prepared


def _resolve(specs: Sequence[DatasetSpec], failed: list[tuple[str, str, str]]) -> list[Dataset]:
    from extract.datasets.borrowing import resolve_all

    datasets, reasons = resolve_all(specs)
    failed += [("", name, str(reason)) for name, reason in reasons.items()]
    return datasets


def _refuse_odd_words(args: argparse.Namespace) -> None:
    """Raise UserError for words that would be heeded wrongly or not at all."""
    if args.resident < 0:
        raise UserError(f"--resident takes a whole number from 0 on, not {args.resident}")
    if not 0 < args.pixel_cache_gb < math.inf:
        raise UserError(f"--pixel-cache-gb takes a number above 0, not {args.pixel_cache_gb:g}")
    if args.pixel_cache is not None and args.pixel_cache.exists() and not args.pixel_cache.is_dir():
        raise UserError(f"--pixel-cache {args.pixel_cache}: that is a file, and pixels are kept in a folder")
    if args.address and args.engine != "ray":
        raise UserError("--address is of a Ray cluster: say --engine ray too, or leave it away")
    if args.devices and args.engine == "ray":
        raise UserError("--devices are of this machine: leave it away, --engine ray takes all that the cluster has")


def _options(args: argparse.Namespace) -> RunOptions:
    device, decoders = device_of(args)
    kind = device.partition(":")[0]
    batch_size = BATCH_SIZES.get(kind, 32) if args.batch_size == "auto" else _number("--batch-size", args.batch_size, 1)
    workers = decoders if args.workers == "auto" else _number("--workers", args.workers, 0)
    precision = args.precision
    if precision == "auto":
        precision = "bf16" if kind == "cuda" and (args.engine == "ray" or has_bf16(device)) else "fp32"
    return RunOptions(
        cache=args.cache,
        backend=args.store,
        device=device,
        precision=precision,
        batch_size=batch_size,
        workers=workers,
        prompts=_prompt_sets(args.prompts),
        features_dtype=args.features_dtype,
        pixel_cache=args.pixel_cache,
        pixel_cache_bytes=int(args.pixel_cache_gb * (1 << 30)),
        compile=args.compile,
        resident=args.resident,
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
    if not text.isdigit() or int(text) < least:
        raise UserError(f"{option} takes auto or a whole number from {least} on, not {text!r}")
    return int(text)


def _run(plan: Plan, options: RunOptions, args: argparse.Namespace, console: Console) -> Reporter:
    from cache_schema.staging import clean_stale
    from extract.commands.progress import Reporter
    from extract.engines import engine
    from extract.passes.claims import clean_claims
    from extract.passes.faults import check_writable

    shard, devices = shard_of(args.shard), devices_of(args) if args.engine == "local" else [options.device]
    spread = len(devices) > 1 or shard[1] > 1 or args.engine != "local"
    units = plan.units(shard=shard, largest=SPREAD_MODELS if spread else 0)
    rows = sum(len(job.dataset) for unit in units for job in unit.jobs)
    reporter = Reporter(rows, len({model.card.id for unit in units for model in unit.models}), console)
    if units:
        check_writable(options.cache)
        clean_stale(options.cache)
        clean_claims(options.cache)
        with reporter:
            engine(args.engine)(units, options, reporter, devices=devices, address=args.address)
    return reporter


def _record_models(plan: Plan, failed: Sequence[tuple[str, str, str]], options: RunOptions) -> None:
    """Keep in the cache which models cannot be used at all, and forget it of those that have everything."""
    from cache_schema.failures import clear_failure, record_failure

    if not options.cache.is_dir():
        return
    usable = {model.card.id for model in plan.models}
    owing = {job.model.card.id for job in plan.jobs if job.state in (MISSING, DAMAGED)}
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
        table.add_row(escape(job.model.card.id), escape(job.dataset.card.id), f"{len(job.dataset):,}", escape(state))
    console.print(table)
    told = f"{plan.count(MISSING)} stores to make, {plan.count(SEALED)} sealed, {plan.count(SKIPPED)} skipped"
    if units := [unit for unit in plan.units() if unit.jobs]:
        models = len({job.model.card.id for unit in units for job in unit.jobs})
        times = f"{len(units)} times, once for each way to resize and crop" if len(units) > 1 else "once"
        told += f"; each image is decoded {times}, for {models} model{'s' if models > 1 else ''}"
    console.print(told, highlight=False, soft_wrap=True)


def _summary(
    plan: Plan,
    reporter: Reporter,
    failed: list[tuple[str, str, str]],
    options: RunOptions,
    console: Console,
    seconds: float,
) -> int:
    failed = failed + reporter.tally.failed
    skipped = [job for job in plan.jobs if job.state == SKIPPED]
    for (dataset, reason), models in _by_reason(skipped).items():
        told = f"{_some(models)} on {dataset}: {reason}"
        console.print(f"[yellow]skipped[/] {escape(told)}", highlight=False, soft_wrap=True)
    said = {dataset for model, dataset, _ in failed if not model}
    sealed = {(job.dataset.card.id, job.reason): None for job in plan.jobs if job.state == SEALED and job.reason}
    for dataset, reason in (told for told in sealed if told[0] not in said):
        console.print(f"[yellow]sealed[/] {escape(dataset)}: {escape(reason)}", highlight=False, soft_wrap=True)
    console.print(
        f"[bold]{len(reporter.tally.done)} done[/], {plan.count(SEALED) + reporter.tally.sealed} sealed before,"
        f" {len(skipped)} skipped,"
        f" [{'red' if failed else 'green'}]{len(failed)} failed[/] in {seconds:.0f} s; the cache is"
        f" {escape(str(options.cache))}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    print_failures(failed, console)
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
