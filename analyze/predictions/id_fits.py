"""What is fitted on a part of the in-distribution set: temperature, vector scaling and conformal quantiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analyze.annotations.label_sets import NO_LIKELIHOOD, OWN
from analyze.calibrators.split import fit_rows
from analyze.calibrators.temperature import TemperatureFit, fit_temperature_store
from analyze.calibrators.vector_scaling import VectorFit, fit_vector_scaling_store
from analyze.predictions.conformal_sets import SetQuantiles, fit_quantiles
from analyze.reading.sources import Source
from analyze.settings import Settings
from cache_schema.errors import CloserlookError, UserError
from cache_schema.records import DatasetCard

if TYPE_CHECKING:
    from analyze.detectors.base import Fitted

USES_FIT = frozenset({"calibration", "detection", "conformal", "factors"})


@dataclass(frozen=True)
class IdFit:
    """What was fitted on an ID set.

    Attributes
    ----------
    dataset
        Its id.
    rows
        (n,) rows that were fitted on; None where the set could not be divided.
    card, n_columns
        Its card, and the columns of its logits.
    temperature, quantiles, vector, klm
        The fits; None where there is none.
    no_rows, no_temperature, no_quantiles, no_vector, no_klm
        Why there is none.
    """

    dataset: str
    card: DatasetCard
    rows: NDArray[np.bool_] | None = None
    temperature: TemperatureFit | None = None
    quantiles: SetQuantiles | None = None
    no_rows: str = ""
    no_temperature: str = ""
    no_quantiles: str = ""
    vector: VectorFit | None = None
    no_vector: str = ""
    klm: Fitted | None = None
    no_klm: str = ""
    n_columns: int | None = None

    def facts(self, settings: Settings) -> dict[str, Any]:
        """Return where the temperature comes from, JSON-ready."""
        facts: dict[str, Any] = dict(settings["split"])
        fit = self.temperature
        if fit is None:
            return facts
        told = {"dataset": self.dataset, "n": fit.n, "nll_before": fit.nll_before, "nll_after": fit.nll_after}
        return facts | told | {"standard_error": fit.standard_error}


def fit_id_set(source: Source, settings: Settings, suites: set[str], threads: int = 1) -> IdFit:
    """Fit what the suites need on an ID set; what fails is kept as a reason.

    Of a summary only the split is made: its fits were made with it.
    """
    labels = source.store.column("label") if source.is_summary else source.store.labels
    if source.is_summary:  # an imported table has rows of images that could be read, and no column to say so
        has = "valid" in source.store.columns()
        valid = source.store.column("valid") if has else np.ones(len(labels), np.bool_)
    else:
        valid = source.store.valid
    try:
        if _several_labels(source):
            raise UserError(NO_LIKELIHOOD)
        rows = fit_rows(labels, usable=np.asarray(valid), **settings["split"])
    except CloserlookError as error:
        reason = str(error)
        return IdFit(
            source.dataset,
            source.store.dataset,
            no_rows=reason,
            no_temperature=reason,
            no_quantiles=reason,
            no_vector=reason,
            no_klm=reason,
        )
    if source.is_summary:
        return IdFit(source.dataset, source.store.dataset, rows)
    temperature, no_temperature = None, "no temperature is asked for"
    if "temperature" in settings["calibrators"]["methods"] and suites & {"calibration", "detection", "factors"}:
        low, high = settings["calibrators"]["bounds"]
        try:
            temperature = fit_temperature_store(source.store, rows, bounds=(low, high), threads=threads)
            no_temperature = ""
        except CloserlookError as error:
            no_temperature = str(error)
    quantiles, no_quantiles = None, ""
    if "conformal" in suites:
        options = settings["conformal"]
        try:
            quantiles = fit_quantiles(
                source.store,
                rows,
                alpha=options["alpha"],
                methods=options["methods"],
                penalty=options["raps_penalty"],
                free_ranks=options["raps_k"],
                threads=threads,
            )
        except CloserlookError as error:
            no_quantiles = str(error)
    vector, no_vector = None, "no vector scaling is asked for"
    if "vector" in settings["calibrators"]["methods"] and "calibration" in suites:
        try:
            vector = fit_vector_scaling_store(source.store, rows, threads=threads)
            no_vector = ""
        except CloserlookError as error:
            no_vector = str(error)
    klm, no_klm = None, ""
    if "klm" in settings["ood"]["scores"] and "detection" in suites:
        from analyze.predictions.typical_softmax import fit_kl_matching_store

        try:
            klm = fit_kl_matching_store(source.store, rows)
        except CloserlookError as error:
            no_klm = str(error)
    return IdFit(
        source.dataset,
        source.store.dataset,
        rows,
        n_columns=source.store.n_classes,
        klm=klm,
        no_klm=no_klm,
        temperature=temperature,
        quantiles=quantiles,
        vector=vector,
        no_temperature=no_temperature,
        no_quantiles=no_quantiles,
        no_vector=no_vector,
    )


def _several_labels(source: Source) -> bool:
    if source.is_summary:
        return bool(source.store.record.get("facts", {}).get("several_labels"))
    return OWN in source.store.metadata


def id_set_of(card: DatasetCard, id_sets: list[str]) -> str:
    """Return the ID set whose fits are applied to a dataset: its ``shift_of``, else the only one there is."""
    if card.id in id_sets:
        return card.id
    if card.shift_of in id_sets:
        return card.shift_of
    return id_sets[0] if len(id_sets) == 1 else ""
