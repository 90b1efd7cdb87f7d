"""One line of a model list as a value: library, name, weight file, id and options, with readers for option values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from closerlook_common.errors import UserError

COMMON_OPTIONS: Mapping[str, str] = {
    "checkpoint": "weight file, .safetensors or a torch file that holds nothing but tensors",
    "id": "name in every table; the model's own name otherwise",
    "group": "group of the study",
    "source": "training source",
    "source_size": "its number of images",
    "samples_seen": "training samples seen",
    "family": "cnn, vit, hybrid or mlp",
    "lineage": "what near-copies share, BACKBONE/RUN/CHECKPOINT or any name: statistics count them as one family",
    "licence": "of the weights",
    "mean": "three numbers or one, comma-separated",
    "std": "three numbers or one, comma-separated",
    "interpolation": "bilinear, bicubic ...",
    "resize_mode": "shortest, longest or squash",
    "input_size": "side of the input in pixels",
    "precision": "of this model: fp32, bf16 or fp16",
    "ema": "of a checkpoint with both, yes (default) takes the moving average of the weights, no the weights",
    "allow_random": "yes: run with random weights, for tests",
    "seed": "of random weights",
}
"""Keys that a line of any library takes -> what they mean."""

CLASSIFIER_OPTIONS: Mapping[str, str] = {
    "classes": "what a fixed head answers in: imagenet-1k, a dataset of the run, or a .txt file with a class name a"
    " line, in the order of the outputs",
    "class_order": "how the dataset's class folders were sorted in training, where classes= names it: timm (c2"
    " before c10, case ignored) or torchvision (c10 before c2, capitals first)",
    "num_classes": "classes of a fixed head, where the checkpoint does not give them",
}
"""Keys that lines of libraries with classifiers take besides."""

DESCRIBING_OPTIONS = ("group", "source", "source_size", "samples_seen", "family", "lineage", "licence")
"""What colours and sorts tables and figures, and changes no number of a model."""

_LARGEST_NUMBER = 1 << 63
_SHOWN = 80


def shown(text: str) -> str:
    """Return a text for a message, cut to 80 characters."""
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


@dataclass(frozen=True)
class ModelSpec:
    """One line of a model list, with wildcards expanded.

    Attributes
    ----------
    library
        Name of the library, as in `extract.libraries.registry`.
    name
        What the library calls the model; see ``extract help models``.
    checkpoint
        Local weight file, if given.
    id
        Name in every table; the model's name where it is empty.
    options
        The other keys of the line, as text; paths are absolute.
    where
        File and line it came from, for messages.
    """

    library: str
    name: str
    checkpoint: Path | None = None
    id: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    where: str = ""

    def __post_init__(self) -> None:
        if not self.id:
            object.__setattr__(self, "id", self.name)

    def __hash__(self) -> int:
        return hash((self.library, self.name, self.checkpoint, self.id, tuple(sorted(self.options.items()))))

    def is_run_like(self, other: ModelSpec, confirming: Sequence[str] = ()) -> bool:
        """Return whether two lines give the same numbers, however each of them describes the model.

        Parameters
        ----------
        other
            The other line.
        confirming
            The library's options that a line needs only where it would be an error without them.
        """
        if (self.library, self.name, self.checkpoint) != (other.library, other.name, other.checkpoint):
            return False
        keys = {*self.options, *other.options}.difference(DESCRIBING_OPTIONS)
        keys -= {key for key in confirming if self.flag(key) is None or other.flag(key) is None}
        return all(self.options.get(key) == other.options.get(key) for key in keys)

    def flag(self, option: str) -> bool | None:
        """Return a yes/no option, or None where the line does not set it."""
        value = self.options.get(option, "").lower()
        if not value:
            return None
        if value not in ("yes", "no", "true", "false"):
            raise UserError(f"{self.where}: {option}={value} is neither yes nor no")
        return value in ("yes", "true")

    def number(self, option: str) -> int | None:
        """Return a whole-number option, or None; ``2e9`` and ``2_000_000_000`` are the same number."""
        value = self.options.get(option)
        if value is None:
            return None
        try:
            number: float = int(value) if value.lstrip("+-").isdecimal() else float(value)
        except ValueError:
            number = float("nan")
        if not (float(number).is_integer() and 0 <= number < _LARGEST_NUMBER):
            raise UserError(f"{self.where}: {option}={shown(value)} is not a whole number from 0 to 2^63")
        return int(number)

    def numbers(self, option: str) -> tuple[float, ...] | None:
        """Return a comma-separated option, or None."""
        value = self.options.get(option)
        if value is None:
            return None
        try:
            numbers = tuple(float(part) for part in value.split(","))
        except ValueError:
            numbers = (math.nan,)
        if not all(map(math.isfinite, numbers)):
            raise UserError(f"{self.where}: {option}={shown(value)} is not a list of numbers")
        return numbers


@dataclass(frozen=True)
class Line:
    """A line of a model list as it is written, before its library has looked at the name.

    Attributes
    ----------
    library, name
        The two parts of ``LIBRARY:NAME``.
    checkpoint
        Absolute path, if given.
    id
        Empty where the line gives none.
    options
        The other keys; paths are absolute.
    where
        File and line, for messages.
    folder
        What relative paths in the name are relative to.
    """

    library: str
    name: str
    checkpoint: Path | None
    id: str
    options: Mapping[str, str]
    where: str
    folder: Path

    @property
    def brings_weights(self) -> bool:
        """Whether the weights come from the line: a checkpoint, or random ones."""
        return self.checkpoint is not None or self.options.get("allow_random", "").lower() in ("yes", "true")

    def absolute(self, path: str) -> Path:
        """Return a path of this line as an absolute one."""
        return (self.folder / Path(path).expanduser()).absolute()

    def spec(self, name: str = "", *, id: str = "") -> ModelSpec:
        """Return the model of this line, by its full name and with an id for lines that give none."""
        return ModelSpec(
            self.library, name or self.name, self.checkpoint, self.id or id, dict(self.options), self.where
        )

    def match(self, name: str) -> ModelSpec:
        """Return one of several models that this line stands for."""
        return replace(self.spec(name), id=name)
