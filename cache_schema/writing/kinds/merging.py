"""Merge sealed references of disjoint parts of a training set into one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cache_schema.format.identities import identity as identity_of
from cache_schema.format.records import DatasetCard
from cache_schema.reading.kinds.references import ReferenceStore
from cache_schema.writing.kinds.references import write_reference
from closerlook_common.errors import UserError


def merge_references(
    cache_path: Path | str,
    parts: Sequence[ReferenceStore],
    *,
    dataset: str,
    backend: str = "zarr",
    overwrite: bool = False,
) -> ReferenceStore:
    """Write the reference of a training set of which disjoint parts were extracted with ``--arrays unit``.

    Parameters
    ----------
    cache_path, backend, overwrite
        As for :func:`cache_schema.write_store`.
    parts
        At least two references of one model, with the keys of their banks, that share no image.
    dataset
        Id of the whole training set.

    Returns
    -------
    ReferenceStore
        Its bank is that of one pass over all images, bit for bit; sums differ from those of one pass by rounding.

    Raises
    ------
    UserError
        The parts are of several models, class spaces or prompts, have no keys, or share images.
    """
    if len(parts) < 2:
        raise UserError("a merge needs two references or more")
    for part in parts:
        if not isinstance(part, ReferenceStore):
            raise UserError(f"{part.title} is a store of kind {part.kind}, not a reference")
        if part.bank_keys is None:
            raise UserError(
                f"{part.title} lacks the keys of its bank, so that a merge would not be exact: extract it with"
                " `arrays` unit"
            )
    first = parts[0]
    for what, of in _SAME.items():
        if len({repr(of(part)) for part in parts}) > 1:
            raise UserError(f"references that differ in their {what} cannot be merged: {first.title} and others")
    record: dict[str, Any] = {
        name: first.record[name] for name in ("precision", "prompt_set", "head_identity") if name in first.record
    }
    record["merged_from"] = [
        {"dataset": part.dataset.id, "identity": part.identity, "digest": part.digest} for part in parts
    ]
    arrays = ReferenceStore.merge(parts)
    record["reference"] = {
        "per_class": arrays.bank_per_class,
        "seed": arrays.bank_seed,
        "normalize_features": arrays.unit_features,
        "skipped": arrays.skipped,
    }
    identities = sorted(part.identity for part in parts)
    return write_reference(
        cache_path,
        model=first.model,
        dataset=_whole(dataset, [part.dataset for part in parts]),
        arrays=arrays,
        backend=backend,
        record=record,
        identity=identity_of({"kind": "reference", "dataset_id": dataset, "merged_from": identities}),
        overwrite=overwrite,
    )


_SAME: Mapping[str, Callable[[ReferenceStore], Any]] = {
    "model": lambda part: part.model.id,
    "weights": lambda part: part.model.weights_digest,
    "preprocessing": lambda part: part.record.get("preprocessing", part.model.preprocessing),
    "precision": lambda part: part.record.get("precision"),
    "class space": lambda part: (part.dataset.class_space, part.dataset.class_names),
    "class mask or map": lambda part: (part.dataset.class_mask, part.dataset.class_map),
    "head": lambda part: part.record.get("head_identity"),
}
"""What all parts must have in common -> where it is."""


def _whole(name: str, cards: Sequence[DatasetCard]) -> DatasetCard:
    """Return the card of the whole; its digest is that of the parts' digests, sorted."""
    digests = sorted(card.digest for card in cards)
    counts = [card.n_images for card in cards if card.n_images is not None]
    return replace(
        cards[0],
        id=name,
        digest=hashlib.sha256("\n".join(digests).encode()).hexdigest() if all(digests) else "",
        n_images=sum(counts) if len(counts) == len(cards) else None,
    )
