"""Shared by every folder: the miniature study, built once, a cache of some of its models, and a browser."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from web_server import WebServer

from closerlook_common.console import waiting

# One profile for every property test. It has no limits of time, which a loaded machine would miss; where CI is set, it
# inherits Hypothesis's own profile for CI, which draws the same examples each time.
settings.register_profile("closerlook", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("closerlook")

# Side by side with other test processes, threads that wait for one another at each layer of a network take four times
# as long as one thread alone. Read when torch is imported, and by the commands that tests start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("wit-vit", "laion-vit", "laion-cnn", "ft-wit-vit", "ft12k-laion-cnn", "resnet", "convnext", "vit", "more-")
"""Beginnings of ids, of each group at least one; of several models the last, which has seen most."""

BROWSER_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--window-size=1300,1000",
)


class SteppedClock(waiting.Clock):
    """Time that passes only where a test says so: what waits for it is called then."""

    def __init__(self) -> None:
        self.time = 0.0
        self._calls: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> float:
        """Return the seconds that have passed."""
        return self.time

    def call_later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        """Keep a call until its time has come."""
        kept = (self.time + max(seconds, 0.0), call)
        self._calls.append(kept)
        return lambda: kept in self._calls and self._calls.remove(kept)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        end = self.time + seconds
        while due := sorted((kept for kept in self._calls if kept[0] <= end), key=lambda kept: kept[0]):
            self._calls.remove(due[0])
            self.time = due[0][0]
            due[0][1]()
        self.time = end


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> SteppedClock:
    """Time as notices of long waits see it: a loaded machine prints none, and a test need not wait."""
    monkeypatch.setattr(waiting, "clock", SteppedClock())
    monkeypatch.setattr(waiting, "_active", [])
    return waiting.clock


@contextlib.contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let the processes of a parallel test run wait for one another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def miniature() -> Path:
    """The folder of the miniature study; the same that ``make demo`` builds and uses."""
    from examples.miniature.build import build

    with one_at_a_time(ROOT / ".pytest_cache" / "miniature.lock"):
        build(ROOT / "miniature")
    return ROOT / "miniature"


@pytest.fixture(scope="session")
def miniature_cache(miniature: Path) -> Path:
    """A cache of nine of its models on all its datasets, under two prompt sets; goes on where a run before left it."""
    from extract.cli import main

    cache = ROOT / ".pytest_cache" / "miniature-cache"
    lines = (miniature / "models.txt").read_text().splitlines()
    models_of = {begin: [line for line in lines if line[:1] != "#" and f" id={begin}" in line] for begin in MODELS}
    chosen = [found[-1] for found in models_of.values()]
    with one_at_a_time(cache.with_suffix(".lock")):
        # Beside the full list: paths in a list are relative to it.
        models = miniature / "models-of-tests.txt"
        models.write_text("\n".join(chosen) + "\n")
        words = ["--model-list", models, "--datasets", miniature / "datasets.toml", "--cache", cache]
        assert main([*map(str, words), "--prompts", "openai-80,photo-1"]) == 0
    return cache


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., WebServer]]:
    """Return a function that starts a ``WebServer`` (see web_server.py); what is read of it lies in ``tmp_path``."""
    monkeypatch.setenv("CLOSERLOOK_MIRROR", str(tmp_path / "mirror"))
    servers: list[WebServer] = []

    def start(folder: Path | None, upstream: str = "") -> WebServer:
        servers.append(WebServer(folder, upstream))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    """Return ``host:port`` of a local S3 server."""
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    yield f"127.0.0.1:{server.get_host_and_port()[1]}"
    server.stop()


@pytest.fixture
def bucket(moto: str, serve: Callable[..., WebServer], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a server in front of S3, whose ``cache`` is the address of an empty cache in a fresh bucket."""
    fsspec = pytest.importorskip("fsspec")
    pytest.importorskip("s3fs", reason="the extra 'remote' is not installed")
    front = serve(None, upstream=moto)
    for name, value in {
        "AWS_ENDPOINT_URL": front.address,
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{secrets.token_hex(8)}"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    front.asked.clear()
    front.cache = f"s3://{name}/my cache"
    return front


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Return a headless Chromium that keeps what pages write to its console."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    chromedriver = shutil.which("chromedriver")
    if not (chromium and chromedriver):
        if os.environ.get("CI") == "true":
            pytest.fail("install these: apt-get install --no-install-recommends chromium chromium-driver")
        pytest.skip("no chromium and chromedriver on this machine")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*BROWSER_FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield driver
    driver.quit()
