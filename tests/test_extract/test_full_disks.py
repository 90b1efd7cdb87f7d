"""A disk that is full at any moment of a run: one line, nothing published half, the same command goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import cache_schema
from cache_schema.writing.staging import stages
from cache_schema.writing.validate import problems

PAGE = 4096
"""What a tmpfs gives out at a time."""


def words(cache: str, *more: str) -> list[str]:
    return ["--model-list", "models.txt", "--cache", cache, "--batch-size", "4", "--workers", "0", *more]


def pages(folder: Path) -> int:
    """Return what files take of a tmpfs."""
    return sum(-(-path.stat().st_size // PAGE) for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_a_disk_that_is_full_at_any_moment(study: Path, run_extract, small_disk, digests, backend: str) -> None:
    """Room for so many pages and no more, from none to all: what fills up is now a store's rows, now its seal."""
    run_extract(*words("whole", "--store", backend), cwd=study)
    want, needed = digests(study / "whole"), pages(study / "whole")
    stopped_with: set[int] = set()
    with small_disk(study / "disk", "64m"):
        for room in range(0, needed, max(needed // 25, 1)):
            subprocess.run(["mount", "-o", f"remount,nr_blocks={room + 1}", str(study / "disk")], check=True)
            done = run_extract(*words("disk/cache", "--store", backend), cwd=study, code=2)
            last = done.stderr.strip().splitlines()[-1]
            if not last.startswith("extract: cannot write to the cache disk/cache: No space left"):  # before it began
                assert last.startswith("extract: cannot write to disk/cache: No space left on device; what is sealed")
                assert last.rstrip(".").endswith("make room and run the same command again")
            assert "Traceback" not in done.stderr
            if (study / "disk" / "cache").is_dir():
                stores = cache_schema.open_cache(study / "disk" / "cache").stores()
                stopped_with.add(len(stores))
                for store in stores:
                    assert problems(store.path) == []
                assert stages(study / "disk" / "cache") == []
        # It was stopped at many places, and what was sealed under one bound was not made again under the next.
        assert len(stopped_with) >= 5
        subprocess.run(["mount", "-o", "remount,nr_blocks=16384", str(study / "disk")], check=True)
        run_extract(*words("disk/cache", "--store", backend), cwd=study)
        assert digests(study / "disk" / "cache") == want
        assert list((study / "disk" / "cache").rglob(".*")) == []


def test_a_full_pixel_cache_is_one_line_and_costs_nothing_else(study: Path, run_extract, small_disk, digests) -> None:
    run_extract(*words("whole"), cwd=study)
    with small_disk(study / "disk", "128k"):
        done = run_extract(*words("cache", "--pixel-cache", "disk/pixels", "--resident", "1"), cwd=study)
        parts = [line for line in done.stderr.splitlines() if "decoded pixels cannot be kept" in line]
        assert set(parts) == {"decoded pixels cannot be kept in disk/pixels: No space left on device."}
        assert list((study / "disk").rglob(".*")) == []
    assert digests(study / "cache") == digests(study / "whole")


def test_hdf5_ends_well_in_a_process_that_met_a_full_disk(study: Path, small_disk) -> None:
    """Written straight to a full disk, HDF5 fails once more as its objects are collected and crashes at the end."""
    with small_disk(study / "disk", "96k"):
        done = subprocess.run(
            [sys.executable, "-c", WRITE, str(study / "disk" / "cache")], capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(Path(cache_schema.__file__).parent.parent)},
        )  # fmt: skip
        assert done.stdout.splitlines() == ["No space left on device"] * 3
        assert (done.returncode, done.stderr) == (0, "")
        assert [path for path in (study / "disk").rglob("*") if path.is_file()] == []


WRITE = """
import sys
import numpy as np
import cache_schema
rng = np.random.default_rng(0)
for width in (20, 40, 60):
    try:
        cache_schema.write_store(
            sys.argv[1], backend="hdf5",
            model=cache_schema.ModelCard(id="m"), dataset=cache_schema.DatasetCard(id="d"),
            logits=rng.normal(size=(3000, width)).astype("f4"), labels=np.zeros(3000, int),
        )
    except OSError as error:
        print(error.strerror)
"""
