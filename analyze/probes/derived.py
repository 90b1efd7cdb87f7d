"""A fitted probe as stores: a model of its own with predictions, and for a linear probe a head and a reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import cache_schema
from analyze.probes.banks import unit_rows
from analyze.probes.fitting import FittedProbe
from analyze.probes.inputs import reader_of
from analyze.probes.options import Variant
from analyze.probes.references import ProbeReference
from cache_schema.format.identities import identity
from cache_schema.format.model_names.lineages import card_lineage
from cache_schema.format.naming import head_name, published
from cache_schema.writing.kinds.reference_accumulator import ReferenceAccumulator
from cache_schema.writing.kinds.writing import dataset_fields, model_fields
from closerlook_common.errors import StoreExistsError

if TYPE_CHECKING:
    from cache_schema.format.records import DatasetCard, ModelCard
    from cache_schema.reading.store import PredictionStore

ROWS = 8192
"""Rows of a store that are scored at a time: one shard."""


@dataclass(frozen=True)
class Target:
    """Where stores of one probe go, and what decides their identity.

    Attributes
    ----------
    folder
        The cache's.
    model
        Card of the encoder.
    variant
        The probe.
    reference
        What it is fitted on.
    backend
        ``zarr`` or ``hdf5``.
    """

    folder: Path
    model: ModelCard
    variant: Variant
    reference: ProbeReference
    backend: str = "zarr"

    @property
    def name(self) -> str:
        """Id of the probed model."""
        return self.variant.name(self.model.id)

    def identity(self, kind: str, **more: Any) -> str:
        """Return the identity of one of the probe's stores."""
        fields = {"kind": kind, **model_fields(self.model), "probe": self.variant.facts()}
        return identity({**fields, "reference_digest": self.reference.digest, **more})

    def predictions_identity(self, store: PredictionStore) -> str:
        """Return the identity of the probe's predictions on a store of features."""
        return self.identity("predictions", dataset=dataset_fields(store.sealed_dataset), features=store.digest)

    def missing(self, stores: Sequence[PredictionStore]) -> list[PredictionStore]:
        """Return the stores of features that the probe has no predictions for yet."""
        return [
            store
            for store in stores
            if not self.is_there("predictions", store.dataset.id, self.predictions_identity(store))
        ]

    def has_head(self) -> bool:
        """Return whether head and reference are there, or not to be written at all."""
        space, dataset = self.reference.card.class_space, self.reference.card.id
        return not self.variant.whole or (
            self.is_there("head", head_name(space, ""), self.identity("head"))
            and self.is_there("reference", dataset, self.identity("reference"))
        )

    def is_there(self, kind: str, name: str, digits: str) -> bool:
        """Return whether a store of the probe is published."""
        return published(self.folder, kind, self.name, name, digits) is not None

    def card(self, probe: FittedProbe) -> ModelCard:
        """Return the card of the probed model."""
        variant, model = self.variant, self.model
        facts = {key: value for key, value in probe.facts.items() if key != "tried"}
        return replace(
            model,
            id=self.name,
            lineage=card_lineage(model),
            class_space=self.reference.card.class_space,
            head_kind="linear" if variant.is_linear else "non-affine",
            logit_scale=None,
            logit_bias=None,
            feature_width=probe.bank.width if variant.whole else None,
            extra={
                **model.extra,
                "n_classes": probe.bank.n_classes,
                "probe": {"of": model.id, **variant.facts(), **facts},
            },
        )

    def record(self, probe: FittedProbe, **more: Any) -> dict[str, Any]:
        """Return what the stores say of how they were made."""
        return {
            "command": "analyze probe",
            "class_space": self.reference.card.class_space,
            "probe": {
                "of": self.model.id,
                **self.variant.facts(),
                **probe.facts,
                "reference_digest": self.reference.digest,
                **more,
            },
        }


def write_predictions(target: Target, probe: FittedProbe, store: PredictionStore) -> bool:
    """Write a probe's predictions on a store of features; return False where somebody else has just done so.

    The predictions of a linear probe on the whole reference keep the features that its weights act on.
    """
    read = reader_of(store, target.variant.options.features)
    keep, one = target.variant.whole, read(0, 1)
    dtype = one.dtype
    kept_names = {key: store.record[key] for key in ("image_ids",) if key in store.record}
    try:
        writer = cache_schema.StoreWriter(
            target.folder,
            model=target.card(probe),
            dataset=store.sealed_dataset,
            n_images=len(store),
            n_classes=probe.bank.n_classes,
            feature_width=one.shape[1] if keep else None,
            image_ids=store.image_ids,
            labels=store.labels,
            metadata=store.metadata,
            logits_kind="logits" if target.variant.is_linear else "log_probabilities",
            features_dtype=dtype.name,
            backend=target.backend,
            record={**target.record(probe, features_digest=store.digest), **kept_names},
            identity=target.predictions_identity(store),
        )
        with writer:
            for block in store.blocks(ROWS, logits=False):
                rows = read(block.start, block.stop).astype(np.float32)
                given = np.where(block.valid[:, None], rows, np.float32(0))
                if target.variant.unit:
                    # Scored as they will be read, so that features and head give the logits back.
                    given = unit_rows(given.astype(np.float64)).astype(dtype)
                scores = probe.scores(given.astype(np.float64)).astype(np.float32)
                scores[~block.valid] = np.nan
                writer.append(scores, given.astype(np.float32) if keep else None, block.valid)
    except StoreExistsError:
        return False
    return True


def write_head_and_reference(target: Target, probe: FittedProbe, class_names: Sequence[str]) -> None:
    """Write the head of a linear probe, and the statistics of the rows that it was fitted on."""
    assert probe.linear is not None
    card, record = target.card(probe), target.record(probe)
    where: dict[str, Any] = {"model": card, "backend": target.backend, "record": record}
    if not target.is_there("head", head_name(card.class_space, ""), target.identity("head")):
        cache_schema.write_head(
            target.folder,
            class_space=card.class_space,
            class_names=class_names,
            weight=probe.linear.weight,
            bias=probe.linear.bias,
            residual=0.0,
            identity=target.identity("head"),
            **where,
        )
    dataset: DatasetCard = replace(target.reference.card, role="reference", shift_of="", distance="")
    if target.is_there("reference", dataset.id, target.identity("reference")):
        return
    sums = ReferenceAccumulator(probe.bank.n_classes, probe.bank.width)
    for features, labels in probe.bank.blocks():
        sums.update(features, probe.scores(features), labels)
    where["record"] = {**record, "reference": dict(sums.options())}
    cache_schema.write_reference(
        target.folder, dataset=dataset, arrays=sums.arrays(), identity=target.identity("reference"), **where
    )
