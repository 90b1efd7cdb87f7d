"""Servers that fail, lie, fall silent or change: the same numbers, or one line that says what it was."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache_schema
from cache_schema.cli import main
from cache_schema.reading.places import mirror, wire
from closerlook_common.errors import CacheError, CorruptStoreError, UserError
from closerlook_common.user_cache import write_whole

pytest.importorskip("s3fs")
pytest.importorskip("aiohttp")

Capture = pytest.CaptureFixture[str]
# aiohttp closes its sockets when they are collected, which is not the tests' business.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(params=["zarr", "hdf5"])
def store(request: pytest.FixtureRequest, write: Callable[..., Any]) -> Any:
    return write(backend=request.param)


@pytest.fixture
def web(store: Any, serve: Callable[..., Any], tmp_path: Path) -> Any:
    return serve(tmp_path / "cache")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the pauses between attempts be short."""
    monkeypatch.setattr(wire, "FIRST_PAUSE", 0.002)


def read_all(address: str, store: Any) -> None:
    """Read everything of the only store, and compare."""
    (found,) = cache_schema.open_cache(address).stores()
    for name in store.array_names:
        np.testing.assert_array_equal(found.read(name), store.read(name))


def is_data(path: str) -> bool:
    return ".zarr/" in path or path.endswith(".h5")


@pytest.mark.parametrize("fault", [500, 502, 503, 429, "drop"])
def test_failures_that_pass_are_not_seen(fault: Any, web: Any, store: Any) -> None:
    web.fault = lambda method, path, before: fault if method == "GET" and is_data(path) and before % 3 < 2 else ""
    read_all(web.address, store)
    assert len(web.asked) > 5


@pytest.mark.parametrize("fault", ["short", "flip"])
def test_a_wrong_answer_is_asked_for_again(fault: str, web: Any, store: Any) -> None:
    spoilt = []

    def once(method: str, path: str, before: int) -> str:
        if method == "GET" and is_data(path) and before == 0 and "zarr.json" not in path:
            spoilt.append(path)
            return fault
        return ""

    web.fault = once
    read_all(web.address, store)
    assert spoilt


@pytest.mark.parametrize("fault", [500, "drop", "short", "flip"])
def test_failures_that_stay_are_one_line(fault: Any, web: Any, store: Any, tmp_path: Path, capsys: Capture) -> None:
    web.fault = lambda method, path, before: fault if method == "GET" and is_data(path) else ""
    assert main(["pull", web.address, str(tmp_path / "pulled")]) == 1
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 2
    assert store.path.name in out[0]
    assert out[1] == "0 stores pulled, 0 there already, 1 failed."
    assert not [path for path in (tmp_path / "pulled").rglob("*.zarr") if "staged" not in str(path)]
    assert not [path for path in (tmp_path / "pulled").rglob("*.h5") if "staged" not in str(path)]


def test_access_that_is_denied(web: Any, capsys: Capture) -> None:
    web.fault = lambda *_: 403
    assert main(["show", web.address]) == 2
    printed = capsys.readouterr().err
    assert "access is denied" in printed
    assert "https://user:password@host/cache" in printed
    assert printed.count("\n") == 1
    web.fault = lambda *_: 401
    assert main(["show", web.address]) == 2
    assert len(web.asked) < 8, "what is denied is not asked for again and again"


def test_a_server_that_falls_silent(web: Any, store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(wire, "ATTEMPTS", 2)
    web.fault = lambda method, path, before: "hang" if is_data(path) and before < 2 else ""
    begun = time.monotonic()
    (refused,) = cache_schema.open_cache(web.address).refused()
    assert "stopped responding" in refused.reason
    assert time.monotonic() - begun < 20
    web.released.set()


def test_a_store_that_is_replaced_while_it_is_read(
    web: Any, store: Any, write: Callable[..., Any], outputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cache_schema.reading.places.files.SMALL_FILE", 0)
    (remote,) = cache_schema.open_cache(web.address).stores()
    if store.path.suffix == ".zarr":  # an HDF5 file has come as a whole once anything of it was read
        np.testing.assert_array_equal(remote.read("labels"), store.read("labels"))
    rng = np.random.default_rng(5)
    new = {**outputs, "logits": rng.normal(size=(70, 10)).astype(np.float32)}
    new["features"] = rng.normal(size=(70, 6)).astype(np.float32)
    write(backend="zarr" if store.path.suffix == ".zarr" else "hdf5", overwrite=True, **new)
    with pytest.raises(CacheError, match="was replaced while it was read; run the same command again"):
        remote.read("features")
    (fresh,) = cache_schema.open_cache(web.address).stores()
    np.testing.assert_array_equal(fresh.logits(), cache_schema.open_store(store.path).logits())
    assert fresh.digest != remote.digest


def test_a_block_cache_that_was_damaged_is_fetched_anew(web: Any, store: Any, tmp_path: Path) -> None:
    read_all(web.address, store)
    kept = [path for path in (tmp_path / "mirror").rglob("*") if path.is_file()]
    assert kept
    for i, path in enumerate(kept):
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw if i % 3 else raw[: len(raw) // 2] if i % 2 else b"")
    before = len(web.asked)
    read_all(web.address, store)
    assert len(web.asked) - before >= len(kept)
    again = len(web.asked)
    read_all(web.address, store)
    assert len(web.asked) - again <= 7  # catalogue and header


def test_the_block_cache_keeps_to_its_size(
    web: Any, store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mirror" / ("0" * 16)
    for i in range(20):
        write_whole(folder / f"block-{i:02d}", bytes(10_000))
        old = time.time() - 4_000 + 100 * i
        os.utime(folder / f"block-{i:02d}", (old, old))
    left = folder / ".block.1.abc"
    left.write_bytes(bytes(50_000))
    os.utime(left, (1, 1))
    monkeypatch.setenv("CLOSERLOOK_MIRROR_GB", "0.0001")
    read_all(web.address, store)
    names = sorted(path.name for path in folder.iterdir())
    # What was used last is left, together with what was read now at most 100 kB.
    assert 1 < len(names) <= 10
    assert names == [f"block-{i:02d}" for i in range(20 - len(names), 20)]
    read_all(web.address, store)  # what is in use stays, however small the size
    for bad in ("x", "-1", "nan"):
        monkeypatch.setenv("CLOSERLOOK_MIRROR_GB", bad)
        with pytest.raises(UserError, match="CLOSERLOOK_MIRROR_GB"):
            cache_schema.open_cache(web.address)


def test_a_trimmed_file_never_reads_as_fill_values(
    write: Callable[..., Any], serve: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The block cache loses a shard between its being fetched and its being decoded."""
    from cache_schema.reading.places.files import RemoteFiles

    write()
    (remote,) = cache_schema.open_cache(serve(tmp_path / "cache").address).stores()
    need = RemoteFiles.need

    def lose(self: Any, files: Any) -> None:
        need(self, files)
        for name in files:
            if "/c/" in name:
                (self.folder / name).unlink()

    monkeypatch.setattr(RemoteFiles, "need", lose)
    with pytest.raises(CorruptStoreError, match="were deleted while they were read"):
        remote.read("features")


def test_two_processes_share_a_block_cache(
    web: Any, store: Any, tmp_path: Path, run_python: Callable[..., Any]
) -> None:
    script = """
import sys, cache_schema, numpy as np
(store,) = cache_schema.open_cache(sys.argv[1]).stores()
here = cache_schema.open_store(sys.argv[2])
for name in here.array_names:
    np.testing.assert_array_equal(store.read(name), here.read(name))
"""
    web.latency = 0.01
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(run_python(script, web.address, store.path))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(result.returncode, result.stderr) for result in results] == [(0, "")] * 3
    assert not list((tmp_path / "mirror").rglob(".*"))


def test_a_failed_hdf5_open_does_not_bring_the_process_down(
    write: Callable[..., Any], serve: Callable[..., Any], tmp_path: Path, run_python: Callable[..., Any]
) -> None:
    write(backend="hdf5")
    web = serve(tmp_path / "cache")
    script = """
import sys, cache_schema
(store,) = cache_schema.open_cache(sys.argv[1]).stores()
kept = []
from cache_schema.reading.places import remote
def gone(*args, **kwargs):
    raise cache_schema.CacheError("gone")
remote.fetch_file = gone
try:
    store.read("labels")
except cache_schema.CacheError as error:
    kept.append(error)
    store.kept = kept
    print(error)
"""
    result = run_python(script, web.address)
    assert (result.returncode, result.stdout, result.stderr) == (0, "gone\n", "")


def test_a_full_disk_for_the_block_cache(web: Any, store: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mirror, "write_whole", full)
    monkeypatch.setattr("cache_schema.reading.places.remote.fetch_file", full)
    (remote,) = cache_schema.open_cache(web.address).stores()
    with pytest.raises(CacheError, match="free some space, or name another folder with CLOSERLOOK_MIRROR"):
        remote.read("labels")


def test_nobody_answers(tmp_path: Path, capsys: Capture) -> None:
    begun = time.monotonic()
    for words in (["show", "http://127.0.0.1:9/cache"], ["pull", "http://127.0.0.1:9/cache", str(tmp_path / "x")],
                  ["check", "http://127.0.0.1:9/cache"]):  # fmt: skip
        assert main(words) == 2
        printed = capsys.readouterr().err
        assert "no server answers there" in printed
        assert printed.count("\n") == 1
    assert time.monotonic() - begun < 10


def test_a_store_in_an_index_that_is_not_there(web: Any, store: Any, tmp_path: Path) -> None:
    names = [store.path.relative_to(tmp_path / "cache").as_posix(), "gone/x-00000000.zarr", "gone/x-00000000.h5"]
    (tmp_path / "cache" / "index.json").write_text(json.dumps({"stores": names}))
    remote = cache_schema.open_cache(web.address)
    assert len(remote.stores()) == 1
    assert len(remote.refused()) == 2
