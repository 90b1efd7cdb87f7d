"""Numbers of rows that a Hugging Face data set states in its card, ``dataset_infos.json`` or ``dataset_info.json``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError
from closerlook_common.input_files import read_json_file, read_text_file

_MOST = 16 << 20


def stated_rows(folder: Path, home: Path, split: str) -> dict[str, int]:
    """Return note -> number of rows of a split.

    Parameters
    ----------
    folder
        Of the data set.
    home
        Folder of the split's files, ``folder`` or below it.
    split
        Its name; empty where the folder holds one split without a name.
    """
    found: dict[str, int] = {}
    for place in dict.fromkeys((home, folder, folder.parent)):
        for note, infos in _notes(place):
            rows = _rows_in(_of_config(infos, home), split)
            if rows is not None:
                found.setdefault(note, rows)
    return found


def _notes(place: Path) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    """Yield the notes in a folder, as the information of each configuration."""
    for name in ("dataset_info.json", "dataset_infos.json"):
        if (place / name).is_file():
            given = read_json_file(place / name, "notes of the data set", limit=_MOST)
            if isinstance(given, dict) and name == "dataset_infos.json":
                yield name, [{"config_name": key, **of} for key, of in given.items() if isinstance(of, dict)]
            elif isinstance(given, dict):
                yield name, [given]
    if (place / "README.md").is_file():
        given = _front_matter(read_text_file(place / "README.md", "card of the data set", limit=_MOST)).get(
            "dataset_info"
        )
        infos = given if isinstance(given, list) else [given]
        yield "README.md", [info for info in infos if isinstance(info, dict)]


def _front_matter(text: str) -> Mapping[str, Any]:
    """Return the YAML at the top of a data set's card."""
    if not text.startswith("---"):
        return {}
    body = text.split("\n---", 1)[0].removeprefix("---")
    import yaml  # comes with huggingface_hub, which timm needs

    try:
        found = yaml.safe_load(body)
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _of_config(infos: list[Mapping[str, Any]], home: Path) -> Mapping[str, Any]:
    """Return the information of the configuration whose files these are; empty where that is not clear."""
    if len(infos) == 1:
        return infos[0]
    fitting = [info for info in infos if str(info.get("config_name")) in home.parts]
    return fitting[0] if len(fitting) == 1 else {}


def _rows_in(info: Mapping[str, Any], split: str) -> int | None:
    splits = info.get("splits")
    if isinstance(splits, dict):
        splits = list(splits.values())
    if not isinstance(splits, list):
        return None
    of = [s for s in splits if isinstance(s, dict) and isinstance(s.get("num_examples"), int)]
    rows = [int(s["num_examples"]) for s in of if s.get("name") == split or (not split and len(of) == 1)]
    if len(rows) == 1 and rows[0] < 0:
        raise UserError(f"the notes of the data set say that split {split!r} has {counted(rows[0], 'row')}")
    return rows[0] if len(rows) == 1 else None
