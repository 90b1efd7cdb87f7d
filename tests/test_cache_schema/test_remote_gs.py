"""``gs://`` against the part of Google's JSON API that a cache needs, served from a dictionary."""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import pytest

import cache_schema
from cache_schema.cli import main
from cache_schema.reading.places import answers, wire
from cache_schema.reading.places import google as places_google

pytest.importorskip("gcsfs", reason="the extra 'remote' is not installed")
# aiohttp closes its sockets when they are collected, which is not the tests' business.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
Capture = pytest.CaptureFixture[str]


class Handler(http.server.BaseHTTPRequestHandler):
    """Buckets and objects: list, get, get a part, put (in one request or in parts), delete."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, dict[str, bytes]]
    sessions: dict[str, tuple[str, str, bytearray]]
    asked: list[str]
    denied = False
    sent = 0

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, code: int, document: Any = None, raw: bytes | None = None, **headers: str) -> None:
        body = json.dumps(document).encode() if raw is None else raw
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def described(self, bucket: str, name: str) -> dict[str, str]:
        raw = self.objects[bucket][name]
        digest = base64.b64encode(hashlib.md5(raw).digest()).decode()
        when = "2026-01-01T00:00:00.000Z"
        return {
            "kind": "storage#object", "name": name, "bucket": bucket, "size": str(len(raw)), "generation": "1",
            "updated": when, "timeCreated": when, "md5Hash": digest,
        }  # fmt: skip

    def parse(self) -> tuple[str, str, dict[str, str]]:
        """Return bucket, object and query of ``.../b/BUCKET/o/OBJECT?...``."""
        url = urlsplit(self.path)
        type(self).asked.append(f"{self.command} {unquote(url.path)}")
        after = url.path.split("/b/", 1)[1].split("/")
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        return after[0], unquote("/".join(after[2:])), query

    def refused(self, bucket: str) -> bool:
        if self.denied:
            self.answer(403, {"error": {"code": 403, "message": "k@x does not have storage.objects.get access"}})
        elif bucket not in self.objects:
            self.answer(404, {"error": {"code": 404, "message": "The specified bucket does not exist."}})
        return self.denied or bucket not in self.objects

    def do_GET(self) -> None:
        bucket, name, query = self.parse()
        if self.refused(bucket):
            return
        if not name:
            start, stop = query.get("prefix", ""), query.get("delimiter", "")
            below = [known for known in sorted(self.objects[bucket]) if known.startswith(start)]
            inner = {start + known[len(start) :].split("/")[0] + "/" for known in below if "/" in known[len(start) :]}
            items = [known for known in below if not stop or "/" not in known[len(start) :]]
            document = {"kind": "storage#objects", "items": [self.described(bucket, known) for known in items]}
            self.answer(200, {**document, "prefixes": sorted(inner) if stop else []})
        elif name not in self.objects[bucket]:
            self.answer(404, {"error": {"code": 404, "message": "No such object"}})
        elif query.get("alt") == "media":
            raw, wanted = self.objects[bucket][name], self.headers.get("Range", "")
            first, _, last = wanted[6:].partition("-")
            part = raw[int(first or 0) : int(last or len(raw) - 1) + 1]
            self.answer(206 if wanted else 200, raw=part)
        else:
            self.answer(200, self.described(bucket, name))

    def do_POST(self) -> None:
        bucket, _, query = self.parse()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.refused(bucket):
            return
        if "upload_id" in query:
            self.part(query["upload_id"], body)
            return
        if query["uploadType"] == "resumable":
            token = str(len(self.sessions))
            self.sessions[token] = (bucket, json.loads(body)["name"], bytearray())
            host = f"http://{self.headers['Host']}"
            self.answer(200, {}, Location=f"{host}/upload/b/{bucket}/o?uploadType=resumable&upload_id={token}")
            return
        mark = b"--" + self.headers["Content-Type"].partition("boundary=")[2].strip('"').encode()
        card, content = (part.split(b"\n\n", 1)[1] for part in body.split(mark)[1:3])
        name = json.loads(card)["name"]
        self.objects[bucket][name] = content[:-1]
        self.answer(200, self.described(bucket, name))

    def part(self, token: str, body: bytes) -> None:
        """Take a part of an object; the last one says how long it all is."""
        bucket, name, so_far = self.sessions[token]
        so_far += body
        if self.headers["Content-Range"].endswith("/*"):
            self.answer(308, {}, Range=f"bytes=0-{len(so_far) - 1}")
            return
        self.objects[bucket][name] = bytes(so_far)
        self.answer(200, self.described(bucket, name))

    def do_DELETE(self) -> None:
        bucket, name, _ = self.parse()
        del self.objects[bucket][name]
        self.answer(204, raw=b"")


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[Handler]]:
    """Return the handler of a server with one empty bucket, ``b``."""
    handler = type("OneHandler", (Handler,), {"objects": {"b": {}}, "sessions": {}, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    monkeypatch.setattr(server, "handle_error", lambda *_: None)  # who asked has seen enough
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOSERLOOK_MIRROR", str(tmp_path / "mirror"))
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_cache_in_a_bucket_of_google(
    google: type[Handler], write: Callable[..., Any], model: Any, dataset: Any, tmp_path: Path, capsys: Capture
) -> None:
    rng = np.random.default_rng(2)
    large = {"features": rng.normal(size=(70, 90_000)).astype(np.float32)}  # sent in parts
    stores = [write(), write(dataset=cache_schema.DatasetCard(id="other"), backend="hdf5", **large)]
    stores.append(
        cache_schema.write_summary(tmp_path / "cache", model=model, dataset=dataset, columns={"a": np.arange(70.0)})
    )
    address = "gs://b/my cache"
    assert main(["push", str(tmp_path / "cache"), address, "--read-back"]) == 0
    assert "3 stores pushed, 0 there already, 0 failed" in capsys.readouterr().out
    assert main(["push", str(tmp_path / "cache"), address]) == 0
    assert "0 stores pushed, 3 there already" in capsys.readouterr().out
    remote = {store.digest: store for store in cache_schema.open_cache(address).stores()}
    for store in stores:
        for name in store.array_names:
            np.testing.assert_array_equal(remote[store.digest].read(name), store.read(name))
    google.asked.clear()
    assert main(["pull", address, str(tmp_path / "laptop"), "--summaries"]) == 0
    got = [line for line in google.asked if ".zarr" in line or ".h5" in line]
    assert got
    assert all("/summaries/" in line for line in got)
    assert main(["pull", address, str(tmp_path / "all")]) == 0
    assert {store.digest for store in cache_schema.open_cache(tmp_path / "all").stores()} == set(remote)
    assert main(["check", address]) == 0
    name = next(name for name in google.objects["b"] if name.endswith("labels/c/0"))
    google.objects["b"][name] = google.objects["b"][name][:-1] + b"x"
    assert main(["check", address]) == 1
    captured = capsys.readouterr()
    assert "labels/c/0: its bytes are not those that were sealed" in captured.out
    assert "default credentials" not in captured.err  # reported once by whoever needs it, not at every request


def test_what_google_refuses(google: type[Handler], write: Callable[..., Any], tmp_path: Path, capsys: Capture) -> None:
    write()
    for words, printed in (
        (["show", "gs://nosuch/cache"], "no cache at gs://nosuch/cache"),
        (["push", str(tmp_path / "cache"), "gs://nosuch/cache"], "gs://nosuch/cache/"),
        (["show", "gs:/b/cache"], "did you mean gs://b/cache?"),
    ):
        assert main(words) == 2, words
        error = capsys.readouterr().err
        assert printed in error
        assert error.count("\n") == 1
    google.denied = True
    assert main(["show", "gs://b/cache"]) == 2
    error = capsys.readouterr().err
    assert "access is denied" in error
    assert "GOOGLE_APPLICATION_CREDENTIALS" in error
    assert error.count("\n") == 1


def endless(handler: Handler) -> None:
    """Send zeros until nobody listens."""
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.close_connection = True
    with contextlib.suppress(OSError):
        for _ in range(1 << 12):
            handler.wfile.write(b"%x\r\n%s\r\n" % (1 << 16, bytes(1 << 16)))
            type(handler).sent += 1 << 16


def drip(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.close_connection = True
    with contextlib.suppress(OSError):
        for _ in range(100):
            handler.wfile.write(b" ")
            time.sleep(0.05)


def packed(handler: Handler) -> None:
    raw = gzip.compress(bytes(200 << 20), 9)
    handler.answer(200, raw=raw, Content_Encoding="gzip")


def pages(handler: Handler) -> None:
    handler.answer(200, {"kind": "storage#objects", "nextPageToken": str(time.monotonic_ns()), "items": []})


def whole(handler: Handler) -> None:
    """Send a whole object where a part was asked for."""
    bucket, name, _ = handler.parse()
    handler.answer(200, raw=handler.objects[bucket][name])


ATTACKS: dict[str, tuple[str, Callable[[Handler], None], str]] = {
    # name: which requests, the answer, what the one line says
    "endless object": ("zarr.json?alt=media", endless, "all that it may be"),
    "endless data": ("labels%2Fc%2F0?alt=media", endless, "all that it may be"),
    "endless part": (".h5?alt=media", endless, ""),
    "endless listing": ("prefix=", endless, "all that it may be"),
    "pages without end": ("prefix=", pages, "stopped responding"),
    "dripping data": ("labels%2Fc%2F0?alt=media", drip, "too slowly"),
    "packed data": ("labels%2Fc%2F0?alt=media", packed, ""),
    "packed listing": ("prefix=", packed, ""),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_bucket_costs_what_it_announced(
    attack: str,
    google: type[Handler],
    write: Callable[..., Any],
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    part, answer, says = ATTACKS[attack]
    write(backend="hdf5" if ".h5" in part else "zarr")
    assert main(["push", str(tmp_path / "cache"), "gs://b/c"]) == 0
    capsys.readouterr()
    monkeypatch.setattr(wire, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(wire, "ATTEMPTS", 2)
    monkeypatch.setattr(wire, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(wire.Wire.cat, "__defaults__", (1 << 20,))
    monkeypatch.setattr(answers, "SLOWEST", 5_000)
    monkeypatch.setattr(places_google, "LISTING_BYTES", 1 << 20)
    monkeypatch.setattr(places_google, "LISTING_SECONDS", 1.0 if answer is pages else 60.0)
    real, google.sent = google.do_GET, 0

    def attacked(handler: Handler) -> None:
        (answer if part in handler.path else real)(handler)

    monkeypatch.setattr(google, "do_GET", attacked)
    begun = time.monotonic()
    assert main(["pull", "gs://b/c", str(tmp_path / "pulled")]) in (1, 2)
    assert time.monotonic() - begun < 30
    captured = capsys.readouterr()
    lines = (captured.out + captured.err).splitlines()
    assert len(lines) <= 3, lines
    assert says in captured.out + captured.err, lines
    assert "Traceback" not in captured.err
    assert google.sent < 64 << 20  # most of it into buffers of sockets


def test_a_bucket_that_sends_no_parts(
    google: type[Handler], write: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write(backend="hdf5")
    assert main(["push", str(tmp_path / "cache"), "gs://b/c"]) == 0
    real = google.do_GET
    monkeypatch.setattr(google, "do_GET", lambda handler: (whole if "alt=media" in handler.path else real)(handler))
    assert main(["pull", "gs://b/c", str(tmp_path / "pulled")]) == 0
    assert [found.digest for found in cache_schema.open_cache(tmp_path / "pulled").stores()] == [store.digest]
