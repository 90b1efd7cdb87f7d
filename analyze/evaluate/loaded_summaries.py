"""Summaries that were made earlier: what of them still holds under the settings and roles of now."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from analyze.fits.base import Fit
from analyze.fits.registry import FITS, fit_of
from analyze.predictions.summaries import Summary, read_summary
from analyze.reading.class_options import other_classes
from analyze.settings import Settings, study_defaults
from cache_schema.format.dataset_facts import DatasetFacts
from closerlook_common.errors import UserError


def loaded(store: Any, settings: Settings, on: str | None = None, *, in_part: bool = False) -> Summary:
    """Load a summary without the statistics that were made otherwise than asked for; its reasons say why.

    Parameters
    ----------
    store
        A summary store.
    settings
        Options.
    on
        ID set that its fits must have been made on; empty where several are possible, None for any.
    in_part
        Whether some rows are no test of a calibrator (``Case.held_out``): classwise errors of calibrators count only
        where the summary left such rows out too.

    Raises
    ------
    UserError
        Other classes competed when the summary was made.
    """
    summary = read_summary(store)
    other_role = _other_role(store)
    if other_role and "ood" in (store.dataset.role, store.sealed_dataset.role):
        raise UserError(other_role)  # other classes competed
    if reason := other_classes(summary.dataset, summary.facts.get("classes"), settings):
        raise UserError(reason)
    other_split = other_role or _other_split(summary, settings, on)
    gone = {fit.name: reason for fit, reason in _made_otherwise(summary, settings, other_split)}
    aggregates = {name for fit in gone for name in FITS[fit].aggregates}
    made = summary.facts.get("aggregates", {})
    if in_part and "classwise_held_out" not in made:
        aggregates |= set(made) - {"classwise"}
    if other_split:
        aggregates.add("classwise_held_out")
    facts = {name: value for name, value in summary.facts.items() if name not in {FITS[fit].fact for fit in gone}}
    facts["aggregates"] = {
        name: value
        for name, value in made.items()
        # Summaries of old do not name their bins.
        if name not in aggregates
        and value.get("n_bins", study_defaults()["calibration"]["classwise_bins"])
        == settings["calibration"]["classwise_bins"]
    }
    columns = {}
    for name, values in summary.columns.items():
        fit = fit_of(name)
        if (fit is None or fit.name not in gone) and not _other_score(name, summary, settings):
            columns[name] = values
    reasons = {**_made_without(summary, on), **summary.reasons, **gone}
    return replace(summary, columns=columns, facts=facts, reasons=reasons)


def _held(summary: Summary, fit: Fit) -> bool:
    if fit.fact:
        return bool(summary.facts.get(fit.fact) is not None)
    return any(name in summary.columns for name in fit.gives)


def _made_otherwise(summary: Summary, settings: Settings, other_split: str) -> Iterator[tuple[Fit, str]]:
    """Yield the fits of a summary that are not what the settings ask for, each with the reason."""
    for fit in FITS.values():
        if fit.needs == "logits" and _held(summary, fit):
            reason = other_split or fit.made_otherwise(summary.facts, settings.only(*fit.sections))
            if reason:
                yield fit, reason


def _made_without(summary: Summary, on: str | None) -> dict[str, str]:
    """Return a reason for every fit of a summary that was made while there was no ID set to fit on."""
    if not on or summary.facts.get("split", {}).get("dataset"):
        return {}
    reason = f"the summary of {summary.dataset.id} was made without a fit on {on}: summarize again"
    return {fit.name: reason for fit in FITS.values() if fit.needs == "logits"}


def _other_split(summary: Summary, settings: Settings, on: str | None) -> str:
    """Return why a summary's fits were made on other rows; empty where they were made on those asked for."""
    made = summary.facts.get("split", {})
    fitted = made.get("dataset", "")
    if on is not None and fitted not in ("", on):
        which = f"not on {on}" if on else "and the cache now has several in-distribution sets"
        return f"the summary of {summary.dataset.id} was made with fits on {fitted}, {which}: summarize again"
    split = {name: value for name, value in made.items() if name in settings["split"]}
    if split and split != dict(settings["split"]):
        return f"the summary's was fitted on another split, {split}: summarize again"
    return ""


def _other_role(store: Any) -> str:
    """Return why what was fitted for a summary no longer holds: its dataset had another role, or another ID set."""
    made, now = DatasetFacts.of(store.sealed_dataset), DatasetFacts.of(store.dataset)
    if made is None or now is None or (made.role, made.shift_of) == (now.role, now.shift_of):
        return ""
    return f"the summary of {store.dataset.id} was made with {made}, and the cache now has {now}: summarize again"


def _other_score(column: str, summary: Summary, settings: Settings) -> bool:
    """Return whether a column is an OOD score under other options than those asked for."""
    ood = settings["ood"]
    asked = {
        "mcm": ("tau", ood["mcm_tau"]),
        "energy": ("energy_temperature", ood["energy_temperature"]),
        "gen": ("gen", [ood["gen_m"], ood["gen_gamma"]]),
    }
    if column not in asked:
        return False
    fact, value = asked[column]
    return bool(summary.facts.get(fact, value) != value)
