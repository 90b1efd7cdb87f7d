"""Role, shift_of and distance of datasets, recorded in small JSON files next to the stores.

A record is written once, under a name made of its content, and lists the records that it replaces. When two caches are
joined by copying, the records of both are kept, replaced records stay replaced, and contradictions are found.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from cache_schema.format.identities import canonical_json
from cache_schema.format.naming import slug
from cache_schema.format.records import DatasetCard
from cache_schema.format.schema import FORMAT
from cache_schema.format.seal import DIGEST_KEY, dump_with_digest, verify_digest
from closerlook_common.errors import CacheError, CorruptStoreError, NewerSchemaError, UserError, nearest
from closerlook_common.user_cache import write_whole

FOLDER = "datasets"
FACTS_VERSION = 1
FACT_ROLES = ("id", "shift", "ood")
"""Roles that can be changed; training sets and captions have kinds of stores of their own."""
DISTANCES = ("near", "far")
LARGEST_RECORD = 1 << 20
"""Largest record in bytes; a larger file is not read."""
_NAME = re.compile(r"[a-z0-9._-]+-[0-9a-f]{16}\.json")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class DatasetFacts:
    """How the analysis uses a dataset.

    Attributes
    ----------
    role
        ``id``, ``shift`` or ``ood``.
    shift_of
        Id of the in-distribution set that it belongs to; empty if there is only one, and for an ID set.
    distance
        ``near`` or ``far`` for an OOD set, else empty.
    """

    role: str
    shift_of: str = ""
    distance: str = ""

    def __post_init__(self) -> None:
        if self.role not in FACT_ROLES:
            roles = ", ".join(FACT_ROLES)
            raise UserError(f"role {self.role!r} is not one of {roles}{nearest(self.role, FACT_ROLES)}")
        if self.distance and self.distance not in DISTANCES:
            hint = nearest(self.distance, DISTANCES)
            raise UserError(f"distance {self.distance!r} is not one of {', '.join(DISTANCES)}{hint}")
        if self.distance and self.role != "ood":
            raise UserError(f"distance is for OOD sets, and the role is {self.role}")
        if self.shift_of and self.role == "id":
            raise UserError("shift_of is for shifted and OOD sets, and the role is id")

    def __str__(self) -> str:
        rest = [f"{name} {value}" for name in ("shift_of", "distance") if (value := getattr(self, name))]
        return ", ".join([f"role {self.role}", *rest])

    @classmethod
    def of(cls, card: DatasetCard) -> Self | None:
        """Return the facts of a card; None for a training set and for captions."""
        if card.role not in FACT_ROLES:
            return None
        return cls(
            role=card.role,
            shift_of=card.shift_of if card.role != "id" else "",
            distance=card.distance if card.role == "ood" and card.distance in DISTANCES else "",
        )

    def changed(self, given: Mapping[str, str]) -> DatasetFacts:
        """Return the facts with some replaced; a new role drops the other two."""
        if given.get("role", self.role) != self.role:
            return DatasetFacts(**given)
        return DatasetFacts(**{**asdict(self), **given})

    def on(self, card: DatasetCard) -> DatasetCard:
        """Return a card with these facts; cards of training sets and captions stay unchanged."""
        if card.role not in FACT_ROLES:
            return card
        return replace(card, **asdict(self))


@dataclass(frozen=True, kw_only=True)
class FactsRecord:
    """Recorded facts of a dataset, and the digests of the records that they replace."""

    dataset: str
    facts: DatasetFacts
    replaces: tuple[str, ...] = ()
    when: str = field(default="", compare=False)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the content without the time of writing."""
        content = {"dataset": self.dataset, **asdict(self.facts), "replaces": sorted(self.replaces)}
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()

    @property
    def name(self) -> str:
        """Return the name of the record's file."""
        return f"{slug(self.dataset)}-{self.digest[:16]}.json"

    def to_bytes(self) -> bytes:
        """Return the content of the record's file."""
        document: dict[str, Any] = {
            "format": FORMAT,
            "facts_version": FACTS_VERSION,
            "dataset": self.dataset,
            **asdict(self.facts),
            "replaces": sorted(self.replaces),
            "when": self.when,
            DIGEST_KEY: None,
        }
        return dump_with_digest(document)


def parse_record(raw: bytes, name: str, title: str) -> FactsRecord:
    """Parse the record in a file.

    Parameters
    ----------
    raw
        The file's content.
    name
        Of the file.
    title
        What to call it in an error.

    Raises
    ------
    CorruptStoreError
        The file is damaged, or not a record.
    NewerSchemaError
        A newer version wrote it.
    """
    verify_digest(raw, title)
    try:
        document = json.loads(raw)
        version = document["facts_version"]
        if document["format"] != FORMAT or type(version) is not int:
            raise ValueError("another format")
        if version > FACTS_VERSION:
            raise NewerSchemaError(f"{title} is of version {version}, newer than this closerlook; install a newer one")
        texts = [document[key] for key in ("dataset", "role", "shift_of", "distance", "when")]
        replaced = document["replaces"]
        if not all(isinstance(text, str) for text in texts) or not texts[0].strip() or not isinstance(replaced, list):
            raise ValueError("a value of another type")
        if not all(isinstance(digest, str) and _DIGEST.fullmatch(digest) for digest in replaced):
            raise ValueError("replaces holds something other than digests")
        facts = DatasetFacts(role=texts[1], shift_of=texts[2], distance=texts[3])
        record = FactsRecord(dataset=texts[0], facts=facts, replaces=tuple(replaced), when=texts[4])
        expected = record.name
    except (ValueError, KeyError, TypeError, RecursionError, UserError) as error:
        raise CorruptStoreError(f"{title} is not a record of a dataset's role ({error}); remove it") from error
    if expected != name:
        raise CorruptStoreError(f"{title} should be called {expected} by its content; remove it")
    return record


def is_record_name(name: str) -> bool:
    """Return whether a file in the folder ``datasets`` is a record, by its name."""
    return not name.startswith(".") and _NAME.fullmatch(name) is not None


@dataclass(frozen=True)
class Recorded:
    """The records of a cache.

    Attributes
    ----------
    records
        Records that no other record replaces, by dataset.
    problems
        One line for each record that cannot be used.
    """

    records: Mapping[str, tuple[FactsRecord, ...]]
    problems: tuple[str, ...] = ()

    def facts(self, dataset: str) -> tuple[DatasetFacts, ...]:
        """Return a dataset's facts: none if nothing is recorded, several if records contradict each other."""
        return tuple(dict.fromkeys(record.facts for record in self.records.get(dataset, ())))


def collect(names: Iterable[str], read: Callable[[str], tuple[bytes, str]]) -> Recorded:
    """Read records.

    Parameters
    ----------
    names
        Of the files in the folder ``datasets``.
    read
        Returns the content and the title of a file.
    """
    found: list[FactsRecord] = []
    problems = []
    for name in sorted(filter(is_record_name, names)):
        try:
            raw, title = read(name)
            found.append(parse_record(raw, name, title))
        except FileNotFoundError:  # replaced meanwhile
            continue
        except (CacheError, OSError) as error:
            problems.append(str(error))
    replaced = {digest for record in found for digest in record.replaces}
    current: dict[str, list[FactsRecord]] = {}
    for record in found:
        if record.digest not in replaced:
            current.setdefault(record.dataset, []).append(record)
    return Recorded({dataset: tuple(records) for dataset, records in current.items()}, tuple(problems))


def record_names(cache_path: Path | str) -> list[str]:
    """Return the names of the records in a cache on this machine."""
    try:
        with os.scandir(Path(cache_path) / FOLDER) as entries:
            return sorted(e.name for e in entries if is_record_name(e.name) and e.is_file(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_raw(cache_path: Path | str, name: str) -> tuple[bytes, str]:
    """Return the content of a record and its title."""
    path = Path(cache_path) / FOLDER / name
    if path.stat().st_size > LARGEST_RECORD:
        raise too_large(str(path))
    return path.read_bytes(), str(path)


def too_large(title: str) -> CorruptStoreError:
    """Return the error for a file that is too large for a record."""
    return CorruptStoreError(f"{title} is larger than a record of a dataset's role can be; remove it")


def recorded_in(cache_path: Path | str) -> Recorded:
    """Return the records of a cache on this machine."""
    return collect(record_names(cache_path), lambda name: read_raw(cache_path, name))


def record_facts(cache_path: Path | str, dataset: str, facts: DatasetFacts) -> bool:
    """Record a dataset's facts in a cache, in place of earlier records.

    The new record is complete before the old ones are removed.

    Returns
    -------
    bool
        False if these facts were recorded already.
    """
    old = recorded_in(cache_path).records.get(dataset, ())
    if len(old) == 1 and old[0].facts == facts:
        return False
    replaces = {digest for record in old for digest in (record.digest, *record.replaces)}
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    add_record(cache_path, FactsRecord(dataset=dataset, facts=facts, replaces=tuple(sorted(replaces)), when=when))
    return True


def add_record(cache_path: Path | str, record: FactsRecord) -> None:
    """Write a record into a cache and remove the records that it replaces."""
    folder = Path(cache_path) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / record.name, record.to_bytes())
    drop_replaced(cache_path)


def drop_replaced(cache_path: Path | str) -> None:
    """Remove replaced records; keep damaged ones, so that they are reported."""
    there: dict[str, FactsRecord] = {}
    for name in record_names(cache_path):
        try:
            there[name] = parse_record(*_named(cache_path, name))
        except (CacheError, OSError):
            continue
    replaced = {digest for record in there.values() for digest in record.replaces}
    for name, record in there.items():
        if record.digest in replaced:
            (Path(cache_path) / FOLDER / name).unlink(missing_ok=True)


def _named(cache_path: Path | str, name: str) -> tuple[bytes, str, str]:
    raw, title = read_raw(cache_path, name)
    return raw, name, title
