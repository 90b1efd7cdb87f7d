"""Caches at an address: a local S3 server and a local static HTTP server stand for the real ones."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache_schema
from cache_schema.cli import main
from cache_schema.errors import CorruptStoreError, UserError
from cache_schema.validate import problems

pytest.importorskip("s3fs")
moto_server = pytest.importorskip("moto.server")
fsspec = pytest.importorskip("fsspec")

Write = Callable[..., cache_schema.PredictionStore]
Capture = pytest.CaptureFixture[str]
# aiohttp and moto close their sockets when they are collected, which is not the tests' business.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::DeprecationWarning"
)


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    server = moto_server.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}" if host in ("0.0.0.0", "localhost") else f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the address of an empty cache in a fresh bucket."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_DEFAULT_REGION": "us-east-1",
        "CLOSERLOOK_MIRROR": str(tmp_path / "mirror"),
    }.items():
        monkeypatch.setenv(name, value)
    name = "b" + str(abs(hash(request.node.name)))
    fsspec.filesystem("s3").mkdir(name)
    return f"s3://{name}/my cache"


class Handler(http.server.SimpleHTTPRequestHandler):
    """A static server; with ``ranges`` it sends parts of files, which Python's own does not."""

    ranges = False
    asked: list[str]

    def log_message(self, *_: object) -> None:
        pass

    def send_head(self) -> Any:
        type(self).asked.append(self.path)
        return super().send_head()

    def do_GET(self) -> None:
        wanted = self.headers.get("Range", "")
        path = Path(self.translate_path(self.path))
        if not (self.ranges and wanted.startswith("bytes=") and path.is_file()):
            super().do_GET()
            return
        type(self).asked.append(self.path)
        first, _, last = wanted[6:].partition("-")
        raw = path.read_bytes()
        part = raw[int(first) : int(last or len(raw) - 1) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(raw)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def end_headers(self) -> None:
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        super().end_headers()


@pytest.fixture(params=["whole files", "parts of files"])
def web(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return (address, handler class) of a static server of ``tmp_path / "cache"``."""
    monkeypatch.setenv("CLOSERLOOK_MIRROR", str(tmp_path / "mirror"))
    handler = type("OneHandler", (Handler,), {"ranges": request.param == "parts of files", "asked": []})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(tmp_path / "cache"))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def two_stores(write: Write, model: Any, dataset: Any, tmp_path: Path) -> list[Any]:
    """Write a Zarr and an HDF5 store and a summary; Zarr in shards of 32 rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cache_schema.schema.ROWS_A_CHUNK", 4)
        zarr = write()
    hdf5 = write(dataset=cache_schema.DatasetCard(id="other"), backend="hdf5")
    summary = cache_schema.write_summary(
        tmp_path / "cache", model=model, dataset=dataset, columns={"confidence": np.linspace(0, 1, 70)}
    )
    return [zarr, hdf5, summary]


def same(remote: cache_schema.Cache, stores: list[Any]) -> None:
    found = {store.digest: store for store in remote.stores()}
    assert set(found) == {store.digest for store in stores}
    for store in stores:
        for name in store.array_names:
            np.testing.assert_array_equal(found[store.digest].read(name), store.read(name))


def test_s3_round_trip(two_stores: list[Any], bucket: str, tmp_path: Path, capsys: Capture) -> None:
    cache = str(tmp_path / "cache")
    assert main(["push", cache, bucket, "--read-back"]) == 0
    assert "3 stores pushed, 0 there already, 0 failed" in capsys.readouterr().out
    assert main(["push", cache, bucket]) == 0
    assert "0 stores pushed, 3 there already" in capsys.readouterr().out
    remote = cache_schema.open_cache(bucket)
    same(remote, two_stores)
    assert [card.id for card in remote.datasets()] == ["imagenet", "other"]
    assert remote.store("ViT-B-32/openai", "imagenet").image_ids == two_stores[0].image_ids
    assert main(["show", bucket]) == 0
    assert "3 stores of 1 models" in capsys.readouterr().out
    assert main(["pull", bucket, str(tmp_path / "pulled")]) == 0
    assert "3 stores pulled" in capsys.readouterr().out
    assert main(["pull", bucket, str(tmp_path / "pulled")]) == 0
    assert "0 stores pulled, 3 there already" in capsys.readouterr().out
    pulled = cache_schema.open_cache(tmp_path / "pulled")
    same(pulled, two_stores)
    assert [what for store in pulled.stores() for what in problems(store.path)] == []


def test_summaries_alone(two_stores: list[Any], bucket: str, tmp_path: Path) -> None:
    assert main(["push", str(tmp_path / "cache"), bucket, "--summaries"]) == 0
    same(cache_schema.open_cache(bucket), two_stores[2:])
    assert main(["push", str(tmp_path / "cache"), bucket]) == 0
    assert main(["pull", bucket, str(tmp_path / "pulled"), "--summaries", "--model", "ViT-B-32/openai"]) == 0
    same(cache_schema.open_cache(tmp_path / "pulled"), two_stores[2:])


def test_only_what_is_needed_is_fetched(two_stores: list[Any], web: Any) -> None:
    address, handler = web
    remote = cache_schema.open_cache(address)
    store = remote.store("ViT-B-32/openai", "imagenet")
    headers = list(handler.asked)
    assert not any("/c/" in path for path in headers)
    np.testing.assert_array_equal(store.centred_logits(40, 50), two_stores[0].centred_logits(40, 50))
    fetched = [path for path in handler.asked[len(headers) :] if "/c/" in path]
    assert [path.partition(".zarr/")[2] for path in fetched] == ["logits/c/1/0"]  # rows 32 to 63
    store.centred_logits(32, 64)
    again = cache_schema.open_cache(address).store("ViT-B-32/openai", "imagenet")
    again.centred_logits(35, 60)
    assert len([path for path in handler.asked if "/c/" in path]) == 1  # kept on this machine
    same(cache_schema.open_cache(address), two_stores)


def test_http_without_listings_needs_the_index(two_stores: list[Any], web: Any, tmp_path: Path) -> None:
    address, _ = web
    names = cache_schema.open_cache(address).place.names()
    (tmp_path / "cache" / "index.json").write_text(json.dumps({"stores": names[:1]}))
    assert cache_schema.open_cache(address).place.names() == names[:1]
    for bad in ('{"stores": ["../../x.zarr"]}', '{"stores": ["a/b/c/d.zarr"]}', "[]", "{"):
        (tmp_path / "cache" / "index.json").write_text(bad)
        with pytest.raises(UserError, match=r"index\.json"):
            cache_schema.open_cache(address).stores()


def test_changed_bytes_are_found_on_the_way(two_stores: list[Any], web: Any, tmp_path: Path, capsys: Capture) -> None:
    address, _ = web
    shard = two_stores[0].path / "logits/c/0/0"
    raw = bytearray(shard.read_bytes())
    raw[50] ^= 1
    shard.write_bytes(raw)
    remote = cache_schema.open_cache(address)
    with pytest.raises(CorruptStoreError, match="not those that were sealed"):
        remote.store("ViT-B-32/openai", "imagenet").logits(0, 8)
    assert main(["pull", address, str(tmp_path / "pulled")]) == 1
    out = capsys.readouterr().out
    assert "logits/c/0/0: its bytes are not those that were sealed" in out
    assert "2 stores pulled, 0 there already, 1 failed" in out
    same(cache_schema.open_cache(tmp_path / "pulled"), two_stores[1:])
    (two_stores[0].path / "zarr.json").write_text("{}")
    remote = cache_schema.open_cache(address)
    assert len(remote.stores()) == 2
    assert len(remote.refused()) == 1


def test_a_damaged_store_is_not_pushed(two_stores: list[Any], bucket: str, tmp_path: Path, capsys: Capture) -> None:
    raw = bytearray(two_stores[1].path.read_bytes())
    raw[3000] ^= 1
    two_stores[1].path.write_bytes(raw)
    assert main(["push", str(tmp_path / "cache"), bucket]) == 1
    assert "2 stores pushed, 0 there already, 1 failed" in capsys.readouterr().out
    same(cache_schema.open_cache(bucket), [two_stores[0], two_stores[2]])


def test_an_interrupted_push_goes_on(
    two_stores: list[Any], bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cache_schema import transfer

    sent: list[str] = []
    send = transfer._send

    def count(place: Any, source: Path, target: str, size: int, digest: str | None) -> None:
        if len(sent) == 5:
            raise KeyboardInterrupt
        if transfer._size(place, target) != size:
            sent.append(target)
        send(place, source, target, size, digest)

    monkeypatch.setattr(transfer, "_send", count)
    words = ["push", str(tmp_path / "cache"), bucket, "--dataset", "imagenet"]
    assert main(words) == 130
    assert cache_schema.open_cache(bucket).stores() == []  # nothing that could be taken for whole
    before = set(sent)
    sent[:] = ["already"] * 6
    assert main(words) == 0
    assert not before & set(sent)
    same(cache_schema.open_cache(bucket), [two_stores[0], two_stores[2]])


def test_another_store_of_that_name_is_never_overwritten(
    two_stores: list[Any], bucket: str, tmp_path: Path, write: Write, outputs: dict[str, Any], capsys: Capture
) -> None:
    assert main(["push", str(tmp_path / "cache"), bucket]) == 0
    write(logits=outputs["logits"] * 2, overwrite=True)
    write(dataset=cache_schema.DatasetCard(id="other"), backend="hdf5", labels=np.zeros(70, int), overwrite=True)
    assert main(["push", str(tmp_path / "cache"), bucket]) == 1
    assert "is there already" in capsys.readouterr().out
    assert two_stores[0].digest in {store.digest for store in cache_schema.open_cache(bucket).stores()}


def test_addresses_that_are_none(bucket: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "cache").mkdir()
    for words in (
        ["push", str(tmp_path / "cache"), "bucket/cache"],
        ["pull", "bucket/cache", str(tmp_path / "x")],
        ["show", bucket + "/nothing/here"],
        ["show", "nosuch://bucket/cache"],
        ["pull", "http://127.0.0.1:9/cache", str(tmp_path / "x")],
    ):
        assert main(words) == 2, words
        assert capsys.readouterr().err.count("\n") == 1
