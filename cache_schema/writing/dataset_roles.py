"""Change role, ``shift_of`` and distance of a dataset in a cache, without rewriting stores."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cache_schema.format.dataset_facts import DatasetFacts, record_facts
from cache_schema.format.records import DatasetCard
from cache_schema.reading.cache import Cache, DatasetRoles, open_cache
from closerlook_common.errors import UserError, nearest

COMMAND = "python -m cache_schema dataset"


class Settled(NamedTuple):
    """A dataset's card with the facts of the cache; messages on what changed there and on what was kept."""

    card: DatasetCard
    change: str = ""
    kept: str = ""


def require_roles(cache: Cache) -> dict[str, DatasetFacts]:
    """Return the role, ``shift_of`` and distance of each dataset of a cache.

    Raises
    ------
    UserError
        A role is unclear: stores or records disagree, or a record is damaged. The message names the fix.
    """
    roles = cache.roles()
    problems = [*roles.problems, *(unclear_role(cache.title, name, why) for name, why in roles.unclear.items())]
    if problems:
        raise UserError("; ".join(problems))
    return roles.facts


def unclear_role(cache: str, dataset: str, reason: str) -> str:
    """Return a line with the reason why a dataset's role is unclear, and the command that sets it."""
    return f"the role of {dataset} is unclear, {reason}; choose with '{COMMAND} {cache} {dataset} --role ROLE'"


def change_role(cache_path: Path, dataset: str, given: Mapping[str, str]) -> tuple[DatasetFacts | None, DatasetFacts]:
    """Record a dataset's role, ``shift_of`` or distance in a cache.

    Parameters
    ----------
    cache_path
        The cache.
    dataset
        Id of a dataset that it has stores of.
    given
        What to change: ``role``, ``shift_of``, ``distance``.

    Returns
    -------
    tuple
        The facts before (None where stores or records disagreed) and now.

    Raises
    ------
    UserError
        The dataset does not exist, is a training set or has captions, or the values contradict each other.
    """
    cache = open_cache(cache_path)
    cards = {card.id: card for card in cache.datasets()}
    if dataset not in cards:
        raise UserError(f"{cache.title} has no dataset {dataset!r}{nearest(dataset, cards)}")
    roles = cache.roles()
    before = roles.facts.get(dataset)
    if before is None and dataset not in roles.unclear:
        raise UserError(f"{dataset} has the role {cards[dataset].role}, which is fixed: its stores are made for it")
    if before is None and "role" not in given:
        raise UserError(f"{unclear_role(cache.title, dataset, roles.unclear[dataset])}")
    now = _changed(dataset, before or DatasetFacts(role=given["role"]), given)
    _check(cache, dataset, now, roles.facts)
    if now != before or dataset in roles.unclear:
        record_facts(cache_path, dataset, now)
    return before, now


def _changed(dataset: str, before: DatasetFacts, given: Mapping[str, str]) -> DatasetFacts:
    try:
        return before.changed(given)
    except UserError as error:
        raise UserError(f"dataset {dataset}: {error}") from None


def _check(cache: Cache, dataset: str, facts: DatasetFacts, known: Mapping[str, DatasetFacts]) -> None:
    if facts.shift_of:
        if facts.shift_of == dataset:
            raise UserError(f"dataset {dataset}: shift_of names the dataset itself")
        if facts.shift_of not in known:
            raise UserError(f"{cache.title} has no dataset {facts.shift_of!r}{nearest(facts.shift_of, known)}")
        if known[facts.shift_of].role != "id":
            role = known[facts.shift_of].role
            raise UserError(f"dataset {dataset}: shift_of names {facts.shift_of}, whose role is {role}, not id")
    if facts.role == "ood":
        return
    stores = [s for s in cache.stores("predictions") if s.dataset_id == dataset]
    if stores and not any((s.read("labels") >= 0).any() for s in stores[-1:]):
        raise UserError(f"dataset {dataset} has no labels: its role can only be ood")


def settle_roles(
    cache_path: Path, wanted: Sequence[tuple[DatasetCard, Collection[str]]], *, write: bool = True
) -> list[Settled]:
    """Reconcile the roles of datasets that are about to be stored with those in the cache.

    Parameters
    ----------
    cache_path
        The cache's folder; may not exist yet.
    wanted
        The datasets' cards, each with the names of those of ``role``, ``shift_of`` and ``distance`` that the user gave:
        these change the cache. The others are guesses, and the cache's values are kept.
    write
        Whether to record changes.

    Raises
    ------
    UserError
        The given values contradict those of the cache.
    """
    if not cache_path.is_dir():
        return [Settled(card) for card, _ in wanted]
    cache = open_cache(cache_path)
    roles = cache.roles()
    return [_settled(cache, roles, card, given, write) for card, given in wanted]


def _settled(cache: Cache, roles: DatasetRoles, card: DatasetCard, given: Collection[str], write: bool) -> Settled:
    wanted = DatasetFacts.of(card)
    if wanted is None:
        return Settled(card)
    if (reason := roles.unclear.get(card.id)) is not None:
        if "role" not in given:
            return Settled(card, kept=unclear_role(cache.title, card.id, reason))
        if write:
            record_facts(cache.path, card.id, wanted)
        return Settled(card, change=f"{card.id}: {wanted} from now on, for all models of this cache ({reason})")
    before = roles.facts.get(card.id)
    if before is None or before == wanted:
        return Settled(card)
    now = _changed(card.id, before, {name: getattr(wanted, name) for name in given})
    if now != before:
        if write:
            record_facts(cache.path, card.id, now)
        return Settled(now.on(card), change=f"{card.id}: {before} becomes {now}, for all models of this cache")
    kept = f"{card.id}: this cache has {before}, which is kept"
    if wanted.role != before.role:
        kept += f"; to change it: '{COMMAND} {cache.title} {card.id} --role {wanted.role}'"
    return Settled(now.on(card), kept=kept)
