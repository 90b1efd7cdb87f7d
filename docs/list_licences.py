"""Print the dependencies that ``pyproject.toml`` names and their licences, as their installed packages state them.

python docs/list_licences.py
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("extract", "onnx", "web", "s3", "gs", "ray", "imagenet-x")
"""Extras that users install, besides the base."""


def licence(name: str) -> str:
    """Return the licence that a package states."""
    try:
        stated = metadata(name)
    except PackageNotFoundError:
        return "not installed here"
    if expression := stated.get("License-Expression"):
        return str(expression)
    classifiers = [c.rpartition(" :: ")[2] for c in stated.get_all("Classifier") or () if c.startswith("License ::")]
    named = [c for c in classifiers if c != "OSI Approved"]
    first = (stated.get("License") or "").strip().splitlines()
    return ", ".join(named) or (first[0][:60] if first else "not stated")


def packages() -> list[tuple[str, str]]:
    """Return each package that ``pyproject.toml`` names for users, with the extra that installs it or ``base``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    parts = {"base": project["dependencies"], **{part: project["optional-dependencies"][part] for part in PARTS}}
    named = [(re.split(r"[\[<>=~! ]", text, maxsplit=1)[0], part) for part, texts in parts.items() for text in texts]
    return [(name, part) for name, part in named if name != project["name"]]


def main() -> None:
    """Print a Markdown table."""
    print("| package | installed by | licence |\n| --- | --- | --- |")
    for name, part in packages():
        print(f"| {name} | {part} | {licence(name)} |")


if __name__ == "__main__":
    main()
