"""A tiny ``/dev/shm``, as containers have: decoding goes on elsewhere, or one line says what to do; nothing hangs."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import cache_schema

ROOT = Path(__file__).parents[2]
WORDS = ["--model-list", "models.txt", "--cache", "cache", "--batch-size", "8", "--workers", "2", "--device", "cpu"]


def in_a_small_place(study: Path, room: str, temporary: str) -> subprocess.CompletedProcess[str]:
    """Run ``extract`` where /dev/shm, and perhaps the folder for temporary files, are small file systems."""
    (study / "tmp").mkdir()
    mounts = [f"mount -t tmpfs -o size={room} tmpfs /dev/shm"]
    if temporary:
        mounts.append(f"mount -t tmpfs -o size={temporary} tmpfs {shlex.quote(str(study / 'tmp'))}")
    run = shlex.join([sys.executable, "-m", "extract", *WORDS])
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", " && ".join([*mounts, f"exec {run}"])],
        cwd=study, text=True, capture_output=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(study / "tmp"), "COLUMNS": "200"},
    )  # fmt: skip


@pytest.fixture
def study(study: Path, pets: Path) -> Iterator[Path]:
    """Return the study outside /dev/shm, where the tests' folder may lie: what is mounted over it hides that."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        images = shutil.copytree(pets, Path(folder) / "images")
        copy = Path(shutil.copytree(study, Path(folder) / "study"))
        datasets = (copy / "datasets.toml").read_text()
        assert str(pets) in datasets
        (copy / "datasets.toml").write_text(datasets.replace(str(pets), str(images)))
        yield copy


@pytest.fixture(autouse=True)
def _mounts_are_allowed() -> None:
    trial = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], capture_output=True)
    if trial.returncode:
        pytest.skip("file systems cannot be mounted here")


def test_images_are_decoded_beside_a_tiny_dev_shm(study: Path) -> None:
    done = in_a_small_place(study, "64k", "")
    assert done.returncode == 0, done.stderr
    stores = cache_schema.open_cache(study / "cache").stores("predictions")
    assert len(stores) >= 4
    assert all(store.valid.all() for store in stores)


def test_no_room_anywhere_is_one_line(study: Path) -> None:
    done = in_a_small_place(study, "64k", "256k")
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr
    assert "of shared memory, and neither /dev/shm nor" in done.stderr
    assert "use --workers 0" in done.stderr
    assert not (study / "cache").exists() or not cache_schema.open_cache(study / "cache").stores("predictions")


def test_room_that_others_take_meanwhile_was_taken_before(tmp_path: Path, small_disk, monkeypatch) -> None:
    """The file system has room when memory is taken and none when it is used: no page of it is missing then."""
    from multiprocessing.heap import Arena

    from closerlook_common.errors import UserError
    from extract.passes.shared_memory import shared_memory

    with small_disk(tmp_path / "shm", "4m"):
        monkeypatch.setattr(Arena, "_dir_candidates", [str(tmp_path / "shm")])
        memory = shared_memory(3 << 20)
        filler = tmp_path / "shm" / "filler"
        with filler.open("wb") as file, pytest.raises(OSError, match="No space left"):
            os.posix_fallocate(file.fileno(), 0, 2 << 20)
        memory.buffer[:] = b"x" * (3 << 20)
        assert memory.buffer[-1:] == b"x"
        monkeypatch.setattr("multiprocessing.util.get_temp_dir", lambda: str(tmp_path / "shm"))
        with pytest.raises(UserError, match="needs 3 MB of shared memory"):
            shared_memory(3 << 20)
        del memory
