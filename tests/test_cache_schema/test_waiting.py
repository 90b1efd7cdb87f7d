"""What takes longer than two seconds says what it is; what does not is silent. Time is a test's own (`clock`)."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache_schema
from cache_schema.cli import main
from closerlook_common.console import command_line, progress
from closerlook_common.console.command_line import Command, run_command
from closerlook_common.console.progress import Bar
from closerlook_common.console.waiting import Accumulated, WaitNotice, printing, waiting, waiting_for

Capture = pytest.CaptureFixture[str]
Write = Callable[..., cache_schema.PredictionStore]


@pytest.fixture
def slow(clock: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that makes the function at a dotted name take three seconds."""

    def make(name: str) -> None:
        place, _, attribute = name.rpartition(".")
        holder = sys.modules.get(place) or getattr(sys.modules[place.rpartition(".")[0]], place.rpartition(".")[2])
        call = getattr(holder, attribute)

        def late(*args: Any, **options: Any) -> Any:
            clock.advance(3)
            return call(*args, **options)

        monkeypatch.setattr(holder, attribute, late)

    return make


def test_only_a_long_wait_of_a_command_is_stated(clock: Any, capsys: Capture) -> None:
    with waiting("in a library"):
        clock.advance(3)
    with printing():
        with waiting("short"):
            clock.advance(1.9)
        clock.advance(9)
        with waiting("reading"):
            clock.advance(3)
        assert list(waiting_for(range(3), "counting")) == [0, 1, 2]
        for _ in waiting_for(range(3), "counting"):
            clock.advance(0.8)
    assert capsys.readouterr().err == "reading ...\ncounting ...\n"


def test_a_wait_that_is_over_gives_way_to_the_next(clock: Any) -> None:
    stated: list[str] = []
    notice = WaitNotice(stated.append)
    notice.begin("first")
    clock.advance(1)
    notice.begin("second")
    clock.advance(1.5)
    assert stated == []
    clock.advance(1)
    notice.end()
    notice.begin("third")
    notice.end()
    clock.advance(5)
    assert stated == ["second ..."]


def test_of_two_waits_the_inner_one_is_stated(clock: Any, capsys: Capture) -> None:
    with printing(), waiting("outer"):
        clock.advance(1)
        with waiting("inner"):
            clock.advance(10)
        assert capsys.readouterr().err == "inner ...\n"
        clock.advance(3)
        assert capsys.readouterr().err == "outer ...\n"
        clock.advance(30)
    assert capsys.readouterr().err == ""


def test_many_short_waits_count_together_and_are_stated_once(clock: Any, capsys: Capture) -> None:
    with printing():
        short = Accumulated("compiling")
        for _ in range(30):
            short.begin()
            short.begin()  # one inside another
            clock.advance(0.15)
            short.end()
            short.end()
            clock.advance(5)  # not compiling
    assert capsys.readouterr().err == "compiling ...\n"


def command(monkeypatch: pytest.MonkeyPatch, work: Callable[[], None]) -> int:
    module = types.ModuleType("slow_command")
    module.add_arguments = lambda parser: None  # type: ignore[attr-defined]
    module.run = lambda args: work() or 0  # type: ignore[attr-defined]
    monkeypatch.setattr(command_line.importlib, "import_module", lambda name: module)
    return run_command("program", "", {"work": Command("slow_command", "")}, ["work"])


def test_a_command_that_prints_nothing_says_once_that_it_works(
    clock: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(monkeypatch, lambda: clock.advance(60)) == 0
    assert capsys.readouterr().err == ""  # no terminal
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert command(monkeypatch, lambda: clock.advance(1.9)) == 0
    clock.advance(60)
    assert capsys.readouterr().err == ""
    assert command(monkeypatch, lambda: clock.advance(60)) == 0
    assert capsys.readouterr().err == "program work is working ...\n"

    def prints() -> None:
        for _ in range(5):
            clock.advance(1.5)
            print("something", file=sys.stderr)

    assert command(monkeypatch, prints) == 0
    assert capsys.readouterr().err == "something\n" * 5

    def describes() -> None:
        clock.advance(1)
        with waiting("reading"):
            clock.advance(20)
        clock.advance(1)

    assert command(monkeypatch, describes) == 0
    assert capsys.readouterr().err == "reading ...\n"


def test_a_loop_says_how_far_it_is_where_no_bar_is_drawn(
    clock: Any, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY", 20.0)
    with printing(), Bar("checking", "stores", 100) as bar:
        for _ in bar.track(range(100)):
            clock.advance(0.5)
    assert capsys.readouterr().err.splitlines() == [
        "checking stores (100) ...",
        "checking: 40 of 100 stores done, about 30 s left.",
        "checking: 80 of 100 stores done, about 10 s left.",
    ]
    with printing(), Bar("checking", "stores", 3) as bar:
        assert list(bar.track(range(3))) == [0, 1, 2]
    assert capsys.readouterr().err == ""


TABLE = "image_id,label,predicted,confidence\na,0,0,.5\nb,1,1,.6\n"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_reading_a_large_table_is_stated(
    slow: Callable[[str], None], tmp_path: Path, capsys: Capture, suffix: str
) -> None:
    import polars as pl

    table = tmp_path / f"answers.{suffix}"
    (tmp_path / "answers.csv").write_text(TABLE)
    pl.read_csv(tmp_path / "answers.csv").write_parquet(tmp_path / "answers.parquet")
    slow("polars.read_csv" if suffix == "csv" else "polars.scan_parquet")
    words = ["import", str(table), "--model", "m", "--dataset", "d", "--cache", str(tmp_path / "cache")]
    assert main(words) == 0
    assert f"reading {table} ...\n" in capsys.readouterr().err


def test_writing_an_import_is_stated(slow: Callable[[str], None], tmp_path: Path, capsys: Capture) -> None:
    """Its arrays are copied, compressed and hashed."""
    np.savez(tmp_path / "x.npz", logits=2 * np.eye(4), image_ids=list("abcd"), labels=np.arange(4))
    slow("cache_schema.importing.outputs.checked_labels")
    words = ["import", str(tmp_path / "x.npz"), "--model", "m", "--dataset", "d", "--cache", str(tmp_path / "cache")]
    assert main(words) == 0
    assert capsys.readouterr().err == f"importing {tmp_path / 'x.npz'} ...\n"


def test_opening_many_stores_is_stated(
    slow: Callable[[str], None], write: Write, tmp_path: Path, capsys: Capture
) -> None:
    write()
    slow("cache_schema.reading.listing.store_of")
    assert main(["show", str(tmp_path / "cache")]) == 0
    assert capsys.readouterr().err == f"reading the headers of 1 store in {tmp_path / 'cache'} ...\n"


def test_hashing_stores_is_stated(slow: Callable[[str], None], write: Write, tmp_path: Path, capsys: Capture) -> None:
    import cache_schema.writing.convert
    import cache_schema.writing.validate  # noqa: F401  # `slow` finds them

    write()
    slow("cache_schema.writing.validate.problems")
    assert main(["check", str(tmp_path / "cache")]) == 0
    assert capsys.readouterr().err == "checking stores (1) ...\n"
    slow("cache_schema.writing.convert.convert_store")
    assert main(["convert", str(tmp_path / "cache"), str(tmp_path / "other"), "--to", "hdf5"]) == 0
    assert capsys.readouterr().err == "converting stores (1) ...\n"


def test_listing_and_copying_a_remote_cache_is_stated(
    slow: Callable[[str], None],
    serve: Callable[..., Any],
    write: Write,
    tmp_path: Path,
    capsys: Capture,
) -> None:
    pytest.importorskip("aiohttp")
    import cache_schema.copying.pull
    import cache_schema.reading.places.remote  # noqa: F401  # `slow` finds it

    write()
    address = serve(tmp_path / "cache").address
    slow("cache_schema.reading.places.remote.RemotePlace._listed")
    slow("cache_schema.copying.pull.pull_store")
    assert main(["show", address]) == 0
    assert capsys.readouterr().err.splitlines()[0] == f"listing {address} ..."
    assert main(["pull", address, str(tmp_path / "laptop")]) == 0
    assert capsys.readouterr().err.splitlines() == [f"listing {address} ...", "copying stores (1) ..."]
