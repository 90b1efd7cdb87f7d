"""Study files: models, datasets, prompts and the conventions of the analysis, tied together in one TOML
file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from closerlook_common.errors import UserError, nearest
from closerlook_common.input_files import parse_toml, read_text_file
from extract.classes.prompts import split_names
from extract.classes.words import split_words
from extract.datasets.specs import DatasetSpec, read_datasets_toml

STUDIES = ("closer-look", "holistic")
"""Studies that come with the package; named ``@NAME``."""

_SECTIONS = ("study", "extract", "analyze")
_STUDY_KEYS = ("title", "cache", "metrics")
_EXTRACT_KEYS = ("models", "datasets", "only", "prompts", "store", "precision", "features_dtype", "arrays", "words")


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a study file says.

    Attributes
    ----------
    title
        What the study is called in a report.
    where
        The file, for messages.
    cache
        Folder of the stores.
    model_lists
        Model lists in order: ``@NAME`` or absolute paths.
    datasets_file
        The ``datasets.toml``.
    only
        Names of the datasets that belong to the study; empty for all of the file.
    prompts
        Prompt sets; logits are stored of the first, heads are kept of all. Names, or paths of one's own sets.
    metrics
        Suites or metrics that the analysis computes; empty for all. Not read here beyond that.
    words
        Lists of words to embed, ``FILE`` or ``FILE:SET``.
    store, precision, features_dtype, arrays
        As the options of ``extract``.
    analysis
        The section ``[analyze]``: sections of options, as ``analyze --config`` takes them. Not read here.
    """

    title: str
    where: str
    cache: Path
    model_lists: tuple[str, ...]
    datasets_file: Path
    only: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ("openai-80",)
    metrics: tuple[str, ...] = ()
    store: str = "zarr"
    precision: str = "auto"
    features_dtype: str = "float16"
    arrays: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    analysis: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def datasets(self) -> tuple[list[DatasetSpec], tuple[str, ...]]:
        """Return the study's datasets in the order of ``only`` (or of the file), and the names the file has
        not.

        Raises
        ------
        UserError
            The datasets file cannot be read, or has none of the study's datasets.
        """
        specs = {spec.name: spec for spec in read_datasets_toml(self.datasets_file)}
        if not self.only:
            return list(specs.values()), ()
        found = [specs[name] for name in self.only if name in specs]
        if not found:
            raise UserError(f"{self.datasets_file} has none of the datasets of {self.where}")
        return found, tuple(name for name in self.only if name not in specs)


_KEYS_OF = {"study": _STUDY_KEYS, "extract": _EXTRACT_KEYS}


def read_study(source: str | Path) -> Study:
    """Read a study file.

    Parameters
    ----------
    source
        A TOML file, or ``@NAME`` for one of `STUDIES`. Paths in a file are relative to its folder; those in a
        study of the package, to the working folder.

    Raises
    ------
    UserError
        No such file or study, not TOML, an unknown key (answered with the nearest), or a value of the wrong
        kind.

    Notes
    -----
    The file has three sections::

        [study]
        title = "..."
        cache = "cache"
        metrics = ["accuracy", "calibration"]

        [extract]
        models = ["@closer-look", "mine.txt"]
        datasets = "datasets.toml"
        only = ["imagenet-val", "imagenet-a"]
        prompts = ["openai-80", "photo-1"]

        [analyze.split]
        fraction = 0.5
    """
    text, folder, where = _text(str(source))
    given = parse_toml(text, where)
    _known(given, _SECTIONS, where, "section")
    study, extraction = (_section(given, name, where) for name in ("study", "extract"))
    _known(study, _STUDY_KEYS, f"{where} [study]", "key")
    _known(extraction, _EXTRACT_KEYS, f"{where} [extract]", "key")
    for key in ("models", "datasets"):
        if key not in extraction:
            raise UserError(f"{where} [extract]: {key} is missing")
    at = f"{where} [extract]"
    models = _names(extraction["models"], f"{at} models")
    prompts = _names(extraction.get("prompts", ["openai-80"]), f"{at} prompts")
    return Study(
        title=_word(study.get("title", Path(where).stem), f"{where} [study] title"),
        where=where,
        cache=_path(study.get("cache", "cache"), folder, f"{where} [study] cache"),
        model_lists=tuple(name if name.startswith("@") else str(_path(name, folder, at)) for name in models),
        datasets_file=_path(extraction["datasets"], folder, f"{at} datasets"),
        only=_names(extraction.get("only", []), f"{at} only", empty=True),
        prompts=tuple(_prompt_paths(prompt, folder, at) for prompt in prompts),
        metrics=_names(study.get("metrics", []), f"{where} [study] metrics", empty=True),
        store=_choice(extraction, "store", ("zarr", "hdf5"), at),
        precision=_choice(extraction, "precision", ("auto", "fp32", "bf16", "fp16"), at),
        features_dtype=_choice(extraction, "features_dtype", ("float16", "float32"), at),
        arrays=_names(extraction.get("arrays", []), f"{at} arrays", empty=True),
        words=tuple(
            _word_paths(text, folder, at) for text in _names(extraction.get("words", []), f"{at} words", empty=True)
        ),
        analysis=_section(given, "analyze", where),
    )


def _text(source: str) -> tuple[str, Path, str]:
    """Return a study's text, the folder its paths are relative to, and its name for messages."""
    if source.startswith("@"):
        name = source[1:]
        if name not in STUDIES:
            known = ", ".join(f"@{study}" for study in STUDIES)
            raise UserError(f"no study {source}{nearest(name, STUDIES)}; the studies are {known}")
        text = files("extract.studies").joinpath(f"{name}.toml").read_text(encoding="utf-8")
        return text, Path.cwd(), source
    path = Path(source)
    try:
        return read_text_file(path, "study file"), path.absolute().parent, str(path)
    except FileNotFoundError:
        known = ", ".join(f"@{study}" for study in STUDIES)
        raise UserError(f"no study file {path}; the package has {known}") from None


def _known(given: Mapping[str, Any], known: tuple[str, ...], where: str, what: str) -> None:
    for key in given:
        if key not in known:
            home = next((name for name, keys in _KEYS_OF.items() if key in keys and keys is not known), "")
            hint = f"; it belongs to [{home}]" if home else nearest(key, known)
            raise UserError(f"{where}: unknown {what} {key!r}{hint}")


def _section(given: Mapping[str, Any], name: str, where: str) -> Mapping[str, Any]:
    section = given.get(name, {})
    if not isinstance(section, dict):
        raise UserError(f"{where}: {name} must be a section, [{name}]")
    return section


def _word(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where} = {value!r} should be text")
    return value


def _path(value: object, folder: Path, where: str) -> Path:
    return (folder / Path(_word(value, where)).expanduser()).absolute()


def _prompt_paths(prompts: str, folder: Path, where: str) -> str:
    """Return a prompt set with the paths in it made absolute: its own, and that of its class names."""
    parts = [part for part in split_names(prompts) if part]
    return "@".join(str(_path(p, folder, where)) if p.endswith((".txt", ".json")) else p for p in parts)


def _word_paths(words: str, folder: Path, where: str) -> str:
    """Return a list of words with the paths in it made absolute: the file's, and that of its prompt set."""
    file, prompts = split_words(words)
    return f"{_path(file, folder, where)}:{_prompt_paths(prompts, folder, where)}"


def _names(value: object, where: str, *, empty: bool = False) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not (names or empty) or not all(isinstance(n, str) and n for n in names):
        raise UserError(f"{where} = {value!r} should be a name or a list of names")
    return tuple(names)


def _choice(given: Mapping[str, Any], key: str, allowed: tuple[str, ...], where: str) -> str:
    value = given.get(key, allowed[0])
    if value not in allowed:
        raise UserError(f"{where}: {key} = {value!r} is not one of {', '.join(allowed)}{nearest(str(value), allowed)}")
    return str(value)
