"""What commands print: sentences with flags for arguments and nothing invisible; libraries name no flag."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from closerlook_common.console.messages import flags_of, problem, sentence, with_flags

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("analyze", "cache_schema", "closerlook_common", "extract")
PRINTING = [
    path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if "commands" in path.parts or path.name in ("shared.py", "progress.py")
]
LIBRARIES = [
    path
    for package in ("analyze", "cache_schema", "closerlook_common")
    for path in (ROOT / package).rglob("*.py")
    if not {"commands", "console"} & set(path.parts) and path.name != "shared.py"
]


def command() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--id", dest="id_dataset")
    parser.add_argument("--features-dtype")
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("-o", "--output")
    return parser


def test_a_command_shows_the_flags_of_arguments_and_a_library_their_names() -> None:
    text = 'give `id_dataset`, `features_dtype="float32"`, `overwrite=True`, `output` FILE or `where`'
    assert with_flags(text) == text
    with flags_of(command()):
        assert with_flags(text) == "give --id, --features-dtype float32, --overwrite, --output FILE or `where`"
        assert problem("failed", "red", "m: give `id_dataset`").plain == "failed m: give --id."
    assert with_flags(text) == text


@given(st.text())
def test_a_sentence_is_one_line_that_shows_every_character(text: str) -> None:
    stated = sentence(f"no model {text!s}x")
    assert stated.isprintable()
    assert stated.endswith("x.")


@pytest.mark.parametrize(
    ("text", "stated"),
    [("done", "done."), ("done.", "done."), ("which?", "which?"), ("reading ...", "reading ..."), ("no 'x'", "no 'x'."),
     ("12 %", "12 %."), ("at token=abc x", "at token=*** x."), ("a\x1b[31mb", "a\\x1b[31mb.")],
)  # fmt: skip
def test_sentences_end(text: str, stated: str) -> None:
    assert sentence(text) == stated


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def bare_texts(tree: ast.Module) -> Iterator[int]:
    """Yield the lines of prints whose text passes none of ``line``, ``problem``, ``sentence`` and ``printable``."""
    texts = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AugAssign) and isinstance(node.value, ast.JoinedStr | ast.Constant)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and node.args):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        text = node.args[0]
        if name == "print" and (
            isinstance(text, ast.JoinedStr | ast.BinOp)
            or (isinstance(text, ast.Constant) and not str(text.value).rstrip().endswith((".", ":")))
            or (isinstance(text, ast.Name) and text.id in texts)
        ):
            yield node.lineno


# Help topics and listings of fixed names, which are no messages.
LISTINGS = {"extract/commands/help.py", "analyze/commands/figures.py"}


@pytest.mark.parametrize("path", PRINTING, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_printed_text_is_made_a_sentence(path: Path) -> None:
    lines = list(bare_texts(tree_of(path)))
    assert len(lines) <= (1 if str(path.relative_to(ROOT)) in LISTINGS else 0), lines


def test_the_rule_finds_a_bare_text() -> None:
    bad = 'print(f"{x}")\nconsole.print("no stop")\nt = f"{x}"\nconsole.print(t)\nprint("a" + x)'
    assert list(bare_texts(ast.parse(bad))) == [1, 2, 4, 5]
    good = 'print(sentence(f"{x}"))\nconsole.print(line("no stop"))\nconsole.print(table)\nprint("topics:")\nprint()'
    assert list(bare_texts(ast.parse(good))) == []


COMMANDS = re.compile(r"'(?:analyze|extract|python -m cache_schema|\{COMMAND\})[^']*'")


def flags_in(tree: ast.Module) -> Iterator[str]:
    """Yield the texts, documentation apart, that name a flag outside a whole command in quotation marks."""
    documentation = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(
                str(part.value) if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}"
                for part in node.values
                if isinstance(part, ast.Constant | ast.FormattedValue)
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation | inner:
            text = node.value
        else:
            continue
        if re.search(r"(?<![\w-])--[a-z]", COMMANDS.sub("", text)):
            yield text


@pytest.mark.parametrize("path", LIBRARIES, ids=lambda path: str(path.relative_to(ROOT)))
def test_libraries_name_arguments_not_flags(path: Path) -> None:
    assert list(flags_in(tree_of(path))) == []


def test_the_rule_finds_a_flag() -> None:
    bad = 'raise UserError(f"{x}: give --id {y}")\nz = "say --role ood"'
    assert len(list(flags_in(ast.parse(bad)))) == 2
    good = 'raise UserError(f"{x}: give `id`; \'analyze ood --id {y}\' lists them")\n"""--id is meant."""'
    assert list(flags_in(ast.parse(good))) == []
