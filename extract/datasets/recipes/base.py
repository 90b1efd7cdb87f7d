"""What a recipe is: everything that is known about a published dataset before looking at the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError
from closerlook_common.plugins import digest_of, origin_of
from extract.classes.spaces import IMAGENET_1K, ClassSpace, class_space
from extract.datasets.base import NO_LABEL, Dataset, ImageSource, NoSuchLayout
from extract.datasets.building import build, folder_column
from extract.datasets.folder import Rows, read_class_folders, read_flat
from extract.datasets.labels import looks_like_wnid
from extract.datasets.listing import holds_images, list_images, subfolders
from extract.datasets.packed import packed_kind, read_packed
from extract.datasets.specs import DatasetSpec


class CountMismatch(UserError):
    """A copy that is not whole, or more than that; ``count`` is what is there."""

    def __init__(self, message: str, count: int) -> None:
        super().__init__(message)
        self.count = count


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a recipe's reader found on disk; see `Dataset` for the fields."""

    root: Path
    rows: Rows
    layout: str
    metadata: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    keys: tuple[str, ...] | None = None
    captions: tuple[tuple[str, ...], ...] | None = None
    source: ImageSource | None = None
    space: ClassSpace | None = None
    class_map: tuple[tuple[int, ...], ...] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


Reader = Callable[[Path, DatasetSpec], Found]

TEST_SPLITS = ("test", "validation", "val")
ANY_SPLIT = (*TEST_SPLITS, "train")
"""Of sets that have one split, which copies call ``train`` as a tool's default."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A published dataset.

    Attributes
    ----------
    name
        Its id in every table.
    title
        What it is, in a few words.
    role
        As on the dataset card.
    folders
        Names that people's copies bear on disk; case, ``_`` and ``-`` do not count.
    expected
        Numbers of images that a whole copy has; several where published counts differ. Empty: not checked.
    read
        Finds images and labels below a folder, whatever its layout, or raises `UserError` with the fix.
    shift_of, distance, licence, border_crop, already_cropped
        As in `DatasetSpec`.
    mask
        Returns the classes kept before the softmax.
    map_rule
        Default of ``class_map_rule``.
    packable
        Whether shards and tables hold enough to read it: labels alone, no names of folders or frames.
    splits
        Words that name its split in shards and tables, best first.
    repack
        Makes rows found in shards or tables those of the files, where names are needed.
    source
        Paper that published it: authors, venue or journal, year.
    basis
        What the expected numbers rest on: counted in the set's own files, stated by its owners, or stated by others
        who use it.
    note
        One line on a trap or a choice.
    classes
        Class space that its images are shown to; empty, for an OOD set, for that of the run's in-distribution sets.
    """

    name: str
    title: str
    role: str
    folders: tuple[str, ...]
    expected: tuple[int, ...]
    read: Reader
    shift_of: str = ""
    distance: str = ""
    licence: str = ""
    border_crop: int = 0
    already_cropped: int | None = None
    mask: Callable[[], tuple[int, ...]] | None = None
    map_rule: str = "max"
    packable: bool = True
    splits: tuple[str, ...] = TEST_SPLITS
    repack: Callable[[Found, DatasetSpec], Found] | None = None
    source: str = ""
    basis: str = ""
    note: str = ""
    classes: str = IMAGENET_1K


def apply(recipe: Recipe, spec: DatasetSpec) -> Dataset:
    """List a dataset by its recipe; what the spec says goes before what the recipe says.

    Raises
    ------
    UserError
        The layout is not recognised, or the number of images is not an expected one and the spec does not
        allow that.
    """
    where = spec.where or f"dataset {spec.name}"
    found = _read(recipe, spec, where)
    count = len(found.rows.paths)
    if recipe.expected and count not in recipe.expected and not spec.allow_count_mismatch:
        raise CountMismatch(
            f"{where}: {counted(count, 'image')} below {found.root}, but {recipe.name} has {counts(recipe)}"
            f" ({recipe.basis or 'by general knowledge'}); set allow_count_mismatch = true to use what is there",
            count,
        )
    class_map = spec.class_map if spec.class_map is not None else found.class_map
    mask = spec.class_mask
    if mask is None and recipe.mask is not None and class_map is None and found.space is None:
        mask = recipe.mask()
    merged = replace(
        spec,
        role=spec.role or recipe.role,
        shift_of=spec.shift_of or recipe.shift_of,
        distance=spec.distance or recipe.distance,
        licence=spec.licence or recipe.licence,
        border_crop=recipe.border_crop if spec.border_crop is None else spec.border_crop,
        already_cropped=recipe.already_cropped if spec.already_cropped is None else spec.already_cropped,
        class_mask=mask,
        class_map=class_map,
        class_map_rule=spec.class_map_rule or recipe.map_rule,
    )
    return build(
        merged,
        found.rows,
        found.space or (class_space(recipe.classes) if recipe.classes else None),
        metadata=found.metadata,
        captions=found.captions,
        keys=found.keys,
        source=found.source,
        root=found.root,
        problems=_count_problem(recipe, count),
        extra={"recipe": recipe.name, **_plugin_of(recipe), "layout": found.layout, **found.extra},
    )


def _plugin_of(recipe: Recipe) -> dict[str, str]:
    """Return what a store records of a recipe from outside the package: its file or package, and a digest."""
    origin = origin_of("datasets", recipe.name)
    return {"plugin": f"{origin} {digest_of('datasets', recipe.name)}"} if origin else {}


def _read(recipe: Recipe, spec: DatasetSpec, where: str) -> Found:
    """Read files as the recipe knows them, or shards and tables where the folder holds those instead."""
    if spec.reader not in ("auto", "files"):
        return _unpack(recipe, spec, where)
    try:
        return recipe.read(spec.path, spec)
    except UserError:
        kind = packed_kind(spec.path) if spec.reader == "auto" else ""
        if not kind or not recipe.packable:
            raise
        # Archives next to the unpacked images are not a layout of their own.
        if holds_images(spec.path):
            raise
    return _unpack(recipe, replace(spec, reader=kind), where)


def _unpack(recipe: Recipe, spec: DatasetSpec, where: str) -> Found:
    """Read shards or tables: labels are indices, WordNet ids or names of ImageNet's classes."""
    if not recipe.packable:
        raise UserError(f"{where}: {recipe.name} is read from files, since its labels depend on the file names")
    is_ood = recipe.role == "ood"
    packed = read_packed(replace(spec, labels="none") if is_ood else spec, class_space(IMAGENET_1K), recipe.splits)
    if not is_ood and (packed.rows.labels == NO_LABEL).all():
        raise UserError(f"{where}: the {packed.layout} in {spec.path} hold no labels; unpack them to class folders")
    found = Found(
        root=spec.path,
        rows=packed.rows,
        layout=packed.layout,
        metadata=packed.metadata,
        source=packed.source,
    )
    return recipe.repack(found, spec) if recipe.repack is not None else found


def counts(recipe: Recipe) -> str:
    """Return the expected counts as text: ``18,574 or 18,514``."""
    return " or ".join(f"{count:,}" for count in recipe.expected)


def _count_problem(recipe: Recipe, count: int) -> tuple[str, ...]:
    if not recipe.expected or count in recipe.expected:
        return ()
    return (f"{counted(count, 'image')} instead of {counts(recipe)}, as allowed",)


def candidates(path: Path, inside: tuple[str, ...]) -> Iterator[Path]:
    """Yield the folder itself and the given sub-folders that exist (``*`` matches one folder), without
    doubles.
    """
    if not path.is_dir():
        list_images(path)  # says what is wrong with the path
    yield path
    for pattern in inside:
        yield from sorted(found for found in path.glob(pattern) if found.is_dir())


def has_class_folders(folder: Path) -> bool:
    """Return whether a folder holds folders named by WordNet ids or numbers."""
    return any(looks_like_wnid(name) or name.isdecimal() for name in subfolders(folder))


def class_folders(*inside: str, labels: str = "auto") -> Reader:
    """Return a reader of ImageNet class folders, at the path or in one of the folders ``inside`` it."""

    def read(path: Path, spec: DatasetSpec) -> Found:
        root = next((c for c in candidates(path, inside) if has_class_folders(c)), None)
        if root is None:
            places = ", ".join(("the folder itself", *inside))
            raise NoSuchLayout(
                f"{spec.where or path}: no folders named by WordNet id or class index in {path}"
                f" (looked in {places}); set path = to the folder that holds them"
            )
        listed = [item for item in list_images(root) if "/" in item.path]
        kind = labels if spec.labels == "auto" else spec.labels
        rows = read_class_folders(root, class_space(IMAGENET_1K), kind, listed=listed)
        return Found(root=root, rows=rows, layout="class folders")

    return read


def unlabelled(*inside: str) -> Reader:
    """Return a reader of images without labels, at the path or in the first folder ``inside`` it that
    exists.
    """

    def read(path: Path, spec: DatasetSpec) -> Found:
        _, *others = candidates(path, inside)
        root = others[0] if others else path
        rows = read_flat(root)
        return Found(root=root, rows=rows, layout="images", metadata=folder_column(rows))

    return read
