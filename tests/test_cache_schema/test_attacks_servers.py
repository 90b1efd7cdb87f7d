"""Hostile web and S3 servers, one row an attack: nothing outside is touched, no secret leaks, cost is bounded."""

from __future__ import annotations

import gzip
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cache_schema
from cache_schema.cli import main
from cache_schema.reading.places import answers, wire
from cache_schema.reading.places.addresses import is_plain_name
from cache_schema.reading.places.answers import names_below
from closerlook_common.errors import UserError

pytest.importorskip("s3fs")
pytest.importorskip("aiohttp")
# aiohttp closes its sockets when they are collected, which is not the tests' business.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

MOST_SENT = 128 << 20
"""Bytes that a server gets rid of in all, most of them into buffers of sockets; each attack has 1 GB a request."""
ROW = tuple[str, Callable[[Any], None], str]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let limits be small, so that what is endless ends soon."""
    monkeypatch.setattr(wire, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(wire, "SILENT_SECONDS", 0.3)
    monkeypatch.setattr(wire, "ATTEMPTS", 2)
    monkeypatch.setattr(wire, "METADATA_BYTES", 1 << 20)
    monkeypatch.setattr(wire.Wire.cat, "__defaults__", (1 << 20,))
    monkeypatch.setattr(answers, "LISTING_BYTES", 1 << 18)
    monkeypatch.setattr(answers, "SLOWEST", 5_000)
    monkeypatch.setattr(answers, "LISTING_SECONDS", 0.5)


def start(handler: Any, code: int, **headers: str) -> None:
    handler.send_response(code)
    handler.send_header("Connection", "close")
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()


def redirect(to: str) -> Callable[[Any], None]:
    return lambda handler: start(handler, 302, Location=to, Content_Length="0")


def endless(handler: Any) -> None:
    start(handler, 200, Transfer_Encoding="chunked", Content_Type="text/html")
    if handler.command == "HEAD":
        return
    for _ in range(1 << 14):
        handler.wfile.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        handler.web.sent += 0x10000


def longer(handler: Any) -> None:
    """Announce and send more than was sealed."""
    start(handler, 200, Content_Length=str(1 << 30))
    for _ in range(1 << 14 if handler.command == "GET" else 0):
        handler.wfile.write(b"x" * 0x10000)
        handler.web.sent += 0x10000


def ends_early(handler: Any) -> None:
    start(handler, 200, Content_Length="100000")
    handler.wfile.write(b"x" * 100)


def drip(handler: Any) -> None:
    start(handler, 200, Content_Length="100000")
    for _ in range(100 if handler.command == "GET" else 0):
        handler.wfile.write(b"{")
        handler.wfile.flush()
        time.sleep(0.05)


def drip_header(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for i in range(100):
        handler.wfile.write(f"X-{i}: y\r\n".encode())
        handler.wfile.flush()
        time.sleep(0.05)


BOMB = gzip.compress(bytes(200 << 20), 9)


def bomb(handler: Any) -> None:
    start(handler, 200, Content_Length=str(len(BOMB)), Content_Encoding="gzip", Content_Type="text/html")
    handler.wfile.write(BOMB if handler.command == "GET" else b"")


def wrong_range(handler: Any) -> None:
    start(handler, 206, Content_Range="bytes 7-40/100", Content_Length="34")
    handler.wfile.write(b"x" * 34 if handler.command == "GET" else b"")


def escapes(handler: Any) -> None:
    handler.wfile.write(b"HTTP/1.1 500 \x1b[2Jgone\x07\r\nContent-Length: 0\r\n\r\n")


def with_index(*names: object) -> Callable[[Any], None]:
    def answer(handler: Any) -> None:
        raw = json.dumps({"stores": names}).encode()
        start(handler, 200, Content_Length=str(len(raw)))
        handler.wfile.write(raw if handler.command == "GET" else b"")

    return answer


def deep(handler: Any) -> None:
    start(handler, 200, Content_Length="200000")
    handler.wfile.write(b"[" * 200_000 if handler.command == "GET" else b"")


ATTACKS: dict[str, tuple[str, Callable[[Any], None], str]] = {
    # name: what is attacked (index, root, data or hdf5), the answer, what the one line says
    "index redirects to a local file": ("index", redirect("file:///etc/passwd"), "NonHttpUrlRedirect"),
    "data redirects to a local file": ("data", redirect("file:///etc/passwd"), "NonHttpUrlRedirect"),
    "redirects for ever": ("root", redirect("?again"), "TooManyRedirects"),
    "endless index": ("index", endless, "all that it may be"),
    "endless root": ("root", endless, "all that it may be"),
    "endless data": ("data", endless, "all that it may be"),
    "endless data of an HDF5 file": ("hdf5", endless, ""),
    "more than was sealed": ("data", longer, "all that it may be"),
    "less than announced": ("data", ends_early, "broke off"),
    "less than announced in the root": ("root", ends_early, "broke off"),
    "dripping index": ("index", drip, "too slowly"),
    "dripping data": ("data", drip, ""),
    "dripping header": ("root", drip_header, "stopped responding"),
    "packed index": ("index", bomb, "not an index of a cache"),
    "packed root": ("root", bomb, ""),
    "packed data": ("data", bomb, ""),
    "another part of an HDF5 file": ("hdf5", wrong_range, ""),
    "escape sequences": ("root", escapes, ""),
    "index nested deeply": ("index", deep, "not an index of a cache"),
    "index of no names": ("index", with_index(None, 7), "not a store of a cache"),
    "index leads above": ("index", with_index("../../evil/x.zarr"), "not a store of a cache"),
    "index is absolute": ("index", with_index("/etc/passwd/x.zarr"), "not a store of a cache"),
    "index with backslashes": ("index", with_index("a\\..\\b/x.zarr"), "not a store of a cache"),
    "index with NUL": ("index", with_index("a\0b/x.zarr"), "not a store of a cache"),
    "index with escapes": ("index", with_index("a\x1b[2J/x.zarr"), "not a store of a cache"),
    "index with half a character": ("index", with_index("a\ud800/x.zarr"), "not a store of a cache"),
    "index with a long name": ("index", with_index("a/" + "x" * 300 + ".zarr"), "not a store of a cache"),
}


def is_attacked(kind: str, path: str) -> bool:
    return {
        "index": path == "/index.json",
        "root": path.endswith(".zarr/zarr.json"),
        "data": ".zarr/" in path and not path.endswith(".zarr/zarr.json"),
        "hdf5": path.endswith(".h5"),
    }[kind]


def outside(tmp_path: Path) -> set[str]:
    return {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_web_server(
    attack: str, write: Callable[..., Any], serve: Callable[..., Any], tmp_path: Path, capsys: Any
) -> None:
    kind, answer, printed = ATTACKS[attack]
    store = write(backend="hdf5" if kind == "hdf5" else "zarr")
    web = serve(tmp_path / "cache")
    web.sent, web.listings = 0, False
    (tmp_path / "cache" / "index.json").write_text(
        json.dumps({"stores": [store.path.relative_to(tmp_path / "cache").as_posix()]})
    )
    web.fault = lambda _method, path, _before: answer if is_attacked(kind, path.partition("?")[0]) else ""
    begun = time.monotonic()
    assert main(["pull", web.address, str(tmp_path / "pulled")]) in (1, 2)
    captured = capsys.readouterr()
    assert time.monotonic() - begun < 15
    assert web.sent < MOST_SENT
    lines = (captured.out + captured.err).splitlines()
    assert len(lines) <= 3, lines
    assert "Traceback" not in captured.err
    assert printed in captured.out + captured.err, captured
    assert not [char for char in captured.out + captured.err if ord(char) < 32 and char != "\n"]
    assert outside(tmp_path) <= {"cache", "mirror", "pulled"}
    assert not [path for path in (tmp_path / "pulled").rglob("*.zarr") if "staged" not in str(path)]


def test_a_redirect_takes_no_secret_to_another_host(
    write: Callable[..., Any], serve: Callable[..., Any], tmp_path: Path
) -> None:
    """Content may come from elsewhere, as it does where a hub sends downloads to a store of objects."""
    store = write()
    first, second = serve(tmp_path / "cache"), serve(tmp_path / "cache")
    seen: list[str] = []

    def note(handler: Any) -> None:
        seen.append(str(handler.headers) + handler.path)
        handler.close_connection = False
        handler.from_folder("")

    second.fault = lambda *_: note
    first.fault = lambda _method, path, _before: redirect(
        f"http://localhost:{second.port}{path.partition('?')[0]}"
    ) if ".zarr" in path else ""  # fmt: skip
    host = first.address.removeprefix("http://")
    address = f"http://reader:pass-word@{host}?sig=a-signature"
    remote = cache_schema.open_cache(address, client_kwargs={"headers": {"X-Token": "t-o-k-e-n"}})
    assert [found.digest for found in remote.stores()] == [store.digest]
    remote.stores()[0].read("labels")
    assert len(seen) >= 2
    for text in seen:
        for secret in ("pass-word", "a-signature", "t-o-k-e-n", "Authorization", "cmVhZGVy"):
            assert secret not in text


@pytest.mark.parametrize(
    "link",
    ["../", "../evil/", "..%2fevil/", "%2e%2e/evil/", "..\\evil/", "/etc/", "//other/x/", "http://other/c/x/",
     "file:///etc/", "a%00b/", "a%1b%5b/", "a%5cb/", ".hidden/", "a%2fb/", "http://[x/", "javascript:x", "?C=N", "#a"],
)  # fmt: skip
def test_links_that_lead_out_of_a_listing(link: str) -> None:
    page = f'<a href="good/">x</a><a HREF = \'{link}\'>x</a><a href="http://host/c/also%20good.zarr">x</a>'
    found = names_below("http://host/c/", page)
    assert {name for name in found if is_plain_name(name)} == {"good", "also good.zarr"}
    assert found["good"] is True
    assert found["also good.zarr"] is False


@pytest.mark.parametrize("page", ["endless", "bomb"])
def test_a_hostile_listing(page: str, serve: Callable[..., Any], tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "cache").mkdir()
    web = serve(tmp_path / "cache")
    web.sent = 0
    web.fault = lambda _method, path, _before: {"endless": endless, "bomb": bomb}[page] if path == "/" else ""
    assert main(["show", web.address]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert web.sent < MOST_SENT


def s3_pages(handler: Any) -> None:
    """List no entries, and a further page, for ever."""
    raw = (
        '<?xml version="1.0"?><ListBucketResult><Name>b</Name><IsTruncated>true</IsTruncated>'
        f"<NextContinuationToken>{time.monotonic_ns()}</NextContinuationToken></ListBucketResult>"
    ).encode()
    start(handler, 200, Content_Length=str(len(raw)), Content_Type="application/xml")
    handler.wfile.write(raw)


def s3_names(handler: Any) -> None:
    keys = "".join(
        f"<CommonPrefixes><Prefix>my cache/{name}/</Prefix></CommonPrefixes>"
        for name in ("..", "../../evil", "a\\b", "&#27;[2J", "x" * 300)
    )
    raw = f'<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated>{keys}</ListBucketResult>'.encode()
    start(handler, 200, Content_Length=str(len(raw)), Content_Type="application/xml")
    handler.wfile.write(raw)


S3_ATTACKS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "pages without end": ("list-type=2", s3_pages),
    "names that lead out": ("list-type=2", s3_names),
    "an endless listing": ("list-type=2", drip),
    "an endless root": ("zarr.json", endless),
    "endless data": ("/c/", endless),
    "another host": ("zarr.json", redirect("file:///etc/passwd")),
    "packed data": ("/c/", bomb),
    "dripping data": ("/c/", drip),
}


@pytest.mark.parametrize("attack", S3_ATTACKS)
def test_a_hostile_s3_server(attack: str, bucket: Any, write: Callable[..., Any], tmp_path: Path, capsys: Any) -> None:
    part, answer = S3_ATTACKS[attack]
    write()
    assert main(["push", str(tmp_path / "cache"), bucket.cache]) == 0
    capsys.readouterr()
    bucket.sent = 0
    bucket.fault = lambda method, path, _before: answer if method == "GET" and part in path else ""
    begun = time.monotonic()
    assert main(["pull", bucket.cache, str(tmp_path / "pulled")]) in (1, 2)
    assert time.monotonic() - begun < 30
    captured = capsys.readouterr()
    assert len((captured.out + captured.err).splitlines()) <= 3, captured
    assert bucket.sent < MOST_SENT
    assert outside(tmp_path) <= {"cache", "mirror", "pulled"}


def test_an_address_of_a_local_file_is_no_redirect(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no cache at"):
        cache_schema.open_cache(f"file://{tmp_path}/gone")


@pytest.mark.parametrize("what", ["pipe", "link"])
@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_a_folder_that_is_named_by_an_address(
    what: str, backend: str, write: Callable[..., Any], tmp_path: Path, capsys: Any
) -> None:
    """A stranger's folder under ``file://``: a pipe in a file's place does not keep a reader waiting."""
    store = write(backend=backend)
    good = write(dataset=cache_schema.DatasetCard(id="other"))
    file = store.path / "labels" / "c" / "0" if backend == "zarr" else store.path
    secret = tmp_path / "secret"
    file.rename(secret)
    if what == "pipe":
        os.mkfifo(file)
    else:
        file.symlink_to(secret)
    begun = time.monotonic()
    followed = (what, backend) == ("link", "hdf5")  # a store that is itself a link was made by the user
    assert main(["pull", f"file://{tmp_path}/cache", str(tmp_path / "pulled")]) == (0 if followed else 1)
    assert time.monotonic() - begun < 20
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert followed or any(text in printed.out for text in ("plain file", "is a link", "never sealed"))
    pulled = {found.digest for found in cache_schema.open_cache(tmp_path / "pulled").stores()}
    assert pulled == {good.digest, *([store.digest] if followed else [])}
