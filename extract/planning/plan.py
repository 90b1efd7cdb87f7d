"""Models and datasets in; what is left to do out: jobs, grouped so that an image is decoded for many models at once."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cache_schema.format import identities, naming
from cache_schema.format.records import DatasetCard
from closerlook_common.errors import UserError
from extract.classes.prompts import PromptSet
from extract.classes.spaces import IMAGENET_1K, ClassSpace, class_space
from extract.datasets.base import Dataset
from extract.datasets.spaces import in_class_space
from extract.libraries import registry
from extract.models.base import Prepared
from extract.models.forward_version import FORWARD_VERSION
from extract.planning.arrays import ARRAYS
from extract.planning.class_order import with_known_spaces
from extract.planning.mismatches import empty_classes, gives_features_alone, is_zero_shot, mismatch
from extract.planning.options import RunOptions
from extract.planning.sealed import look_at
from extract.preprocess import Geometry, Preprocessing

MISSING, SEALED, SKIPPED = "missing", "sealed", "skipped"
DAMAGED, REFUSED = "damaged", "refused"


@dataclass(frozen=True, eq=False)
class Job:
    """One model on one dataset.

    Attributes
    ----------
    model, dataset
        What to run on what.
    preprocessing
        The model's, with the geometry that these images need.
    prompts
        The prompt set of the stored logits; None for a model with a classifier of its own, or without class space.
    state
        ``missing``, ``sealed`` (done before), ``skipped`` (cannot be), ``refused`` (the images are probably not those
        that the model was trained for) or ``damaged`` (done before, and of no use now).
    identity
        Of the store; empty while the weights' digest is unknown, because the file is not on this machine yet.
    reason
        Why it is skipped or of no use; of a sealed one, how many images could not be read.
    """

    model: Prepared
    dataset: Dataset
    preprocessing: Preprocessing
    prompts: PromptSet | None
    state: str
    identity: str = ""
    reason: str = ""


@dataclass(frozen=True, eq=False)
class HeadJob:
    """A zero-shot model's head for one class space and one prompt set, or a classifier's own head."""

    model: Prepared
    class_space: ClassSpace
    prompts: PromptSet | None
    identity: str
    state: str
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Unit:
    """Models, by geometry, with what each of them still owes: the piece of work that one device takes at a time."""

    models: tuple[Prepared, ...]
    jobs: tuple[Job, ...]
    heads: tuple[HeadJob, ...]

    @property
    def geometries(self) -> tuple[Geometry, ...]:
        """What is done to images, each once."""
        return tuple(dict.fromkeys(job.preprocessing.geometry for job in self.jobs))


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


def _architecture(model: Prepared) -> str:
    """Return a model's name with whatever else in its line changes the network that the weights go into."""
    options, library = model.spec.options, registry.get(model.spec.library)
    name = model.card.name
    for key in library.forward_files:
        if file := options.get(key):
            name += f" {key}={hashlib.sha256(Path(file).read_bytes()).hexdigest()}"
    if code := registry.code_digest(model.spec.library):
        name += f" code={code}"
    if model.files_digest:
        name += f" files={model.files_digest}"
    if model.output_order:
        name += f" outputs={hashlib.sha256(repr(model.output_order).encode()).hexdigest()}"
    keys = (*library.forward_options, "seed", "ema")
    return name + "".join(f" {key}={options[key]}" for key in keys if key in options)


def job_identity(job: Job, weights_digest: str, options: RunOptions, arrays: Sequence[str] | None = None) -> str:
    """Return the identity of a job's store: everything that can change a number in it.

    Parameters
    ----------
    job, weights_digest, options
        What is run, and how.
    arrays
        Arrays that are stored besides; those of the options when None.
    """
    more = set(options.arrays if arrays is None else arrays)
    card, data = job.model.card, job.dataset.card
    prompts = ""
    if job.prompts is not None and job.dataset.class_space is not None:
        prompts = f"{job.prompts.digest}:{job.dataset.class_space.digest}"
    reference = keeps_statistics(job)
    precision = job.model.spec.options.get("precision", options.precision)
    return identities.prediction_identity(
        library=card.library,
        name=_architecture(job.model),
        tag=card.tag,
        weights_digest=weights_digest,
        preprocessing=job.preprocessing.to_record(),
        precision=precision,
        dataset_id=data.id,
        dataset_digest=job.dataset.digest,
        class_space=data.class_space,
        class_mask=data.class_mask,
        class_map=data.class_map,
        prompt_set_digest=prompts,
        # A bank of another size is another reference.
        logits_kind=_statistics(data, more) if reference else "logits",
        features_dtype=options.features_dtype,
        forward_version=registry.get(card.library).forward_version(card.name, precision),
    )


def _statistics(data: DatasetCard, arrays: Collection[str]) -> str:
    return f"reference:{data.extra.get('bank_per_class', 50)}{':unit' * ('unit' in arrays)}"


def identified(job: Job, weights_digest: str, options: RunOptions) -> Job:
    """Return a job with the identity of its store: of one with more arrays than asked for, where that is sealed."""
    asked = replace(job, identity=job_identity(job, weights_digest, options))
    if is_sealed(asked, options):
        return asked
    richer = replace(job, identity=job_identity(job, weights_digest, options, tuple(ARRAYS)))
    return richer if richer.identity != asked.identity and is_sealed(richer, options) else asked


def head_identity(
    model: Prepared, weights_digest: str, space: ClassSpace, prompts: PromptSet | None, arrays: Collection[str] = ()
) -> str:
    """Return the identity of a head store, that of one with more arrays where such are asked for."""
    fields = {
        "kind": "head",
        "library": model.card.library,
        "name": _architecture(model),
        "weights_digest": weights_digest,
        "class_space": space.digest,
        "prompts": "" if prompts is None else prompts.digest,
        "forward_version": FORWARD_VERSION,
    }
    if prompts is not None and "texts" in arrays:
        fields["arrays"] = "texts"
    return identities.identity(fields)


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


def keeps_statistics(job: Job) -> bool:
    """Return whether a job gives the statistics of a training set; a model without logits has its features stored."""
    return job.dataset.card.role == "reference" and not gives_features_alone(job.model)


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
            if model.card.weights_digest:
                job = identified(job, model.card.weights_digest, options)
                if is_sealed(job, options):
                    found = look_at(stores_of(job, options))
                    state = DAMAGED if found.damage else SEALED
                    job = replace(job, state=state, reason=found.damage or found.unreadable)
            jobs.append(job)
    heads = [head for model in models for head in _heads(model, jobs, options)]
    return Plan(tuple(models), tuple(datasets), tuple(jobs), tuple(heads))


def is_sealed(job: Job, options: RunOptions) -> bool:
    """Return whether a job's store is there; its captions' store too, for pairs."""
    return bool(job.identity) and len(stores_of(job, options)) == len(_kinds(job))


def stores_of(job: Job, options: RunOptions) -> list[Path]:
    """Return those of a job's stores that are there."""
    where = (job.model.card.id, job.dataset.card.id, job.identity)
    found = (naming.published(options.cache, kind, *where) for kind in _kinds(job))
    return [path for path in found if path is not None]


def _kinds(job: Job) -> tuple[str, ...]:
    """Return the kinds of stores that a job makes."""
    if keeps_statistics(job):
        return ("reference",)
    return ("predictions", "texts") if job.dataset.card.role == "pairs" else ("predictions",)


def _heads(model: Prepared, jobs: Sequence[Job], options: RunOptions) -> list[HeadJob]:
    if model.card.extra.get("logits_only"):
        return []  # no features, so that no layer acts on them
    mine = [job for job in jobs if job.model is model and job.state not in (SKIPPED, REFUSED)]
    spaces = {job.dataset.class_space.digest: job.dataset.class_space for job in mine if job.dataset.class_space}
    wanted: list[tuple[ClassSpace, PromptSet | None]] = (
        [(space, prompts) for space in spaces.values() for prompts in options.prompts]
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
