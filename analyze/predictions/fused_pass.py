"""Prediction stores -> summaries: reads logits block by block and runs the fused pass; memory stays
bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analyze.annotations import image_keys, label_sets
from analyze.calibrators.vector_columns import VECTOR_AGGREGATE, VectorStatistics
from analyze.calibrators.vector_scaling import VectorFit
from analyze.kernels import statistics as kernels
from analyze.kernels.statistics import RowStatistics
from analyze.predictions.classwise import ClasswiseTable
from analyze.predictions.conformal_sets import SetQuantiles, SetStatistics
from analyze.predictions.summaries import METADATA, Summary
from analyze.reading.read_ahead import read_ahead
from analyze.reading.views import ClassView, view_statistics
from cache_schema.errors import UserError

if TYPE_CHECKING:
    from analyze.detectors.base import Fitted
    from analyze.intervals.resampling import Resampling
    from cache_schema.store import Block, PredictionStore

BLOCK_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class SummaryOptions:
    """What a summary holds beyond the plain statistics.

    Attributes
    ----------
    temperature
        Fitted temperature of the ``scaled_`` columns, None to leave them out.
    temperature_facts
        Where it was fitted: kept with the summary.
    mcm_tau
        Temperature on the unscaled cosine, for models with a logit scale.
    energy_temperature
        T of the energy score.
    gen
        (M, gamma); None leaves it out.
    classwise_bins
        Bins of the classwise calibration error; 0 leaves it (and its second look at the logits) out.
    conformal
        Fitted quantiles, to count the classes of conformal sets; None leaves them out.
    vector, vector_facts
        Fitted vector scaling of the ``vector_`` columns, None to leave them out; where it was fitted.
    klm
        KL-matching fitted on the classes of the view; None leaves its score out.
    classes
        Options of the classes that are not the study's default: kept with the summary.
    resampling
        Bootstrap of the classwise error, None for no interval.
    image_keys
        Also hash the file names, to join annotations or other models later.
    """

    temperature: float | None = None
    temperature_facts: Mapping[str, Any] | None = None
    mcm_tau: float = 1.0
    energy_temperature: float = 1.0
    gen: tuple[int, float] | None = (100, 0.1)
    classwise_bins: int = 15
    conformal: SetQuantiles | None = None
    vector: VectorFit | None = None
    vector_facts: Mapping[str, Any] | None = None
    klm: Fitted | None = None
    classes: Mapping[str, Any] | None = None
    resampling: Resampling | None = None
    image_keys: bool = False


def prefetched(store: PredictionStore, rows: int = BLOCK_ROWS) -> Iterator[Block]:
    """Go through the centred blocks of a store; the next one is read while the caller works on this one."""
    return read_ahead(lambda start: next(iter_block(store, start, rows)), range(0, len(store), rows))


def iter_block(store: PredictionStore, start: int, rows: int) -> Iterator[Block]:
    """Yield the one block of a store that begins at a row."""
    from cache_schema.store import Block

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
    options
        Temperatures, GEN, classwise error.
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
        Where the store has no logits, or a valid row holds NaN or +inf (it is named).
    """
    options = options or SummaryOptions()
    what = f"{store.model.id} on {store.dataset.id}"
    if not store.has_logits or store.n_classes is None:
        raise UserError(f"{what}: the store holds no logits")
    view = view or ClassView.of(store.dataset, store.n_classes)
    labels = np.asarray(store.labels if labels is None else labels)
    if store.dataset.role in ("ood", "pairs"):
        labels = np.full(len(store), -1, np.int32)
    places = view.places(labels)
    valid = np.asarray(store.valid) & ~((labels >= 0) & (places < 0))
    plan = _temperatures(store, options)
    out = RowStatistics.empty(len(store), len(plan))
    ranks: dict[int, NDArray[np.int32]] = {}
    if view.groups is not None and view.rule == "mean" and "scaled" in plan:
        ranks[list(plan).index("scaled")] = np.full(len(store), -1, np.int32)
    tables = {}
    if label_sets.OWN not in store.metadata:
        tables = _tables(view, store.dataset.id, options, labels, valid, held_out)
    sets = None if options.conformal is None else SetStatistics(len(store), options.conformal)
    klm = np.full(len(store), np.nan, np.float32)
    vector = None if options.vector is None else VectorStatistics(len(store), options.vector)
    for block in prefetched(store, rows):
        here = slice(block.start, block.stop)
        assert block.logits is not None
        assert block.centers is not None
        try:
            view_statistics(
                view,
                block.logits,
                centers=block.centers,
                places=places[here],
                valid=valid[here],
                temperatures=list(plan.values()),
                gen=options.gen,
                out=out,
                offset=block.start,
                threads=threads,
                ranks=ranks,
            )
        except UserError as error:
            raise UserError(f"{what}: {error}") from error
        if options.klm is not None:
            klm[here] = options.klm.score(logits=view.reduce(block.logits))
        for name, table in tables.items():
            if name != VECTOR_AGGREGATE:
                table.add(view, block.logits, places[here], here, threads)
        if vector is not None:
            moved = vector.add(
                view, block.logits, block.centers, places[here], valid[here], block.start, threads
            )
            if VECTOR_AGGREGATE in tables:
                tables[VECTOR_AGGREGATE].add(view, moved, places[here], here, threads)
        if sets is not None:
            sets.add(view, block.logits, places[here], valid[here], block.start, threads)
        advance(block.stop - block.start)
    columns = _columns(view, out, plan, labels, valid, options.gen is not None)
    for rank in ranks.values():
        columns["scaled_label_rank"] = rank
    several = label_sets.OWN in store.metadata
    if several:
        sets_of = label_sets.parse(store.metadata[label_sets.OWN], label_sets.OWN)
        columns["label_rank"] = label_sets.rank_of_set(columns["top"], columns["label_rank"], sets_of)
        columns = {k: v for k, v in columns.items() if not k.endswith("label_log_probability")}
    if sets is not None:
        columns |= {"label_mass": sets.label_mass, "label_count": sets.label_count, "set_sizes": sets.sizes.T}
    if vector is not None:
        columns |= vector.columns()
    if options.klm is not None:
        columns["klm"] = klm
    if options.image_keys:
        columns["image_key"] = image_keys(store.image_ids)
    columns |= {METADATA + name: values for name, values in store.metadata.items()}
    facts: dict[str, Any] = {
        "temperature": options.temperature,
        "split": dict(options.temperature_facts or {}),
        "tau": options.mcm_tau,
        "energy_temperature": options.energy_temperature,
        "gen": list(options.gen or ()),
        "conformal": _set_facts(options.conformal),
        "vector": dict(options.vector_facts or {}) or None,
        "logits_kind": store.logits_kind,
        "head": store.record.get("prompt_set", "") or "",
        "several_labels": several,
        "classes": dict(options.classes or {}),
        "aggregates": {name: table.errors() for name, table in tables.items()},
    }
    return Summary(
        model=store.model,
        dataset=store.dataset,
        columns=columns,
        n_classes=view.n_classes,
        digest=store.digest,
        variant=variant,
        facts=facts,
    )


def _set_facts(fitted: SetQuantiles | None) -> dict[str, Any] | None:
    """JSON has no infinity: quantiles are kept as text."""
    if fitted is None:
        return None
    quantiles = {method: repr(value) for method, value in fitted.quantiles.items()}
    return {
        "alpha": fitted.alpha,
        "quantiles": quantiles,
        "penalty": fitted.penalty,
        "free_ranks": fitted.free_ranks,
        "n": fitted.n,
    }


def _temperatures(store: PredictionStore, options: SummaryOptions) -> dict[str, float]:
    plan = {"plain": 1.0}
    if options.temperature is not None:
        plan["scaled"] = float(options.temperature)
    scale = store.model.logit_scale
    if scale is not None and store.logits_kind == "logits":
        # The bias of a SigLIP is the same for all classes: a softmax does not see it.
        plan["mcm"] = float(scale) * options.mcm_tau
    if options.energy_temperature != 1.0:
        plan["energy"] = float(options.energy_temperature)
    return plan


def _tables(
    view: ClassView,
    dataset: str,
    options: SummaryOptions,
    labels: NDArray[np.int32],
    valid: NDArray[np.bool_],
    held_out: NDArray[np.bool_] | None,
) -> dict[str, ClasswiseTable]:
    labelled = valid & (labels >= 0)
    if options.classwise_bins <= 0 or not labelled.any():
        return {}
    tested = labelled if held_out is None else labelled & held_out

    def table(
        rows: NDArray[np.bool_], temperature: float = 1.0, part: ClasswiseTable | None = None
    ) -> ClasswiseTable:
        size = view.n_classes, options.classwise_bins
        return ClasswiseTable(
            *size, temperature, rows, resampling=options.resampling, dataset=dataset, part=part
        )

    tables = {}
    if held_out is not None:
        tables["classwise_held_out"] = table(tested)
    tables["classwise"] = table(labelled, part=tables.get("classwise_held_out"))
    if options.vector is not None:
        tables[VECTOR_AGGREGATE] = table(tested)
    if options.temperature is not None:
        tables["classwise_scaled"] = table(tested, options.temperature)
    return tables


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
    if "scaled" in at:
        for name, place in (
            ("confidence", kernels.CONFIDENCE),
            ("label_log_probability", kernels.LABEL_LOG_PROBABILITY),
            ("sum_squares", kernels.SUM_SQUARES),
            ("entropy", kernels.ENTROPY),
        ):
            columns[f"scaled_{name}"] = at["scaled"][place]
    return columns
