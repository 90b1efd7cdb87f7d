"""Push, and what is chosen: whole, verified, resumable, through kill -9 and each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from remote_commands import command, digests, killed_after

import cache_schema
from cache_schema.cli import main
from cache_schema.reading.places import wire
from cache_schema.writing.validate import problems
from closerlook_common.errors import CacheError, UserError

pytest.importorskip("s3fs")
pytest.importorskip("aiohttp")

Capture = pytest.CaptureFixture[str]
Write = Callable[..., cache_schema.PredictionStore]
# aiohttp closes its sockets when they are collected, which is not the tests' business.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def test_summaries_alone(stores: list[Any], bucket: Any, tmp_path: Path) -> None:
    assert main(["push", str(tmp_path / "cache"), bucket.cache, "--summaries"]) == 0
    assert digests(bucket.cache) == {stores[2].digest}
    assert main(["push", str(tmp_path / "cache"), bucket.cache]) == 0
    bucket.asked.clear()
    assert main(["pull", bucket.cache, str(tmp_path / "pulled"), "--summaries", "--model", "ViT-B-32/openai"]) == 0
    assert digests(tmp_path / "pulled") == {stores[2].digest}
    got = [path for path in bucket.files() if ".zarr/" in path or path.endswith(".h5")]
    assert got
    assert all("/summaries/" in path for path in got), "nothing of the other stores is fetched, no header either"


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["--model", "ViT-B-32/opnai"], "has no model 'ViT-B-32/opnai'; did you mean vit-b-32-openai-200b2ac0?"),
        (["--dataset", "imagnet"], "has no such store of dataset 'imagnet'; did you mean imagenet?"),
    ],
)
def test_a_choice_of_nothing(
    words: list[str], printed: str, stores: list[Any], serve: Any, tmp_path: Path, capsys: Capture
) -> None:
    assert main(["pull", serve(tmp_path / "cache").address, str(tmp_path / "pulled"), *words]) == 2
    assert printed in capsys.readouterr().err
    assert main(["push", str(tmp_path / "cache"), "memory://never", *words]) == 2
    assert printed in capsys.readouterr().err


def test_a_damaged_store_is_not_pushed(stores: list[Any], bucket: Any, tmp_path: Path, capsys: Capture) -> None:
    raw = bytearray(stores[1].path.read_bytes())
    raw[3000] ^= 1
    stores[1].path.write_bytes(raw)
    assert main(["push", str(tmp_path / "cache"), bucket.cache]) == 1
    assert "2 stores pushed, 0 there already, 1 failed" in capsys.readouterr().out
    assert digests(bucket.cache) == {stores[0].digest, stores[2].digest}


@pytest.mark.parametrize("after", [4, 9, 14, 19, 24, 29])
def test_a_killed_push_goes_on(after: int, stores: list[Any], bucket: Any, tmp_path: Path) -> None:
    bucket.latency = 0.03
    killed_after(bucket, after, "push", tmp_path / "cache", bucket.cache)
    bucket.latency = 0.0
    whole = {store.digest for store in stores}
    remote = cache_schema.open_cache(bucket.cache) if any(a.method == "PUT" for a in bucket.asked) else None
    if remote is not None:
        try:
            assert {store.digest for store in remote.stores()} <= whole
            assert all("no zarr.json" in bad.reason for bad in remote.refused())
        except UserError as error:
            assert "nothing is there" in str(error)  # noqa: PT017
    sent = {asked.path for asked in bucket.asked if asked.method == "PUT" and "/c/" in asked.path}
    bucket.asked.clear()
    assert main(["push", str(tmp_path / "cache"), bucket.cache, "--read-back"]) == 0
    assert digests(bucket.cache) == whole
    again = {asked.path for asked in bucket.asked if asked.method == "PUT" and "/c/" in asked.path}
    # Those that were under way when it was killed are sent again, at most.
    assert len(sent & again) <= wire.AT_ONCE
    assert not [asked for asked in bucket.asked if asked.method == "GET" and asked.path.endswith(".pushing-probe")]


def test_what_an_interrupted_push_has_sent_is_not_sent_again(
    stores: list[Any], bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's files arrive, the seal does not."""
    upload, write = wire.Wire.upload, wire.Wire.write
    sent: list[str] = []
    monkeypatch.setattr(wire.Wire, "upload", lambda self, path, name: (sent.append(name), upload(self, path, name)))

    def broken(self: Any, name: str, raw: bytes) -> None:
        if name.endswith(".zarr/zarr.json"):
            raise CacheError("the line is cut")
        write(self, name, raw)

    words = ["push", str(tmp_path / "cache"), bucket.cache, "--dataset", "imagenet"]
    with monkeypatch.context() as patch:
        patch.setattr(wire.Wire, "write", broken)
        assert main(words) == 1
    assert digests(bucket.cache) == set()  # nothing that could be taken for whole
    assert sent
    sent.clear()
    assert main(words) == 0
    assert sent == []
    assert digests(bucket.cache) == {stores[0].digest, stores[2].digest}


def test_files_of_another_interrupted_push_are_not_taken(
    stores: list[Any], bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Write, outputs: Any
) -> None:
    """Files of the same names and sizes, of a store that was written anew since."""
    write_to = wire.Wire.write

    def broken(self: Any, name: str, raw: bytes) -> None:
        if name.endswith(".zarr/zarr.json"):
            raise CacheError("the line is cut")
        write_to(self, name, raw)

    with monkeypatch.context() as patch:
        patch.setattr(wire.Wire, "write", broken)
        assert main(["push", str(tmp_path / "cache"), bucket.cache]) == 1
    labels = np.roll(outputs["labels"], 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cache_schema.format.schema.ROWS_A_CHUNK", 4)
        new = write(labels=labels, overwrite=True)
    import fsspec

    # As long as the new one's, and not it: what compresses differently would be found by its size.
    name = "labels/c/0"
    old = bytes(byte ^ 1 for byte in (new.path / name).read_bytes())
    far = f"{bucket.cache}/{new.path.relative_to(tmp_path / 'cache').as_posix()}/{name}"
    fsspec.filesystem("s3", skip_instance_cache=True).pipe_file(far, old)
    assert main(["push", str(tmp_path / "cache"), bucket.cache]) == 0
    (remote,) = (s for s in cache_schema.open_cache(bucket.cache).stores() if s.digest == new.digest)
    np.testing.assert_array_equal(remote.labels, labels)


@pytest.mark.parametrize("where", ["s3", "file"])
def test_another_store_of_that_name_is_never_overwritten(
    where: str, stores: list[Any], bucket: Any, tmp_path: Path, write: Write, outputs: Any, capsys: Capture
) -> None:
    address = bucket.cache if where == "s3" else (tmp_path / "far").as_uri()
    assert main(["push", str(tmp_path / "cache"), address]) == 0
    before = digests(address)
    write(logits=outputs["logits"] * 2, overwrite=True)
    longer = {**outputs["metadata"], "more": np.arange(70.0)}
    write(dataset=cache_schema.DatasetCard(id="other"), backend="hdf5", metadata=longer, overwrite=True)
    capsys.readouterr()
    assert main(["push", str(tmp_path / "cache"), address]) == 1
    out = capsys.readouterr().out
    assert out.count("exists already and is another store; delete that one first") == 2
    assert digests(address) == before


def test_a_seal_that_was_cut_short_is_sent_again(stores: list[Any], tmp_path: Path) -> None:
    """A mounted folder, whose files do not appear whole."""
    far = tmp_path / "far"
    assert main(["push", str(tmp_path / "cache"), far.as_uri()]) == 0
    names = [store.path.relative_to(tmp_path / "cache") for store in stores[:2]]
    root, file = far / names[0] / "zarr.json", far / names[1]
    root.write_bytes(root.read_bytes()[:100])
    file.write_bytes(file.read_bytes()[:-300])
    assert main(["push", str(tmp_path / "cache"), far.as_uri()]) == 0
    assert [what for store in cache_schema.open_cache(far).stores() for what in problems(store.path)] == []
    assert digests(far) == {store.digest for store in stores}


def test_two_pushes_to_one_place(stores: list[Any], bucket: Any, tmp_path: Path) -> None:
    bucket.latency = 0.01
    other = tmp_path / "other"
    more = cache_schema.write_summary(
        other, model=cache_schema.ModelCard(id="m"), dataset=cache_schema.DatasetCard(id="d"), columns={"a": [1.0, 2.0]}
    )
    both = [command("push", cache, bucket.cache, "--quiet") for cache in (tmp_path / "cache", other)]
    results = [(*process.communicate(timeout=120), process.returncode) for process in both]
    assert [(error, code) for _, error, code in results] == [("", 0)] * 2
    assert digests(bucket.cache) == {more.digest, *(store.digest for store in stores)}
    import fsspec

    listed = json.loads(fsspec.filesystem("s3", skip_instance_cache=True).cat_file(f"{bucket.cache}/index.json"))
    assert len(listed["stores"]) == 4


def test_a_dead_server_ends_a_push_soon(
    bucket: Any, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "FIRST_PAUSE", 0.001)
    for i in range(40):
        cache_schema.write_summary(
            tmp_path / "cache", model=cache_schema.ModelCard(id=f"m{i}"), dataset=cache_schema.DatasetCard(id="d"),
            columns={"a": [1.0, 2.0]},
        )  # fmt: skip
    bucket.fault = lambda method, path, before: 500 if ".zarr" in path else ""
    assert main(["push", str(tmp_path / "cache"), bucket.cache]) == 1
    out = capsys.readouterr().out
    assert "in a row failed" in out
    assert out.count("cannot be") < 20
    bucket.fault = lambda *_: 503
    assert main(["push", str(tmp_path / "cache"), bucket.cache]) == 2
    assert capsys.readouterr().err.count("\n") == 1
