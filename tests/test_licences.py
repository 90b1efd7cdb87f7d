"""What users install is listed with its licence, has bounds, and is no more than each extra needs."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs"))
from list_licences import PARTS, packages  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOR_DEVELOPERS = {"demo", "docs", "notebooks", "remote", "test", "test-laptop"}
"""Extras that bring together others, or what tests and pages need."""
IMPORTED_BY_OTHERS = {
    "torchvision": "timm and open_clip import it; the bound is this package's",
    "google-crc32c": "imported as google_crc32c",
}
LOADED_BY_NAME = {"s3fs", "gcsfs", "imagenet-x", "transformers"}
"""By fsspec, by protocol; files of imagenet-x are read; open_clip imports transformers."""


def named(requirement: str) -> str:
    return re.split(r"[\[<>=~! ]", requirement, maxsplit=1)[0]


def imported(*folders: str) -> set[str]:
    """Return the top-level names that a package's files import anywhere."""
    found = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    found.add(node.module.partition(".")[0])
    return found


def test_every_dependency_is_listed_with_its_licence() -> None:
    rows = re.findall(r"^\| (\S+) \| (\S+) \| (.+) \|$", (ROOT / "SECURITY.md").read_text(), flags=re.MULTILINE)
    listed = {(name, part) for name, part, _ in rows if name != "package" and part != "---"}
    assert listed >= set(packages())
    assert {row for row in listed if row[1] in {"base", *PARTS}} == set(packages())
    assert all(licence.strip() for _, _, licence in rows)


def test_every_extra_is_listed_or_for_developers() -> None:
    assert set(PROJECT["optional-dependencies"]) == {*PARTS, *FOR_DEVELOPERS}


def test_every_bound_is_a_lower_one() -> None:
    parts = [PROJECT["dependencies"], *(PROJECT["optional-dependencies"][part] for part in PARTS)]
    for requirement in (text for part in parts for text in part if not text.startswith("closerlook")):
        assert re.fullmatch(r"[A-Za-z0-9_.-]+>=[0-9][0-9a-z.]*", requirement), requirement


def test_what_is_installed_is_used() -> None:
    """A package that nothing imports would be there for nothing."""
    distributions = packages_distributions()
    used = imported("cache_schema", "extract", "analyze", "closerlook_common")
    names = {re.sub("[-_.]+", "-", one).lower() for name in used for one in [name, *distributions.get(name, [])]}
    idle = [
        name
        for name, _ in packages()
        if re.sub("[-_.]+", "-", name).lower() not in names and name not in {*IMPORTED_BY_OTHERS, *LOADED_BY_NAME}
    ]
    assert idle == []


def test_the_laptop_uses_nothing_that_only_an_extra_brings() -> None:
    """Outside functions that say which extra is missing, cache_schema and analyze import the base alone."""
    extras = {named(text) for part in PARTS for text in PROJECT["optional-dependencies"][part]} - {"closerlook"}
    late = {"aiohttp", "fsspec", "gcsfs", "ray"}  # of caches at addresses, and of clusters
    of = {one: name for name, all_of in packages_distributions().items() for one in all_of}
    there = imported("cache_schema", "analyze") & {of.get(name, name) for name in extras}
    assert there <= late, there
