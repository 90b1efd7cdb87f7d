"""Datasets that changed between two runs: find stores of older images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cache_schema.reading.store import Store


def on_other_images(stores: Iterable[Store]) -> dict[str, list[str]]:
    """Return the models that were run only on an older version of a dataset, by dataset.

    A dataset with new images keeps its id and gets a new digest. The newest store of the dataset gives the current
    digest; a model without a store of that digest was run on other images.

    Parameters
    ----------
    stores
        Of any kind. Stores without dataset are ignored, and imported ones, whose images are not listed.

    Returns
    -------
    dict of str to list of str
        Dataset id to model ids, both sorted; empty if all stores of each dataset are of the same images.
    """
    counted = [
        store for store in stores if store.dataset_id and store.dataset.digest and not store.recorded("imported_from")
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
    """Return a line that reports models with an older version of a dataset, and the fix."""
    some = ", ".join(models) if len(models) <= 3 else f"{len(models)} models ({', '.join(models[:2])} ...)"
    return f"{dataset}: the stores of {some} are of other images than the one written last; 'extract' makes new ones"


def _written(store: Store) -> str:
    return store.written
