"""What the functions of ``analyze.api`` take alike: a cache, names, settings, plug-ins; and the warning they give."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from analyze.plugin_kinds import REGISTRIES
from analyze.settings import Settings, override, read_settings, study_defaults
from cache_schema.reading.cache import Cache, open_cache
from closerlook_common.errors import IncompleteWarning, UserError
from closerlook_common.plugins import load_files

Names = str | Sequence[str]
Progress = Callable[[str, int, int], None]


def silent(model: str, done: int, total: int) -> None:
    """Report no progress."""
    del model, done, total


def load_plugins(plugins: str | Path | Sequence[str | Path]) -> None:
    """Load files of plug-ins."""
    load_files([plugins] if isinstance(plugins, str | Path) else plugins, REGISTRIES)


def opened_cache(cache: str | Path | Cache) -> Cache:
    """Return an open cache."""
    return cache if isinstance(cache, Cache) else open_cache(cache)


def names_of(names: Names | None) -> list[str] | None:
    """Return names as a list; one text is one name, or several with commas between them."""
    if names is None:
        return None
    parts = names.split(",") if isinstance(names, str) else names
    return [name.strip() for name in parts if name.strip()]


def whole_number(name: str, value: int | None, least: int) -> int | None:
    """Return a whole number, or raise UserError with the argument's name."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
        raise UserError(f"`{name}` {value!r}: a whole number from {least} on")
    return value


def settings_of(
    settings: str | Path | Mapping[str, Mapping[str, Any]] | Settings | None,
    *,
    bootstrap: int | None = None,
    seed: int | None = None,
) -> Settings:
    """Return settings from a file, a mapping or nothing, with what the arguments say in their place."""
    if isinstance(settings, Settings):
        chosen = settings
    elif isinstance(settings, Mapping):
        chosen = override(study_defaults(), settings, "`settings`")
    else:
        chosen = read_settings(settings)
    given = {"replicates": whole_number("bootstrap", bootstrap, 0), "seed": whole_number("seed", seed, 0)}
    values = {name: value for name, value in given.items() if value is not None}
    return override(chosen, {"bootstrap": values}, "the arguments") if values else chosen


def warn_incomplete(failures: Mapping[str, str], others: Sequence[str]) -> None:
    """Warn of what was left out."""
    lines = [f"{name}: {reason}" for name, reason in failures.items()] + list(others)
    if lines:
        warnings.warn(f"left out: {'; '.join(lines)}", IncompleteWarning, stacklevel=3)
