"""An S3 server that fails: asked again as often as this project says, whatever the libraries below would do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cache_schema.reading.places import wire
from cache_schema.reading.places.addresses import Address
from closerlook_common.errors import CacheError

pytest.importorskip("s3fs")

# aiohttp closes its sockets when they are collected, which is not the tests' business.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
TRIES = 3
CODES = {500: "InternalError", 503: "SlowDown"}


class FailingServer(ThreadingHTTPServer):
    """Answers the first ``failures`` requests as ``fault`` says, the others with seven bytes."""

    daemon_threads = True
    fault: str | int = ""
    failures = 10**9

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked = 0
        self.released = threading.Event()


class Answer(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: FailingServer

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Fail or send."""
        self.server.asked += 1
        fault = self.server.fault if self.server.asked <= self.server.failures else ""
        if fault == "silent":
            self.server.released.wait(30)
        if fault in ("silent", "closed"):
            self.close_connection = True
            return
        body = b"content"
        if isinstance(fault, int):
            body = f"<Error><Code>{CODES[fault]}</Code><Message>later</Message></Error>".encode()
        self.send_response(fault if isinstance(fault, int) else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingServer]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    for name, number in (("ATTEMPTS", TRIES), ("FIRST_PAUSE", 0.01), ("SILENT_SECONDS", 0.3)):
        monkeypatch.setattr(wire, name, number)
    with FailingServer() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield running
        running.released.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def far(server: FailingServer) -> wire.Wire:
    return wire.Wire(Address("s3://bucket/cache"), {"endpoint_url": f"http://127.0.0.1:{server.server_port}"})


@pytest.mark.parametrize(
    ("fault", "printed"),
    [
        ("silent", "the server stopped responding (ReadTimeoutError); run the same command again"),
        ("closed", "the answer broke off every time"),
        (500, "cannot be read"),
        (503, "cannot be read"),
    ],
)
def test_tries_do_not_multiply(fault: str | int, printed: str, server: FailingServer, far: wire.Wire) -> None:
    server.fault = fault
    with pytest.raises(CacheError) as caught:
        far.cat("index.json")
    assert printed in str(caught.value)
    # aiohttp sends a request a second time where a connection that it had kept turns out to be closed.
    assert TRIES <= server.asked <= TRIES * (2 if fault == "closed" else 1)


@pytest.mark.parametrize("fault", ["silent", "closed", 500, 503])
def test_what_passes_is_got_over(fault: str | int, server: FailingServer, far: wire.Wire) -> None:
    server.fault, server.failures = fault, 2
    assert far.cat("index.json") == b"content"


def test_a_server_that_is_not_there(server: FailingServer) -> None:
    nobody = FailingServer()
    nobody.server_close()
    far = wire.Wire(Address("s3://bucket/cache"), {"endpoint_url": f"http://127.0.0.1:{nobody.server_port}"})
    with pytest.raises(CacheError, match=r"no server answers there .*; check the address and the network"):
        far.cat("index.json")
