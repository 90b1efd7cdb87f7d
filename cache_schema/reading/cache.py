"""A cache: find models, datasets and stores in a folder or at an address."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cache_schema.format.dataset_facts import DatasetFacts
from cache_schema.format.failures import Failure, failure_paths, read_failure
from cache_schema.format.naming import slug
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.format.schema import KINDS
from cache_schema.reading.extending import extended, not_extended
from cache_schema.reading.kinds.heads import HeadStore
from cache_schema.reading.kinds.references import ReferenceStore
from cache_schema.reading.kinds.summaries import SummaryStore
from cache_schema.reading.kinds.texts import TextStore
from cache_schema.reading.listing import Listing, Refused
from cache_schema.reading.places.base import Place
from cache_schema.reading.places.opening import open_place
from cache_schema.reading.store import PredictionStore, Store
from closerlook_common.console.terminal import counted
from closerlook_common.console.waiting import waiting
from closerlook_common.errors import CacheError, StoreNotFoundError, UserError, nearest


class DatasetRoles(NamedTuple):
    """The roles of a cache's datasets.

    Attributes
    ----------
    facts
        Dataset id to role, ``shift_of`` and distance; without training sets and captions.
    unclear
        Dataset id to the reason why its role is unclear.
    problems
        Damaged records, one line each.
    """

    facts: dict[str, DatasetFacts]
    unclear: dict[str, str]
    problems: tuple[str, ...]


class Cache:
    """A folder of stores. Listing it reads one header per store, again only after the store has changed.

    What was read of many headers is kept for the next process: see :mod:`cache_schema.reading.catalogues`.

    Parameters
    ----------
    place
        The folder, or the place that :func:`cache_schema.reading.places.opening.open_place` gives for an address.

    Attributes
    ----------
    title
        The folder or the address.
    path
        The folder; for an address, the folder on this machine with the files that were fetched.
    """

    def __init__(self, place: Place | Path | str) -> None:
        self.place = place if isinstance(place, Place) else open_place(place)
        self.path = self.place.folder
        self.title = self.place.title
        self._listing = Listing(self.place)

    def __repr__(self) -> str:
        return f"<Cache {self.title}>"

    def stores(self, kind: str | None = None) -> list[Store]:
        """Return the published stores, sorted by path; headers are read, arrays are not.

        Stores that cannot be used (damaged, of a newer schema) are left out; :meth:`refused` lists them.

        Parameters
        ----------
        kind
            ``predictions``, ``head``, ``reference``, ``summary`` or ``texts``; all kinds when None.
        """
        if kind is not None and kind not in KINDS:
            raise UserError(f"no kind of store {kind!r}{nearest(kind, KINDS)}; there are {', '.join(KINDS)}")
        return self._listed(kind, self.place.names())

    def _listed(self, kind: str | None, names: Sequence[str], *, whole: bool = True) -> list[Store]:
        """Return the stores of some names; ``whole`` if these are all stores of the cache."""
        wanted = None if kind is None else KINDS[kind].folder
        asked = list(names) if wanted is None else [name for name in names if _folder_of(name) == wanted]
        with waiting(f"reading the headers of {counted(len(asked), 'store')} in {self.title}"):
            found = self._listing.stores(asked, names, whole=whole)
        return [store for store in found if kind is None or store.kind == kind]

    def refused(self) -> list[Refused]:
        """Return the stores that cannot be used, with the reason."""
        self.stores()
        return [self._listing.refused[path] for path in sorted(self._listing.refused)]

    def failures(self) -> list[Failure]:
        """Return the recorded failures of jobs; an unreadable record is listed with that as its reason.

        Not read from an address: only a run of the models needs them.
        """
        if not self.place.is_local:
            return []
        found = []
        for path in failure_paths(self.path):
            try:
                found.append(read_failure(path))
            except FileNotFoundError:  # the job succeeded meanwhile
                continue
            except CacheError as error:
                found.append(Failure(model=path.parent.parent.name, dataset=path.stem, reason=str(error), when=""))
        return found

    def models(self) -> list[ModelCard]:
        """Return the cards of all models, sorted by id; of several cards of one id, the newest."""
        newest = {store.model_id: store for store in sorted(self.stores(), key=_written)}
        return [newest[name].model for name in sorted(newest)]

    def datasets(self) -> list[DatasetCard]:
        """Return the cards of all datasets, sorted by id; of several cards of one id, the newest."""
        of_datasets = [store for store in self.stores() if store.dataset_id]
        newest = {store.dataset_id: store for store in sorted(of_datasets, key=_written)}
        return [newest[name].dataset for name in sorted(newest)]

    def roles(self) -> DatasetRoles:
        """Return role, ``shift_of`` and distance of each dataset, and the datasets for which they are unclear."""
        recorded = self.place.recorded()
        sealed: dict[str, dict[DatasetFacts, int]] = {}
        for store in [*self.stores("predictions"), *self.stores("summary")]:
            facts = DatasetFacts.of(store.sealed_dataset)
            if facts is not None:
                counts = sealed.setdefault(store.sealed_dataset.id, {})
                counts[facts] = counts.get(facts, 0) + 1
        found, unclear = {}, {}
        for dataset in sorted(sealed):
            known = recorded.facts(dataset)
            several = known or tuple(sealed[dataset])
            if len(several) == 1:
                found[dataset] = several[0]
            elif known:
                unclear[dataset] = "records of it contradict each other: " + "; ".join(map(str, several))
            else:
                counted = [f"{facts} ({count} store{'s' * (count > 1)})" for facts, count in sealed[dataset].items()]
                unclear[dataset] = "its stores were sealed with different ones: " + "; ".join(counted)
        return DatasetRoles(found, unclear, recorded.problems)

    def store(self, model_id: str, dataset_id: str, *, identity: str | None = None) -> PredictionStore:
        """Return a model's prediction store on a dataset.

        Parameters
        ----------
        model_id, dataset_id
            Ids of the cards.
        identity
            First digits of the identity, to choose among several stores (of other precision, say).

        Raises
        ------
        StoreNotFoundError
            There is no such store; the message names the nearest ids.
        UserError
            There are several, and ``identity`` does not choose one.
        """
        found = self._find("predictions", model_id, dataset_id, identity)
        assert isinstance(found, PredictionStore)
        return found

    def summary(
        self, model_id: str, dataset_id: str, *, variant: str = "", identity: str | None = None
    ) -> SummaryStore:
        """Return a model's summary store on a dataset; parameters and errors as for :meth:`store`.

        Parameters
        ----------
        model_id, dataset_id, identity
            As for :meth:`store`.
        variant
            Which of several summaries; empty for the plain one.
        """
        found = self._find("summary", model_id, dataset_id, identity, variant=variant)
        assert isinstance(found, SummaryStore)
        return found

    def reference(self, model_id: str, dataset_id: str, *, identity: str | None = None) -> ReferenceStore:
        """Return a model's reference store of a training set; parameters and errors as for :meth:`store`."""
        found = self._find("reference", model_id, dataset_id, identity)
        assert isinstance(found, ReferenceStore)
        return found

    def texts(self, model_id: str, dataset_id: str, *, identity: str | None = None) -> TextStore:
        """Return a model's text store of a dataset; parameters and errors as for :meth:`store`."""
        found = self._find("texts", model_id, dataset_id, identity)
        assert isinstance(found, TextStore)
        return found

    def _of_model(self, kind: str, model_id: str) -> list[Store]:
        """Return a model's stores of a kind; reads only its own folder."""
        stores = self._listed(kind, self.place.names(slug(model_id)), whole=False)
        return [store for store in stores if store.model_id == model_id]

    def _find(
        self, kind: str, model_id: str, dataset_id: str, identity: str | None, *, variant: str | None = None
    ) -> Store:
        of_model = self._of_model(kind, model_id)
        found = [
            store
            for store in of_model
            if store.dataset_id == dataset_id
            and (variant is None or store.details["variant"] == variant)
            and (identity is None or store.identity.startswith(identity))
        ]
        if len(found) > 1 and identity is None:
            found = not_extended(found)
        if len(found) == 1:
            return found[0]
        which = f" (variant {variant!r})" if variant else ""
        what = f"{kind} store of model {model_id!r} on {dataset_id!r}{which}"
        if found:
            names = ", ".join(store.path.name for store in found)
            joined = _one_for_all(found)
            raise UserError(f"{len(found)} {what}: {names}; name one by its identity, or delete the others{joined}")
        if not of_model:
            hint = nearest(model_id, {store.model_id for store in self.stores(kind)})
        else:
            hint = nearest(dataset_id, {store.dataset_id for store in of_model})
        refused = [bad for bad in self._listing.refused.values() if slug(model_id) in bad.path.parts[-3:]]
        if refused and not hint:
            hint = f"; {refused[0].reason}"
        raise StoreNotFoundError(f"{self.title} has no {what}{hint}")

    def heads(self, model_id: str) -> list[HeadStore]:
        """Return all heads of a model, sorted by path."""
        return [store for store in self._of_model("head", model_id) if isinstance(store, HeadStore)]

    def head(self, model_id: str, class_space: str, prompt_set: str | None = None) -> HeadStore:
        """Return a model's head for a class space.

        Parameters
        ----------
        model_id, class_space
            Which model, which classes.
        prompt_set
            Name of the prompt set. None means the only one; among several, the one written as default, else the one
            that the stored logits were computed with.

        Raises
        ------
        StoreNotFoundError
            There is no such head; the message names the nearest.
        UserError
            There are several, and nothing chooses one; the message names them.
        """
        of_model = self.heads(model_id)
        of_space = [head for head in of_model if head.class_space == class_space]
        found = [head for head in of_space if prompt_set is None or head.prompt_set == prompt_set]
        if len(found) > 1:
            found = _preferred(not_extended(found), self._head_identities(model_id))
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(repr(head.prompt_set) for head in found)
            raise UserError(f"model {model_id!r} has several heads for {class_space}: prompt sets {names}; name one")
        if not of_model:
            hint = nearest(model_id, {head.model_id for head in self.stores("head")})
        elif not of_space:
            hint = f"; it has heads for {', '.join(sorted({head.class_space for head in of_model}))}"
        else:
            hint = f"; it has the prompt sets {', '.join(sorted(repr(head.prompt_set) for head in of_space))}"
        wanted = f" with prompt set {prompt_set!r}" if prompt_set is not None else ""
        raise StoreNotFoundError(f"{self.title} has no head of model {model_id!r} for {class_space!r}{wanted}{hint}")

    def _head_identities(self, model_id: str) -> set[str]:
        return {
            store.recorded("head_identity")
            for store in self.stores("predictions")
            if store.model_id == model_id and store.recorded("head_identity")
        }


def _one_for_all(stores: Sequence[Store]) -> str:
    """Return what makes one store of several that hold different further arrays of the same outputs, as a clause."""
    parts = sorted({part for store in stores if isinstance(store, PredictionStore) for part in store.parts})
    if not parts or not set.intersection(*(extended([store]) for store in stores)):
        return ""
    return f"; 'extract --arrays {','.join(parts)}' makes one that is read in place of all"


def _preferred(heads: list[HeadStore], used: Iterable[str]) -> list[HeadStore]:
    """Return the heads marked as default, else those that stored logits were computed with, else all."""
    default = [head for head in heads if head.details["default"]]
    return default or [head for head in heads if {head.identity, *extended([head])} & set(used)] or heads


def _written(store: Store) -> str:
    return store.written


def _folder_of(name: str) -> str:
    """Return the kind's folder in a store's path below the cache, empty where it lies in the model's own."""
    parts = name.split("/")
    return parts[1] if len(parts) == 3 else ""


def open_cache(path: Path | str, **options: Any) -> Cache:
    """Open a cache for reading.

    Parameters
    ----------
    path
        The cache's folder, or an address that fsspec knows (``s3://``, ``gs://``, ``https://``; extra
        ``remote``).
    **options
        For fsspec, with an address: credentials, endpoint, ``anon=True`` ...

    Raises
    ------
    UserError
        The folder does not exist, or the address cannot be read.
    """
    return Cache(open_place(path, options))
