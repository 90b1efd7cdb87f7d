"""From the stores of one model to cases: fits on the ID set, makes or loads the summaries, splits the
rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.calibrators.vector_columns import VECTOR_AGGREGATE, vector_facts, why_not_applied, without_vector
from analyze.calibrators.vector_scaling import VectorFit
from analyze.predictions import SummaryOptions, summarize
from analyze.predictions.id_fits import USES_FIT, IdFit, fit_id_set, id_set_of
from analyze.predictions.summaries import Summary, read_summary
from analyze.reading.class_options import class_options, class_view, other_classes
from analyze.reading.sources import Source
from analyze.reading.views import ClassView
from analyze.settings import Settings
from analyze.suites.base import Case, ModelCase
from cache_schema.errors import CloserlookError, UserError
from cache_schema.records import DatasetCard, ModelCard

JOINED = frozenset({"summaries", "annotations", "comparison"})
"""Uses of the cases, beside suites, that join images by name."""


KEPT_BYTES = 128 << 20
"""Logits of a model's ID sets together that are kept between fits and statistics (ImageNet's 50,000 rows: 95 MiB)."""


@dataclass
class ModelCases(ModelCase):
    """The cases of a model, its card, and what went wrong with single datasets."""

    model: ModelCard = field(default_factory=lambda: ModelCard(id="-"))
    datasets: dict[str, DatasetCard] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    head: str = ""


def build_cases(
    sources: Sequence[Source],
    settings: Settings,
    suites: set[str],
    *,
    threads: int = 1,
    resampling: Any = None,
) -> ModelCases:
    """Make the cases of one model.

    Parameters
    ----------
    sources
        Its stores.
    settings
        Options.
    suites
        Names of the suites that will run: what none of them needs is not computed.
    threads
        Threads over the rows of a block.
    resampling
        Shared bootstrap weights, None for no bootstrap.
    """
    built = ModelCases(
        cases={},
        settings=settings,
        model=sources[0].store.model,
        datasets={s.dataset: s.store.dataset for s in sources},
        digests={s.dataset: s.digest for s in sources},
        head=str(sources[0].store.record.get("prompt_set") or ""),
    )
    inside = [s for s in sources if s.role == "id"]
    left = KEPT_BYTES if suites & USES_FIT else 0
    for source in inside:
        if not source.is_summary:
            left -= source.store.keep_logits(left)
    try:
        fits = {s.dataset: fit_id_set(s, settings, suites, threads) for s in inside} if suites & USES_FIT else {}
        for source in sources:
            try:
                case = _case(source, inside, fits, settings, suites, threads, resampling)
                built.cases[source.dataset] = replace(case, resampling=resampling)
            except (CloserlookError, OSError) as error:
                built.problems[source.dataset] = str(error)
        if set(settings["calibrators"]["methods"]) - {"temperature", "vector"}:
            built.cases = _with_fit_columns(built.cases)
        on_subsets = suites & {"subsets", "summaries"} and settings["accuracy"]["on_subsets"]
        if on_subsets or ("detection" in suites and settings["ood"]["class_masks"]):
            built.subsets = _subsets(sources, inside, settings, threads)
    finally:
        for source in inside:
            if not source.is_summary:
                source.store.keep_logits(0)
    return built


def _case(
    source: Source,
    inside: list[Source],
    fits: Mapping[str, IdFit],
    settings: Settings,
    suites: set[str],
    threads: int,
    resampling: Any,
) -> Case:
    on = id_set_of(source.store.dataset, sorted(fits))
    fit = fits.get(on)
    rows = fit.rows if fit is not None and on == source.dataset else None
    held_out = np.ones(len(source.store), np.bool_) if rows is None else ~rows
    if source.is_summary:
        summary = _loaded(source.store, settings)
    else:
        summary = summarize(
            source.store,
            view=_ood_view(source, inside)
            if source.role == "ood"
            else class_view(source.store.dataset, source.store.n_classes or 0, settings),
            options=summary_options(settings, fit, suites, source, resampling),
            held_out=held_out if rows is not None else None,
            threads=threads,
        )
    no_fit = "no in-distribution set to fit on" if fit is None else fit.no_rows
    if len(fits) > 1 and fit is None:
        no_fit = f"several in-distribution sets ({', '.join(sorted(fits))}), and none that this one is a shift of"
    no_temperature = no_fit or (fit.no_temperature if fit is not None else "")
    if summary.facts.get("temperature") is None and not no_temperature:
        told = summary.facts.get("no_temperature", "")
        no_temperature = str(told or "the summary holds no temperature: compute it from the big stores")
    if not summary.has("klm") and "klm" in settings["ood"]["scores"] and not summary.facts.get("no_klm"):
        reason = no_fit if fit is None else _why_no_klm(fit, source)
        summary = replace(summary, facts={**summary.facts, "no_klm": reason})
    no_vector = no_fit
    if summary.facts.get("vector") is None and fit is not None and not no_fit:
        told = summary.facts.get("no_vector", "") or fit.no_vector
        if not told and fit.vector is not None:
            told = _why_no_vector(fit, source, settings)
        no_vector = str(told or "the summary holds no vector scaling: compute it from the big stores")
    return Case(
        summary,
        settings,
        held_out,
        calibrated_on=on,
        no_calibrator=no_fit,
        no_temperature=no_temperature,
        no_vector=no_vector,
    )


def summary_options(
    settings: Settings, fit: IdFit | None, suites: set[str], source: Source, resampling: Any = None
) -> SummaryOptions:
    """Return what a summary must hold for the suites, under the fits of the ID set."""
    ood = settings["ood"]
    role, card = source.role, source.store.dataset
    vector = fit.vector if fit is not None and role != "ood" else None
    if vector is not None and fit is not None and _why_no_vector(fit, source, settings):
        vector = None
    temperature = fit.temperature if fit is not None else None
    return SummaryOptions(
        temperature=temperature.temperature if temperature is not None else None,
        temperature_facts=fit.facts(settings) if fit is not None else dict(settings["split"]),
        classes=class_options(card, settings),
        mcm_tau=ood["mcm_tau"],
        energy_temperature=ood["energy_temperature"],
        gen=(ood["gen_m"], ood["gen_gamma"]) if "detection" in suites and role in ("id", "ood") else None,
        classwise_bins=settings["calibration"]["classwise_bins"] if "calibration" in suites else 0,
        conformal=fit.quantiles if fit is not None else None,
        klm=fit.klm if fit is not None and role in ("id", "ood") and not _why_no_klm(fit, source) else None,
        vector=vector,
        vector_facts=_vector_facts(vector, fit, card) if vector is not None and fit is not None else None,
        resampling=resampling if settings["bootstrap"]["classwise"] else None,
        image_keys=bool(suites & JOINED),
    )


def _why_no_vector(fit: IdFit, source: Source, settings: Settings) -> str:
    card, width = source.store.dataset, source.store.n_classes
    if fit.vector is None or width is None:
        return fit.no_vector
    if width != fit.vector.scale.size:
        return f"vector scaling was fitted on {fit.dataset}, whose classes are others than those of {card.id}"
    return why_not_applied(fit.vector, fit.card, card, class_view(card, width, settings))


def _why_no_klm(fit: IdFit, source: Source) -> str:
    if fit.klm is not None and fit.n_columns != source.store.n_classes:
        return f"KL-matching was fitted on {fit.dataset}, whose classes are others than those of {source.dataset}"
    return fit.no_klm


def _vector_facts(vector: VectorFit, fit: IdFit, card: DatasetCard) -> dict[str, Any]:
    return vector_facts(vector, fit.dataset, parameters=card.id == fit.dataset)


def _ood_view(source: Source, inside: list[Source]) -> ClassView:
    """Return the classes that an OOD set's images are scored over: those of the ID set, never its own
    subset.
    """
    width = source.store.n_classes
    for other in inside:
        if not other.is_summary and other.store.n_classes == width:
            return ClassView.of(other.store.dataset, width)
    return ClassView(width)


def _loaded(store: Any, settings: Settings) -> Summary:
    """Load a summary; statistics made under other options than those asked for are left out, with the
    reason.
    """
    summary = read_summary(store)
    facts = dict(summary.facts)
    reason = other_classes(summary.dataset, facts.get("classes"), settings)
    if reason:
        raise UserError(reason)
    columns = dict(summary.columns)
    split = {k: v for k, v in facts.get("split", {}).items() if k in settings["split"]}
    other_split = bool(split) and split != dict(settings["split"])
    if facts.get("temperature") is not None and other_split:
        facts["no_temperature"] = f"the summary's was fitted on another split, {split}: summarize again"
        facts["temperature"] = None
        columns = {name: values for name, values in columns.items() if not name.startswith("scaled_")}
        facts["aggregates"] = {k: v for k, v in facts.get("aggregates", {}).items() if k == "classwise"}
    if "klm" in columns and other_split:
        facts["no_klm"] = f"the summary's was fitted on another split, {split}: summarize again"
        del columns["klm"]
    if facts.get("vector") is not None and other_split:
        facts["no_vector"] = f"the summary's was fitted on another split, {split}: summarize again"
        facts["vector"] = None
        columns = without_vector(columns)
        facts["aggregates"] = {k: v for k, v in facts.get("aggregates", {}).items() if k != VECTOR_AGGREGATE}
    sets = facts.get("conformal")
    wanted = settings["conformal"]
    if sets and (
        other_split
        or (sets["alpha"], sets["penalty"], sets["free_ranks"])
        != (wanted["alpha"], wanted["raps_penalty"], wanted["raps_k"])
    ):
        facts["conformal"] = None
        facts["no_conformal"] = "the summary's sets were fitted under other options: summarize again"
    ood = settings["ood"]
    for name, fact, value in (
        ("mcm", "tau", ood["mcm_tau"]),
        ("energy", "energy_temperature", ood["energy_temperature"]),
        ("gen", "gen", [ood["gen_m"], ood["gen_gamma"]]),
    ):
        if name in columns and facts.get(fact, value) != value:
            del columns[name]
    return replace(summary, columns=columns, facts=facts)


def _with_fit_columns(cases: dict[str, Case]) -> dict[str, Case]:
    columns: dict[str, tuple[NDArray[Any], NDArray[np.bool_]]] = {}
    for name, case in cases.items():
        if case.is_fit_set and case.summary.has("confidence"):
            rows = case.summary.rows(case.summary.labelled & ~case.held_out)
            columns[name] = (rows["confidence"].astype(np.float64), rows["label_rank"] == 0)
    return {name: replace(case, fit_columns=columns.get(case.calibrated_on)) for name, case in cases.items()}


def subset_view(card: DatasetCard, n_columns: int) -> ClassView | None:
    """Return the class subset or map of a dataset, None where it keeps all classes."""
    if card.class_mask is None and card.class_map is None:
        return None
    return ClassView.of(card, n_columns)


def subset_name(dataset: str) -> str:
    """Return the name of the view of an ID set on the classes of another dataset."""
    return f"classes:{dataset}"


def _subsets(
    sources: Sequence[Source], inside: list[Source], settings: Settings, threads: int
) -> dict[tuple[str, str], Summary | str]:
    """Summaries of the ID sets on the class subsets of the other sets: {(ID set, other set): summary or
    reason}.
    """
    found: dict[tuple[str, str], Summary | str] = {}
    for source in inside:
        made: dict[ClassView, Summary] = {}
        for other in sources:
            card = other.store.dataset
            if other.role == "id" or (card.class_mask is None and card.class_map is None):
                continue
            if other.role == "ood" and not settings["ood"]["class_masks"]:
                continue
            found[source.dataset, other.dataset] = _subset(source, other, settings, made, threads)
    return found


def _subset(
    source: Source, other: Source, settings: Settings, made: dict[ClassView, Summary], threads: int
) -> Summary | str:
    name = subset_name(other.dataset)
    try:
        if source.is_summary:
            if name not in source.variants:
                return f"needs the big store, or a summary of {source.dataset} on the classes of {other.dataset}"
            return _loaded(source.variants[name], settings)
        view = subset_view(other.store.dataset, source.store.n_classes)
        assert view is not None
        if view not in made:
            made[view] = summarize_subset(source.store, view, settings, threads)
        return replace(made[view], variant=name)
    except CloserlookError as error:
        return str(error)


def summarize_subset(store: Any, view: ClassView, settings: Settings, threads: int = 1) -> Summary:
    """Summarize an ID set on the classes of another: rows whose label is none of them are left out."""
    ood = settings["ood"]
    return summarize(
        store,
        view=view,
        labels=view.groups_of(store.labels) if view.groups is not None else None,
        options=SummaryOptions(
            mcm_tau=ood["mcm_tau"],
            energy_temperature=ood["energy_temperature"],
            gen=None,
            classwise_bins=0,
        ),
        threads=threads,
    )
