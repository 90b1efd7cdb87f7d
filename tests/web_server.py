"""A server for tests of remote caches: static, or in front of another; slow, short of breath or lying on request."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote


class Asked(NamedTuple):
    """A request and the bytes of the answer's body."""

    method: str
    path: str
    n_bytes: int


class WebServer:
    """A server at ``address``.

    Parameters
    ----------
    folder
        What it serves, with listings; or None.
    upstream
        ``host:port`` that it passes requests on to.

    Attributes
    ----------
    ranges
        Whether parts of files are sent; Python's own server does not.
    listings
        Whether folders are listed; 403 otherwise.
    latency
        Seconds before every answer.
    held_after
        From this many requests on answers wait for :meth:`let_go`, so that whoever asks can be harmed meanwhile.
    fault
        Called with (method, path, times this was asked before); returns what goes wrong: a status, ``drop`` in the
        middle of the body, ``short``, ``flip``, ``hang``; an empty string for nothing; or a function of the handler
        that answers in its own way.
    asked
        All requests so far.
    waits
        Beginning and end of every wait for the latency.
    """

    def __init__(self, folder: Path | None, upstream: str = "") -> None:
        self.folder, self.upstream = folder, upstream
        self.ranges = self.listings = True
        self.latency = 0.0
        self.held_after = sys.maxsize
        self.fault: Callable[[str, str, int], Any] = lambda _method, _path, _before: ""
        self.asked: list[Asked] = []
        self.waits: list[tuple[float, float]] = []
        self._times: dict[tuple[str, str], int] = {}
        self.released = threading.Event()
        self.under_way = 0
        self.changed = threading.Condition()
        self._held = threading.Event()

        class Bound(_Handler):
            web = self

        self._server = _Server(("127.0.0.1", 0), Bound)
        self._server.daemon_threads = True
        self._server.socket.listen(128)
        self.port = self._server.server_port
        self.address = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def times(self, method: str, path: str) -> int:
        """Return how often this was asked before, and count it."""
        before = self._times.get((method, path), 0)
        self._times[method, path] = before + 1
        return before

    def forget(self) -> None:
        """Count from nothing how often what was asked."""
        self._times.clear()

    def hold(self) -> None:
        """Wait until :meth:`let_go`, where enough was asked."""
        if len(self.asked) >= self.held_after:
            self._held.wait(60)

    def let_go(self) -> None:
        """Hold nothing any more, and wait until every answer under way is given: who was killed asks no later."""
        self.held_after = sys.maxsize
        self._held.set()
        with self.changed:
            assert self.changed.wait_for(lambda: self.under_way == 0, 60)
        self._held.clear()

    def files(self) -> list[str]:
        """Return the paths that were got, without the cache's root."""
        return [asked.path for asked in self.asked if asked.method == "GET"]

    def n_bytes(self) -> int:
        """Return the bytes of all bodies so far."""
        return sum(asked.n_bytes for asked in self.asked)

    def one_after_another(self) -> int:
        """Return how many waits came one after another: the most of them of which no two were at the same time."""
        count, end = 0, float("-inf")
        for begun, ended in sorted(self.waits, key=lambda wait: wait[1]):
            if begun >= end:
                count, end = count + 1, ended
        return count

    def stop(self) -> None:
        """Stop, and let hanging answers go."""
        self.released.set()
        self._held.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):  # a killed client is what was wanted
            super().handle_error(request, client_address)


class _Handler(http.server.SimpleHTTPRequestHandler):
    web: WebServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def send_error(self, code: int, *_: Any, **__: Any) -> None:
        self.answer(code, {}, b"")

    def do_GET(self) -> None:
        web = self.web
        with web.changed:
            web.under_way += 1
        try:
            self.answered()
        finally:
            with web.changed:
                web.under_way -= 1
                web.changed.notify_all()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def answered(self) -> None:
        web = self.web
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:  # who sent it was killed, and a server would wait for the rest
            self.close_connection = True
            return
        web.hold()
        if latency := web.latency:
            begun = time.monotonic()
            time.sleep(latency)
            web.waits.append((begun, time.monotonic()))
        path = self.path
        wrong = web.fault(self.command, path, web.times(self.command, path))
        if callable(wrong):
            web.asked.append(Asked(self.command, path, 0))
            self.close_connection = True
            with contextlib.suppress(OSError):  # who asked has seen enough
                wrong(self)
        elif isinstance(wrong, int):
            self.answer(wrong, {}, b"")
        elif web.upstream:
            self.passed_on(body, wrong)
        else:
            self.from_folder(wrong)

    def passed_on(self, body: bytes, wrong: str) -> None:
        connection = http.client.HTTPConnection(self.web.upstream, timeout=60)
        connection.request(self.command, self.path, body, dict(self.headers.items()))
        response = connection.getresponse()
        raw = response.read()
        headers = {k: v for k, v in response.getheaders() if k.lower() not in ("transfer-encoding", "connection")}
        if self.command != "HEAD":
            headers.pop("Content-Length", None)
        self.answer(response.status, headers, raw, wrong)
        connection.close()

    def from_folder(self, wrong: str) -> None:
        web = self.web
        self.directory = str(web.folder)
        path = Path(self.translate_path(self.path))
        if path.is_dir():
            if not web.listings:
                self.answer(403, {}, b"")
                return
            if not self.path.partition("?")[0].endswith("/"):
                self.answer(301, {"Location": self.path + "/"}, b"")
                return
            page = self.list_page(path)
            self.answer(200, {"Content-Type": "text/html; charset=utf-8"}, page)
            return
        if not path.is_file():
            self.answer(404, {}, b"")
            return
        raw = path.read_bytes()
        stat = path.stat()
        headers = {"Content-Type": "application/octet-stream", "ETag": f'"{stat.st_mtime_ns}-{stat.st_ino}"'}
        wanted = self.headers.get("Range", "")
        if not (web.ranges and wanted.startswith("bytes=")):
            self.answer(200, headers, raw, wrong)
            return
        first, _, last = wanted[6:].partition("-")
        part = raw[int(first) : int(last or len(raw) - 1) + 1]
        if not part:
            self.answer(416, {"Content-Range": f"bytes */{len(raw)}"}, b"")
            return
        headers["Content-Range"] = f"bytes {first}-{int(first) + len(part) - 1}/{len(raw)}"
        self.answer(206, headers, part, wrong)

    def list_page(self, folder: Path) -> bytes:
        names = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in sorted(folder.iterdir())]
        links = "".join(f'<li><a href="{quote(name)}">{name}</a></li>' for name in names)
        return f"<html><body><ul>{links}</ul></body></html>".encode()

    def answer(self, code: int, headers: dict[str, str], raw: bytes, wrong: str = "") -> None:
        if wrong == "hang":
            self.web.released.wait(60)
        if wrong == "short":
            raw = raw[: len(raw) // 2]
        if wrong == "flip" and raw:
            middle = len(raw) // 2
            raw = raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]
        sent = b"" if self.command == "HEAD" else raw[: len(raw) // 2] if wrong == "drop" else raw
        self.web.asked.append(Asked(self.command, self.path, len(sent)))
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(raw)))
        try:
            self.end_headers()
            self.wfile.write(sent)
        except OSError:  # who asked has given up
            self.close_connection = True
            return
        if wrong == "drop":
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
