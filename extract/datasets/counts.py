"""Counts that a dataset states about itself, checked against what is there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError
from closerlook_common.input_files import read_json_file, read_text_file
from extract.datasets.remarks import remark

_OF = re.compile(r"^(?P<before>.*?)(?P<number>\d+)-of-(?P<total>\d+)(?P<after>.*)$")
_NUMBERED = re.compile(r"^(?P<before>.*?)(?P<number>\d+)(?P<after>\.[a-z]+)$")


def differs(text: str, *, allowed: bool) -> None:
    """Raise `UserError` for a count that is not met, or make it a remark where the spec allows that."""
    if not allowed:
        raise UserError(f"{text}; copy what is missing, or set allow_count_mismatch = true to use what is there")
    remark(f"{text}, as allowed")


def check_numbered(files: Iterable[Path], *, allowed: bool) -> None:
    """Check that files named ``NAME-00000-of-00003`` are all there; report gaps in other numberings.

    Raises
    ------
    UserError
        One is missing or there are two totals, and that is not allowed.
    """
    series: dict[tuple[Path, str, str], dict[int, set[int]]] = {}
    plain: dict[tuple[Path, str, str], set[int]] = {}
    for file in files:
        if found := _OF.match(file.name):
            totals = series.setdefault((file.parent, found["before"], _after(found["after"])), {})
            totals.setdefault(int(found["total"]), set()).add(int(found["number"]))
        elif found := _NUMBERED.match(file.name):
            plain.setdefault((file.parent, found["before"], found["after"]), set()).add(int(found["number"]))
    for (folder, before, after), totals in sorted(series.items()):
        if len(totals) > 1:
            several = " and ".join(f"{total:,}" for total in sorted(totals))
            differs(f"{folder}: files named {before}*{after} are of {several} parts; keep one set", allowed=allowed)
        for total, numbers in totals.items():
            if len(numbers & set(range(total))) < total and len(totals) == 1:
                differs(
                    f"{folder} holds {len(numbers):,} of the {total:,} files {before}*-of-{total:05}{after}",
                    allowed=allowed,
                )
    for (folder, before, after), numbers in sorted(plain.items()):
        gaps = max(numbers) + 1 - min(numbers) - len(numbers)
        if 0 < gaps < len(numbers):
            remark(
                f"{folder}: {counted(gaps, 'number')} missing among the files {before}*{after}; are some not copied?"
            )


def _after(text: str) -> str:
    """Return the source of the numbers, without the fingerprint that ``datasets`` may put there."""
    return re.sub(r"^-[0-9a-f]{4,}", "", text)


def check_shard_notes(folder: Path, counted: Mapping[Path, int], every: Sequence[Path], *, allowed: bool) -> None:
    """Check the notes that tools leave next to shards: ``nshards.txt``, ``sizes.json``, ``__len__``, ``*_stats.json``.

    Parameters
    ----------
    folder
        Of the dataset.
    counted
        Shard -> number of its samples, of those that are read.
    every
        All shards below the folder.
    allowed
        Whether counts may differ.
    """
    in_folder = Counter(path.parent for path in every)
    for place in {folder, *(path.parent for path in counted)}:
        mine = {path: count for path, count in counted.items() if path.parent == place}
        if (n := _number(place / "nshards.txt")) is not None and in_folder[place] and n != in_folder[place]:
            differs(f"{place} holds {in_folder[place]:,} shards, but nshards.txt says {n:,}", allowed=allowed)
        whole = len(mine) == in_folder[place]
        if whole and mine and (n := _number(place / "__len__")) is not None and n != sum(mine.values()):
            differs(f"{place} holds {sum(mine.values()):,} samples, but __len__ says {n:,}", allowed=allowed)
        sizes = _table(place / "sizes.json")
        for path, count in mine.items():
            stated = sizes.get(path.name)
            if isinstance(stated, int) and stated != count:
                differs(f"{path} holds {count:,} samples, but sizes.json says {stated:,}", allowed=allowed)
            stated = _table(place / f"{path.stem}_stats.json").get("successes")
            if isinstance(stated, int) and stated != count:
                differs(f"{path} holds {count:,} samples, but {path.stem}_stats.json says {stated:,}", allowed=allowed)
        absent = sorted(name for name in sizes if name.endswith(".tar") and not (place / name).is_file())
        if absent:
            differs(f"{place}: {len(absent):,} shards of sizes.json are missing (first: {absent[0]})", allowed=allowed)


def _number(path: Path) -> int | None:
    if not path.is_file():
        return None
    text = read_text_file(path, "count of shards", limit=1 << 10).strip()
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise UserError(f"{path} should hold a number, not {text[:40]!r}")
    return int(text)


def _table(path: Path) -> Mapping[str, object]:
    found = read_json_file(path, "note of shards") if path.is_file() else {}
    return found if isinstance(found, dict) else {}
