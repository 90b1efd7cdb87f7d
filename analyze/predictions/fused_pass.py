"""Prediction stores -> summaries: one fused pass over the logits, block by block, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analyze.annotations import image_keys, label_sets
from analyze.fits.base import Fitted, LogitBlock
from analyze.fits.registry import FITS
from analyze.kernels import statistics as kernels
from analyze.kernels.statistics import RowStatistics
from analyze.predictions.classwise import ClasswiseTable
from analyze.predictions.summaries import METADATA, Summary
from analyze.reading.read_ahead import read_ahead
from analyze.reading.views import ClassView, view_statistics
from cache_schema.format.row_rules import has_image_names
from closerlook_common.errors import UserError

if TYPE_CHECKING:
    from cache_schema.reading.store import Block, PredictionStore

BLOCK_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class SummaryOptions:
    """What a summary holds beyond the plain statistics.

    Attributes
    ----------
    fits
        What was fitted on the ID set and applies to this dataset: each gives columns.
    split
        Which rows of which set were fitted on: kept with the summary.
    reasons
        Name of a fit -> why the summary has none of its columns.
    mcm_tau
        Temperature on the unscaled cosine, for models with a logit scale.
    energy_temperature
        T of the energy score.
    gen
        (M, gamma); None leaves it out.
    classwise_bins
        Bins of the classwise calibration error; 0 leaves it (and its second look at the logits) out.
    classes
        Options of the classes that are not the study's default: kept with the summary.
    image_keys
        Also hash the file names, to join annotations or other models later.
    """

    fits: tuple[Fitted, ...] = ()
    split: Mapping[str, Any] | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    mcm_tau: float = 1.0
    energy_temperature: float = 1.0
    gen: tuple[int, float] | None = (100, 0.1)
    classwise_bins: int = 15
    classes: Mapping[str, Any] | None = None
    image_keys: bool = False


def prefetched(store: PredictionStore, rows: int = BLOCK_ROWS) -> Iterator[Block]:
    """Go through the centred blocks of a store; the next one is read while the caller works on this one."""
    return read_ahead(lambda start: next(iter_block(store, start, rows)), range(0, len(store), rows))


def iter_block(store: PredictionStore, start: int, rows: int) -> Iterator[Block]:
    """Yield the one block of a store that begins at a row."""
    from cache_schema.reading.store import Block

    stop = min(start + rows, len(store))
    yield Block(
        start,
        stop,
        store.centred_logits(start, stop),
        store.logit_centers(start, stop),
        None,
        store.labels[start:stop],
        store.valid[start:stop],
    )


def summarize(
    store: PredictionStore,
    *,
    view: ClassView | None = None,
    variant: str = "",
    labels: NDArray[np.int32] | None = None,
    leave_out_others: bool = False,
    options: SummaryOptions | None = None,
    held_out: NDArray[np.bool_] | None = None,
    rows: int = BLOCK_ROWS,
    threads: int = 1,
    advance: Callable[[int], None] = lambda _rows: None,
) -> Summary:
    """Compute a store's per-image statistics in one pass over its logits.

    Parameters
    ----------
    store
        A sealed prediction store with logits.
    view, variant
        Which classes compete, and the name of that choice; the dataset's own when None.
    labels
        Labels in the terms of the view; the store's own when None.
    leave_out_others
        Leave out the rows whose label is none of the classes of the view, as another set's classes ask for. Otherwise
        such a label is an error: the mask of the set itself must keep all of its labels.
    options
        Fits, GEN, classwise error.
    held_out
        Rows on which the calibrated classwise error is taken; all when None.
    rows, threads
        Rows a block and threads over its rows: the result depends on neither.
    advance
        Called with the number of rows done after each block.

    Returns
    -------
    Summary
        With the columns of ``summaries.COLUMNS`` that apply and the store's metadata.

    Raises
    ------
    UserError
        Where the store has no logits, a valid row holds NaN or +inf (it is named), or labels are of none of the
        classes.
    """
    return _Pass(store, view, labels, leave_out_others, options or SummaryOptions(), held_out, threads).summary(
        variant, rows, advance
    )


class _Pass:
    """One pass over the logits of a store: what is gathered meanwhile, and the summary that comes of it.

    Parameters
    ----------
    store, view, labels, leave_out_others, options, held_out, threads
        See ``summarize``.
    """

    def __init__(
        self,
        store: PredictionStore,
        view: ClassView | None,
        labels: NDArray[np.int32] | None,
        leave_out_others: bool,
        options: SummaryOptions,
        held_out: NDArray[np.bool_] | None,
        threads: int,
    ) -> None:
        self.what = f"{store.model.id} on {store.dataset.id}"
        if not store.has_logits or store.n_classes is None:
            raise UserError(f"{self.what}: the store holds no logits")
        self.store, self.options, self.threads = store, options, threads
        self.view = view or ClassView.of(store.dataset, store.n_classes)
        self.labels = np.asarray(store.labels if labels is None else labels)
        if store.dataset.role in ("ood", "pairs"):
            self.labels = np.full(len(store), -1, np.int32)
        self.valid = np.asarray(store.valid)
        self.places = self._places(leave_out_others)
        self.plan = _temperatures(store, options)
        self.out = RowStatistics.empty(len(store), len(self.plan))
        self.ranks: dict[int, NDArray[np.int32]] = {}
        if self.view.groups is not None and self.view.rule == "mean":
            # Only under this rule the order of the classes depends on the temperature.
            fitted = {name for name in self.plan if name not in _OWN_TEMPERATURES}
            self.ranks = {k: np.full(len(store), -1, np.int32) for k, name in enumerate(self.plan) if name in fitted}
        self.several = label_sets.OWN in store.metadata
        self.tables = {} if self.several else self._tables(held_out)
        self.columns: dict[str, NDArray[Any]] = {}

    def _places(self, leave_out_others: bool) -> NDArray[np.int32]:
        """Return the places of the labels among the classes that compete; images of others are left out or refused."""
        if leave_out_others:
            places = self.view.places(self.labels)
            self.valid = self.valid & ~((self.labels >= 0) & (places < 0))
            return places
        try:
            return self.view.own_places(self.labels)
        except UserError as error:
            raise UserError(f"{self.what}: {error}") from None

    def summary(self, variant: str, rows: int, advance: Callable[[int], None]) -> Summary:
        """Go through the blocks and return the summary."""
        store, options = self.store, self.options
        for block in prefetched(store, rows):
            self._add(block)
            advance(block.stop - block.start)
        columns = _columns(self.view, self.out, self.plan, self.labels, self.valid, options.gen is not None)
        columns |= self.columns
        if self.several:
            sets_of = label_sets.parse(store.metadata[label_sets.OWN], label_sets.OWN)
            columns["label_rank"] = label_sets.rank_of_set(columns["top"], columns["label_rank"], sets_of)
            columns = {k: v for k, v in columns.items() if not k.endswith("label_log_probability")}
        if options.image_keys and has_image_names(store.record, store.image_ids):
            columns["image_key"] = image_keys(store.image_ids)
        columns |= {METADATA + name: values for name, values in store.metadata.items()}
        return Summary(
            model=store.model,
            dataset=store.dataset,
            columns=columns,
            n_classes=self.view.n_classes,
            digest=store.digest,
            variant=variant,
            facts=self._facts(),
            reasons=dict(options.reasons),
        )

    def _add(self, block: Block) -> None:
        """Add a block of logits: the plain statistics, the columns of every fit, the classwise tables."""
        here = slice(block.start, block.stop)
        assert block.logits is not None
        assert block.centers is not None
        try:
            view_statistics(
                self.view,
                block.logits,
                centers=block.centers,
                places=self.places[here],
                valid=self.valid[here],
                temperatures=list(self.plan.values()),
                gen=self.options.gen,
                out=self.out,
                offset=block.start,
                threads=self.threads,
                ranks=self.ranks,
            )
        except UserError as error:
            raise UserError(f"{self.what}: {error}") from error
        at = {name: k for k, name in enumerate(self.plan)}
        fits = [fit for fit in self.options.fits if fit.temperature is not None]
        logits = LogitBlock(
            self.view,
            block.logits,
            block.centers,
            self.places[here],
            self.valid[here],
            {float(fit.temperature or 0): self.out.scaled[at[fit.name]][:, here] for fit in fits},
            {float(fit.temperature or 0): self.ranks[at[fit.name]][here] for fit in fits if at[fit.name] in self.ranks},
            self.threads,
        )
        for fit in self.options.fits:
            for name, values in fit.columns(logits).items():
                if name not in self.columns:
                    self.columns[name] = np.empty((len(self.store), *values.shape[1:]), values.dtype)
                self.columns[name][here] = values
        for of, table in self.tables.values():
            part, temperature = (block.logits, 1.0) if of is None else of.logits(logits)
            table.add(self.view, part, self.places[here], here, self.threads, temperature)

    def _tables(self, held_out: NDArray[np.bool_] | None) -> dict[str, tuple[Fitted | None, ClasswiseTable]]:
        """Return the classwise tables by name, each with the fit whose probabilities it is of (None: the model's)."""
        options, labelled = self.options, self.valid & (self.labels >= 0)
        if options.classwise_bins <= 0 or not labelled.any():
            return {}
        tested = labelled if held_out is None else labelled & held_out

        def table(rows: NDArray[np.bool_], part: ClasswiseTable | None = None) -> ClasswiseTable:
            return ClasswiseTable(self.view.n_classes, options.classwise_bins, rows, part=part)

        part = None if held_out is None else table(tested)
        tables: dict[str, tuple[Fitted | None, ClasswiseTable]] = {}
        if part is not None:
            tables["classwise_held_out"] = (None, part)
        tables["classwise"] = (None, table(labelled, part))
        return tables | {fit.aggregate: (fit, table(tested)) for fit in options.fits if fit.aggregate}

    def _facts(self) -> dict[str, Any]:
        options = self.options
        facts: dict[str, Any] = {fit.fact: None for fit in FITS.values() if fit.fact}
        facts |= {
            "split": dict(options.split or {}),
            "tau": options.mcm_tau,
            "energy_temperature": options.energy_temperature,
            "gen": list(options.gen or ()),
            "logits_kind": self.store.logits_kind,
            "head": self.store.record.get("prompt_set", "") or "",
            "several_labels": self.several,
            "classes": dict(options.classes or {}),
            "aggregates": {name: table.errors() for name, (_, table) in self.tables.items()},
        }
        for fit in options.fits:
            own = fit.facts(self.store.dataset)
            facts["split"] |= own.pop("split", {})
            facts |= own
        return facts


_OWN_TEMPERATURES = ("plain", "mcm", "energy")
"""Temperatures of statistics that need no fit."""


def _temperatures(store: PredictionStore, options: SummaryOptions) -> dict[str, float]:
    plan = {"plain": 1.0}
    plan |= {fit.name: float(fit.temperature) for fit in options.fits if fit.temperature is not None}
    scale = store.model.logit_scale
    if scale is not None and store.logits_kind == "logits":
        # The bias of a SigLIP is the same for all classes: a softmax does not see it.
        plan["mcm"] = float(scale) * options.mcm_tau
    if options.energy_temperature != 1.0:
        plan["energy"] = float(options.energy_temperature)
    return plan


def _columns(
    view: ClassView,
    out: RowStatistics,
    plan: Mapping[str, float],
    labels: NDArray[np.int32],
    valid: NDArray[np.bool_],
    has_gen: bool,
) -> dict[str, NDArray[Any]]:
    at = {name: out.scaled[k] for k, name in enumerate(plan)}
    plain = at["plain"]
    columns: dict[str, NDArray[Any]] = {
        "label": labels.astype(np.int32),
        "valid": valid,
        "top": view.classes(out.top.T),
        "label_rank": out.rank,
        "confidence": plain[kernels.CONFIDENCE],
        "label_log_probability": plain[kernels.LABEL_LOG_PROBABILITY],
        "entropy": plain[kernels.ENTROPY],
        "sum_squares": plain[kernels.SUM_SQUARES],
        "margin": plain[kernels.MARGIN],
        "max_logit": out.fixed[kernels.MAX_LOGIT],
        "log_sum_exp": plain[kernels.LOG_SUM_EXP],
    }
    if has_gen:
        columns["gen"] = out.fixed[kernels.GEN]
    if "energy" in at:
        columns["energy"] = at["energy"][kernels.LOG_SUM_EXP] * np.float32(plan["energy"])
    if "mcm" in at:
        columns["mcm"] = at["mcm"][kernels.CONFIDENCE]
    return columns
