"""The labelled features of a model that a probe is fitted on: a stored training set, or a reference store's bank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analyze.probes.banks import Bank
from analyze.probes.inputs import TOKENS, plainest, reader_of, why_not
from closerlook_common.errors import UserError, nearest

if TYPE_CHECKING:
    from cache_schema.format.records import DatasetCard
    from cache_schema.reading.cache import Cache
    from cache_schema.reading.store import Store


@dataclass(frozen=True)
class ProbeReference:
    """What a probe is fitted on.

    Attributes
    ----------
    bank
        Its labelled rows, features as they are stored.
    card
        Of the dataset.
    digest
        Of the store.
    kind
        ``predictions`` (a stored training set, every image) or ``reference`` (the bank of a reference store).
    unit_already
        Whether the stored features have been scaled to unit length.
    """

    bank: Bank
    card: DatasetCard
    digest: str
    kind: str
    unit_already: bool = False


def find_reference(cache: Cache, model: str, dataset: str, features: str = "plain") -> ProbeReference:
    """Return a model's labelled features of a dataset: of a stored training set if there is one, else of a bank.

    Parameters
    ----------
    cache, model, dataset
        Whose rows.
    features
        What is read of them, a choice of ``ProbeOptions.features``.

    Raises
    ------
    UserError
        There are none; the message says why.
    """
    predictions = _of(cache, "predictions", model, dataset)
    stored = [store for store in predictions if not why_not(store, features)]
    if stored:
        return _whole(plainest(stored), features)
    banks = _of(cache, "reference", model, dataset)
    if banks and features not in TOKENS:
        return _bank(plainest(banks))
    for store in (*predictions, *banks):
        reason = why_not(store, features)
        if features not in TOKENS:
            raise UserError(f"its store of {dataset} holds no features, which a probe is fitted on")
        raise UserError(f"its reference {dataset}: {reason}")
    stores = [s for kind in ("predictions", "reference") for s in cache.stores(kind)]
    known = {s.dataset_id for s in stores} - {dataset}
    raise UserError(f"it has no store of the reference {dataset!r}{nearest(dataset, known)}")


def _of(cache: Cache, kind: str, model: str, dataset: str) -> list[Any]:
    return [store for store in cache.stores(kind) if store.model_id == model and store.dataset_id == dataset]


def _whole(store: Any, features: str) -> ProbeReference:
    card = store.dataset
    if card.class_map is not None:
        raise UserError(f"the labels of {card.id} are of super-classes, which no column of a probe stands for")
    labels = store.labels.astype(np.int64)
    rows = np.flatnonzero(store.valid & (labels >= 0))
    classes = card.n_classes or len(card.class_names) or (int(labels.max()) + 1 if len(rows) else 0)
    return _checked(store, Bank(reader_of(store, features), rows, labels[rows], classes))


def _bank(store: Any) -> ProbeReference:
    labels = store.bank_labels.astype(np.int64)

    def read(start: int, stop: int) -> NDArray[np.floating]:
        rows: NDArray[np.floating] = store.read("bank_features", start, stop)
        return rows

    return _checked(store, Bank(read, np.arange(len(labels)), labels, len(store)))


def _checked(store: Store, bank: Bank) -> ProbeReference:
    if not len(bank):
        what = "labelled image" if store.kind == "predictions" else "image in its bank"
        raise UserError(f"its store of {store.dataset.id} has no {what} to fit on")
    unit = bool(store.record.get("reference", {}).get("normalize_features"))
    return ProbeReference(bank, store.dataset, store.digest, store.kind, unit)
