"""Which templates of stored prompt sets count, and how much each."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from closerlook_common.errors import UserError, nearest

WEIGHTS: Mapping[str, str] = {
    "head": "the mean embedding of each class at unit length, as in the model's own head",
    "logits": "the mean of the templates' logits",
    "zpe": "their mean with the weights of zero-shot prompt ensembling (Allingham et al. 2023)",
}
"""How templates are taken together: name -> what it is."""

_NUMBERS = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_LONGEST = 40
"""Characters of a list of numbers in a name; a longer one is named by its digest."""


@dataclass(frozen=True)
class TemplateChoice:
    """Templates, and how they are taken together.

    Attributes
    ----------
    only, without
        Templates that count, and templates that do not: numbers from 0 (``0-4,7``), or patterns of their text with
        ``*`` and ``?``. All count where both are empty.
    weights
        One of ``WEIGHTS``.
    pretraining
        With ``zpe``: the set whose mean logits are subtracted besides those of the images; empty for none.
    """

    only: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    weights: str = "head"
    pretraining: str = ""

    def __post_init__(self) -> None:
        """Check the names."""
        if self.weights not in WEIGHTS:
            known = nearest(self.weights, WEIGHTS) or f"; they are {', '.join(WEIGHTS)}"
            raise UserError(f"`weights` {self.weights!r} is not known{known}")

    @property
    def needs_texts(self) -> bool:
        """Whether heads need the embeddings of single templates."""
        return bool(self.only or self.without or self.weights != "head")

    def numbers(self, templates: Sequence[str], name: str) -> tuple[int, ...]:
        """Return the numbers of the templates that count, ascending.

        Parameters
        ----------
        templates
            Of the prompt set.
        name
            What the prompt set is called, for errors.

        Raises
        ------
        UserError
            A number or pattern fits no template, or none is left.
        """
        kept = set(range(len(templates)))
        if self.only:
            kept = set().union(*(_matching(word, templates, name) for word in self.only))
        for word in self.without:
            kept -= _matching(word, templates, name)
        if not kept:
            raise UserError(f"no template of {name} is left")
        return tuple(sorted(kept))

    def named(self, name: str, numbers: Sequence[int], of: int) -> str:
        """Return what a prompt set is called with these templates: ``openai-80:0-4 7:zpe:laion``."""
        parts = [name]
        if len(numbers) < of:
            parts.append(ranges(numbers))
        if self.weights != "head":
            parts += [self.weights, *filter(None, [self.pretraining])]
        return ":".join(parts)

    def __str__(self) -> str:
        """Return the choice in words, empty where it is all templates as in the head."""
        chosen = [*self.only, *(f"without {word}" for word in self.without)]
        weighted = [] if self.weights == "head" else [self.weights, *filter(None, [self.pretraining])]
        return ":".join([", ".join(chosen)] * bool(chosen) + weighted)


ALL_TEMPLATES = TemplateChoice()
"""Every template, taken together as in the model's own head."""


def _matching(word: str, templates: Sequence[str], name: str) -> set[int]:
    if _NUMBERS.fullmatch(word):
        parts = [_range_of(part, len(templates)) for part in word.split(",")]
        if not all(parts):
            raise UserError(f"no templates {word[:40]} in {name}: its templates are 0 to {len(templates) - 1}")
        return set(itertools.chain.from_iterable(parts))
    found = {number for number, text in enumerate(templates) if fnmatchcase(text.lower(), word.lower())}
    if not found:
        close = nearest(word.strip("*"), templates) or f"; the first is {templates[0]!r}"
        raise UserError(f"no template of {name} is like {word!r}{close}")
    return found


def _range_of(text: str, count: int) -> range:
    """Return the numbers that ``3`` or ``0-4`` names; none where they are not all below a count."""
    first, _, last = text.partition("-")
    if max(len(first.lstrip("0")), len(last.lstrip("0"))) > len(str(count)):  # before digits without end are read
        return range(0)
    found = range(int(first), int(last or first) + 1)
    return found if found and found[-1] < count else range(0)


def ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers as ``0-4 7``; many of them as how many there are, with a digest.

    Examples
    --------
    >>> ranges([0, 1, 2, 4, 7, 8])
    '0-2 4 7-8'
    """
    runs = []
    for _, run in itertools.groupby(enumerate(numbers), key=lambda item: item[1] - item[0]):
        members = [number for _, number in run]
        runs.append(str(members[0]) if len(members) == 1 else f"{members[0]}-{members[-1]}")
    text = " ".join(runs)
    if len(text) <= _LONGEST:
        return text
    return f"{len(numbers)} templates {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def count_of(name: str) -> int | None:
    """Return how many templates a prompt set's name says it has; None where it says nothing, or weights them.

    Examples
    --------
    >>> [count_of(name) for name in ("openai-80", "photo-1+study-5", "openai-80:0-4 7", "openai-80:zpe", "mine")]
    [80, 6, 6, None, None]
    """
    sets, *parts = name.split(":")
    if not parts:
        sizes = [re.search(r"-(\d+)$", part) for part in sets.split("+")]
        return sum(int(size.group(1)) for size in sizes if size) if all(sizes) else None
    if len(parts) > 1:
        return None
    if counted := re.fullmatch(r"(\d+) templates [0-9a-f]{8}", parts[0]):
        return int(counted.group(1))
    if not re.fullmatch(r"\d+(-\d+)?( \d+(-\d+)?)*", parts[0]):
        return None
    bounds = [part.partition("-") for part in parts[0].split()]
    return sum(int(last or first) - int(first) + 1 for first, _, last in bounds)
