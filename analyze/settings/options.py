"""The choices behind the numbers: the study's defaults, overridden by a TOML file of one's own."""

from __future__ import annotations

import copy
import functools
import importlib.util
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from analyze.settings.rules import check_option
from closerlook_common.errors import UserError, nearest
from closerlook_common.input_files import parse_toml, read_text_file


@functools.cache
def _defaults() -> dict[str, dict[str, Any]]:
    return tomllib.loads(defaults_text())


def defaults_text() -> str:
    """Return the study's defaults as the TOML file that they are kept in, comments included."""
    return files("analyze.settings").joinpath("study_defaults.toml").read_text("utf-8")


class UndeclaredSectionError(LookupError):
    """Code reads a section of the settings that its kept results do not depend on by their key: a fault of the code."""


@dataclass(frozen=True)
class Settings:
    """Sections of options, complete: what a file does not name is the study's default.

    Attributes
    ----------
    sections
        Section -> option -> value.
    """

    sections: Mapping[str, Mapping[str, Any]]

    def __getitem__(self, section: str) -> Mapping[str, Any]:
        """Return a section.

        Raises
        ------
        UndeclaredSectionError
            Where these are the settings of ``only`` and the section is none of them.
        """
        if section not in self.sections:
            raise UndeclaredSectionError(f"[{section}] is read but not declared; declared: {', '.join(self.sections)}")
        return self.sections[section]

    def only(self, *sections: str) -> Settings:
        """Return the settings of some sections; reading another one is an error."""
        return Settings({name: self[name] for name in dict.fromkeys(sections)})

    def changed(self, section: str, *names: str) -> dict[str, Any]:
        """Return those of the named options (all when none is named) that are not the study's default."""
        default = _defaults()[section]
        return {k: v for k, v in self[section].items() if (not names or k in names) and v != default[k]}

    def updated(self, section: str, **values: Any) -> Settings:
        """Return settings with some options of a section replaced."""
        return override(self, {section: values}, "the command line")


def study_defaults() -> Settings:
    """Return the study's defaults (``study_defaults.toml``)."""
    return Settings(copy.deepcopy(_defaults()))


def read_settings(path: str | Path | None) -> Settings:
    """Return the study's defaults, overridden by a TOML file.

    Raises
    ------
    UserError
        Where the file is missing or no TOML, or a section, an option or the type of a value is not known.
    """
    settings = study_defaults()
    if path is None:
        return settings
    path = Path(path)
    return override(settings, parse_toml(read_text_file(path, "settings file"), str(path)), str(path))


class StudySettings(NamedTuple):
    """What a study file says of the analysis.

    Attributes
    ----------
    settings
        Options, complete.
    cache
        Folder of the stores.
    metrics
        Suites or metrics to compute; empty for all.
    """

    settings: Settings
    cache: Path
    metrics: tuple[str, ...]


def read_study(source: str) -> StudySettings:
    """Return what a study file says of the analysis.

    Parameters
    ----------
    source
        A study file, or ``@NAME`` for one that comes with the package (its cache is relative to the working folder).

    Raises
    ------
    UserError
        No such file, not TOML, or an option that is not known.
    """
    path, folder = Path(source), Path(source).absolute().parent
    if source.startswith("@"):
        # The file belongs to the first stage, whose code is not imported.
        found = importlib.util.find_spec("extract")
        assert found is not None
        assert found.origin is not None
        path, folder = Path(found.origin).parent / "studies" / f"{source[1:]}.toml", Path.cwd()
    try:
        given = parse_toml(read_text_file(path, "study file"), source)
    except FileNotFoundError:
        known = [f"@{file.stem}" for file in path.parent.glob("*.toml")] if source.startswith("@") else []
        raise UserError(f"no study {source}{nearest(source, known)}") from None
    settings = override(study_defaults(), given.get("analyze", {}), f"{source} [analyze]")
    study = given.get("study", {})
    metrics = study.get("metrics", []) if isinstance(study, Mapping) else None
    metrics = [metrics] if isinstance(metrics, str) else metrics
    if not isinstance(metrics, list) or not all(isinstance(name, str) and name for name in metrics):
        raise UserError(f"{source} [study] metrics = {metrics!r} should be a name or a list of names")
    return StudySettings(settings, folder / str(study.get("cache", "cache")), tuple(metrics))


def override(settings: Settings, given: Mapping[str, Any], where: str) -> Settings:
    """Return settings with the given options in place of the present ones; unknown names get the nearest."""
    merged = {name: dict(section) for name, section in copy.deepcopy(dict(settings.sections)).items()}
    for section, options in given.items():
        if section not in merged:
            raise UserError(f"{where}: no section [{section}]{nearest(section, merged)}")
        if not isinstance(options, Mapping):
            raise UserError(f"{where}: {section} must be a section, [{section}]")
        for name, value in options.items():
            present = merged[section].get(name)
            if name not in merged[section]:
                raise UserError(f"{where}: [{section}] has no option {name!r}{nearest(name, merged[section])}")
            merged[section][name] = _as(value, present, f"{where}: [{section}] {name}")
            check_option(section, name, merged[section][name], where)
    return Settings(merged)


def _as(value: Any, like: Any, what: str) -> Any:
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(part, float) and not math.isfinite(part) for part in parts):
        raise UserError(f"{what} = {value!r}: a finite number expected")
    if isinstance(like, bool) != isinstance(value, bool):
        raise UserError(f"{what} = {value!r}: {type(like).__name__} expected, like {like!r}")
    if isinstance(like, float) and isinstance(value, int):
        return float(value)
    if not isinstance(value, type(like)):
        raise UserError(f"{what} = {value!r}: {type(like).__name__} expected, like {like!r}")
    return value


def canonical(options: Mapping[str, Any]) -> str:
    """Return options as canonical JSON (sorted keys, no spaces), empty where there are none."""
    return json.dumps(options, sort_keys=True, separators=(",", ":")) if options else ""
