"""Prompt sets: the texts that describe each class to a zero-shot model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from closerlook_common.errors import UserError, nearest
from closerlook_common.input_files import read_json_file, read_text_file
from extract.classes.constants import constants_of
from extract.classes.names import ClassNames, class_names
from extract.classes.spaces import ClassSpace

SLOT = "{}"
DEFAULT_PROMPT_SET = "openai-80"

_FIVE = (39, 32, 0, 33, 20)
_THIRTY = 30


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class PromptSet:
    """Templates that every class name is put into, or texts of their own for each class.

    Attributes
    ----------
    name
        What it is called on the command line and in the cache.
    templates
        Each holds ``{}`` once or more, where the class name goes; nothing else in braces is interpreted.
    descriptions
        Finished texts by class (its name, WordNet id or index as text), for sets without templates.
    class_names
        What templates call the classes; None: the class space's own names.
    """

    name: str
    templates: tuple[str, ...] = ()
    descriptions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    class_names: ClassNames | None = None

    def __post_init__(self) -> None:
        if bool(self.templates) == bool(self.descriptions):
            raise UserError(f"prompt set {self.name!r} needs either templates or texts by class")
        for template in self.templates:
            if SLOT not in template:
                raise UserError(f"prompt set {self.name!r}: no {SLOT} for the class name in {template!r}")

    def __hash__(self) -> int:
        return hash((self.name, self.digest))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the templates (or texts by class) and class names themselves, whatever they are called."""
        texts = {key: list(value) for key, value in sorted(self.descriptions.items())}
        given = texts or list(self.templates)
        return _sha256(given if self.class_names is None else [given, self.class_names.digest])

    def names(self, space: ClassSpace) -> tuple[str, ...]:
        """Return what the templates call the classes of a space, by index."""
        return space.names if self.class_names is None else self.class_names.of(space)

    def texts(self, space: ClassSpace) -> list[tuple[str, ...]]:
        """Return the finished texts of every class, by index.

        Raises
        ------
        UserError
            A class has no description, or the class names are not those of this space.
        """
        if self.templates:
            return [tuple(t.replace(SLOT, name) for t in self.templates) for name in self.names(space)]
        return [self._described(space, index) for index in range(len(space.names))]

    def _described(self, space: ClassSpace, index: int) -> tuple[str, ...]:
        # The index comes first: names may repeat.
        keys = [str(index), *([space.wnids[index]] if space.wnids else []), space.names[index]]
        for key in keys:
            if key in self.descriptions:
                return self.descriptions[key]
        missing = space.names[index]
        raise UserError(
            f"prompt set {self.name!r} has no texts for class {index} ({missing!r}) of {space.id}"
            f"{nearest(missing, self.descriptions)}"
        )

    def digest_for(self, space: ClassSpace) -> str:
        """SHA-256 of the finished texts of every class, in order: what the text tower is given."""
        return _sha256([list(texts) for texts in self.texts(space)])

    def digests_for(self, space: ClassSpace) -> dict[str, str]:
        """Return the digests of the templates, of the class names, and of the finished texts, for a head's record."""
        names = self.class_names
        return {
            "prompt_set_digest": self.digest,
            "class_names": "" if names is None else names.name,
            "class_names_digest": space.digest if names is None else names.digest,
            "texts_digest": self.digest_for(space),
        }

    def columns(self, space: ClassSpace) -> Iterator[tuple[tuple[int, ...], tuple[str, ...]]]:
        """Iterate over (class indices, one text for each), template by template.

        A template that several sets share gives the same column in each, so that its embeddings can be
        shared.
        """
        texts = self.texts(space)
        for position in range(max(map(len, texts))):
            members = tuple(index for index, own in enumerate(texts) if position < len(own))
            yield members, tuple(texts[index][position] for index in members)


def _openai(names: str) -> tuple[str, ...]:
    return tuple(template(SLOT) for template in getattr(constants_of("open_clip", "zero_shot_metadata"), names))


def _photos() -> tuple[str, ...]:
    return tuple(t for t in _openai("OPENAI_IMAGENET_TEMPLATES") if "photo" in t.split())


def _study_5() -> tuple[str, ...]:
    templates = _openai("OPENAI_IMAGENET_TEMPLATES")
    return tuple(templates[index] for index in _FIVE)


_BUILT_IN: Mapping[str, Callable[[], tuple[str, ...]]] = {
    "openai-80": lambda: _openai("OPENAI_IMAGENET_TEMPLATES"),
    "openai-7": lambda: _openai("SIMPLE_IMAGENET_TEMPLATES"),
    "photo-1": lambda: ("a photo of a {}.",),
    "study-5": _study_5,
    "study-30": lambda: _photos()[:_THIRTY],
}

PROMPT_SETS: Mapping[str, str] = {
    "openai-80": "the 80 ImageNet templates of the CLIP paper, as open_clip has them",
    "openai-7": "the 7 of them that its authors found to be enough",
    "photo-1": "'a photo of a {}.'",
    "study-5": "5 of the 80: a/the photo, a bad, a good, a close-up photo (the study's 5 are not public)",
    "study-30": "the first 30 of the 80 that speak of a photo (the study's 30 are not public)",
}
"""Built-in prompt sets: name -> what it is. photo-1, study-5, study-30 and openai-80 are nested."""


def split_names(text: str) -> tuple[str, str]:
    """Return a prompt set's own name or file, and that of the class names put into it (or an empty string).

    Examples
    --------
    >>> split_names("openai-80@names.txt"), split_names("me@home/mine.txt")
    (('openai-80', 'names.txt'), ('me@home/mine.txt', ''))
    """
    for place in (index for index, letter in enumerate(text) if letter == "@"):
        if text[:place] in PROMPT_SETS or text[:place].endswith((".txt", ".json")):
            return text[:place], text[place + 1 :]
    return text, ""


def _renamed(prompts: PromptSet, names: ClassNames) -> PromptSet:
    if prompts.descriptions:
        raise UserError(f"prompt set {prompts.name!r} has texts by class; class names have no place in them")
    return PromptSet(f"{prompts.name}@{names.name}", prompts.templates, class_names=names)


@cache
def _built_in(name: str) -> PromptSet:
    return PromptSet(name, _BUILT_IN[name]())


def prompt_set(name: str | Path) -> PromptSet:
    """Return a built-in prompt set by name, or read one from a ``.txt`` or ``.json`` file.

    Parameters
    ----------
    name
        One of ``PROMPT_SETS``, or a path. A ``.txt`` file holds a template a line; a ``.json`` file a list of
        templates, or an object {class: [texts]}, classes given by name, WordNet id or index. The class name
        goes where a template says ``{}`` or ``{c}``. ``SET@NAMES`` puts other class names into the templates of a set:
        see `extract.classes.names.class_names`.

    Raises
    ------
    UserError
        No such set or file, or the file holds something else.

    Examples
    --------
    >>> prompt_set("photo-1").templates
    ('a photo of a {}.',)
    """
    text, called = split_names(str(name))
    if called:
        return _renamed(prompt_set(text), class_names(called))
    if text in PROMPT_SETS:
        return _built_in(text)
    path = Path(text)
    if path.suffix not in (".txt", ".json"):
        raise UserError(
            f"no prompt set {text!r}; there are {', '.join(PROMPT_SETS)}, or a .txt or .json file"
            f"{nearest(text, PROMPT_SETS)}"
        )
    if path.stem in PROMPT_SETS:
        raise UserError(f"prompt file {path} is called like a built-in set; give it another name")
    if path.suffix == ".txt":
        lines = [line.strip() for line in read_text_file(path, "prompt file").splitlines()]
        return PromptSet(path.stem, _templates([line for line in lines if line and not line.startswith("#")], path))
    data = read_json_file(path, "prompt file")
    if isinstance(data, dict):
        return PromptSet(path.stem, descriptions={key: _texts(value, path) for key, value in data.items()})
    return PromptSet(path.stem, _templates(data, path))


def _texts(value: object, path: Path) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise UserError(f"prompt file {path}: each class needs a list of texts, not {value!r}")
    return tuple(texts)


def _templates(value: object, path: Path) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(text, str) for text in value):
        raise UserError(f"prompt file {path} holds no list of templates")
    return tuple(template.replace("{c}", SLOT) for template in value)
