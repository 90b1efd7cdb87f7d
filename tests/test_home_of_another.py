"""HOME belongs to another user: ``sudo``, ``su`` without ``-``, a container: nothing there is used."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache_schema
from analyze.kernels.keeping import compiled
from analyze.results import read_results
from closerlook_common.machine_code import is_own
from closerlook_common.user_cache import kept_folder

ROOT = Path(__file__).parents[1]
OWNER, USER = 1001, 1002
# Python and the packages may lie in a folder that only root reads: the user may read everything, and write nothing.
AS_USER = [
    "setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search", "--bounding-set=-all,+dac_read_search",
]  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home folder that is the current user's."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return an empty folder that every user can enter; pytest's own are for one user."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def become_another(monkeypatch: pytest.MonkeyPatch) -> None:
    uid = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: uid + 1)


def test_analyze_as_a_user_whose_home_is_another_users(open_folder: Path) -> None:
    """Neither the package's folder nor HOME can be written to: kernels are compiled and not kept."""
    try:
        subprocess.run([*AS_USER, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no other user can be taken on here")
    rng = np.random.default_rng(1)
    cache_schema.write_store(
        open_folder / "cache",
        model=cache_schema.ModelCard(id="m"), dataset=cache_schema.DatasetCard(id="val", role="id"),
        logits=rng.normal(size=(60, 5)), labels=rng.integers(0, 5, 60),
    )  # fmt: skip
    for name, uid in (("home", OWNER), ("out", USER)):
        (open_folder / name).mkdir()
        os.chown(open_folder / name, uid, uid)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "NUMBA_CACHE", "MPLCONFIG"))}
    environment |= {"HOME": str(open_folder / "home"), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    words = ["-m", "analyze", "metrics", "cache", "-o", "out/r.parquet", "--only", "top1"]
    done = subprocess.run(
        [*AS_USER, sys.executable, *words],
        cwd=open_folder, text=True, capture_output=True, timeout=540, check=False, env=environment,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    assert done.returncode == 0, done.stderr
    assert len(read_results(open_folder / "out" / "r.parquet")) > 0
    assert not list((open_folder / "home").iterdir())


def test_kernels_that_another_user_kept_are_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """numba's index is a pickle: one that somebody else could write runs their code."""
    kept = tmp_path / "kernels"
    kept.mkdir(mode=0o700)
    assert is_own(kept, Path(__file__))
    kept.chmod(0o777)
    assert not is_own(kept, Path(__file__))
    kept.chmod(0o700)
    become_another(monkeypatch)
    assert not is_own(kept, Path(__file__))
    assert is_own(Path(__file__).parent / "__pycache__", Path(__file__))  # whoever writes there writes the source


def _twice(x: float) -> float:
    return 2 * x


def test_kernels_of_a_folder_of_another_user_are_compiled_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))
    mine = compiled(cache=True)(_twice)
    assert mine(2.0) == 4.0
    assert list(tmp_path.rglob("*.nbi"))
    become_another(monkeypatch)
    index = next(tmp_path.rglob("*.nbi"))
    index.write_bytes(b"cposix\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    theirs = compiled(cache=True)(_twice)
    assert theirs(2.0) == 4.0
    assert theirs.stats.cache_path is None
    assert not (tmp_path / "ran").exists()


def test_images_are_resized_by_pillow_where_kernels_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    import extract.passes
    from extract.passes.shaping import load_kernels

    if load_kernels() is None:
        pytest.skip("kernels are not used on this machine")
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))
    become_another(monkeypatch)
    monkeypatch.delitem(sys.modules, "extract.passes.resampling")
    monkeypatch.delattr(extract.passes, "resampling")
    assert load_kernels() is None


def test_what_is_remembered_lies_in_a_folder_of_the_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = kept_folder("texts")
    assert folder == home / ".cache" / "closerlook" / "texts"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o777)
    assert kept_folder("texts") is None
    folder.chmod(0o700)
    assert kept_folder("texts") == folder
    become_another(monkeypatch)
    assert kept_folder("texts") is None


def test_nothing_is_left_in_the_home_of_another_user(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0 if os.getuid() else OWNER)
    if not os.getuid():
        os.chown(home, USER, USER)
    assert kept_folder("texts") is None
    assert not list(home.iterdir())


def test_embeddings_and_digests_that_another_user_left_are_not_read(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    from extract.models.text_cache import TextCache
    from extract.models.weights import file_digest, known_digest

    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"weights")
    digest = file_digest(weights)
    ones = np.ones((1, 2), np.float32)

    def never(texts: list[str]) -> Any:
        raise AssertionError(texts)

    TextCache("d" * 64, "tower")(["a cat"], lambda texts: ones)
    assert np.array_equal(TextCache("d" * 64, "tower")(["a cat"], never), ones)
    assert known_digest(weights) == digest
    become_another(monkeypatch)
    assert np.array_equal(TextCache("d" * 64, "tower")(["a cat"], lambda texts: 2 * ones), 2 * ones)
    assert not known_digest(weights)
    assert file_digest(weights) == digest
