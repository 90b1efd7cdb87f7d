"""-v, --quiet and --log of every command of the three packages."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys

import pytest

from closerlook_common.console.command_line import Command, run_command


def add_arguments(parser) -> None:
    parser.add_argument("how")


def run(args) -> int:
    from rich.console import Console

    from closerlook_common.errors import UserError

    print("the table")
    logging.getLogger("library").info("a library's message")
    console = Console(stderr=True)
    console.print("[yellow]note[/yellow] of no importance")
    if args.how == "bad":
        raise UserError("the input is bad")
    if args.how == "ended":
        os.kill(os.getpid(), signal.SIGTERM)
    if args.how == "bug":
        raise RuntimeError("a bug")
    return int(args.how == "failed")


COMMANDS = {"do": Command(__name__, "do it")}


def call(*words: str) -> int:
    return run_command("prog", "A program.", COMMANDS, ["do", *words])


@pytest.mark.parametrize(("how", "code"), [("fine", 0), ("failed", 1), ("bad", 2)])
def test_quiet_is_silent_unless_something_fails(capsys, how, code):
    assert call(how, "--quiet") == code
    out, err = capsys.readouterr()
    assert out == "the table\n"
    assert ("note" in err) == (code != 0)
    assert ("prog: the input is bad" in err) == (how == "bad")
    assert call("fine") == 0
    assert "note of no importance" in capsys.readouterr().err


@pytest.mark.parametrize(("again", "code"), [(None, 143), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_a_command_is_ending_is_no_traceback(monkeypatch, again, code):
    class Terminal(io.StringIO):
        def write(self, text: str) -> int:
            if "interrupted" in text and again is not None:
                os.kill(os.getpid(), again)
            return super().write(text)

    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    before = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell ignores it in what runs in the background
    try:
        assert call("ended") == code
    finally:
        signal.signal(signal.SIGINT, before)
    assert ("prog: interrupted; finished work is kept" in shown.getvalue()) == (again is None)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_bug_is_not_swallowed_by_quiet(capsys, tmp_path):
    before = sys.stderr
    with pytest.raises(RuntimeError, match="a bug"):
        call("bug", "--quiet", "--log", str(tmp_path / "log.txt"))
    assert sys.stderr is before
    assert "note" in capsys.readouterr().err
    text = (tmp_path / "log.txt").read_text()
    assert "RuntimeError: a bug" in text
    assert "Traceback" in text


def test_the_log_is_appended_to_with_times_and_codes(capsys, tmp_path):
    path = tmp_path / "log.txt"
    assert call("fine", "--log", str(path), "--quiet") == 0
    assert call("bad", "--log", str(path)) == 2
    lines = path.read_text().splitlines()
    assert [line[20:].partition(",")[0] for line in lines] == [
        f"$ prog do fine --log {path} --quiet",
        "note of no importance",
        "exit code 0",
        f"$ prog do bad --log {path}",
        "note of no importance",
        "prog: the input is bad.",
        "exit code 2",
    ]
    assert "\x1b" not in path.read_text()
    assert call("fine", "--log", str(tmp_path / "no" / "where")) == 2
    assert "--log" in capsys.readouterr().err


def test_verbose_shows_what_libraries_say_and_tracebacks(capsys):
    assert call("fine") == 0
    assert "library" not in capsys.readouterr().err
    assert call("fine", "-v") == 0
    assert "library: a library's message" in capsys.readouterr().err
    assert call("bad", "-v") == 2
    assert "Traceback" in capsys.readouterr().err
    assert call("fine", "-v", "--quiet") == 2
    assert not logging.getLogger().handlers or logging.getLogger().level != logging.INFO


def test_an_error_is_a_sentence(capsys):
    assert call("bad") == 2
    assert capsys.readouterr().err.splitlines()[-1] == "prog: the input is bad."


@pytest.mark.parametrize(
    "words",
    [["analyze", "settings"], ["extract", "models", "nothing-of-this-name"], ["cache_schema", "show", "nowhere"]],
)
def test_every_command_line_takes_them(words, tmp_path, capsys):
    import importlib

    main = importlib.import_module(f"{words[0]}.cli").main
    main([*words[1:], "--quiet", "--log", str(tmp_path / "log.txt")])
    assert "exit code" in (tmp_path / "log.txt").read_text()
