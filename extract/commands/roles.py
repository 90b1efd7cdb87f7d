"""The roles of a run's datasets: what the cache has, what was given, what was guessed; every difference is reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from cache_schema.reading.cache import open_cache
from cache_schema.writing.dataset_roles import COMMAND, settle_roles
from closerlook_common.console.messages import problem
from extract.datasets import DatasetSpec
from extract.datasets.base import Dataset
from extract.datasets.recipes import recipe_for


def with_settled_roles(
    specs: Sequence[DatasetSpec], datasets: Sequence[Dataset], cache: Path, console: Console, *, record: bool
) -> list[Dataset]:
    """Return the datasets with the roles that the cache has for them from now on.

    Parameters
    ----------
    specs
        As the user wrote them: what they say of a role changes the cache's, what they leave open does not.
    datasets
        As they were resolved.
    cache
        The cache's folder.
    console
        For the report.
    record
        Whether to record changes in the cache; a dry run does not.
    """
    by_name = {spec.name: spec for spec in specs}
    wanted = [(dataset.card, _given(by_name[dataset.card.id])) for dataset in datasets]
    settled = settle_roles(cache, wanted, write=record)
    for one in settled:
        if one.change:
            change = f"{one.change}{'' if record else ' (not in a dry run)'}"
            console.print(problem("role", "yellow", change), soft_wrap=True)
        if one.kept:
            console.print(problem("role", "yellow", one.kept), soft_wrap=True)
    found = [replace(dataset, card=one.card) for dataset, one in zip(datasets, settled, strict=True)]
    note = several_id_sets([by_name[dataset.card.id] for dataset in found], found, cache)
    if note:
        console.print(problem("note", "yellow", note), soft_wrap=True)
    return found


def _given(spec: DatasetSpec) -> set[str]:
    """Return which of role, shift_of and distance a spec gives; with ``shift_of`` comes the role."""
    given = {name for name in ("role", "shift_of", "distance") if getattr(spec, name)}
    return given | ({"role"} if "shift_of" in given else set())


def several_id_sets(specs: Sequence[DatasetSpec], datasets: Sequence[Dataset], cache: Path) -> str:
    """Return a line on several in-distribution sets, where one is taken as such for want of another word.

    Calibration is fitted on an in-distribution set, and shifted sets are compared with it: of two without a given role,
    one is most likely a shift of the other.
    """
    inside = [dataset.card.id for dataset in datasets if dataset.card.role == "id"]
    guessed = [
        dataset.card.id
        for spec, dataset in zip(specs, datasets, strict=True)
        if dataset.card.role == "id" and not _given(spec) and recipe_for(spec) is None
    ]
    if cache.is_dir():
        here = {dataset.card.id for dataset in datasets}
        known = open_cache(cache).roles().facts
        inside += [name for name, facts in known.items() if facts.role == "id" and name not in here]
    sets = list(dict.fromkeys(inside))
    if len(sets) < 2 or not guessed:
        return ""
    shift = guessed[-1]
    of = next(name for name in sets if name != shift)
    return (
        f"{', '.join(sets)} are all taken as in-distribution test sets. If {shift} is a shift of {of}, say so:"
        f' role = "shift" and shift_of = "{of}" in datasets.toml, or once it is stored'
        f" '{COMMAND} {cache} {shift} --role shift --shift-of {of}'."
        ' If they are meant so, role = "id" for each says it.'
    )
