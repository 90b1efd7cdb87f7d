"""A Ray cluster on a shared machine: nobody else's is joined, and what is started can be entered by its user alone."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from closerlook_common import cluster

ray = pytest.importorskip("ray")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Record how Ray would be started."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(ray, "init", lambda **options: calls.append(options))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster, "ADDRESS_FILE", tmp_path / "ray_current_cluster")
    return calls


def test_the_users_own_cluster_is_joined(started: list[dict[str, Any]]) -> None:
    cluster.ADDRESS_FILE.write_text("127.0.0.1:1")
    with cluster.connected():
        assert started[0]["address"] is None


@pytest.mark.parametrize("planted", ["nothing", "a stranger's file", "a link", "a pipe"])
def test_what_others_left_is_not_joined(
    planted: str, started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if planted == "a stranger's file":
        cluster.ADDRESS_FILE.write_text("10.0.0.1:1")
        owner = os.lstat(cluster.ADDRESS_FILE).st_uid
        monkeypatch.setattr(os, "getuid", lambda: owner + 1)
        if owner == 0:
            os.chown(cluster.ADDRESS_FILE, 12345, -1)
    elif planted == "a link":
        (tmp_path / "elsewhere").write_text("10.0.0.1:1")
        cluster.ADDRESS_FILE.symlink_to(tmp_path / "elsewhere")
    elif planted == "a pipe":
        os.mkfifo(cluster.ADDRESS_FILE)
    with cluster.connected():
        assert started[0]["address"] == "local"
        folder = Path(started[0]["_temp_dir"]).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.stat().st_uid == os.lstat(folder).st_uid
    assert not folder.exists()


def test_an_address_that_is_named_is_used(started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "_check_port", lambda address: None)
    with cluster.connected("10.0.0.1:6379"):
        assert started[0]["address"] == "10.0.0.1:6379"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    with cluster.connected():
        assert started[1]["address"] is None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_cluster_that_is_started_lies_in_a_private_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster, "ADDRESS_FILE", tmp_path / "none")
    with cluster.connected():
        (folder,) = {Path(node["ObjectStoreSocketName"]).parents[3] for node in ray.nodes()}
        assert folder.name.startswith("closerlook-ray-")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, "Ray makes what lies below open to everybody"
    assert not folder.exists()
