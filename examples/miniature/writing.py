"""Writes the datasets to disk: each staged next to its place, then moved there by one rename."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from PIL import Image

from examples.miniature.datasets import (
    HARD_CLASSES,
    KINDS_MAP,
    PICTURES,
    WORLD_VERSION,
    Picture,
    annotations_jsonl,
    pixels_of,
)
from examples.miniature.shapes import CLASS_SPACE, CLASSES

STAMP = ".stamp"
"""File in a finished dataset's folder: what it was made from. Image readers skip hidden files."""


def dataset_stamp(name: str, n: int) -> str:
    """Return what a dataset depends on, as a digest."""
    return hashlib.sha256(json.dumps([WORLD_VERSION, name, n]).encode()).hexdigest()


def is_finished(folder: Path, stamp: str) -> bool:
    """Return whether a dataset was finished with this stamp."""
    try:
        return (folder / STAMP).read_text(encoding="utf-8") == stamp
    except OSError:
        return False


def write_dataset(folder: Path, name: str, n: int, progress: Callable[[int], None] = lambda _: None) -> None:
    """Render and write one dataset; a folder that is finished already is left alone.

    Parameters
    ----------
    folder
        Where it goes. An older or unfinished version there is replaced.
    name
        One of ``PICTURES``.
    n
        Number of pictures.
    progress
        Called with the number of pictures done since the last call.
    """
    stamp = dataset_stamp(name, n)
    if is_finished(folder, stamp):
        progress(n)
        return
    staged = folder.with_name(f".staged-{folder.name}")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    pictures = []
    for picture in PICTURES[name](n):
        target = staged / picture.path
        target.parent.mkdir(exist_ok=True)
        image = Image.fromarray(pixels_of(picture))
        if target.suffix == ".jpg":
            image.save(target, quality=95, subsampling=0)
        else:
            image.save(target, compress_level=4)
        pictures.append(picture)
        progress(1)
    for file, text in _tables(name, pictures).items():
        (staged / file).write_text(text, encoding="utf-8")
    (staged / STAMP).write_text(stamp, encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    staged.rename(folder)


def _tables(name: str, pictures: list[Picture]) -> dict[str, str]:
    files = {}
    if pictures[0].captions:
        rows = [(picture.path, text) for picture in pictures for text in picture.captions]
        files["captions.csv"] = _csv(("path", "caption"), rows)
    if pictures[0].columns:
        columns = tuple(pictures[0].columns)
        rows_of = [(p.path, p.label, *(p.columns[column] for column in columns)) for p in pictures]
        files["manifest.csv"] = _csv(("path", "label", *columns), rows_of)
    if name == "val":
        files["annotations.jsonl"] = annotations_jsonl(pictures)
    return files


def _csv(header: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


_SHIFT = 'role = "shift"\nshift_of = "mini-val"'
_TABLES: tuple[tuple[str, str, str], ...] = (
    ("mini-val", "val", 'role = "id"\nmanifest = "datasets/val/manifest.csv"'),
    ("mini-v2", "v2", _SHIFT),
    ("mini-sketch", "sketch", _SHIFT),
    ("mini-rendition", "rendition", _SHIFT),
    ("mini-hard", "hard", f"{_SHIFT}\nclass_mask = {json.dumps(HARD_CLASSES)}"),
    (
        "mini-kinds",
        "kinds",
        f'{_SHIFT}\nmanifest = "datasets/kinds/manifest.csv"\nlabels = "index"  # of the super-class: '
        f"{', '.join(kind for kind, _ in KINDS_MAP)}\n"
        f'class_map = {json.dumps([members for _, members in KINDS_MAP])}\nclass_map_rule = "max"',
    ),
    (
        "mini-cue-conflict",
        "cue-conflict",
        f'{_SHIFT}\nmanifest = "datasets/cue-conflict/manifest.csv"  # label = shape; columns shape, texture',
    ),
    ("mini-ood-shapes", "ood-shapes", 'role = "ood"\ndistance = "near"\nlabels = "none"'),
    ("mini-textures", "textures", 'role = "ood"\ndistance = "far"\nlabels = "none"'),
    ("mini-noise", "noise", 'role = "ood"\ndistance = "far"\nlabels = "none"'),
    ("mini-scenes", "scenes", 'role = "ood"\ndistance = "far"\nlabels = "none"'),
    (
        "mini-captions",
        "captions",
        'role = "pairs"\nlabels = "none"\nmanifest = "datasets/captions/captions.csv"\ncaptions = "caption"',
    ),
    ("mini-train", "train", 'role = "reference"\nper_class = 50'),
)


def datasets_toml() -> str:
    """Return the text of the miniature's ``datasets.toml``."""
    space = f'classes = {json.dumps(CLASSES)}\nclass_space = "{CLASS_SPACE}"'
    parts = ["# The miniature study: rendered pictures of ten classes. Its numbers mean nothing outside it.\n"]
    for name, folder, keys in _TABLES:
        classes = "" if 'role = "pairs"' in keys else f"\n{space}"
        parts.append(f'[{name}]\npath = "datasets/{folder}"\n{keys}{classes}\nlicence = "MIT"\n')
    return "\n".join(parts)
