"""Shared for the tests of extraction: a few photographs, a list of small models, and the command as a function."""

from __future__ import annotations

import contextlib
import io
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from decoding import few_images
from PIL import Image

import cache_schema
from extract.datasets.base import Dataset

CLASSES = ("cat", "dog", "fox")
MODELS = """
timm:test_vit allow_random=yes seed=1 num_classes=3 classes=pets input_size=64 crop_pct=1.0
timm:test_resnet allow_random=yes seed=2 num_classes=3 classes=pets input_size=64 crop_pct=1.0
"""


@pytest.fixture(scope="session")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 45 small pictures in three class folders, smooth enough to survive JPEG."""
    root = tmp_path_factory.mktemp("pets")
    rng = np.random.default_rng(7)
    for c, name in enumerate(CLASSES):
        (root / name).mkdir()
        for index in range(15):
            coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
            coarse[..., c] //= 2
            Image.fromarray(coarse).resize((160, 120)).save(root / name / f"{index}.jpg", quality=90)
    return root


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """A folder of a few small pictures, listed."""
    return few_images(tmp_path)


@contextlib.contextmanager
def mounted(folder: Path, size: str) -> Iterator[None]:
    """Mount a tmpfs of a few kilobytes; where that is not allowed, the test cannot be made."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_disk() -> Callable[[Path, str], contextlib.AbstractContextManager[None]]:
    """Return a context manager that mounts a small file system."""
    return mounted


@pytest.fixture
def study(tmp_path: Path, pets: Path) -> Path:
    """A folder of two models of one geometry, a labelled set, an unlabelled one and a reference."""
    (tmp_path / "models.txt").write_text(MODELS)
    (tmp_path / "datasets.toml").write_text(
        f'[pets]\npath = "{pets}"\nclass_space = "pets"\n[cats]\npath = "{pets}/cat"\nlabels = "none"\n'
        f'[training]\npath = "{pets}"\nclass_space = "pets"\nrole = "reference"\nper_class = 4\n'
    )
    return tmp_path


@dataclass
class Finished:
    """A finished command."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run_extract(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Finished]:
    """Return a function that runs ``extract`` with arguments in this process and gives what it printed."""
    from extract.cli import main

    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: object, cwd: Path | None = None, code: int | None = 0) -> Finished:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), contextlib.chdir(cwd or Path.cwd()):
            returncode = main([str(word) for word in words])
        assert code is None or returncode == code, f"exit {returncode}\n{out.getvalue()}\n{err.getvalue()}"
        return Finished(returncode, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def digests() -> Callable[[Path], dict[tuple[str, str, str], object]]:
    """Return a function that gives what every store of a cache holds, by kind, model and dataset or class space."""

    def of(cache: Path) -> dict[tuple[str, str, str], object]:
        found = {}
        for store in cache_schema.open_cache(cache).stores():
            name = f"{store.class_space}/{store.prompt_set}" if store.kind == "head" else store.dataset.id
            found[store.kind, store.model.id, name] = store.header["seal"]["arrays"]
        return found

    return of
