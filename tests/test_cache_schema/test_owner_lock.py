"""A file's owner is known to run, to have ended, or unknown; with locks and on file systems without them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from closerlook_common import owner_lock
from closerlook_common.owner_lock import boot_id, file_system_time, lock_as_owner, owner_runs, read_owner, try_lock

pytestmark = pytest.mark.skipif(not boot_id(), reason="needs a kernel with a boot id")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "owner.json"
    path.touch()
    return path


def runs(path: Path) -> bool | None:
    handle = os.open(path, os.O_RDWR)
    try:
        return owner_runs(handle)
    finally:
        os.close(handle)


def test_an_owner_runs_until_it_closes_the_file(file: Path) -> None:
    handle = os.open(file, os.O_RDWR)
    lock_as_owner(handle)
    assert read_owner(handle)["pid"] == os.getpid()
    assert runs(file) is True
    os.close(handle)
    assert runs(file) is False


def test_a_killed_owner_does_not_run(file: Path) -> None:
    code = (
        "import os, sys, time\nfrom closerlook_common.owner_lock import lock_as_owner\n"
        "lock_as_owner(os.open(sys.argv[1], os.O_RDWR))\nprint(flush=True)\ntime.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert runs(file) is True
    process.kill()
    process.communicate()
    assert runs(file) is False


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"pid": 1}', '{"boot": ""}', '{"boot": "another"}', "[" * 2000, "\xff"]
)
def test_nothing_is_known_of_an_owner_elsewhere(file: Path, content: str) -> None:
    file.write_text(content, encoding="latin-1")
    assert runs(file) is None


def test_without_locks_the_process_id_decides(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner_lock, "try_lock", lambda handle: None)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    expected: list[tuple[Any, bool]] = [
        (os.getpid(), True), (1, True), (ended.pid, False), (-1, False), (0, False), ("1", False), (None, False),
        (10**30, False),
    ]  # fmt: skip
    for pid, answer in expected:
        file.write_text(json.dumps({"boot": boot_id(), "pid": pid}))
        assert runs(file) is answer, pid


def test_a_lock_excludes_every_other_handle(file: Path) -> None:
    one, other = os.open(file, os.O_RDWR), os.open(file, os.O_RDWR)
    assert try_lock(one) is True
    assert try_lock(other) is False
    os.close(one)
    assert try_lock(other) is True
    os.close(other)


def test_the_time_of_a_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    before = tmp_path.stat().st_mtime
    assert file_system_time(tmp_path) >= before - 1
    assert not list(tmp_path.iterdir())
    assert file_system_time(tmp_path / "missing") > 0
