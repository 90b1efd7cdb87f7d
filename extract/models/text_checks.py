"""Texts as a text tower gets them: class names that its context cuts off, and classes that its tokenizer makes one."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from closerlook_common.errors import UserError
from extract.classes.prompts import SLOT, PromptSet
from extract.classes.spaces import ClassSpace

_SPECIAL = 8
"""Tokens that a tokenizer may put around a text; the rest are at most one a byte."""
_ALIKE = 1e-5
_BATCH = 4096


def check_lengths(tokenizer: Any, prompts: PromptSet, space: ClassSpace) -> None:
    """Raise where a template is so long that the text context cuts the class name.

    What follows the name may be cut, as it is by every tokenizer. Prompt sets of finished texts have no name that is
    known to be one.

    Parameters
    ----------
    tokenizer
        open_clip's.
    prompts
        Templates or texts.
    space
        The classes.

    Raises
    ------
    UserError
        Names the template and the first class.
    """
    length = int(tokenizer.context_length)
    names = prompts.names(space)
    for template in prompts.templates:
        before = template.partition(SLOT)[0]
        long = [name for name in names if len((before + name).lower().encode()) + _SPECIAL > length]
        cut = [
            name for name, lost in zip(long, is_cut(tokenizer, [before + name for name in long]), strict=True) if lost
        ]
        if cut:
            others = f" and {len(cut) - 1} more" if len(cut) > 1 else ""
            raise UserError(
                f"the text tower reads {length} tokens, which cuts the class name {cut[0]!r}{others} off the prompt"
                f" {_shown(template)!r}; shorten the prompt, or the name with another set of class names"
            )


def cut_of(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Return the numbers of the texts that are cut; texts of few bytes need no tokens to be known as whole."""
    length = int(tokenizer.context_length)
    long = [number for number, text in enumerate(texts) if len(text.lower().encode()) + _SPECIAL > length]
    return [number for number, lost in zip(long, is_cut(tokenizer, [texts[i] for i in long]), strict=True) if lost]


def is_cut(tokenizer: Any, texts: Sequence[str]) -> list[bool]:
    """Return which texts have more tokens than the tokenizer's context length."""
    found: list[bool] = []
    for start in range(0, len(texts), _BATCH):
        batch = list(texts[start : start + _BATCH])
        longest = max(len(text.lower().encode()) for text in batch) + int(tokenizer.context_length) + _SPECIAL
        short, whole = tokenizer(batch), tokenizer(batch, context_length=longest)
        if getattr(tokenizer, "tokenizer_mode", "") == "clips":  # its last token is at the very end
            short, whole = short[:, :-1], whole[:, :-1]
        inner = getattr(tokenizer, "tokenizer", None)
        padding = 0 if inner is None else inner.pad_token_id
        n = short.shape[1]
        right = (whole[:, :n] == short).all(1) & (whole[:, n:] == padding).all(1)
        left = (whole[:, -n:] == short).all(1) & (whole[:, :-n] == padding).all(1)
        found += (~(right | left)).tolist()
    return found


def check_rows(tokenizer: Any, prompts: PromptSet, space: ClassSpace, rows: NDArray[np.floating]) -> None:
    """Raise where classes of different texts have one and the same row, since their tokens are the same.

    Parameters
    ----------
    tokenizer, prompts, space
        As in `check_lengths`.
    rows
        (C, D), of unit norm.

    Raises
    ------
    UserError
        Names two such classes.
    """
    texts = prompts.texts(space)
    classes: dict[bytes, list[int]] = defaultdict(list)
    for index in _with_a_twin(rows):
        tokens: torch.Tensor = tokenizer(list(texts[index]))
        classes[hashlib.sha256(tokens.cpu().numpy().tobytes()).digest()].append(index)
    for members in classes.values():
        first = members[0]
        if (other := next((i for i in members if texts[i] != texts[first]), None)) is None:
            continue
        cut = any(is_cut(tokenizer, [texts[first][0], texts[other][0]]))
        why = "cut at its context length" if cut else "once the tokenizer has cleaned them"
        raise UserError(
            f"the prompts of class {first} ({_shown(texts[first][0])!r}) and class {other}"
            f" ({_shown(texts[other][0])!r}) are the same to the text tower, {why}; change the prompts or the names"
        )


def _with_a_twin(rows: NDArray[np.floating]) -> list[int]:
    """Return the rows that may equal another: close along a fixed direction, and close to a neighbour there."""
    direction = np.random.default_rng(0).standard_normal(rows.shape[1])
    along = rows @ (direction / np.linalg.norm(direction))
    order = np.argsort(along)
    near = np.flatnonzero(np.diff(along[order]) < _ALIKE)
    return sorted({int(order[place]) for start in near for place in (start, start + 1)})


def _shown(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
