"""Names with control characters, line breaks and direction marks: every command prints and writes them as text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from analyze.cli import main
from analyze.results import ResultRow, to_frame, write_results
from cache_schema.cli import main as cache_main

NASTY = ("\x1b[31m", "\n", "\r", "\u202e", "\u2028", "\x07", "\x85", "[/red]", "$", "\\x", "{", "=1+1", "<b>")
NAMES = [f"{number}{piece}b" for number, piece in enumerate(NASTY)] + ["=cmd|' /C calc'!A0", "@x", "-y", "+z"]


def plain(text: str) -> bool:
    return all(c == "\n" or c.isprintable() for c in text)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = [
        ResultRow(
            model=name,
            dataset=dataset,
            role=role,
            metric=metric,
            value=(index + 2) / 30 + shift / 50,
            low=0.01,
            high=0.99,
            n=100,
            direction="higher",
            group=NAMES[index % 3],
            source=name,
            family=name,
            **more,
        )
        for index, name in enumerate(NAMES)
        for shift, (dataset, role) in enumerate([("val", "id"), (NAMES[1], "shift"), (NAMES[2], "ood")])
        for metric, more in (
            ("top1", {}),
            ("ece", {}),
            ("factor_accuracy", {"factor": NAMES[3]}),
            ("auroc", {"score": NAMES[4], "id_dataset": "val"}),
        )
    ]
    rows += [ResultRow(model=NAMES[1], dataset="val", metric="top5", reason="".join(NAMES))]
    return write_results(to_frame(rows), tmp_path / "r.parquet")


COMMANDS = {
    "table": ["table", "R"],
    "table by score": ["table", "R", "--rows", "score", "--columns", "dataset", "--where", "metric=auroc"],
    "table, markdown": ["table", "R", "--markdown", "OUT/t.md"],
    "table, latex": ["table", "R", "--latex", "OUT/t.tex"],
    "table, html": ["table", "R", "--html", "OUT/t.html"],
    "table, csv": ["table", "R", "--csv", "OUT/t.csv"],
    "trends": ["trends", "R", "--x", "top1@val", "-o", "OUT"],
    "audit": ["audit", "R", "-o", "OUT/audit.csv"],
    "figures": ["figures", "R", "-o", "OUT", "--format", "svg"],
    "report": ["report", "R", "-o", "OUT/report.html"],
    "unknown model": ["table", "R", "--where", "model=" + "".join(NAMES)],
    "unknown file": ["table", "no" + "".join(NASTY[:5])],
    "unknown option": ["table", "R", "--no" + "".join(NASTY[:5])],
}


def cells_are_no_formulas(path: Path) -> None:
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.reader(file):
            for cell in line:
                assert not re.match(r"[=+@\t\r\n]|-(?![\d.])", cell), (path, cell)


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_on_tables(
    name: str, table: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "4000")
    out, log = tmp_path / "out", tmp_path / "log.txt"
    out.mkdir()
    words = [word.replace("OUT", str(out)) if word != "R" else str(table) for word in COMMANDS[name]]
    try:
        code = main([*words, "-v", "--log", str(log)])
    except SystemExit as ended:  # how argparse ends
        code = int(ended.code or 0)
    assert code == (2 if "unknown" in name else 0), capfd.readouterr().err
    printed = capfd.readouterr()
    assert printed.out or printed.err
    for text in (*printed, log.read_text(encoding="utf-8") if log.exists() else ""):
        assert plain(text), [c for c in text if c != "\n" and not c.isprintable()][:5]
        assert "Traceback" not in text or "unknown" in name
    if log.exists():
        assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in log.read_text().split("\n") if line)
    for path in out.rglob("*.csv"):
        cells_are_no_formulas(path)
    for path in (*out.rglob("*.svg"), *out.rglob("*.html"), *out.rglob("*.md"), *out.rglob("*.tex")):
        assert not set(path.read_text(encoding="utf-8")) & set("\x1b\r\u202e\u2028\x07\x85")


WHOLE = "".join(NASTY)
ON_CACHES: dict[str, tuple[Callable[[list[str]], int], list[str]]] = {
    "metrics": (main, ["metrics", "C", "-o", "OUT/r.parquet"]),
    "metrics as csv": (main, ["metrics", "C", "-o", "OUT/r.csv"]),
    "factors": (main, ["factors", "C", "--columns", WHOLE, "-o", "OUT/r.parquet"]),
    "ood": (main, ["ood", "C", "-o", "OUT/r.parquet", "--detectors", "msp,mls"]),
    "show": (main, ["show", "C", "m" + WHOLE]),
    "show of no model": (main, ["show", "C", "q" + WHOLE]),
    "compare": (main, ["compare", "C", "m" + WHOLE, "n" + WHOLE]),
    "summarize": (main, ["summarize", "C"]),
    "stores": (cache_main, ["show", "C"]),
    "stores, a path": (cache_main, ["show", "no" + WHOLE]),
    "check": (cache_main, ["check", "C"]),
    "roles": (cache_main, ["dataset", "C"]),
}


@pytest.fixture
def cache(toy_store: Callable[..., Any], tmp_path: Path) -> Path:
    root = tmp_path / "cache"
    card = {"class_names": ("one" + WHOLE, "two" + WHOLE, "three")}
    for seed, letter in enumerate("mn"):
        model = letter + WHOLE
        flags = {WHOLE: (pl.arange(60, eager=True) % 2).to_numpy()}
        toy_store(cache=root, model=model, dataset="v" + WHOLE, n=60, n_classes=3, seed=seed, card=card, metadata=flags)
        toy_store(cache=root, model=model, dataset="o" + WHOLE, n=40, n_classes=3, seed=seed, role="ood", card=card)
    return root


@pytest.mark.parametrize("name", ON_CACHES)
def test_commands_on_caches(
    name: str, cache: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "4000")
    command, words = ON_CACHES[name]
    out, log = tmp_path / "out", tmp_path / "log.txt"
    out.mkdir()
    words = [word.replace("OUT", str(out)) if word != "C" else str(cache) for word in words]
    code = command([*words, "--log", str(log)])
    printed = capfd.readouterr()
    assert code == (2 if " of no " in name or "a path" in name else 0), printed.err
    for text in (*printed, log.read_text(encoding="utf-8")):
        assert plain(text), [c for c in text if c != "\n" and not c.isprintable()][:5]
        assert "Traceback" not in text
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line) for line in log.read_text().split("\n") if line)
    for path in out.rglob("*.csv"):
        cells_are_no_formulas(path)


def test_what_takes_long_is_named_in_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    from closerlook_common.console.waiting import Accumulated, WaitNotice

    WaitNotice()._say(f"hashing {WHOLE}")
    Accumulated("x")._say(f"reading {WHOLE}")
    printed = capsys.readouterr().err
    assert plain(printed)
    assert printed.count("\n") == 2


def test_plug_ins_left_out_are_named_in_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    from closerlook_common.plugins.registry import report

    report(f"package {WHOLE}", ValueError(WHOLE))
    printed = capsys.readouterr().err
    assert plain(printed)
    assert printed.count("\n") == 1


def test_messages_of_libraries_are_plain_text() -> None:
    import logging

    from closerlook_common.console.reporting import _Printable

    record = logging.LogRecord("library", logging.INFO, "f", 1, f"read {WHOLE}\x1b[2J", None, None)
    assert plain(_Printable("%(name)s: %(message)s").format(record))


@pytest.mark.parametrize("drawn", ["bar", "lines"])
def test_progress_names_models_in_plain_text(drawn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from analyze.commands import progress

    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    file = io.StringIO()
    console = Console(file=file, force_terminal=drawn == "bar", width=400, color_system=None)
    with progress.model_progress(console) as advance:
        for done in range(3):
            advance(f"m{done}{WHOLE}", done, 3)
    text = file.getvalue()
    assert ("m2\\x1b[31m\\n" in text) == (drawn == "bar")
    # What is left of control sequences is rich's own, of the bar.
    assert not set(text) & set("\u202e\u2028\x07\x85")
    assert "\x1b[31m" not in text
