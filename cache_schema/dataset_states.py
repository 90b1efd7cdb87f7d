"""A dataset that changed between two runs: which stores are of the images of today, and which are not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cache_schema.store import Store


def on_other_images(stores: Iterable[Store]) -> dict[str, list[str]]:
    """Return the models that know a dataset only as it was before, by dataset.

    A dataset that gets new images keeps its id and gets another digest. Of all its stores the one that was written last
    says which digest counts; a model that has no store of that digest was run on other images than that one.

    Parameters
    ----------
    stores
        Of any kind. Those without dataset do not count, nor do imported ones, whose images nobody has listed.

    Returns
    -------
    dict of str to list of str
        Dataset id to model ids, both sorted; empty where all stores of each dataset are of the same images.
    """
    counted = [
        store
        for store in stores
        if store.header["dataset"] and store.dataset.digest and "imported_from" not in store.record
    ]
    latest = {store.dataset.id: store.dataset.digest for store in sorted(counted, key=_written)}
    everywhere = {(store.dataset.id, store.model.id) for store in counted}
    up_to_date = {
        (store.dataset.id, store.model.id) for store in counted if store.dataset.digest == latest[store.dataset.id]
    }
    found: dict[str, list[str]] = {}
    for dataset, model in sorted(everywhere - up_to_date):
        found.setdefault(dataset, []).append(model)
    return found


def other_images(dataset: str, models: Sequence[str]) -> str:
    """Return in a line that models know a dataset only as it was before, and what mends that."""
    some = ", ".join(models) if len(models) <= 3 else f"{len(models)} models ({', '.join(models[:2])} ...)"
    return f"{dataset}: the stores of {some} are of other images than the one written last; 'extract' makes new ones"


def _written(store: Store) -> str:
    return str(store.header["seal"]["written"])
