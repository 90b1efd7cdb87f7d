"""Lists of words that zero-shot models embed once: negative labels, concepts."""

from __future__ import annotations

from pathlib import Path

from closerlook_common.errors import UserError
from closerlook_common.input_files import read_text_file
from extract.classes.prompts import PROMPT_SETS, PromptSet, prompt_set
from extract.classes.spaces import ClassSpace

WORDS = "words-"
"""Begins the name of a class space that is a list of words; the file's name follows."""
DEFAULT_SET = "photo-1"


def is_words(space: ClassSpace) -> bool:
    """Return whether a class space is a list of words."""
    return space.id.startswith(WORDS)


def split_words(text: str) -> tuple[str, str]:
    """Return the file and the prompt set of ``FILE[:SET]``.

    Examples
    --------
    >>> split_words("nouns.txt"), split_words("nouns.txt:mine.txt"), split_words("C:/nouns.txt")
    (('nouns.txt', 'photo-1'), ('nouns.txt', 'mine.txt'), ('C:/nouns.txt', 'photo-1'))
    """
    file, colon, name = text.rpartition(":")
    is_set = bool(colon) and (name in PROMPT_SETS or (Path(file).suffix != "" and bool(name)))
    return (file, name) if is_set else (text, DEFAULT_SET)


def word_list(text: str) -> tuple[ClassSpace, PromptSet]:
    """Read a list of words, one a line, and the prompt set that they are put into.

    Parameters
    ----------
    text
        ``FILE`` or ``FILE:SET``; the set is ``photo-1`` where none is named. Blank lines do not count.

    Returns
    -------
    space, prompts
        The space is called ``words-`` and the file's name without its ending; its digest is of the words.

    Raises
    ------
    UserError
        The file cannot be read or holds no word, a word is there twice, or the prompt set has no templates.
    """
    name, of_set = split_words(text)
    lines = read_text_file(Path(name), "list of words").splitlines()
    first: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        word = line.strip()
        if word in first:
            raise UserError(f"{name}, line {number}: {word[:60]!r} is there already, in line {first[word]}")
        if word:
            first[word] = number
    if not first:
        raise UserError(f"{name} holds no words; it is a text file with a word a line")
    prompts = prompt_set(of_set)
    if not prompts.templates:
        raise UserError(f"{text}: {prompts.name} has texts of its own for each class, no templates for words")
    return ClassSpace(f"{WORDS}{Path(name).stem}", tuple(first)), prompts


def word_lists(texts: tuple[str, ...]) -> tuple[tuple[ClassSpace, PromptSet], ...]:
    """Return several lists of words; UserError where two files or prompt sets share a name."""
    found: dict[tuple[str, str], tuple[ClassSpace, PromptSet]] = {}
    for text in texts:
        space, prompts = word_list(text)
        given = found.setdefault((space.id, prompts.name), (space, prompts))
        if (given[0].digest, given[1].digest) != (space.digest, prompts.digest):
            raise UserError(f"two lists of words are called {space.id.removeprefix(WORDS)!r}: rename a file")
    return tuple(found.values())
