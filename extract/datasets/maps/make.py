"""Write the class maps from the metadata of the ImageNet testbed: ``python -m extract.datasets.maps.make
METADATA OUT``.

Run once; the result is part of the package. METADATA is a folder with the testbed's JSON files, named
``<dataset>_metadata__<file>.json``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# The classes of ImageNet-VID, in the order of their labels (alphabetical).
_VID_CLASSES = [
    "airplane",
    "antelope",
    "bear",
    "bicycle",
    "bird",
    "bus",
    "car",
    "cattle",
    "dog",
    "cat",
    "elephant",
    "fox",
    "giant_panda",
    "hamster",
    "horse",
    "lion",
    "lizard",
    "monkey",
    "motorcycle",
    "rabbit",
    "red_panda",
    "sheep",
    "snake",
    "squirrel",
    "tiger",
    "train",
    "turtle",
    "watercraft",
    "whale",
    "zebra",
]


def as_ranges(indices: Iterable[int]) -> str:
    """Return sorted indices as text: single numbers and ranges.

    Examples
    --------
    >>> as_ranges([12, 8, 10, 11])
    '8 10-12'
    """
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return " ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def objectnet(folder: Path) -> dict[str, list[int]]:
    """Return folder name -> indices of ObjectNet's classes that are in ImageNet, sorted by folder name."""
    title_of = _read(folder, "objectnet", "folder_to_objectnet_label")
    folder_of = {title: name for name, title in title_of.items()}
    index_of = {label: int(index) for index, label in _read(folder, "objectnet", "imagenet_to_labels").items()}
    pairs = _read(folder, "objectnet", "objectnet_to_imagenet_1k").items()
    return dict(sorted((folder_of[title], [index_of[n] for n in names.split("; ")]) for title, names in pairs))


def videos(folder: Path, dataset: str, names: Mapping[int, str]) -> dict[str, list[int]]:
    """Return class name -> indices of a video dataset, in the order of its labels."""
    members = _read(folder, dataset, "rev_class_idx_map")
    return {name: members.get(str(label), []) for label, name in sorted(names.items())}


def _read(folder: Path, dataset: str, name: str) -> Any:
    return json.loads((folder / f"{dataset}_metadata__{name}.json").read_text(encoding="utf-8"))


def _write(path: Path, title: str, table: Mapping[str, Iterable[int]]) -> None:
    lines = [f"# {title}: class = indices in ImageNet-1k (written by make.py)"]
    lines += [f"{name.replace(' ', '_')} = {json.dumps(as_ranges(indices))}" for name, indices in table.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main(metadata: Path, out: Path) -> None:
    """Write ``objectnet.toml``, ``vid-robust.toml`` and ``ytbb.toml``."""
    _write(out / "objectnet.toml", "ObjectNet", objectnet(metadata))
    vid = videos(metadata, "imagenet-vid-robust", dict(enumerate(_VID_CLASSES)))
    _write(out / "vid-robust.toml", "ImageNet-Vid-Robust", vid)
    ytbb_names = {int(label): name for label, name in _read(metadata, "ytbb-robust", "ytbb_class_index").items()}
    _write(out / "ytbb.toml", "YTBB-Robust", videos(metadata, "ytbb-robust", ytbb_names))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
