"""What detectors of one model are fitted on: its stores, head, reference, negatives, and validation rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analyze.detectors import Reference, Validation
from cache_schema.reading.extending import extended
from closerlook_common.errors import UserError

if TYPE_CHECKING:
    from cache_schema.reading.kinds.heads import HeadStore
    from cache_schema.reading.kinds.references import ReferenceStore
    from cache_schema.reading.store import PredictionStore

READ_ROWS = 8064
"""Rows read at a time: a whole number of tiles, about one shard."""


@dataclass
class ModelInputs:
    """One model's stores, and a reason in place of each that is missing: the source of a ``DetectorFit``.

    Attributes
    ----------
    store
        Of the in-distribution set.
    head, reference, negatives, validation, sweep
        The stores that were asked for: the last layer, sums and bank of a training set, text embeddings of negative
        labels, rows to fit on, and the OOD set on which hyper-parameters are chosen.
    reasons
        Name of an attribute -> why it is None.
    """

    store: PredictionStore
    head: HeadStore | None = None
    reference: ReferenceStore | None = None
    negatives: HeadStore | None = None
    validation: PredictionStore | None = None
    sweep: PredictionStore | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    _read: dict[bytes, Validation] = field(default_factory=dict, repr=False)

    @cached_property
    def loaded_reference(self) -> Reference:
        """The reference (there is one) in memory; its statistics serve many detectors."""
        assert self.reference is not None
        return Reference.from_store(self.reference)

    def validation_rows(self, rows: NDArray[np.bool_]) -> Validation | None:
        """Return some rows of the validation store, read once for all detectors; None where there is none."""
        if self.validation is None:
            return None
        key = np.packbits(rows).tobytes()
        if key not in self._read:
            self._read[key] = read_validation(self.validation, rows)
        return self._read[key]

    @cached_property
    def sweep_rows(self) -> Validation:
        """All rows of the OOD set on which hyper-parameters are chosen."""
        assert self.sweep is not None
        return read_validation(self.sweep, np.ones(len(self.sweep), np.bool_))


def without_patches(store: PredictionStore, head: HeadStore | None = None) -> str:
    """Return why a store's best patches cannot be used with a head, empty where they can."""
    if "patches" not in store.parts:
        return "needs the best patch of each image: 'extract --arrays patches' stores it"
    own = store.recorded("head_identity")
    if head is not None and own and own not in (head.identity, *extended([head])):
        return (
            f"needs best patches for the prompts {head.prompt_set!r}: those of the store are for"
            f" {store.recorded('prompt_set')!r}"
        )
    return ""


def held_back(store: PredictionStore, share: float) -> NDArray[np.bool_]:
    """Mark a share of a store's rows by a hash of their image ids: the same images for every model.

    Raises
    ------
    UserError
        For a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise UserError(f"a validation share of {share:g} must lie in (0, 1]")
    if share == 1:
        return np.ones(len(store), np.bool_)
    digests = b"".join(
        hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8, key=b"validation").digest()
        for name in store.image_ids
    )
    return np.asarray(np.frombuffer(digests, dtype="<u8") < np.uint64(min(share * 2.0**64, 2.0**64 - 2048)))


def read_validation(store: PredictionStore, rows: NDArray[np.bool_]) -> Validation:
    """Read the valid ones of some rows: features and logits where they are stored, and labels."""
    chosen = rows & store.valid
    parts: dict[str, list[NDArray[Any]]] = {"features": [], "logits": []}
    for block in store.blocks(READ_ROWS, logits=store.has_logits, features=store.has_features):
        mask = chosen[block.start : block.stop]
        for name, values in (("features", block.features), ("logits", block.logits)):
            if values is not None:
                parts[name].append(values[mask])
    features, logits = (np.concatenate(v) if v else None for v in parts.values())
    return Validation(features, logits, store.labels[chosen], store.dataset.id)
