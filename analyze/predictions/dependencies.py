"""Which sections of the settings each per-image statistic depends on, besides the classes and the bootstrap.

A suite's numbers are kept under a key that holds its declared sections; a statistic that depends on another one is
refused to it, so that no number can outlive the option that it was made with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from analyze.fits.registry import FITS, fit_of, sections_of
from analyze.settings import UndeclaredSectionError

SCORES = ("ood",)

_COLUMNS: Mapping[str, tuple[str, ...]] = {"energy": SCORES, "gen": SCORES, "mcm": SCORES}
_FACTS: Mapping[str, tuple[str, ...]] = {
    "split": ("split", "calibrators"),
    "tau": SCORES,
    "gen": SCORES,
    "energy_temperature": SCORES,
    "aggregates": ("calibration", "split", "calibrators"),
}


def sections_of_column(column: str) -> tuple[str, ...]:
    """Return the sections that a column of a summary depends on."""
    fit = fit_of(column)
    return fit.sections if fit is not None else _COLUMNS.get(column, ())


def _sections_of_fact(name: str) -> tuple[str, ...]:
    fits = [fit for fit in FITS.values() if fit.fact == name]
    return sections_of(fit.name for fit in fits) if fits else _FACTS.get(name, ())


def check_declared(what: str, needed: tuple[str, ...], declared: frozenset[str] | None) -> None:
    """Refuse what depends on sections that were not declared; None declares all of them."""
    missing = [section for section in needed if declared is not None and section not in declared]
    if missing:
        raise UndeclaredSectionError(f"{what} depends on [{missing[0]}], which was not declared")


class DeclaredFacts(Mapping[str, Any]):
    """A summary's facts, of which those that depend on undeclared sections are refused."""

    def __init__(self, facts: Mapping[str, Any], declared: frozenset[str]) -> None:
        self._facts, self._declared = facts, declared

    def __getitem__(self, name: str) -> Any:
        check_declared(f"fact {name}", _sections_of_fact(name), self._declared)
        return self._facts[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._facts if set(_sections_of_fact(name)) <= self._declared)

    def __len__(self) -> int:
        return sum(1 for _ in self)
