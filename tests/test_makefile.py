"""The Makefile names every target in its help, and its fast tests are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAKEFILE = (ROOT / "Makefile").read_text()


def test_help_names_every_target() -> None:
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.MULTILINE))
    listed = set(re.search(r"^\.PHONY: (.+)$", MAKEFILE, flags=re.MULTILINE)[1].split())
    printed = set(re.findall(r'@echo "make ([a-z]+) ', MAKEFILE))
    assert printed == targets - {"help"}
    assert listed == targets


def test_the_fast_tests_are_there_and_cover_each_package() -> None:
    paths = re.search(r"^FAST := ((?:.*\\\n)*.*)$", MAKEFILE, flags=re.MULTILINE)[1].replace("\\\n", " ").split()
    assert [path for path in paths if not (ROOT / path).is_file()] == []
    assert len(set(paths)) == len(paths)
    for package in ("test_cache_schema", "test_analyze", "test_extract"):
        assert any(package in path for path in paths)


def test_ci_installs_what_the_browser_tests_need_and_no_fonts() -> None:
    text = (ROOT / ".ci" / "run").read_text()
    asked = re.search(r"install these: (apt-get install [^\"]+)", (ROOT / "tests" / "conftest.py").read_text())[1]
    words = set(re.search(r"apt-get install (.+?) *>", text)[1].split())
    assert set(asked.split()[2:]) <= words
    assert "--no-install-recommends" in words
    assert text.index("apt-get install") < text.index("export CI=true") < text.index("make test\n")
    assert "fonts-" not in text


def test_no_property_test_has_a_deadline() -> None:
    own = [
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if re.search(r"settings\([^)]*deadline|register_profile\(|load_profile\(", path.read_text(encoding="utf-8"))
    ]
    assert own == ["tests/conftest.py"]
    assert "deadline=None" in (ROOT / "tests" / "conftest.py").read_text()


def test_hooks_fetch_nothing() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    assert set(re.findall(r"repo: (\S+)", text)) == {"local"}
    assert set(re.findall(r"language: (\S+)", text)) == {"system"}


def test_what_contributing_names_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = re.findall(r"`((?:analyze|extract|cache_schema|closerlook_common|tests)/[\w/.*]+)`", text)
    assert len(paths) > 8
    assert [path for path in paths if not list(ROOT.glob(path.rstrip("/")))] == []
    targets = set(re.findall(r"^([a-z]+):", MAKEFILE, flags=re.MULTILINE))
    assert set(re.findall(r"make ([a-z]+)", text)) - {"check"} <= targets | {"help"}


def test_the_map_in_contributing_names_every_folder() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {line.split()[0].rstrip("/") for line in text.splitlines() if line.startswith("    ") and "/ " in line}
    packages = [ROOT / name for name in ("closerlook", "closerlook_common", "cache_schema", "extract", "analyze")]
    folders = [p for package in packages for p in (package, *package.iterdir()) if (p / "__init__.py").exists()]
    assert {folder.name for folder in folders} - named == set()


def test_tests_that_need_torch_run_somewhere() -> None:
    """What is skipped in the laptop's environment, which has no torch, runs with the tests of extract."""
    needing = {
        path.relative_to(ROOT).as_posix()
        for folder in ("test_analyze", "test_cache_schema")
        for path in (ROOT / "tests" / folder).glob("test_*.py")
        if re.search(r'importorskip\("torch|^ +import torch$', path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    listed = re.search(r"^MORE_WITH_TORCH := ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert listed is not None
    assert needing == set(listed[1].replace("\\", " ").split())
