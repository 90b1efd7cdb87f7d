"""Every numeric option of every command refuses what is not a finite number in its range, in one line."""

from __future__ import annotations

import argparse
import importlib
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from closerlook_common.console.argument_types import output_file, parse_whole, real_number, whole_number

PROGRAMS = ("cache_schema.cli", "analyze.cli", "extract.cli")
NO_NUMBERS = ("nan", "inf", "-inf", "1e999", "", " ", "abc", "²", "٣", "1_0", "0x10", "9" * 5000)


def commands() -> Iterator[tuple[str, str]]:
    for program in PROGRAMS:
        for name, command in importlib.import_module(program).COMMANDS.items():
            yield f"{program.partition('.')[0]} {name}", command.module


def typed_actions(module: str) -> list[argparse.Action]:
    parser = argparse.ArgumentParser(exit_on_error=False)
    importlib.import_module(module).add_arguments(parser)
    return [action for action in parser._actions if action.type is not None]


def refused(kind: object, text: str) -> bool:
    try:
        value = kind(text)  # type: ignore[operator]
    except argparse.ArgumentTypeError:
        return True
    return not math.isfinite(value)


@pytest.mark.parametrize(("command", "module"), list(commands()))
def test_numeric_options_take_finite_numbers_only(command: str, module: str) -> None:
    pytest.importorskip("torch") if command.startswith("extract") else None
    for action in typed_actions(module):
        name = f"{command} {'/'.join(action.option_strings) or action.dest}"
        assert action.type not in (int, float, complex), f"{name}: take a type of console/argument_types.py"
        if action.type is output_file or getattr(action.type, "__module__", "") != whole_number.__module__:
            continue
        for text in NO_NUMBERS:
            assert refused(action.type, text), f"{name} takes {text[:10]!r}"
        if action.option_strings != ["--split"]:  # an accuracy in the units of the table, of either sign
            assert refused(action.type, "-1"), f"{name} takes -1"


def test_bounds() -> None:
    assert whole_number(0, 3)(" 3 ") == 3
    assert real_number(above=0, most=1)("1.0") == 1.0
    assert parse_whole("-7") == -7
    assert parse_whole("9" * 30) is None
    for kind, text, printed in (
        (whole_number(1), "0", "0 is below 1"),
        (whole_number(1, 3), "4", "4 is above 3"),
        (real_number(above=0), "0", "0 is not above 0"),
        (real_number(below=1), "1", "1 is not below 1"),
        (real_number(least=0), "-0.1", "-0.1 is below 0"),
        (real_number(most=1), "1.5", "1.5 is above 1"),
        (real_number(), "nan", "'nan' is not a finite number"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match=printed):
            kind(text)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("analyze.cli", ["trends", "r.parquet", "--split", "nan"]),
        ("analyze.cli", ["trends", "r.parquet", "--seed", "-1"]),
        ("analyze.cli", ["table", "r.parquet", "--digits", "-1"]),
        ("analyze.cli", ["retrieval", "cache", "--k", "1,²"]),
        ("analyze.cli", ["figures", "r.parquet", "--width", "nan"]),
        ("cache_schema.cli", ["import", "x.npz", "--cache", "c", "--model", "m", "--per-class", "0"]),
        ("extract.cli", ["plan", "@closer-look", "--rate", "inf"]),
        ("extract.cli", ["plan", "@closer-look", "--rate", "0"]),
        ("extract.cli", ["--pixel-cache-gb", "nan"]),
        ("extract.cli", ["--resident", "-1"]),
        ("extract.cli", ["--model-list", "@closer-look", "--shard", "²/³"]),
        ("extract.cli", ["--model-list", "@closer-look", "--shard", f"0/{'9' * 5000}"]),
        ("extract.cli", ["--model-list", "@closer-look", "--workers", "²"]),
        ("extract.cli", ["--model-list", "@closer-look", "--device", "cuda:²"]),
        ("extract.cli", ["--model-list", "@closer-look", "--devices", "0,²"]),
    ],
)
def test_a_command_refuses_no_number_in_one_line(
    program: str,
    words: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if program == "extract.cli":
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "datasets.toml").write_text("")
    main = importlib.import_module(program).main
    try:
        code = main(words)
    except SystemExit as stopped:
        code = stopped.code
    captured = capsys.readouterr()
    assert code == 2, captured
    assert captured.err.count("\n") == 1, captured.err
