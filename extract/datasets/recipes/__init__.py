"""Published datasets by name: how their copies on disk are recognised, labelled, masked, mapped and
counted.
"""

from __future__ import annotations

from functools import cache

from cache_schema.format.records import ROLES
from closerlook_common.errors import UserError, nearest
from closerlook_common.plugins import Plugin, attach
from extract.datasets.recipes.base import Recipe, apply
from extract.datasets.specs import DatasetSpec

__all__ = ["Recipe", "all_recipes", "apply", "recipe_for", "recipe_named"]

_ELSEWHERE = {
    "imagenet-x": "it annotates imagenet-val: extract imagenet-val, and give the annotations to 'analyze'",
    "imagenet-c": "it is one dataset a corruption and severity: imagenet-c-gaussian_noise-1 ...",
    "imagenet-v2": "it is three: imagenet-v2-a (threshold-0.7), -b (matched-frequency), -c (top-images)",
    "imagenet-vid-robust": "it is two datasets: imagenet-vid-robust-pm0 and imagenet-vid-robust-pm10",
    "ytbb-robust": "it is two datasets: ytbb-robust-pm0 and ytbb-robust-pm10",
}


@cache
def all_recipes() -> dict[str, Recipe]:
    """Return every recipe by name, in the order of a table."""
    from extract.datasets.recipes import captions, imagenet, mapped, ood, shifts

    modules = (imagenet, shifts, mapped, ood, captions)
    return {recipe.name: recipe for module in modules for recipe in module.RECIPES}


def _add(plugin: Plugin) -> None:
    """Take a recipe from outside."""
    recipe = plugin.item
    if not isinstance(recipe, Recipe):
        raise UserError(f"{plugin.name!r} is not a Recipe")
    if recipe.name in all_recipes() or recipe.name in _ELSEWHERE:
        raise UserError(f"the dataset {recipe.name!r} is known already; give yours another name")
    if recipe.role not in ROLES:
        raise UserError(f"the dataset {recipe.name!r} has the role {recipe.role!r}; choose {', '.join(ROLES)}")
    all_recipes()[recipe.name] = recipe


def recipe_named(name: str, where: str = "") -> Recipe:
    """Return a recipe; raises `UserError` with the nearest names."""
    recipes = all_recipes()
    if name not in recipes:
        at = f"{where}: " if where else ""
        why = _ELSEWHERE.get(name)
        raise UserError(at + (f"{name}: {why}" if why else f"no recipe {name!r}{nearest(name, recipes)}"))
    return recipes[name]


def recipe_for(spec: DatasetSpec) -> Recipe | None:
    """Return the recipe a spec means: the one it names, or the one its table is named after.

    A table that brings labels, classes (other than ObjectNet's ``folders``) or a manifest of its own is taken
    at its word, as is ``recipe = "none"``.
    """
    if spec.recipe == "none":
        return None
    if spec.recipe:
        return recipe_named(spec.recipe, spec.where)
    own_labels = spec.labels != "auto" or spec.manifest is not None or bool(spec.label_column)
    own_classes = spec.classes not in ("", "imagenet-1k") and not (
        spec.name == "objectnet" and spec.classes == "folders"
    )
    if own_labels or own_classes:
        return None
    if spec.name in _ELSEWHERE:
        at = spec.where or str(spec.path)
        raise UserError(f'{at}: {_ELSEWHERE[spec.name]}; recipe = "none" takes the name as it is')
    return all_recipes().get(spec.name)


attach("datasets", _add)
