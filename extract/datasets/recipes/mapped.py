"""Shifted test sets with coarser classes than ImageNet's: ObjectNet, the two video sets, cue conflict."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from closerlook_common.errors import UserError, nearest
from closerlook_common.input_files import read_json_file
from extract.datasets.base import MISSING
from extract.datasets.folder import Rows
from extract.datasets.labels import plain
from extract.datasets.listing import Listed, list_images, safe_relative, size_of, subfolders
from extract.datasets.maps import class_map
from extract.datasets.recipes.base import Found, Recipe, candidates
from extract.datasets.recipes.imagenet import VAL
from extract.datasets.spaces import own_space
from extract.datasets.specs import DatasetSpec

_CUE_NAME = re.compile(r"([a-z]+)\d+-([a-z]+)\d+")


def _rows(listed: Sequence[Listed], labels: Sequence[int]) -> Rows:
    sizes = np.asarray([item.size for item in listed], dtype=np.int64)
    return Rows(tuple(item.path for item in listed), np.asarray(labels, dtype=np.int32), sizes)


def read_objectnet(path: Path, spec: DatasetSpec) -> Found:
    """Read the 113 of ObjectNet's 313 folders whose objects are in ImageNet.

    ``classes = "folders"`` asks for a head of the 113 names instead of a map from ImageNet's classes.
    """
    members = class_map("objectnet")
    index = {plain(folder): label for label, folder in enumerate(members)}
    places = candidates(path, ("images", "objectnet-1.0/images", "objectnet-1.0", "*/images"))
    root = next((p for p in places if sum(plain(name) in index for name in subfolders(p)) > len(index) // 2), None)
    if root is None:
        raise UserError(
            f"{path} does not hold ObjectNet's folders (alarm_clock, backpack ...); set path = to its images"
        )
    listed = [item for item in list_images(root) if plain(item.path.partition("/")[0]) in index]
    folders = [item.path.partition("/")[0] for item in listed]
    rows = _rows(listed, [index[plain(folder)] for folder in folders])
    metadata = {"folder": np.asarray(folders, dtype=object)}
    names = [folder.replace("_", " ") for folder in members]
    if spec.classes == "folders":
        space = own_space(names, spec.class_space or "objectnet-113")
        return Found(root=root, rows=rows, layout="object folders", metadata=metadata, space=space)
    return Found(
        root=root,
        rows=rows,
        layout="object folders",
        metadata=metadata,
        class_map=tuple(members.values()),
        extra={"super_classes": names},
    )


def read_cue_conflict(path: Path, spec: DatasetSpec) -> Found:
    """Read ``<shape>/<shape><n>-<texture><m>.png``; the label is the shape's category."""
    members = class_map("cue-conflict")
    categories = list(members)
    places = candidates(path, ("cue-conflict", "style-transfer-preprocessed-512", "*/cue-conflict", "images", "dnn"))
    root = next((p for p in places if sum(name in members for name in subfolders(p)) > len(members) // 2), None)
    if root is None:
        raise UserError(f"{path} does not hold the 16 shape folders (airplane, bear ...); set path = to the images")
    listed = [item for item in list_images(root) if item.path.partition("/")[0] in members]
    shapes, textures = [], []
    for item in listed:
        match = _CUE_NAME.search(item.path.rpartition("/")[2])
        if match is None or match[1] not in members or match[2] not in members:
            raise UserError(f"{root / item.path} is not named <shape><number>-<texture><number>")
        shapes.append(match[1])
        textures.append(match[2])
    return Found(
        root=root,
        rows=_rows(listed, [categories.index(shape) for shape in shapes]),
        layout="shape folders",
        metadata={
            "shape": np.asarray(shapes, dtype=object),
            "texture": np.asarray(textures, dtype=object),
            "conflict": np.asarray(shapes, dtype=object) != np.asarray(textures, dtype=object),
        },
        class_map=tuple(members.values()),
        extra={"super_classes": categories},
    )


def _videos(name: str, *, neighbours: bool) -> Any:
    """Return a reader of a video set: anchors alone, or with their neighbours.

    ``labels.json`` maps a frame to its set of labels, ``pmsets.json`` an anchor to its neighbours. Columns:
    ``anchor`` (the anchor's path, the group that is right only if all of it is), ``is_anchor``,
    ``label_set``.
    """

    def read(path: Path, spec: DatasetSpec) -> Found:
        members = class_map(name)
        labels, meta = _json(path, "labels.json")
        sets, _ = _json(path, "pmsets.json")
        if not all(isinstance(frames, list) and all(isinstance(f, str) for f in frames) for frames in sets.values()):
            raise UserError(f"{meta.parent / 'pmsets.json'} should hold a list of frames for each anchor")
        anchor_of = {anchor: anchor for anchor in sets}
        if neighbours:
            for anchor, frames in sets.items():
                for frame in frames:
                    if anchor_of.setdefault(frame, anchor) != anchor:
                        raise UserError(f"{meta.parent / 'pmsets.json'}: {frame!r} belongs to two anchors")
        root = _frame_root(path, meta, next(iter(anchor_of)))
        frames = sorted(anchor_of)
        for frame in frames:
            if safe_relative(frame, root, where=str(meta)) != frame:
                raise UserError(f"{meta}: {frame!r} is not a plain relative path")
        listed = [Listed(frame, size_of(root / frame)) for frame in frames]
        missing = sum(item.size == MISSING for item in listed)
        if missing and not spec.allow_count_mismatch:
            raise UserError(
                f"{spec.where or path}: {missing:,} of the {len(frames):,} frames that {meta.name} names are"
                f" not below {root};"
                " allow_count_mismatch = true keeps them as unreadable"
            )
        texts = [_label_set(labels, frame, anchor_of[frame], len(members), meta) for frame in frames]
        return Found(
            root=root,
            rows=_rows(listed, [label_set[0] for label_set in texts]),
            layout="frames with labels.json and pmsets.json",
            metadata={
                "anchor": np.asarray([anchor_of[frame] for frame in frames], dtype=object),
                "is_anchor": np.asarray([anchor_of[frame] == frame for frame in frames], dtype=np.bool_),
                "label_set": np.asarray([" ".join(map(str, s)) for s in texts], dtype=object),
            },
            class_map=tuple(members.values()),
            extra={"super_classes": list(members)},
        )

    return read


def _label_set(labels: Mapping[str, Any], frame: str, anchor: str, n: int, meta: Path) -> list[int]:
    """Return the labels of a frame; a neighbour without labels of its own has its anchor's."""
    found = labels.get(frame, labels.get(anchor))
    if not isinstance(found, list) or not found or not all(isinstance(x, int) and 0 <= x < n for x in found):
        raise UserError(f"{meta}: {frame!r} has no list of labels from 0 to {n - 1}")
    return found


def _json(path: Path, name: str) -> tuple[dict[str, Any], Path]:
    places = [place / name for base in (path, path.parent) for place in (base, base / "metadata", base / "misc")]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise UserError(f"no {name} in {path}, {path / 'metadata'} or {path.parent / 'metadata'}; it holds the labels")
    table = read_json_file(file, "metadata file")
    if not isinstance(table, dict) or not table:
        raise UserError(f"{file} is not a table of frames")
    return table, file


def _frame_root(path: Path, meta: Path, frame: str) -> Path:
    """Return the folder that the frames' paths are relative to: their first part may name the given folder
    itself.
    """
    for root in (path, path.parent, meta.parent.parent):
        if (root / frame).exists():
            return root
    near = nearest(frame.partition("/")[0], subfolders(path)) if path.is_dir() else ""
    raise UserError(f"{meta} names {frame!r}, which is not below {path}{near}; set path = to the folder above it")


RECIPES = (
    Recipe(
        name="objectnet",
        title="ObjectNet, the 113 classes that ImageNet has",
        role="shift",
        source="Barbu et al., NeurIPS 2019",
        folders=("objectnet", "objectnet-1.0", "objectnet-1.0-beta"),
        expected=(18_574, 18_514),
        read=read_objectnet,
        packable=False,
        basis="counted by DataComp, and by the ImageNet testbed",
        shift_of=VAL,
        border_crop=2,
        map_rule="restrict",
        note='125 indices to 113 classes; other conventions: class_map_rule = "max", classes = "folders"',
    ),
    Recipe(
        name="imagenet-vid-robust-pm0",
        title="ImageNet-Vid-Robust, anchor frames",
        role="shift",
        source="Shankar et al., ICCV 2021",
        folders=("imagenet-vid-robust", "imagenet-vid-robust-release"),
        expected=(1_109,),
        read=_videos("vid-robust", neighbours=False),
        packable=False,
        basis="counted in its pmsets.json",
        shift_of=VAL,
        note="30 classes, maximum over members; right = any label of label_set",
    ),
    Recipe(
        name="imagenet-vid-robust-pm10",
        title="ImageNet-Vid-Robust, anchors and neighbours",
        role="shift",
        source="Shankar et al., ICCV 2021",
        folders=("imagenet-vid-robust", "imagenet-vid-robust-release"),
        expected=(22_179,),
        read=_videos("vid-robust", neighbours=True),
        packable=False,
        basis="counted in its pmsets.json",
        shift_of=VAL,
        note="anchor_accuracy: an anchor is right if it and all its neighbours are; intervals are of clips",
    ),
    Recipe(
        name="ytbb-robust-pm0",
        title="YTBB-Robust, anchor frames",
        role="shift",
        source="Shankar et al., ICCV 2021",
        folders=("ytbb-robust",),
        expected=(2_530, 2_030),
        read=_videos("ytbb", neighbours=False),
        packable=False,
        basis="counted by the ImageNet testbed, and by its paper",
        shift_of=VAL,
        note="needs labels.json and pmsets.json as Vid-Robust has them; classes without members never win",
    ),
    Recipe(
        name="ytbb-robust-pm10",
        title="YTBB-Robust, anchors and neighbours",
        role="shift",
        source="Shankar et al., ICCV 2021",
        folders=("ytbb-robust",),
        expected=(),
        read=_videos("ytbb", neighbours=True),
        packable=False,
        shift_of=VAL,
        note="every frame that pmsets.json names must be there; no number is published for this set alone",
    ),
    Recipe(
        name="cue-conflict",
        title="Cue conflict: shape of one class, texture of another",
        role="shift",
        source="Geirhos et al., ICLR 2019",
        folders=("cue-conflict", "style-transfer-preprocessed-512"),
        expected=(1_280,),
        read=read_cue_conflict,
        packable=False,
        basis="counted in its own list of images",
        shift_of=VAL,
        map_rule="mean",
        note="80 images without a conflict are kept and marked",
    ),
)
