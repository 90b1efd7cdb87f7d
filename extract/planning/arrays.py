"""The arrays that are stored when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from closerlook_common.errors import UserError, nearest
from extract.models import view_recipe


@dataclass(frozen=True)
class Further:
    """Arrays that are stored when asked for.

    Attributes
    ----------
    what
        What they are, for help texts.
    of
        Kind of the stores that hold them: ``head``, ``reference`` or ``predictions``.
    tag
        What the identity of a store with them says; it changes where their numbers would.
    by_class
        Whether they depend on the head, so that a store without classes has none.
    inner
        Whether they are taken from inner layers of a model.
    """

    what: str
    of: str
    tag: str
    by_class: bool = False
    inner: bool = False


ARRAYS: Mapping[str, Further] = {
    "texts": Further(
        "text heads also hold the embeddings of every template (subsets and weightings of templates)", "head", "texts"
    ),
    "unit": Further(
        "references also hold sums of features at unit length (Mahalanobis++) and the keys of the bank's rows",
        "reference",
        "unit",
    ),
    "patches": Further(
        "of CLIP-like models, each image's best patch in the space of the texts and its score (L-MCM, GL-MCM)",
        "predictions",
        "patches",
        by_class=True,
        inner=True,
    ),
    "tokens": Further(
        "of vision transformers, class token and mean of the patches before the projection (probes)",
        "predictions",
        "tokens",
        inner=True,
    ),
    "blocks": Further(
        "of vision transformers, class tokens after four evenly spaced blocks (probes of layers)",
        "predictions",
        "blocks:4",
        inner=True,
    ),
    view_recipe.ARRAY: Further(
        f"of {view_recipe.VIEWS} random crops of each image, features of the {view_recipe.CHOSEN} of lowest entropy"
        " (test-time methods); takes as long as so many images",
        "predictions",
        view_recipe.TAG,
        by_class=True,
    ),
}
"""Arrays that are stored when asked for: name -> what they are."""


def arrays_of(names: str | Iterable[str]) -> tuple[str, ...]:
    """Return names of ``ARRAYS``, each once and in the table's order; UserError for another.

    Examples
    --------
    >>> arrays_of("unit, unit")
    ('unit',)
    """
    given = names.split(",") if isinstance(names, str) else list(names)
    wanted = {name.strip() for name in given if name.strip()}
    for name in sorted(wanted):
        if name not in ARRAYS:
            known = nearest(name, ARRAYS) or f"; known: {', '.join(ARRAYS)}"
            raise UserError(f"`arrays` {name!r} is not known{known}")
    return in_order(wanted)


def why_not_compiled(names: Sequence[str]) -> str:
    """Return why compiled models cannot give some arrays, as the beginning of a message; empty where they can."""
    if inner := [name for name in names if ARRAYS[name].inner]:
        return f"`arrays` {', '.join(inner)} are taken from inner layers, which a compiled model does not show"
    if view_recipe.ARRAY in names:
        return (
            f"`arrays` {view_recipe.ARRAY}: the {view_recipe.VIEWS} views of an image are run together, and a compiled"
            " model takes batches of another size"
        )
    return ""


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return names in the order of ``ARRAYS``."""
    wanted = set(names)
    return tuple(name for name in ARRAYS if name in wanted)


def subsets(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return every choice among some names, fewer names first, each in the order of ``ARRAYS``.

    Examples
    --------
    >>> subsets(["unit"])
    [(), ('unit',)]
    """
    ordered = in_order(names)
    return [chosen for count in range(len(ordered) + 1) for chosen in combinations(ordered, count)]


def settled(
    asked: Iterable[str], possible: Iterable[str], is_sealed: Callable[[tuple[str, ...]], bool]
) -> tuple[str, ...]:
    """Return the arrays of the store that answers a request: one that is sealed, or the one to make.

    A sealed store with more arrays than asked for is taken as it is. A store that has to be made also gets the arrays
    of those sealed before it, so that one store of a model and dataset has everything.

    Parameters
    ----------
    asked
        Names of arrays.
    possible
        Those that a store of this kind may have.
    is_sealed
        Whether the store with just these arrays is there.
    """
    wanted = set(asked)
    if is_sealed(in_order(wanted)):
        return in_order(wanted)
    held = [chosen for chosen in subsets(possible) if is_sealed(chosen)]
    more = next((chosen for chosen in held if wanted <= set(chosen)), None)
    return in_order(wanted.union(*held)) if more is None else more
