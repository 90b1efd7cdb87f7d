"""A text file of models in, specifications out: names checked against the libraries before anything is
loaded.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cache_schema.errors import UserError, nearest
from extract.zoo.library_names import full_name, matching_names

LIBRARIES = ("timm", "open_clip")
PREFIXES = ("hf-hub:", "local-dir:")
"""Names that the libraries resolve themselves: a repository on the hub, a folder with a config and weights.
"""

OPTIONS: Mapping[str, str] = {
    "checkpoint": "weight file, .safetensors or a torch file that holds nothing but tensors",
    "config": "open_clip: JSON file with embed_dim, vision_cfg, text_cfg (and preprocess_cfg)",
    "id": "name in every table; the model's own name otherwise",
    "group": "group of the study",
    "source": "training source",
    "source_size": "its number of images",
    "samples_seen": "training samples seen",
    "family": "cnn, vit, hybrid or mlp",
    "licence": "of the weights",
    "classes": "what a fixed head answers in: imagenet-1k, a dataset of the run, or a .txt file of names by index",
    "num_classes": "classes of a fixed head, where the checkpoint does not tell",
    "mean": "three numbers or one, comma-separated",
    "std": "three numbers or one, comma-separated",
    "interpolation": "bilinear, bicubic ...",
    "resize_mode": "shortest, longest or squash",
    "crop_pct": "timm: share of the resized image that is kept",
    "input_size": "side of the input in pixels",
    "precision": "of this model: fp32, bf16 or fp16",
    "ema": "of a checkpoint with both, yes (default) takes the moving average of the weights, no the weights",
    "quick_gelu": "open_clip: yes or no, where config and weights disagree",
    "allow_random": "yes: run with random weights, for tests",
    "seed": "of random weights",
}
"""Keys of a line -> what they mean."""

DESCRIBING_OPTIONS = ("group", "source", "source_size", "samples_seen", "family", "licence")
"""What colours and sorts tables and figures, and changes no number of a model."""

PATH_OPTIONS = ("checkpoint", "config")
ONE_MODEL_OPTIONS = ("checkpoint", "config", "id")


@dataclass(frozen=True)
class ModelSpec:
    """One line of a model list, with wildcards expanded.

    Attributes
    ----------
    library
        ``timm`` or ``open_clip``.
    name
        timm: ``arch.tag``, or ``arch`` with a checkpoint. open_clip: ``arch/tag``, or ``arch`` with a
        checkpoint, or any name with ``config``. Either: ``hf-hub:...``, ``local-dir:...``.
    checkpoint
        Local weight file, if given.
    id
        Name in every table.
    options
        The other keys of the line, as text; ``config`` is an absolute path.
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

    def is_run_like(self, other: ModelSpec) -> bool:
        """Tell whether two lines give the same numbers, however each of them describes the model."""
        if (self.library, self.name, self.checkpoint) != (other.library, other.name, other.checkpoint):
            return False
        keys = {*self.options, *other.options}.difference(DESCRIBING_OPTIONS)
        if self.flag("quick_gelu") is None or other.flag("quick_gelu") is None:
            keys.discard("quick_gelu")  # only asked for where config and weights disagree, and then refused without
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
            number = float(value)
        except ValueError:
            number = float("nan")
        if not number.is_integer():
            raise UserError(f"{self.where}: {option}={value} is not a whole number")
        return int(number)

    def numbers(self, option: str) -> tuple[float, ...] | None:
        """Return a comma-separated option, or None."""
        value = self.options.get(option)
        if value is None:
            return None
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            raise UserError(f"{self.where}: {option}={value} is not a list of numbers") from None


def read_model_list(source: str | Path) -> list[ModelSpec]:
    """Read a model list.

    Parameters
    ----------
    source
        A file, or ``@NAME`` for one of the lists that come with the package. In a list, one model a line:
        ``LIBRARY:NAME key=value ...``; ``#`` after a space starts a comment; values may be quoted; ``*`` and ``?`` in a
        name stand for every pretrained model that matches; a line ``@NAME`` stands for that list. Relative
        paths are relative to the file's folder.

    Raises
    ------
    UserError
        A line cannot be read, a name does not exist (the nearest ones are told), or two models have one id.
    """
    specs: list[ModelSpec] = []
    wrong: list[str] = []
    for where, folder, line in _lines(str(source)):
        try:
            specs += parse_line(line, where, folder)
        except UserError as error:
            wrong.append(str(error))
    if wrong:  # all at once: nobody wants to find the typos of a long list one run at a time
        raise UserError(" | ".join(wrong))
    seen: dict[str, ModelSpec] = {}
    for spec in specs:
        other = seen.setdefault(spec.id, spec)
        if other is not spec:
            raise UserError(
                f"{spec.where}: the id {spec.id!r} is taken by {other.where}; give one of them id=NAME"
            )
    if not specs:
        raise UserError(f"{source}: no model in this list")
    return specs


def _lines(source: str, within: tuple[str, ...] = ()) -> Iterator[tuple[str, Path, str]]:
    """Yield (where, folder that paths are relative to, line) with comments gone and lists opened."""
    if source in within:
        raise UserError(f"the list {source} names itself")
    if source.startswith("@"):
        from extract.zoo.lists import named_list

        lines, folder = list(named_list(source[1:])), Path.cwd()
    else:
        path = Path(source)
        try:
            lines, folder = path.read_text(encoding="utf-8-sig").splitlines(), path.resolve().parent
        except OSError as error:
            raise UserError(f"model list {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise UserError(f"model list {path} is not UTF-8 text") from None
    for number, line in enumerate(lines, 1):
        where = f"{source}:{number}"
        words = _words(line, where)
        if words and words[0].startswith("@"):
            if len(words) > 1:
                raise UserError(
                    f"{where}: {words[0]} stands alone on its line; {words[1]!r} has no place there"
                )
            yield from _lines(words[0], (*within, source))
        elif words:
            yield where, folder, line


def _words(line: str, where: str) -> list[str]:
    try:
        return shlex.split(_without_comment(line))
    except ValueError as error:
        raise UserError(
            f"{where}: {error}".replace("No closing quotation", "a quotation is not closed")
        ) from None


def _without_comment(line: str) -> str:
    """Cut a comment off: as in YAML it begins the line or follows a space, so names and paths may hold the sign."""
    quote = ""
    for place, sign in enumerate(line):
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign == "#" and (place == 0 or line[place - 1].isspace()):
            return line[:place]
    return line


def parse_line(line: str, where: str = "", folder: Path | None = None) -> list[ModelSpec]:
    """Read one line of a model list; a wildcard gives several models, an empty line none.

    Parameters
    ----------
    line
        ``LIBRARY:NAME key=value ...``.
    where
        Where it stands, for messages.
    folder
        What relative paths are relative to; the working folder when None.
    """
    words = _words(line, where)
    if not words:
        return []
    where = where or words[0]
    library, colon, name = words[0].partition(":")
    if not colon or not name:
        raise UserError(f"{where}: {words[0]!r} is not LIBRARY:NAME, such as timm:resnet50.a1_in1k")
    if library not in LIBRARIES:
        raise UserError(
            f"{where}: no library {library!r}; there are {', '.join(LIBRARIES)}{nearest(library, LIBRARIES)}"
        )
    options = _options(words[1:], where)
    root = folder or Path.cwd()
    for option in PATH_OPTIONS:
        if option in options:
            options[option] = str((root / Path(options[option]).expanduser()).absolute())
    if options.get("classes", "").endswith(".txt"):
        options["classes"] = str((root / Path(options["classes"]).expanduser()).absolute())
    checkpoint = options.pop("checkpoint", None)
    identifier = options.pop("id", "")
    path = Path(checkpoint) if checkpoint is not None else None
    if name.startswith("local-dir:"):
        local = (root / Path(name.removeprefix("local-dir:")).expanduser()).absolute()
        return [ModelSpec(library, f"local-dir:{local}", path, identifier or local.name, options, where)]
    if name.startswith(PREFIXES[0]) or "config" in options:
        return [ModelSpec(library, name, path, identifier, options, where)]
    if any(sign in name for sign in "*?["):
        if taken := [
            o
            for o in ONE_MODEL_OPTIONS
            if o in options or (o == "id" and identifier) or (o == "checkpoint" and path)
        ]:
            raise UserError(f"{where}: {taken[0]}= is for one model, and {name!r} may stand for several")
        return [
            ModelSpec(library, match, None, "", options, where) for match in matching_names(library, name, where)
        ]
    free = path is not None or options.get("allow_random", "").lower() in ("yes", "true")
    return [ModelSpec(library, full_name(library, name, where, free=free), path, identifier, options, where)]


def _options(words: list[str], where: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"{where}: {word!r} is not key=value")
        if key not in OPTIONS:
            raise UserError(
                f"{where}: no option {key!r}; there are {', '.join(OPTIONS)}{nearest(key, OPTIONS)}"
            )
        if key in options:
            raise UserError(f"{where}: {key}= is given twice")
        if not value:
            raise UserError(f"{where}: {key}= has no value")
        options[key] = value
    return options
