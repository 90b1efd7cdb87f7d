"""What a model is asked about an image, and which answers are scored: the options of a line as a value."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from closerlook_common.errors import UserError, nearest
from extract.models.spec import ModelSpec, shown

ANSWERS = ("names", "letters")
NORMALIZE = ("none", "tokens", "characters")
OPTIONS = "{options}"
SLOT = "{}"

QUESTIONS = {
    "names": "What is the main object in this image? Answer with its name only.",
    "letters": "Which of these is the main object in this image?",
}
"""Kind of answers -> what is asked where a line has no ``question``."""

INSTRUCTION = "Answer with the option's letter from the given choices directly."
"""Follows the options of a question that is answered with letters, as LLaVA is evaluated."""

LINE_OPTIONS: Mapping[str, str] = {
    "question": "what is asked about every image; {options} in it is replaced by the classes, \\n by a new line",
    "answers": "what is scored: names (default; the name of each class) or letters (the question lists the classes as"
    " A, B, C ..., at most 26)",
    "answer": "text that each class name is put into, at {}; the name alone where it is left out",
    "template": "prompt of a model without a chat template: {image} is where the image goes, {question} the question",
    "normalize": "what the log-likelihood of an answer is divided by: none (default), tokens or characters",
    "end": "yes counts the end of the answer as one more token; no (default) does not",
}
"""Options of a line that say what is asked -> what they mean."""


@dataclass(frozen=True)
class Question:
    """What is asked, and how answers are scored.

    Attributes
    ----------
    text
        The question, before the classes are put into it.
    answers
        ``names`` or ``letters``.
    answer
        Text with ``{}`` for the class name.
    template
        The whole prompt; empty for the model's chat template.
    normalize
        ``none``, ``tokens`` or ``characters``.
    end
        Whether the token that ends an answer is counted.
    """

    text: str
    answers: str = "names"
    answer: str = SLOT
    template: str = ""
    normalize: str = "none"
    end: bool = False

    def asked(self, names: Sequence[str]) -> str:
        """Return the question about classes, with their names where it lists them."""
        if self.answers == "names":
            return self.text.replace(OPTIONS, ", ".join(names))
        lines = "\n".join(f"{letter}. {name}" for letter, name in zip(string.ascii_uppercase, names, strict=False))
        if OPTIONS in self.text:
            return self.text.replace(OPTIONS, lines)
        return f"{self.text}\n{lines}\n{INSTRUCTION}"

    def texts(self, names: Sequence[str]) -> list[str]:
        """Return the answer of each class.

        Raises
        ------
        UserError
            There are more classes than letters; the message begins with "it".
        """
        if self.answers == "names":
            return [self.answer.replace(SLOT, name) for name in names]
        if len(names) > len(string.ascii_uppercase):
            raise UserError(
                f"it would answer with letters, and there are {len(names):,} classes; answers=letters takes at most"
                f" {len(string.ascii_uppercase)}, answers=names any number"
            )
        return list(string.ascii_uppercase[: len(names)])


def question_of(spec: ModelSpec) -> Question:
    """Return what a line asks.

    Raises
    ------
    UserError
        An option has a value that it does not take.
    """
    answers = _one_of(spec, "answers", ANSWERS)
    answer = _text(spec, "answer") or SLOT
    if SLOT not in answer:
        raise UserError(f"{spec.where}: answer={shown(answer)!r} has no {SLOT} for the class name")
    if answers == "letters" and answer != SLOT:
        raise UserError(f"{spec.where}: answer= is for answers=names; with answers=letters the letter is the answer")
    template = _text(spec, "template")
    if template and "{question}" not in template:
        raise UserError(f"{spec.where}: template={shown(template)!r} has no {{question}} for the question")
    text = _text(spec, "question") or QUESTIONS[answers]
    return Question(text, answers, answer, template, _one_of(spec, "normalize", NORMALIZE), bool(spec.flag("end")))


def question_for(line: Question, asked: str) -> Question:
    """Return a question of a table as a model's line has questions put.

    Parameters
    ----------
    line
        What the line says: the template, whether the end counts, and the question where the table has none.
    asked
        The table's question; empty for the line's, or for the usual one.
    """
    own = QUESTIONS["letters"] if line.text in QUESTIONS.values() else line.text
    return replace(line, text=asked or own, answers="letters")


def _text(spec: ModelSpec, option: str) -> str:
    return spec.options.get(option, "").replace("\\n", "\n")


def _one_of(spec: ModelSpec, option: str, known: Sequence[str]) -> str:
    value = spec.options.get(option, known[0])
    if value not in known:
        raise UserError(
            f"{spec.where}: {option}={shown(value)} is not one of {', '.join(known)}{nearest(shown(value), known)}"
        )
    return value
