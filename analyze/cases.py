"""From the stores of one model to cases: fits the temperature, makes or loads the summaries, splits the ID
set.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analyze.predictions import SummaryOptions, summarize
from analyze.settings import Settings
from analyze.split import fit_rows
from analyze.suites.base import Case, ModelCase
from analyze.summaries import Summary, read_summary
from analyze.temperature import TemperatureFit, fit_temperature_store
from cache_schema.errors import CloserlookError
from cache_schema.records import DatasetCard, ModelCard

if TYPE_CHECKING:
    from cache_schema.cache import Cache


@dataclass(frozen=True)
class Source:
    """A store that numbers can be computed from.

    Attributes
    ----------
    model, dataset, role
        Ids and role of the cards.
    store
        A prediction store, or a summary store where there is no other.
    digest
        Of the prediction store (a summary remembers it).
    """

    model: str
    dataset: str
    role: str
    store: Any
    digest: str

    @property
    def is_summary(self) -> bool:
        """Whether only a summary is at hand."""
        return bool(self.store.kind == "summary")

    @property
    def card_key(self) -> str:
        """What of the cards a number depends on."""
        card = self.store.dataset
        return json.dumps(
            [
                card.id,
                card.role,
                card.class_mask,
                card.class_map,
                card.class_map_rule,
                card.distance,
                card.shift_of,
                self.store.model.logit_scale,
                self.store.model.head_kind,
                self.store.kind,
                self.store.model.group,
            ],
        )


def sources_of(cache: Cache) -> list[Source]:
    """Return one source per model and dataset: the prediction store, else the plain summary.

    Where several stores of one model and dataset lie in the cache, the one written last counts.
    """
    found: dict[tuple[str, str], Source] = {}
    for kind in ("summary", "predictions"):
        for store in sorted(cache.stores(kind), key=lambda s: str(s.header["seal"]["written"])):
            if kind == "summary" and store.details["variant"]:
                continue
            if kind == "predictions" and not store.has("logits"):
                continue
            card = store.header["dataset"]
            digest = (
                str(store.record.get("source_digest", "")) or store.digest
                if kind == "summary"
                else store.digest
            )
            source = Source(store.header["model"]["id"], card["id"], card["role"], store, digest)
            found[source.model, source.dataset] = source
    return [found[key] for key in sorted(found)]


@dataclass
class ModelCases(ModelCase):
    """The cases of a model, its card, and what went wrong with single datasets."""

    model: ModelCard = field(default_factory=lambda: ModelCard(id="-"))
    datasets: dict[str, DatasetCard] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    head: str = ""


def build_cases(
    sources: Sequence[Source], settings: Settings, suites: set[str], *, threads: int = 1
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
    """
    model = sources[0].store.model
    built = ModelCases(
        cases={},
        settings=settings,
        model=model,
        datasets={s.dataset: s.store.dataset for s in sources},
        digests={s.dataset: s.digest for s in sources},
        head=str(sources[0].store.record.get("prompt_set") or ""),
    )
    fits = (
        {s.dataset: _fit(s, settings, threads) for s in sources if s.role == "id"}
        if _needs_fit(suites)
        else {}
    )
    cases: dict[str, Case] = {}
    for source in sources:
        if source.role not in ("id", "shift", "ood"):
            continue
        try:
            cases[source.dataset] = _case(source, fits, settings, suites, threads)
        except (CloserlookError, OSError) as error:
            built.problems[source.dataset] = str(error)
    built.cases = _with_fit_columns(cases, settings)
    return built


def _needs_fit(suites: set[str]) -> bool:
    return bool(suites & {"calibration", "detection", "conformal"})


@dataclass(frozen=True)
class _Fit:
    """The temperature of an ID set and the rows it was fitted on."""

    dataset: str
    rows: NDArray[np.bool_] | None
    fit: TemperatureFit | None
    reason: str = ""


def _fit(source: Source, settings: Settings, threads: int) -> _Fit:
    split = settings["split"]
    if source.is_summary:
        labels, valid = source.store.column("label"), source.store.column("valid")
    else:
        labels, valid = source.store.labels, source.store.valid
    try:
        rows = fit_rows(labels, usable=np.asarray(valid), **split)
    except CloserlookError as error:
        return _Fit(source.dataset, None, None, str(error))
    if "temperature" not in settings["calibrators"]["methods"]:
        return _Fit(source.dataset, rows, None, "no temperature asked for")
    if source.is_summary:
        return _Fit(source.dataset, rows, None)
    try:
        low, high = settings["calibrators"]["bounds"]
        fit = fit_temperature_store(source.store, rows, bounds=(low, high), threads=threads)
    except CloserlookError as error:
        return _Fit(source.dataset, rows, None, str(error))
    return _Fit(source.dataset, rows, fit)


def id_set_of(card: DatasetCard, id_sets: Sequence[str]) -> str:
    """Return the ID set whose calibrators are applied to a dataset: its ``shift_of``, else the only one
    there is.
    """
    if card.id in id_sets:
        return card.id
    if card.shift_of in id_sets:
        return card.shift_of
    return id_sets[0] if len(id_sets) == 1 else ""


def _case(source: Source, fits: dict[str, _Fit], settings: Settings, suites: set[str], threads: int) -> Case:
    card = source.store.dataset
    on = id_set_of(card, sorted(fits))
    fit = fits.get(on)
    rows = fit.rows if fit is not None and on == source.dataset else None
    held_out = np.ones(len(source.store), np.bool_) if rows is None else ~rows
    ood = settings["ood"]
    if source.is_summary:
        summary = _loaded(source, settings)
    else:
        options = SummaryOptions(
            temperature=fit.fit.temperature if fit is not None and fit.fit is not None else None,
            temperature_facts=_facts(fit, settings),
            mcm_tau=ood["mcm_tau"],
            energy_temperature=ood["energy_temperature"],
            gen=(ood["gen_m"], ood["gen_gamma"]),
            classwise_bins=settings["calibration"]["classwise_bins"] if "calibration" in suites else 0,
        )
        summary = summarize(
            source.store, options=options, held_out=held_out if rows is not None else None, threads=threads
        )
    reason = "no in-distribution set to fit on" if fit is None else fit.reason
    if summary.facts.get("temperature") is None and not reason:
        reason = str(summary.facts.get("no_temperature", "") or "the summary holds no temperature")
    return Case(
        summary,
        settings,
        held_out,
        calibrated_on=on,
        no_calibrator=reason if fit is None or fit.rows is None else "",
        no_temperature=reason,
    )


def _facts(fit: _Fit | None, settings: Settings) -> dict[str, Any]:
    facts: dict[str, Any] = dict(settings["split"])
    if fit is None or fit.fit is None:
        return facts
    return facts | {
        "dataset": fit.dataset,
        "n": fit.fit.n,
        "nll_before": fit.fit.nll_before,
        "nll_after": fit.fit.nll_after,
    }


def _loaded(source: Source, settings: Settings) -> Summary:
    """Load a summary; statistics made under other options than those asked for are left out, with the
    reason.
    """
    summary = read_summary(source.store)
    facts = dict(summary.facts)
    columns = dict(summary.columns)
    split = {k: v for k, v in facts.get("split", {}).items() if k in settings["split"]}
    if facts.get("temperature") is not None and split != dict(settings["split"]):
        facts["no_temperature"] = f"the summary's was fitted on another split, {split}: summarize again"
        facts["temperature"] = None
        columns = {name: values for name, values in columns.items() if not name.startswith("scaled_")}
        facts["aggregates"] = {k: v for k, v in facts.get("aggregates", {}).items() if k == "classwise"}
    ood = settings["ood"]
    for name, fact, wanted in (
        ("mcm", "tau", ood["mcm_tau"]),
        ("energy", "energy_temperature", ood["energy_temperature"]),
        ("gen", "gen", [ood["gen_m"], ood["gen_gamma"]]),
    ):
        if name in columns and facts.get(fact, wanted) != wanted:
            del columns[name]
    return Summary(
        summary.model, summary.dataset, columns, summary.n_classes, summary.digest, summary.variant, facts
    )


def _with_fit_columns(cases: dict[str, Case], settings: Settings) -> dict[str, Case]:
    if not set(settings["calibrators"]["methods"]) - {"temperature"}:
        return cases
    columns: dict[str, tuple[NDArray[Any], NDArray[np.bool_]]] = {}
    for name, case in cases.items():
        if case.is_fit_set:
            rows = case.summary.rows(case.summary.labelled & ~case.held_out)
            columns[name] = (rows["confidence"].astype(np.float64), rows["label_rank"] == 0)
    return {name: replace(case, fit_columns=columns.get(case.calibrated_on)) for name, case in cases.items()}
