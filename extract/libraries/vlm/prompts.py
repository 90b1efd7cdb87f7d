"""A question as the text that a model reads, and its answers as the tokens that follow that text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from closerlook_common.errors import UserError
from extract.libraries.vlm.questions import Question

_MARK = "ANSWER"
"""An answer whose place in a rendered conversation is looked up."""


@dataclass(frozen=True)
class Prompt:
    """What a model reads before it answers.

    Attributes
    ----------
    text
        The prompt, with one placeholder for the image.
    separator
        What stands between the prompt and an answer.
    after
        What the chat template puts after an answer.
    adds_specials
        Whether the tokenizer adds its special tokens; not where the text begins with one.
    """

    text: str
    separator: str
    after: str
    adds_specials: bool


@dataclass(frozen=True)
class Answers:
    """Answers as tokens.

    Attributes
    ----------
    dropped
        Tokens at the end of the prompt that are scored with the answers instead, because a tokenizer joins them with
        what follows.
    tokens
        Of each answer, from the first one after the remaining prompt.
    """

    dropped: int
    tokens: tuple[tuple[int, ...], ...]


def prompt_of(processor: Any, question: Question, names: Sequence[str]) -> Prompt:
    """Return the prompt of a question about classes.

    Parameters
    ----------
    processor
        Of the model.
    question
        What is asked.
    names
        Of the classes.

    Raises
    ------
    UserError
        The model has no chat template and the line no ``template``; the message begins with "it" or "its".
    """
    asked = question.asked(names)
    if question.template:
        text, separator, after = _filled(processor, question.template, asked), None, ""
    else:
        if not _has_chat_template(processor):
            raise UserError(
                "it has no chat template: say template= with the prompt that it was trained on, such as"
                ' template="{image}\\nQuestion: {question} Answer:"'
            )
        turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": asked}]}]
        text = _rendered(processor, turns, opens_answer=True)
        separator, after = _around_answer(processor, turns, text)
    if separator is None:
        separator = "" if text[-1:].isspace() else " "
    start = getattr(processor.tokenizer, "bos_token", None)
    return Prompt(text, separator, after, not (start and text.startswith(start)))


def _has_chat_template(processor: Any) -> bool:
    return bool(getattr(processor, "chat_template", None) or getattr(processor.tokenizer, "chat_template", None))


def _filled(processor: Any, template: str, asked: str) -> str:
    if "{image}" in template:
        image = getattr(processor, "image_token", None)
        if not isinstance(image, str):
            raise UserError(
                f"its processor ({type(processor).__name__}) names no image token: write the token itself into"
                " template=, in place of {image}"
            )
        template = template.replace("{image}", image)
    return template.replace("{question}", asked)


def _rendered(processor: Any, turns: list[dict[str, Any]], *, opens_answer: bool) -> str:
    try:
        text = processor.apply_chat_template(turns, add_generation_prompt=opens_answer, tokenize=False)
    except Exception as error:  # whatever the code of a template raises
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"its chat template cannot be used ({type(error).__name__}: {reason})") from error
    return str(text)


def _around_answer(processor: Any, turns: list[dict[str, Any]], text: str) -> tuple[str | None, str]:
    """Return what a chat template puts between prompt and answer, None where it does not show, and after the answer."""
    answer = {"role": "assistant", "content": [{"type": "text", "text": _MARK}]}
    try:
        whole = _rendered(processor, [*turns, answer], opens_answer=False)
    except UserError:  # it takes no answers
        return None, ""
    before, found, after = whole.removeprefix(text).partition(_MARK)
    return (before, after) if found and whole.startswith(text) else (None, "")


def answers_of(processor: Any, prompt: Prompt, texts: Sequence[str], *, end: bool) -> Answers:
    """Return the tokens of answers, each tokenized together with the prompt.

    A tokenizer may join the end of a prompt with the beginning of an answer (a space with the word after it). The
    tokens that it changes are then scored with the answers, so that every answer is tokenized as in running text.

    Parameters
    ----------
    processor
        Of the model.
    prompt
        What stands before the answers.
    texts
        The answers.
    end
        Whether the token that ends an answer is added.

    Raises
    ------
    UserError
        An answer has no tokens, or the tokenizer has no token that ends one; the message begins with "it" or "its".
    """
    tokenizer = processor.tokenizer
    alone = _tokens(tokenizer, prompt.text)
    whole = [_tokens(tokenizer, prompt.text + prompt.separator + text) for text in texts]
    shared = min(_shared(alone, tokens) for tokens in whole)
    ending = (_end_token(tokenizer, prompt),) if end else ()
    found = tuple((*tokens[shared:], *ending) for tokens in whole)
    nothing = _tokens(tokenizer, prompt.text + prompt.separator)
    for text, tokens in zip(texts, whole, strict=True):
        if tokens == nothing:
            raise UserError(f"its tokenizer makes no tokens of the answer {text!r}")
    return Answers(len(alone) - shared, found)


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def _shared(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens two texts begin with in common."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count


def _end_token(tokenizer: Any, prompt: Prompt) -> int:
    after = _tokens(tokenizer, prompt.after)[:1]
    if after and (after[0] in tokenizer.all_special_ids or after[0] in tokenizer.added_tokens_decoder):
        return after[0]
    if tokenizer.eos_token_id is None:
        raise UserError("its tokenizer has no token that ends an answer; remove end=yes")
    return int(tokenizer.eos_token_id)
