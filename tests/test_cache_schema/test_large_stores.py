"""Large stores and many of them: classes, widths, long names, few open files, listings."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import store_mutations as attack

import cache_schema
from cache_schema.backends import hdf5_reader
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.writing.validate import problems


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write one prediction store of 70 images a backend; row 5 is not valid."""
    folder, rng = tmp_path_factory.mktemp("originals"), np.random.default_rng(1)
    valid = np.arange(70) != 5
    return {
        backend: cache_schema.write_store(
            folder / backend, model=ModelCard(id="m"), dataset=DatasetCard(id="d", class_space="ten"), backend=backend,
            logits=rng.normal(0, 4, (70, 10)), features=rng.normal(0, 1, (70, 6)), labels=np.arange(70) % 10,
            image_ids=[f"{i}.jpg" for i in range(70)], metadata={"size": np.arange(70)}, valid=valid,
        ).path
        for backend in attack.BACKENDS
    }  # fmt: skip


def test_few_open_files_are_enough(originals: dict[str, Path], tmp_path: Path) -> None:
    """``ulimit -n 64``, and a cache of two hundred stores."""
    for i in range(100):
        for backend in attack.BACKENDS:
            path = tmp_path / f"model{i}" / originals[backend].name
            shutil.copytree(originals[backend], path) if backend == "zarr" else shutil.copy(originals[backend], path)
    script = """
import resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
import cache_schema
from cache_schema.backends import hdf5_reader
stores = cache_schema.open_cache(sys.argv[1]).stores()
assert len(stores) == 200, len(stores)
kept = [(store, store.read("logits"), store.labels, store.image_ids) for store in stores]
assert len({rows.tobytes() for _, rows, _, _ in kept}) == 2
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        check=False, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("backend", attack.BACKENDS)
@pytest.mark.parametrize(("n", "classes", "width"), [(3, 100_000, 2), (5, 21_841, 3), (9, 10, 16_384)])
def test_wide_stores(tmp_path: Path, backend: str, n: int, classes: int, width: int) -> None:
    """As many classes and as wide features as there are; names of 300 characters for model, dataset and classes."""
    rng = np.random.default_rng(0)
    model = ModelCard(id="m" * 300, library="timm")
    dataset = DatasetCard(id="ü" * 300, class_space="s" * 300, n_classes=classes)
    logits, features = rng.normal(0, 9, (n, classes)), rng.normal(0, 1, (n, width)).astype("f4")
    store = cache_schema.write_store(
        tmp_path, model=model, dataset=dataset, backend=backend, logits=logits, features=features,
        image_ids=["p" * 300 + str(i) for i in range(n)], labels=np.arange(n),
    )  # fmt: skip
    names = [f"{'c' * 300}{i}" for i in range(min(classes, 2000))]
    head = cache_schema.write_head(
        tmp_path, model=model, class_space="s" * 300, prompt_set="q" * 300, class_names=names, backend=backend,
        weight=rng.normal(0, 1, (len(names), width)),
    )  # fmt: skip
    assert max(len(part.encode()) for path in (store.path, head.path) for part in path.parts) <= 255
    cache = cache_schema.open_cache(tmp_path)
    found = cache.store("m" * 300, "ü" * 300)
    assert np.abs(found.logits() - logits).max() < 0.1
    assert found.features().shape == (n, width)
    assert cache.head("m" * 300, "s" * 300).class_names == tuple(names)
    assert [what for path in (store.path, head.path) for what in problems(path)] == []


def test_listing_grows_with_the_number_of_stores(originals: dict[str, Path], tmp_path: Path) -> None:
    """Four times the stores take four times the processor, not sixteen; see benchmarks/store.py for 100,000."""
    root = (originals["zarr"] / "zarr.json").read_bytes()
    seconds = []
    for count in (500, 2000):
        for i in range(count):
            folder = tmp_path / str(count) / f"model{i % 50}" / f"d{i}-00000000.zarr"
            folder.mkdir(parents=True)
            (folder / "zarr.json").write_bytes(root)
        times = []
        for _ in range(3):  # the fastest: what else the process collects meanwhile is not of the listing
            start = time.process_time()
            assert len(cache_schema.open_cache(tmp_path / str(count)).stores()) == count
            times.append(time.process_time() - start)
        seconds.append(min(times))
    assert seconds[1] < 10 * seconds[0], seconds


def test_an_hdf5_file_of_many_columns_is_opened_by_few_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers that lie beside each other are read together: 60 columns take less than a millisecond."""
    store = cache_schema.write_summary(
        tmp_path, model=ModelCard(id="m"), dataset=DatasetCard(id="d"), backend="hdf5",
        columns={f"c{i}": np.arange(5000.0) for i in range(60)},
    )  # fmt: skip
    reads: list[int] = []

    class Counting(io.FileIO):
        def read(self, size: int = -1) -> bytes:
            reads.append(size)
            return super().read(size)

    monkeypatch.setattr(hdf5_reader, "open_plain", lambda path, **_: Counting(path))
    assert len(cache_schema.open_store(store.path).array_names) == 60
    assert 0 < len(reads) < 40
    assert sum(reads) < 40 * 4096 + (1 << 17)


def test_the_memory_of_a_listing_is_bounded(originals: dict[str, Path], tmp_path: Path) -> None:
    """A store takes a few kilobytes once others were looked at, and gives its header again."""
    root = (originals["zarr"] / "zarr.json").read_bytes()
    for i in range(3000):
        folder = tmp_path / f"model{i % 50}" / f"d{i}-00000000.zarr"
        folder.mkdir(parents=True)
        (folder / "zarr.json").write_bytes(root)
    script = """
import re, sys
from pathlib import Path
import cache_schema
from cache_schema.backends import resting
resting.MOST_AWAKE = int(sys.argv[2])
cache = cache_schema.open_cache(sys.argv[1])
used = lambda: int(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
cache_schema.open_store(next(cache.path.glob("*/*.zarr")))
before = used()
stores = cache.stores()
print((used() - before) / len(stores))
assert len({str(store.header) for store in stores}) == 1
assert len({store.header["seal"]["n"] for store in stores[::-1]}) == 1
"""
    kilobytes = []
    for awake in (10_000, 100):
        done = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path), str(awake)],
            check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        kilobytes.append(float(done.stdout))
    assert kilobytes[1] < 8
    assert kilobytes[1] < kilobytes[0] / 2
