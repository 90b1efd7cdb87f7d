"""Look for published datasets below a folder, and check what is found."""

from __future__ import annotations

import contextlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from closerlook_common.errors import CloserlookError, UserError
from extract.datasets.base import Dataset, NoSuchLayout
from extract.datasets.borrowing import resolve_all
from extract.datasets.labels import plain
from extract.datasets.listing import is_folder
from extract.datasets.recipes import Recipe, all_recipes
from extract.datasets.recipes.base import CountMismatch
from extract.datasets.resolving import resolve
from extract.datasets.specs import DatasetSpec

_DEPTH = 3
_MANY_FOLDERS = 300
"""A folder with more folders than this holds classes, not datasets."""


@dataclass(frozen=True)
class Finding:
    """What became of one dataset.

    Attributes
    ----------
    name
        The dataset's id.
    recipe
        Its recipe, if it has one.
    path
        Where it was looked for; None where no folder bears its name.
    dataset
        The dataset, if it could be resolved.
    problem
        Why it could not, with the fix; empty otherwise.
    count
        Number of its images, where it could be listed and is not the expected one.
    """

    name: str
    recipe: Recipe | None
    path: Path | None
    dataset: Dataset | None
    problem: str = ""
    count: int | None = None


def check(specs: Iterable[DatasetSpec], *, progress: Callable[[str], None] = lambda name: None) -> list[Finding]:
    """Resolve every dataset; one that cannot be does not stop the others."""
    from extract.datasets.recipes import recipe_for

    specs = list(specs)
    datasets, errors = resolve_all(specs, progress)
    by_name = {dataset.card.id: dataset for dataset in datasets}
    findings = []
    for spec in specs:
        recipe = None
        with contextlib.suppress(UserError):  # then it is among the errors
            recipe = recipe_for(spec)
        if (error := errors.get(spec.name)) is not None:
            findings.append(Finding(spec.name, recipe, spec.path, None, _message(error, spec), _count(error)))
        else:
            findings.append(Finding(spec.name, recipe, spec.path, by_name[spec.name]))
    return findings


def find(root: Path, *, progress: Callable[[str], None] = lambda name: None) -> list[Finding]:
    """Look for every recipe's dataset in the folders below ``root`` that bear one of its names.

    Parameters
    ----------
    root
        Searched three levels deep; folders of classes are not entered.
    progress
        Called with each name before its turn.

    Returns
    -------
    list of Finding
        One a recipe, in their order.

    Raises
    ------
    UserError
        ``root`` is no folder.
    """
    if not root.is_dir():
        raise UserError(f"{root} is not a folder")
    places: dict[str, list[Path]] = defaultdict(list)
    for folder in _folders(root):
        places[_known_as(folder.name)].append(folder)
    findings = []
    for recipe in all_recipes().values():
        progress(recipe.name)
        named = [place for name in (recipe.name, *recipe.folders) for place in places[plain(name)]]
        findings.append(_first_that_fits(recipe, list(dict.fromkeys(named))))
    return findings


def _known_as(name: str) -> str:
    """Return a folder's name levelled out, without what the hub's cache and collections of shards put around it.

    Examples
    --------
    >>> _known_as("datasets--timm--imagenet-1k-wds"), _known_as("wds_imagenet-a")
    ('imagenet 1k', 'imagenet a')
    """
    if name.startswith("datasets--"):
        name = name.rpartition("--")[2]
    return plain(name.removeprefix("wds_").removesuffix("-wds"))


def _folders(root: Path) -> list[Path]:
    """Return the folders to look at, the root first, near ones before deep ones."""
    out, level = [root], [root]
    for _ in range(_DEPTH):
        level = [child for folder in level for child in _children(folder)]
        out += level
    return out


def _children(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            found = [Path(e.path) for e in entries if is_folder(e) and not e.name.startswith(".")]
    except OSError:
        return []
    return sorted(found) if len(found) <= _MANY_FOLDERS else []


def _first_that_fits(recipe: Recipe, places: list[Path]) -> Finding:
    best = Finding(recipe.name, recipe, None, None)
    for place in places:
        spec = DatasetSpec(name=recipe.name, path=place)
        try:
            return Finding(recipe.name, recipe, place, resolve(replace(spec, recipe=recipe.name)))
        except NoSuchLayout as error:
            # A folder that other sets are called after as well, and holds those.
            if _known_as(place.name) != plain(recipe.name):
                continue
            found = Finding(recipe.name, recipe, place, None, _message(error, spec))
        except UserError as error:
            found = Finding(recipe.name, recipe, place, None, _message(error, spec), _count(error))
        # A wrong count says more than a layout that is not this dataset's at all.
        if best.path is None or (best.count is None and found.count is not None):
            best = found
    return best


def _message(error: CloserlookError, spec: DatasetSpec) -> str:
    """Return what an error says, without the name of the table, which precedes it anyway."""
    return str(error).removeprefix(f"{spec.where or f'dataset {spec.name}'}: ")


def _count(error: CloserlookError) -> int | None:
    return error.count if isinstance(error, CountMismatch) else None
