"""Pages made from the command lines: every command's ``--help``, the help topics, the settings file."""

from __future__ import annotations

import contextlib
import importlib
import io
import os

PROGRAMS = {
    "extract": "Run models over images and write sealed stores. Needs torch.",
    "analyze": "Turn stores into tables, figures and a report. Never needs torch.",
    "cache_schema": "Look at, check, convert, import and copy stores. Called as `python -m cache_schema`.",
}


def printed(program: str, *words: str) -> str:
    """Return what a command prints on 80 columns without colours."""
    from contextlib import redirect_stdout

    out = io.StringIO()
    kept = {name: os.environ.get(name) for name in ("COLUMNS", "NO_COLOR")}
    os.environ.update(COLUMNS="90", NO_COLOR="1")
    try:
        with redirect_stdout(out), contextlib.suppress(SystemExit):
            importlib.import_module(f"{program}.cli").main(list(words))
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
    return out.getvalue().rstrip()


def block(text: str, language: str = "text") -> str:
    """Return a fenced block that holds the text whatever it contains."""
    fence = "`" * 4
    return f"{fence}{language}\n{text}\n{fence}\n"


def commands() -> str:
    """Return the page of all commands."""
    parts = [
        "# Commands\n",
        "What each command's `--help` prints. `closerlook extract`, `closerlook analyze` and `closerlook cache` are "
        "the same commands under one name; `closerlook completion bash` prints a script that completes them.\n",
    ]
    for program, what in PROGRAMS.items():
        shown = "python -m cache_schema" if program == "cache_schema" else program
        parts += [f"## {shown}\n", f"{what}\n"]
        for name in importlib.import_module(f"{program}.cli").COMMANDS:
            parts += [f"### {shown} {name}\n", block(printed(program, name, "--help"))]
    return "\n".join(parts)


def model_lists() -> str:
    """Return the page of the model lists' grammar."""
    return "# Model lists\n\nThe grammar of `models.txt`, as `extract help models` prints it.\n\n" + block(
        printed("extract", "help", "models")
    )


def datasets() -> str:
    """Return the page of the keys of datasets.toml."""
    return "# datasets.toml\n\nThe file's grammar and keys, as `extract help datasets` prints them.\n\n" + block(
        printed("extract", "help", "datasets")
    )


def settings() -> str:
    """Return the page of all options of the analysis."""
    return (
        "# Settings\n\n"
        "Every option of the analysis with its default, as `analyze settings` prints them. Write the output to a file, "
        "keep the lines that you change, and give the file to any command with `--config`. Rows computed with "
        "another value than the default name it in their column `options`.\n\n"
        + block(printed("analyze", "settings"), "toml")
    )
