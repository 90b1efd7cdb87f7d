"""What a published cache says of itself: models, datasets, licences, sizes, one digest for all of it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cache_schema.reading.places.base import Place
from closerlook_common.errors import CacheError

DESCRIPTION = "closerlook.json"
README = "README.md"
STUDY = (
    "Tu, Deng and Gedeon. A Closer Look at the Robustness of Contrastive Language-Image Pre-Training (CLIP). "
    "NeurIPS 2023."
)
_OPEN = re.compile(
    r"^(mit|apache-2\.0|bsd-[23]-clause|isc|unlicense|cc0-1\.0|pddl-1\.0|cc-by(-sa)?-[\d.]+|odc-by-1\.0)$"
)
"""Licences that allow anybody to pass a work and what was made of it on, with a notice at most."""


@dataclass(frozen=True)
class Published:
    """One store of a published cache.

    Attributes
    ----------
    name
        Path below the cache.
    kind, model, dataset
        What it holds and of what; ``dataset`` is empty for a head.
    identity, digest
        As in its header.
    bytes
        Its size; 0 where the place does not say.
    """

    name: str
    kind: str
    model: str
    dataset: str
    identity: str
    digest: str
    bytes: int


@dataclass(frozen=True)
class Description:
    """A cache as its card shows it.

    Attributes
    ----------
    title
        Of the card.
    stores
        Sorted by name.
    models, datasets
        Id to the facts that the card prints, the licence among them.
    """

    title: str
    stores: tuple[Published, ...]
    models: Mapping[str, Mapping[str, Any]]
    datasets: Mapping[str, Mapping[str, Any]]

    @property
    def digest(self) -> str:
        """SHA-256 over names and digests of all stores: equal caches have equal digests, wherever they lie."""
        lines = "".join(f"{store.name} {store.digest}\n" for store in self.stores)
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def size(self) -> int:
        """Size of all stores."""
        return sum(store.bytes for store in self.stores)

    def to_json(self) -> bytes:
        """Return the card for programs."""
        record = {
            "format": "closerlook-cache",
            "version": 1,
            "title": self.title,
            "digest": self.digest,
            "bytes": self.size,
            "models": self.models,
            "datasets": self.datasets,
            "stores": [asdict(store) for store in self.stores],
        }
        return (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()


def describe(place: Place, names: Sequence[str], *, title: str, folder: Path | None = None) -> Description:
    """Read the headers of stores and return what a card says of them.

    Parameters
    ----------
    place, names
        The cache and its stores.
    title
        Of the card.
    folder
        The cache's folder where it is on this machine: sizes are taken there.

    Raises
    ------
    CacheError
        A store cannot be read: a card of less than what is published would be wrong.
    """
    stores, models, datasets = [], {}, {}
    for name in sorted(names):
        header = place.reader(name).header()
        model, dataset = header["model"], header["dataset"]
        if not header.get("seal"):
            raise CacheError(f"{name} is not sealed")
        stores.append(
            Published(
                name=name,
                kind=header["kind"],
                model=model["id"],
                dataset=dataset["id"] if dataset else "",
                identity=header["identity"],
                digest=header["seal"]["digest"],
                bytes=_size(folder / name) if folder else 0,
            )
        )
        models[model["id"]] = {key: model[key] for key in ("library", "name", "tag", "group", "source", "licence")}
        if dataset:
            datasets[dataset["id"]] = {
                "role": dataset["role"],
                "images": header["seal"]["n"],
                "licence": dataset["licence"],
            }
    return Description(title, tuple(stores), models, datasets)


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def unclear_licences(description: Description) -> dict[str, list[str]]:
    """Return the licences that do not plainly allow passing on, each with the models and datasets that have it.

    Logits, features and heads are made of weights and images; whether they may be published is for their owners to
    say. A licence that is not known counts as unclear.
    """
    found: dict[str, list[str]] = {}
    for kind, cards in (("model", description.models), ("dataset", description.datasets)):
        for name, card in cards.items():
            licence = str(card["licence"]).strip().lower() or "unknown"
            if not _OPEN.match(licence):
                found.setdefault(licence, []).append(f"{kind} {name}")
    return dict(sorted(found.items()))


def _cell(text: object) -> str:
    """Return text as one cell of a Markdown table, whatever it contains."""
    plain = "".join(char if char.isprintable() else "?" for char in str(text))
    return re.sub(r"([\\`*_{}\[\]<>|#!])", r"\\\1", plain)


def _table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    return [*lines, *(f"| {' | '.join(map(_cell, row))} |" for row in rows), ""]


def readme(description: Description, *, address: str, accepted: Sequence[str] = ()) -> str:
    """Return the card for people: a README with front matter that dataset hubs read."""
    d = description
    kinds: dict[str, int] = {}
    for store in d.stores:
        kinds[store.kind] = kinds.get(store.kind, 0) + 1
    listed = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
    lines = [
        "---",
        "license: other",
        "tags: [closerlook, clip, robustness, calibration, out-of-distribution]",
        "---",
        "",
        f"# {_cell(d.title)}",
        "",
        "Stored outputs of image models: logits, features, labels and heads, to compute metrics from without running a "
        "model. Made with [Closerlook](https://arxiv.org/abs/2402.07410).",
        "",
        *_table(
            ("", ""),
            [
                ("stores", f"{len(d.stores):,} ({listed})"),
                ("models", f"{len(d.models):,}"),
                ("datasets", f"{len(d.datasets):,}"),
                ("size", f"{d.size / 1e6:,.1f} MB"),
                ("digest", d.digest),
            ],
        ),
        "## Use it",
        "",
        "```bash",
        f"python -m cache_schema pull {address} cache",
        "analyze metrics cache -o results.parquet",
        "```",
        "",
        "## Models",
        "",
        *_table(
            ("model", "library", "name", "group", "training source", "licence"),
            [
                (name, m["library"], f"{m['name']} {m['tag']}".strip(), m["group"], m["source"], m["licence"])
                for name, m in sorted(d.models.items())
            ],
        ),
        "## Datasets",
        "",
        *_table(
            ("dataset", "role", "images", "licence"),
            [(name, s["role"], f"{s['images']:,}", s["licence"]) for name, s in sorted(d.datasets.items())],
        ),
        "## Licences",
        "",
        "Outputs are made of weights and images whose licences are listed above. No image is part of this cache.",
    ]
    if accepted:
        names = ", ".join(_cell(name) for name in accepted)
        lines += ["", f"The publisher states that these licences allow redistribution: {names}."]
    lines += ["", "## Cite", "", f"{STUDY} Name the digest above, so that others can find the same outputs.", ""]
    return "\n".join(lines)
