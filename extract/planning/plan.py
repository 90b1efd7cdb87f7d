"""Models and datasets in; what is left to do out: jobs, grouped so that an image is decoded for many models at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cache_schema.format import naming
from closerlook_common.errors import UserError
from extract.classes.prompts import PromptSet
from extract.classes.spaces import IMAGENET_1K, ClassSpace, class_space
from extract.datasets.base import Dataset
from extract.datasets.spaces import in_class_space
from extract.models.base import Prepared
from extract.planning.arrays import ARRAYS
from extract.planning.class_order import with_known_spaces
from extract.planning.jobs import (
    HeadJob,
    Job,
    geometry_of,
    head_identity,
    identified,
    is_sealed,
    possible_arrays,
    reasons_without,
    stores_of,
)
from extract.planning.mismatches import empty_classes, is_zero_shot, mismatch
from extract.planning.options import RunOptions
from extract.planning.sealed import look_at
from extract.preprocess import Geometry, Preprocessing

MISSING, SEALED, SKIPPED = "missing", "sealed", "skipped"
DAMAGED, REFUSED = "damaged", "refused"


@dataclass(frozen=True, eq=False)
class Unit:
    """Models, by geometry, with what each of them still owes: the piece of work that one device takes at a time."""

    models: tuple[Prepared, ...]
    jobs: tuple[Job, ...]
    heads: tuple[HeadJob, ...]

    @property
    def geometries(self) -> tuple[Geometry, ...]:
        """What is done to images, each once."""
        return tuple(dict.fromkeys(map(geometry_of, self.jobs)))


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything asked for, and what of it is left to do."""

    models: tuple[Prepared, ...]
    datasets: tuple[Dataset, ...]
    jobs: tuple[Job, ...]
    heads: tuple[HeadJob, ...]

    def count(self, state: str) -> int:
        """Return how many jobs are in a state."""
        return sum(job.state == state for job in self.jobs)

    def units(self, *, shard: tuple[int, int] = (0, 1), largest: int = 0, devices: int = 1) -> list[Unit]:
        """Return the missing work, in pieces of models of one geometry that are joined again to units.

        Parameters
        ----------
        shard
            ``(i, n)``: every n-th piece from the i-th on. Which piece is whose depends on the models asked for, never
            on what is done already, so that shards may start at any time.
        largest
            Most models of a piece, so that several shards or devices share a large group; 0 for whole groups.
        devices
            How many share the work; 0 where that is not known. Pieces are joined to units as long as each device has
            one and a unit has at most ``largest`` models: a few keep a device busy while images are decoded, so little
            is lost by decoding again for the next few. Nothing is joined for an unknown number.

        Returns
        -------
        list of Unit
            The largest piece of work first.
        """
        groups: dict[Geometry, list[Prepared]] = {}
        for model in self.models:
            groups.setdefault(model.preprocessing.geometry, []).append(model)
        most = largest or max(len(self.models), 1)
        pieces = [members[i : i + most] for members in groups.values() for i in range(0, len(members), most)]
        index, count = shard
        mine = sorted(filter(None, map(self._owing, pieces[index::count])), key=lambda models: -self._work(models))
        units: list[list[Prepared]] = []
        share = sum(map(len, mine)) // max(devices, 1)
        joined = share if devices == 1 else min(share, largest) if devices else 0
        for models in mine:
            if units and (len(units[-1]) + len(models)) <= joined:
                units[-1] += models
            else:
                units.append([*models])
        return sorted(map(self._unit, units), key=lambda unit: -self._work(unit.models))

    def _owing(self, members: Sequence[Prepared]) -> list[Prepared]:
        busy = {job.model.card.id for job in self.jobs if job.state == MISSING}
        busy |= {head.model.card.id for head in self.heads if head.state == MISSING}
        return [model for model in members if model.card.id in busy]

    def _work(self, members: Sequence[Prepared]) -> int:
        ids = {model.card.id for model in members}
        return sum(len(job.dataset) for job in self.jobs if job.state == MISSING and job.model.card.id in ids)

    def _unit(self, members: Sequence[Prepared]) -> Unit:
        ids = {model.card.id for model in members}
        jobs = tuple(job for job in self.jobs if job.state == MISSING and job.model.card.id in ids)
        heads = tuple(head for head in self.heads if head.state == MISSING and head.model.card.id in ids)
        return Unit(tuple(members), jobs, heads)


def with_class_spaces(datasets: Sequence[Dataset]) -> list[Dataset]:
    """Give OOD sets without a class space the one of the run's in-distribution sets.

    Raises
    ------
    UserError
        There are several, so that somebody has to say which.
    """
    spaces = {d.class_space.digest: d.class_space for d in datasets if d.card.role in ("id", "shift") and d.class_space}
    if not spaces:
        spaces = {d.class_space.digest: d.class_space for d in datasets if d.class_space}
    filled = []
    for dataset in datasets:
        if dataset.class_space is None and dataset.card.role == "ood":
            if len(spaces) > 1:
                whose = {d.class_space.digest: d.card.id for d in reversed(datasets) if d.class_space}
                fixes = " or ".join(f'classes = "{name}"' for name in sorted(whose[digest] for digest in spaces))
                raise UserError(
                    f"dataset {dataset.card.id} has no labels, and the other datasets are of several class spaces: say"
                    f" whose classes its logits are to be of, {fixes} in its table of datasets.toml"
                )
            dataset = in_class_space(dataset, next(iter(spaces.values())) if spaces else class_space(IMAGENET_1K))
        filled.append(dataset)
    return filled


def _effective(model: Prepared, dataset: Dataset) -> Preprocessing:
    if dataset.already_cropped is None:
        return model.preprocessing
    geometry = model.preprocessing.geometry.already_cropped(dataset.already_cropped)
    return replace(model.preprocessing, geometry=geometry)


def make_plan(models: Sequence[Prepared], datasets: Sequence[Dataset], options: RunOptions) -> Plan:
    """Compare what is asked for with what the cache holds. No model is built and no weight file is read.

    Parameters
    ----------
    models
        Prepared models.
    datasets
        Listed datasets.
    options
        Of the run.

    Returns
    -------
    Plan
    """
    default = options.prompts[0] if options.prompts else None
    models, unordered = with_known_spaces(models, datasets)
    jobs = []
    for model in models:
        without = reasons_without(model, options)
        for dataset in datasets:
            prompts = default if is_zero_shot(model) and dataset.class_space is not None else None
            job = Job(model, dataset, _effective(model, dataset), prompts, MISSING)
            if reason := empty_classes(model, dataset):
                jobs.append(replace(job, state=REFUSED, reason=reason))
                continue
            reason = mismatch(model, dataset)
            if reason:
                jobs.append(replace(job, state=SKIPPED, reason=reason))
                continue
            if dataset.class_space is not None and (reason := unordered.get(model.card.id, "")):
                jobs.append(replace(job, state=REFUSED, reason=reason))
                continue
            arrays = possible_arrays(job, options.arrays)
            if reason := next((without[name] for name in arrays if name in without), ""):
                jobs.append(replace(job, state=REFUSED, reason=reason))
                continue
            job = replace(job, arrays=arrays)
            if model.card.weights_digest:
                job = identified(job, model.card.weights_digest, options)
                if is_sealed(job, options):
                    found = look_at(stores_of(job, options))
                    state = DAMAGED if found.damage else SEALED
                    job = replace(job, state=state, reason=found.damage or found.unreadable)
            jobs.append(job)
    heads = [head for model in models for head in _heads(model, jobs, options)]
    return Plan(tuple(models), tuple(datasets), tuple(jobs), tuple(heads))


def _heads(model: Prepared, jobs: Sequence[Job], options: RunOptions) -> list[HeadJob]:
    if model.card.extra.get("logits_only"):
        return []  # no features, so that no layer acts on them
    mine = [job for job in jobs if job.model is model and job.state not in (SKIPPED, REFUSED)]
    spaces = {job.dataset.class_space.digest: job.dataset.class_space for job in mine if job.dataset.class_space}
    wanted: list[tuple[ClassSpace, PromptSet | None]] = (
        [*((space, prompts) for space in spaces.values() for prompts in options.prompts), *options.words]
        if is_zero_shot(model)
        else [(space, None) for space in spaces.values() if space.id == model.card.class_space]
    )
    found = []
    for space, prompts in wanted:
        identity, path = _head_store(model, space, prompts, options)
        damage = "" if path is None else look_at([path]).damage
        state = MISSING if path is None else DAMAGED if damage else SEALED
        found.append(HeadJob(model, space, prompts, identity, state, damage))
    return found


def _head_store(
    model: Prepared, space: ClassSpace, prompts: PromptSet | None, options: RunOptions
) -> tuple[str, Path | None]:
    """Return a head's identity and store: of one with more arrays than asked for, where that is sealed."""
    digest = model.card.weights_digest
    if not digest:
        return "", None
    name = naming.head_name(space.id, "" if prompts is None else prompts.name)
    asked, richer = (head_identity(model, digest, space, prompts, more) for more in (options.arrays, tuple(ARRAYS)))
    for identity in (asked, richer):
        if path := naming.published(options.cache, "head", model.card.id, name, identity):
            return identity, path
    return asked, None
