"""One model on one dataset: the job, the identity of its store, and whether that store is there."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cache_schema.format import identities, naming
from cache_schema.format.records import DatasetCard
from extract.classes.prompts import PromptSet
from extract.classes.spaces import ClassSpace
from extract.classes.words import is_words
from extract.datasets.base import Dataset
from extract.libraries import registry
from extract.models import view_recipe
from extract.models.base import Prepared
from extract.models.forward_version import FORWARD_VERSION
from extract.models.views import Views
from extract.planning.arrays import ARRAYS, in_order, settled, subsets
from extract.planning.mismatches import gives_features_alone, why_no_views
from extract.planning.options import RunOptions
from extract.preprocess import Geometry, Preprocessing


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
    arrays
        What the store holds besides, names of ``extract.planning.arrays.ARRAYS``.
    extends
        Identities of the stores that hold fewer of them, in whose place this one is read.
    """

    model: Prepared
    dataset: Dataset
    preprocessing: Preprocessing
    prompts: PromptSet | None
    state: str
    identity: str = ""
    reason: str = ""
    arrays: tuple[str, ...] = ()
    extends: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class HeadJob:
    """A zero-shot model's head for one class space and one prompt set, or a classifier's own head."""

    model: Prepared
    class_space: ClassSpace
    prompts: PromptSet | None
    identity: str
    state: str
    reason: str = ""


def geometry_of(job: Job) -> Geometry:
    """Return what a job does to its dataset's images."""
    geometry = job.preprocessing.geometry
    return Views.of(geometry) if view_recipe.ARRAY in job.arrays else geometry


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
        Arrays that are stored besides; the job's when None.
    """
    more = in_order(job.arrays if arrays is None else arrays)
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
        logits_kind=":".join([_statistics(data) if reference else "logits", *(ARRAYS[name].tag for name in more)]),
        features_dtype=options.features_dtype,
        forward_version=registry.get(card.library).forward_version(card.name, precision),
    )


def _statistics(data: DatasetCard) -> str:
    return f"reference:{data.extra.get('bank_per_class', 50)}"


def identified(job: Job, weights_digest: str, options: RunOptions) -> Job:
    """Return a job with the identity and arrays of its store, see `extract.planning.arrays.settled`."""

    def with_arrays(arrays: tuple[str, ...]) -> Job:
        return replace(job, identity=job_identity(job, weights_digest, options, arrays), arrays=arrays)

    asked = possible_arrays(job, options.arrays)
    if is_sealed(with_arrays(asked), options) or not _any_of(job, options):
        chosen = asked
    else:
        chosen = settled(asked, possible_arrays(job, ARRAYS), lambda arrays: is_sealed(with_arrays(arrays), options))
    fewer = tuple(job_identity(job, weights_digest, options, less) for less in subsets(chosen) if less != chosen)
    return replace(with_arrays(chosen), extends=fewer)


def possible_arrays(job: Job, names: Iterable[str]) -> tuple[str, ...]:
    """Return those of some arrays that a store of a job's kind holds, whatever its model."""
    kind = "reference" if keeps_statistics(job) else "predictions"
    return in_order(
        name
        for name in names
        if ARRAYS[name].of == kind and not (ARRAYS[name].by_class and job.dataset.class_space is None)
    )


def _any_of(job: Job, options: RunOptions) -> bool:
    """Return whether the cache holds any store of a job's model and dataset."""
    folder = naming.store_folder(options.cache, _kinds(job)[0], job.model.card.id)
    begin = f"{naming.slug(job.dataset.card.id)}-"
    try:
        return any(path.name.startswith(begin) for path in folder.iterdir())
    except OSError:
        return False


def reasons_without(model: Prepared, options: RunOptions) -> dict[str, str]:
    """Return those of the arrays asked for that a model cannot give, with the reason."""
    library = registry.get(model.spec.library)
    names = [name for name in options.arrays if ARRAYS[name].of == "predictions"]
    found = {name: library.why_without(model, name) if ARRAYS[name].inner else why_no_views(model) for name in names}
    return {name: f"`arrays` {name}: {reason}; run this model without them" for name, reason in found.items() if reason}


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
    if is_words(space):
        fields["words"] = space.id
    elif prompts is not None and "texts" in arrays:
        fields["arrays"] = "texts"
    return identities.identity(fields)


def keeps_statistics(job: Job) -> bool:
    """Return whether a job gives the statistics of a training set; a model without logits has its features stored."""
    return job.dataset.card.role == "reference" and not gives_features_alone(job.model)


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
