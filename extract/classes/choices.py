"""Questions with options: what is asked about one image, and the classes that its options are."""

from __future__ import annotations

import string
from dataclasses import dataclass

from extract.classes.spaces import ClassSpace

LEAST, MOST = 2, 10
LETTERS = string.ascii_uppercase[:MOST]
_CHOICES = "choices-"


@dataclass(frozen=True)
class Choice:
    """A question about an image.

    Attributes
    ----------
    question
        Its text; empty for what the model's line asks.
    options
        Two to ten answers, of which one is right.
    """

    question: str
    options: tuple[str, ...]


def choices_space(count: int) -> ClassSpace:
    """Return the class space of questions with at most so many options: their letters.

    Examples
    --------
    >>> choices_space(3)
    ClassSpace(id='choices-3', names=('A', 'B', 'C'), wnids=None)
    """
    return ClassSpace(f"{_CHOICES}{count}", tuple(LETTERS[:count]))


def is_choices(space: ClassSpace) -> bool:
    """Return whether a class space is that of questions with options."""
    return space.id.startswith(_CHOICES) and space == choices_space(len(space))
