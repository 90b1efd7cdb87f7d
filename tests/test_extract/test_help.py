"""``extract help``: every topic prints, and the models topic names every option of a line."""

from __future__ import annotations

import importlib

import pytest

from extract.commands.help import TOPICS
from extract.libraries import registry
from extract.models.spec import COMMON_OPTIONS


def test_topics_are_listed(run_extract) -> None:
    listed = run_extract("help").stdout
    for name, topic in TOPICS.items():
        assert f"{name} " in listed
        assert topic.summary in listed


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_prints_within_the_width_of_a_page(topic: str, run_extract) -> None:
    lines = run_extract("help", topic).stdout.splitlines()
    assert len(lines) > 5
    assert max(map(len, lines)) <= 120


def test_an_unknown_topic_names_the_topics(run_extract) -> None:
    done = run_extract("help", "model", code=2)
    assert "no help topic 'model'; did you mean models?" in done.stderr


def test_the_grammar_of_model_lists_names_libraries_and_options(run_extract) -> None:
    text = run_extract("help", "models").stdout
    assert all(f"    {key} " in text for key in COMMON_OPTIONS)
    for library in registry.every()[0]:
        assert all(f"    {key} " in text for key in library.options)
        assert all(example in text for example, _ in (*library.examples, *library.own_examples))


@pytest.mark.parametrize("program", ["extract", "analyze", "cache_schema"])
def test_help_fits_a_terminal_of_80_columns(program: str, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    """Examples, which are indented, may be longer: they are copied."""
    monkeypatch.setenv("COLUMNS", "80")
    cli = importlib.import_module(f"{program}.cli")
    for words in ([], *([name] for name in cli.COMMANDS)):
        cli.main([*words, "--help"])
        printed = capsys.readouterr().out.splitlines()
        assert len(printed) > 5
        assert [line for line in printed if len(line) > 80 and not line.startswith("    ")] == [], words
