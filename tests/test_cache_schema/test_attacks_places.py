"""A machine that several users share, folders that are gone or full: one row an attack or mishap."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cache_schema
from cache_schema.reading.places.mirror import Mirror
from closerlook_common.errors import CacheError, UserError
from closerlook_common.user_cache import make_own, part_of, require_own, user_cache

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def foreign(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uid = folder.stat().st_uid
    monkeypatch.setattr("os.geteuid", lambda: uid + 1)


@pytest.mark.parametrize(
    ("mishap", "printed"),
    [("another user's", "belongs to another user"), ("open to all", "every user of this machine can write to")],
)
def test_a_mirror_that_others_can_write_to_is_refused(
    mishap: str, printed: str, write: Callable[..., Any], serve: Callable[..., Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    pytest.importorskip("aiohttp")
    write()
    web = serve(tmp_path / "cache")
    mirror = tmp_path / "mirror"
    mirror.mkdir(mode=0o700)
    if mishap == "open to all":
        mirror.chmod(0o777)
    else:
        foreign(mirror, monkeypatch)
    with pytest.raises(UserError, match=printed) as caught:
        cache_schema.open_cache(web.address)
    assert "CLOSERLOOK_MIRROR" in str(caught.value)
    assert not list(mirror.iterdir())


def test_a_mirror_is_made_for_this_user_alone(
    write: Callable[..., Any], serve: Callable[..., Any], tmp_path: Path
) -> None:
    pytest.importorskip("aiohttp")
    write()
    before = os.umask(0)
    try:
        cache_schema.open_cache(serve(tmp_path / "cache").address).stores()[0].read("labels")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "mirror").stat().st_mode) == 0o700


def test_a_folder_that_is_shared_by_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_own(tmp_path / "pixels", "name another", shared=True)
    foreign(tmp_path / "pixels", monkeypatch)
    require_own(tmp_path / "pixels", "name another", shared=True)
    (tmp_path / "pixels").chmod(0o1777)
    with pytest.raises(UserError, match="chmod o-w"):
        require_own(tmp_path / "pixels", "name another", shared=True)
    require_own(tmp_path / "gone", "name another")


def test_trimming_a_mirror_deletes_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    """``CLOSERLOOK_MIRROR=$HOME`` is a mistake, not a wish to lose everything above 50 GB."""
    mine = [tmp_path / "thesis.tex", tmp_path / "data" / "x.bin", tmp_path / ".ssh" / "id", tmp_path / "abc" / "y"]
    kept = tmp_path / ("a" * 16) / "b" / "block"
    for path in [*mine, kept]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(1000))
        os.utime(path, (1, 1))
    (tmp_path / ("b" * 16)).symlink_to(tmp_path / "data")
    tmp_path.chmod(0o700)
    assert Mirror(tmp_path, 0).trim(0) == 1000
    assert not kept.exists()
    assert all(path.exists() for path in mine)


def test_names_of_parts_cannot_be_foreseen(tmp_path: Path) -> None:
    names = {part_of(tmp_path / "x").name for _ in range(50)}
    assert len(names) == 50


def test_a_link_in_a_shared_folder_is_not_followed(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from extract.passes.faults import check_writable
    from extract.passes.pixel_cache import STAGED, _Keeper

    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "cache").mkdir(mode=0o700)
    (tmp_path / "cache" / ".writable").symlink_to(victim)
    (tmp_path / "cache" / f".pixels.{os.getpid()}{STAGED}").symlink_to(victim)
    (tmp_path / "cache" / "pixels.json").symlink_to(victim)
    check_writable(tmp_path / "cache")
    keeper = _Keeper(tmp_path / "cache" / "pixels", lambda event: None)
    keeper.publish()
    keeper.close()
    assert victim.read_text() == "precious"


def test_no_home_folder_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(UserError, match="set HOME, or XDG_CACHE_HOME"):
        user_cache()


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC, errno.EDQUOT])
def test_a_mirror_that_cannot_be_made(
    code: int, write: Callable[..., Any], serve: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read-only home, a full disk: what to do is stated, the stores that are listed are not lost."""
    pytest.importorskip("aiohttp")
    for backend in ("zarr", "hdf5"):
        write(backend=backend, dataset=cache_schema.DatasetCard(id=backend))
    web = serve(tmp_path / "cache")
    web.ranges = False

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("cache_schema.reading.places.mirror.make_own", refuse)
    cache = cache_schema.open_cache(web.address)
    reasons = [refused.reason for refused in cache.refused()]
    for store in cache.stores():
        with pytest.raises(CacheError) as caught:
            store.read("labels")
        reasons.append(str(caught.value))
    assert len(reasons) == 2
    for reason in reasons:
        assert "free some space, or name another folder with CLOSERLOOK_MIRROR" in reason
        assert "\n" not in reason


@pytest.mark.parametrize(
    "words",
    [
        ["cache_schema", "show", "cache"],
        ["cache_schema", "import", "x.npz", "--cache", "c", "--model", "m"],
        ["cache_schema", "pull", "file:///nowhere", "c"],
        ["analyze", "table", "r.parquet"],
        ["analyze", "metrics", "--study", "@closer-look"],
    ],
)
def test_a_working_folder_that_was_deleted(words: list[str], tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    program = f"import importlib, os, sys; os.rmdir({str(gone)!r}); m = importlib.import_module({words[0]!r} + '.cli')"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; sys.exit(m.main({words[1:]!r}))"],
        cwd=gone, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "the working folder was deleted; change to another one" in done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
