"""Pull: whole, verified, resumable, through kill -9, full disks and each other."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import threading
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from remote_commands import command, digests, killed_after

import cache_schema
from cache_schema.cli import main
from cache_schema.copying import pull
from cache_schema.copying.pull import colliding
from cache_schema.reading.places import wire
from cache_schema.writing.staging import Stage
from cache_schema.writing.validate import problems

pytest.importorskip("s3fs")
pytest.importorskip("aiohttp")

Capture = pytest.CaptureFixture[str]
Write = Callable[..., cache_schema.PredictionStore]
# aiohttp closes its sockets when they are collected, which is not the tests' business.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def sealed_last(target: Path) -> None:
    """Check that everything that has its published name is whole."""
    for path in target.rglob("*"):
        is_store = path.suffix in (".zarr", ".h5") and ".staged-" not in str(path.relative_to(target))
        if is_store:
            assert problems(path) == []


def slow_store(cache: Path, backend: str) -> Any:
    """Write a store of many files, or of many parts."""
    rng = np.random.default_rng(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cache_schema.format.schema.ROWS_A_CHUNK", 16)
        return cache_schema.write_store(
            cache,
            model=cache_schema.ModelCard(id="m"),
            dataset=cache_schema.DatasetCard(id="d"),
            logits=rng.normal(size=(16_000, 40)).astype(np.float32),
            labels=np.zeros(16_000, int),
            backend=backend,
        )


@pytest.mark.parametrize("after", [3, 12, 30, 45, 100])
def test_a_killed_pull_goes_on(after: int, serve: Any, tmp_path: Path) -> None:
    store = slow_store(tmp_path / "cache", "zarr")
    web = serve(tmp_path / "cache")
    killed_after(web, after, "pull", web.address, tmp_path / "pulled")
    sealed_last(tmp_path / "pulled")
    before = {path for path in web.files() if "/c/" in path}
    web.asked.clear()
    assert main(["pull", web.address, str(tmp_path / "pulled")]) == 0
    assert digests(tmp_path / "pulled") == {store.digest}
    sealed_last(tmp_path / "pulled")
    again = [path for path in web.files() if "/c/" in path]
    assert len(before & set(again)) <= wire.AT_ONCE  # those that were under way
    # Of those asked for at most AT_ONCE were under way; each of the others had come and was kept.
    chunks = [path for path in store.path.rglob("*") if "/c/" in path.as_posix() and path.is_file()]
    assert len(again) <= len(chunks) - (len(before) - wire.AT_ONCE)
    if after == 100:
        assert len(before) > wire.AT_ONCE + 20
    assert not list((tmp_path / "pulled").rglob(".staged-*"))


def test_a_killed_pull_of_hdf5_goes_on_in_the_file(serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = slow_store(tmp_path / "cache", "hdf5")
    web = serve(tmp_path / "cache")
    monkeypatch.setattr("cache_schema.reading.places.hdf5.PART", 20_000)
    monkeypatch.setattr(wire, "ATTEMPTS", 1)
    size = store.path.stat().st_size
    web.fault = lambda method, path, before: 500 if method == "GET" and path.endswith(".h5") and before > 4 else ""
    assert main(["pull", web.address, str(tmp_path / "pulled")]) == 1
    (part,) = (tmp_path / "pulled").rglob(".staged-*/*.h5")
    there = part.stat().st_size
    assert 40_000 <= there < size
    web.fault = lambda *_: ""
    web.asked.clear()
    assert main(["pull", web.address, str(tmp_path / "pulled")]) == 0
    assert sum(a.n_bytes for a in web.asked if a.path.endswith(".h5")) == size - there
    assert digests(tmp_path / "pulled") == {store.digest}
    sealed_last(tmp_path / "pulled")
    # A part of another file is noticed, and the whole fetched anew.
    next((tmp_path / "pulled").rglob("*.h5")).unlink()
    web.forget()
    web.fault = lambda method, path, before: 500 if method == "GET" and path.endswith(".h5") and before > 2 else ""
    assert main(["pull", web.address, str(tmp_path / "pulled")]) == 1
    (part,) = (tmp_path / "pulled").rglob(".staged-*/*.h5")
    part.write_bytes(bytes(part.stat().st_size))
    web.fault = lambda *_: ""
    assert main(["pull", web.address, str(tmp_path / "pulled")]) == 0
    assert digests(tmp_path / "pulled") == {store.digest}


def test_an_interrupted_pull_says_so(serve: Any, tmp_path: Path) -> None:
    store = slow_store(tmp_path / "cache", "zarr")
    web = serve(tmp_path / "cache")
    web.held_after = 100
    process = command("pull", web.address, tmp_path / "pulled")
    while len(web.asked) < 100 and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    release = threading.Timer(1.0, web.let_go)  # what is under way may end
    release.start()
    out, error = process.communicate(timeout=60)
    release.join()
    assert process.returncode == 130, (out, error)
    assert error.strip().splitlines()[-1].endswith("run the same command again to continue.")
    assert "Traceback" not in error
    web.asked.clear()
    assert main(["pull", web.address, str(tmp_path / "pulled")]) == 0
    assert digests(tmp_path / "pulled") == {store.digest}
    assert len(web.files()) < len(list(store.path.rglob("c/*/0")))


def test_two_pulls_into_one_folder(serve: Any, tmp_path: Path, stores: list[Any]) -> None:
    web = serve(tmp_path / "cache")
    web.latency = 0.02
    both = [command("pull", web.address, tmp_path / "pulled", "--quiet") for _ in range(2)]
    results = [(*process.communicate(timeout=120), process.returncode) for process in both]
    assert [(error, code) for _, error, code in results] == [("", 0)] * 2
    assert digests(tmp_path / "pulled") == {store.digest for store in stores}
    sealed_last(tmp_path / "pulled")
    assert not list((tmp_path / "pulled").rglob(".staged-*"))


def test_a_full_disk_stops_a_pull(
    serve: Any, tmp_path: Path, stores: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    web = serve(tmp_path / "cache")
    written: list[Path] = []
    write_whole = pull.write_whole

    def full(path: Path, raw: bytes) -> None:
        if len(written) > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        written.append(path)
        write_whole(path, raw)

    with monkeypatch.context() as patch:
        patch.setattr(pull, "write_whole", full)
        assert main(["pull", web.address, str(tmp_path / "pulled")]) == 2
    captured = capsys.readouterr()
    assert "No space left on device" in captured.err
    assert "free some space and run the same command again" in captured.err
    assert captured.err.count("\n") == 1
    sealed_last(tmp_path / "pulled")
    assert main(["pull", web.address, str(tmp_path / "pulled")]) == 0
    assert digests(tmp_path / "pulled") == {store.digest for store in stores}


def test_pulls_wait_for_the_wire_together(serve: Any, tmp_path: Path) -> None:
    """Thirty stores of 42 files at 50 ms a request would take a minute one by one."""
    rng = np.random.default_rng(0)
    for i in range(30):
        cache_schema.write_summary(
            tmp_path / "cache", model=cache_schema.ModelCard(id=f"m{i}"), dataset=cache_schema.DatasetCard(id="d"),
            columns={f"c{k}": rng.normal(size=20) for k in range(20)},
        )  # fmt: skip
    web = serve(tmp_path / "cache")
    web.latency = 0.05
    assert main(["pull", web.address, str(tmp_path / "pulled"), "--summaries"]) == 0
    assert len(web.waits) > 1_000
    assert web.one_after_another() < len(web.waits) / 4
    assert len(digests(tmp_path / "pulled")) == 30


def test_many_threads_read_what_one_reads(serve: Any, tmp_path: Path) -> None:
    store = slow_store(tmp_path / "cache", "hdf5")
    web = serve(tmp_path / "cache")
    web.latency = 0.005
    (remote,) = cache_schema.open_cache(web.address).stores()
    wrong: list[int] = []

    def read(i: int) -> None:
        rows = remote.read("logits", i * 400, i * 400 + 400)
        if not np.array_equal(rows, store.read("logits", i * 400, i * 400 + 400)):
            wrong.append(i)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_stage_that_cannot_say_who_owns_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, raw: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        Stage(tmp_path / "model" / "x.zarr")
    assert list((tmp_path / "model").iterdir()) == []


def test_names_that_differ_only_in_case_or_form(serve: Any, write: Write, tmp_path: Path, capsys: Capture) -> None:
    """A file system without case would keep one of them, and the other would count as there already."""
    store = write()
    folder, name = store.path.parent.name, store.path.name
    web = serve(tmp_path / "cache")
    names = [f"{folder.upper()}/{name}", f"{folder}/{name}", f"caf\u00e9/{name}", f"cafe\u0301/{name}"]
    for other in {other.partition("/")[0] for other in names} - {folder}:
        shutil.copytree(store.path.parent, tmp_path / "cache" / other)
    (tmp_path / "cache" / "index.json").write_text(json.dumps({"stores": names}))
    assert main(["pull", web.address, str(tmp_path / "pulled")]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert f"not pulled: {folder.upper()}/{name} differs from {folder}/{name} only in case" in printed
    assert printed.count("not pulled") == 2
    assert "2 stores pulled" in printed
    there = sorted(path.name for path in (tmp_path / "pulled").iterdir())
    assert len(there) == len({unicodedata.normalize("NFC", one).casefold() for one in there}) == 2
    assert folder in there
    # What is there already is kept.
    (tmp_path / "cache" / "index.json").write_text(json.dumps({"stores": names[:1]}))
    assert main(["pull", web.address, str(tmp_path / "pulled")]) == 1
    assert "0 stores pulled" in capsys.readouterr().out


@settings(max_examples=60)
@given(names=st.lists(st.text("aAbBéÉ\u0301e\u00df\u0130", min_size=1, max_size=4), max_size=8, unique=True))
def test_what_is_left_collides_nowhere(names: list[str]) -> None:
    found = colliding(names, Path("/nowhere"))
    left = [name for name in names if name not in found]
    for fold in (str.lower, str.upper, str.casefold):
        for form in ("NFC", "NFD"):
            assert len({unicodedata.normalize(form, fold(name)) for name in left}) == len(left)
    assert all(other in left for other in found.values())
