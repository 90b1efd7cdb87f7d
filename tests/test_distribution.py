"""The line that adds an extra: it names where the distribution came from, never an index that does not have it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from closerlook_common import distribution
from closerlook_common.distribution import install_line

ROOT = Path(__file__).parents[1]


class Installed:
    """A distribution as ``importlib.metadata`` gives it."""

    requires = ('ray>=2.52; extra == "ray"', 'torch>=2.6; extra == "extract"', "timm>=1; extra == 'extract'", "zarr>=3")

    def __init__(self, origin: dict[str, Any] | None) -> None:
        self.origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.origin is None else json.dumps(self.origin)


def line(origin: dict[str, Any] | None, tmp_path: Path, extra: str = "ray") -> str:
    return install_line(extra, source=tmp_path / "site-packages", found=Installed(origin))  # type: ignore[arg-type]


def test_in_a_checkout_the_checkout_is_installed() -> None:
    assert shlex.split(install_line("ray")) == ["pip", "install", "-e", f"{ROOT}[ray]"]


def test_a_folder_and_a_wheel_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "my checkout"
    folder.mkdir()
    wheel = tmp_path / "closerlook-0.1.0-py3-none-any.whl"
    wheel.touch()
    editable = {"url": folder.as_uri(), "dir_info": {"editable": True}}
    assert shlex.split(line(editable, tmp_path)) == ["pip", "install", "-e", f"{folder}[ray]"]
    assert shlex.split(line({"url": folder.as_uri(), "dir_info": {}}, tmp_path)) == ["pip", "install", f"{folder}[ray]"]
    assert shlex.split(line({"url": wheel.as_uri()}, tmp_path)) == ["pip", "install", f"{wheel}[ray]"]


def test_a_repository_is_named_with_its_commit_and_without_a_password(tmp_path: Path) -> None:
    origin = {"url": "https://me:pw@host/c.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}, "subdirectory": "sub"}
    printed = line(origin, tmp_path)
    assert "pw" not in printed
    assert shlex.split(printed)[2] == "closerlook[ray] @ git+https://***@host/c.git@abc#subdirectory=sub"
    wheel = {"url": "https://host/closerlook.whl", "archive_info": {}}
    assert shlex.split(line(wheel, tmp_path))[2] == "closerlook[ray] @ https://host/closerlook.whl"


def test_where_the_source_is_gone_the_requirements_are_named(tmp_path: Path) -> None:
    gone = {"url": (tmp_path / "gone.whl").as_uri()}
    assert shlex.split(line(gone, tmp_path, "extract")) == ["pip", "install", "torch>=2.6", "timm>=1"]
    assert shlex.split(line(gone, tmp_path)) == ["pip", "install", "ray>=2.52"]


def test_only_what_came_by_name_is_asked_for_by_name(tmp_path: Path) -> None:
    assert line(None, tmp_path) == "pip install 'closerlook[ray]'"


@pytest.mark.parametrize("package", ["closerlook", "closerlook_common", "cache_schema", "extract", "analyze"])
def test_no_message_advises_an_index(package: str) -> None:
    advised = re.compile(r"pip install\s+['\"]?closerlook")
    for path in (ROOT / package).rglob("*.py"):
        if path != Path(distribution.__file__):
            assert not advised.search(path.read_text(encoding="utf-8")), path
