"""A home folder that nobody can write to: a read-only file system, not a simulated error."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import cache_schema
from analyze.results import read_results

ROOT = Path(__file__).parents[1]


def run_without_home(work: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command whose HOME is an empty read-only file system."""
    home = work / "home"
    home.mkdir()
    script = f"mount -t tmpfs -o ro tmpfs {shlex.quote(str(home))} && exec {shlex.join([sys.executable, '-m', *words])}"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "NUMBA_CACHE", "MPLCONFIG", "HF_"))}
    environment |= {"HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"}
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        cwd=work, text=True, capture_output=True, timeout=540, check=False, env=environment,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _mounts_are_allowed() -> None:
    trial = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True)
    if trial.returncode:
        pytest.skip("file systems cannot be mounted here")


def test_analyze_with_a_read_only_home(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 5, 60)
    cache_schema.write_store(
        tmp_path / "cache", model=cache_schema.ModelCard(id="m"), dataset=cache_schema.DatasetCard(id="val", role="id"),
        logits=rng.normal(size=(60, 5)), labels=labels,
    )  # fmt: skip
    (tmp_path / "out").mkdir()
    words = ["analyze", "metrics", "cache", "-o", "out/r.parquet", "--only", "top1"]
    done = run_without_home(tmp_path, words)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert len(read_results(tmp_path / "out" / "r.parquet")) > 0


def test_extract_with_a_read_only_home(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from PIL import Image

    rng = np.random.default_rng(2)
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(3):
            Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(tmp_path / "pets" / name / f"{i}.png")
    (tmp_path / "models.txt").write_text("timm:test_resnet allow_random=yes num_classes=2 classes=pets id=mine\n")
    words = ["extract", "--model-list", "models.txt", "--dataset", "pets=pets", "--cache", "cache", "--workers", "0",
             "--device", "cpu"]  # fmt: skip
    done = run_without_home(tmp_path, words)
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert len(cache_schema.open_cache(tmp_path / "cache").stores("predictions")) == 1
