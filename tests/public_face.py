"""The public names and their signatures as text, one a line; ``python tests/public_face.py`` writes the file again."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

FILE = Path(__file__).with_suffix(".txt")
PACKAGES = ("closerlook", "analyze", "extract", "cache_schema")
OPEN = ("closerlook.detectors", "closerlook.metrics")
"""Modules to which names are added without further thought; none may go or change."""


def lines() -> Iterator[str]:
    """Yield the public names of all packages: functions with their signatures, classes with those of their methods."""
    for package in PACKAGES:
        module = __import__(package)
        for name in sorted(module.__all__):
            yield from _of(f"{package}.{name}", getattr(module, name))


def _of(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, ModuleType):
        yield name
        if name.startswith("closerlook."):
            for part in sorted(value.__all__):
                yield from _of(f"{name}.{part}", getattr(value, part))
    elif inspect.isclass(value):
        yield f"{name}{_signature(value)}"
        if not issubclass(value, BaseException):
            for part, method in sorted(vars(value).items()):
                plain = getattr(method, "__func__", method)
                if not part.startswith("_") and (callable(plain) or isinstance(plain, property)):
                    yield f"{name}.{part}{_signature(plain)}"
    else:
        yield f"{name}{_signature(value)}"


def _signature(value: Any) -> str:
    if not callable(value):
        return ""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    plain = [
        parameter.replace(
            annotation=parameter.empty,
            default=parameter.empty if parameter.default is parameter.empty else _Shown(parameter.default),
        )
        for parameter in found.parameters.values()
    ]
    return str(found.replace(parameters=plain, return_annotation=found.empty))


class _Shown:
    """A default as it is written; objects without such a form by their type."""

    def __init__(self, value: Any) -> None:
        text = repr(value)
        self.text = f"<{type(value).__name__}>" if text.startswith("<") or len(text) > 60 else text

    def __repr__(self) -> str:
        return self.text


if __name__ == "__main__":
    FILE.write_text("\n".join(lines()) + "\n", encoding="utf-8")
    sys.stdout.write(f"wrote {FILE}\n")
