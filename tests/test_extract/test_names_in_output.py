"""Names of models and datasets with control characters are text in what ``extract`` prints."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cache_schema import DatasetCard, ModelCard, write_store
from closerlook_common.console.messages import problem
from extract.cli import main
from extract.commands.progress import Reporter, print_failures
from extract.passes.events import Event

NASTY = "\x1b[31m\n\r\u202e\u2028\x07\x85[/red]$<b>"
WORD = "\\x1b[31m\\n\\r\\u202e\\u2028\\x07\\x85[/red]$<b>"


def plain(text: str) -> bool:
    return all(c == "\n" or c.isprintable() for c in text)


def test_status_of_a_cache(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    for dataset in ("a" + NASTY, "b" + NASTY):
        write_store(
            tmp_path / "cache",
            model=ModelCard(id="m" + NASTY, head_kind="linear"),
            dataset=DatasetCard(id=dataset, role="ood", class_space="two", n_classes=2),
            logits=np.zeros((3, 2), np.float32),
            labels=np.full(3, -1),
            image_ids=["a", "b", "c"],
        )
    log = tmp_path / "log.txt"
    assert main(["status", str(tmp_path / "cache"), "--log", str(log)]) == 0
    printed = capsys.readouterr()
    assert f"m{WORD}" in printed.out
    assert all(map(plain, (*printed, log.read_text())))


@pytest.mark.parametrize("is_terminal", [False, True])
def test_a_run(is_terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from extract.commands import progress

    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    model, dataset = "m" + NASTY, "d" + NASTY
    out = io.StringIO()
    console = Console(file=out, force_terminal=is_terminal, width=400, color_system=None)
    with Reporter({(model, dataset): 10}, 1, console) as report:
        for kind, rows, text in (
            ("loading", 0, ""),
            ("pass", 0, ""),
            ("rows", 5, ""),
            ("rates", 0, f"slow: {NASTY}"),
            ("note", 0, f"a note on {NASTY}"),
            ("failed", 0, f"reason {NASTY}"),
        ):
            report(Event(kind=kind, model=model, dataset=dataset, rows=rows, text=text))
    text = out.getvalue()
    assert f"failed {model.replace(NASTY, WORD)} on d{WORD}: reason {WORD}" in text
    # On a terminal, control sequences are those of rich's bar.
    assert plain(text) or is_terminal
    assert not set(text) & set("\u202e\u2028\x07\x85")
    assert "\x1b[31m" not in text


def test_failures() -> None:
    out = io.StringIO()
    print_failures([("m" + NASTY, "d" + NASTY, NASTY)], Console(file=out, width=400))
    assert out.getvalue() == f"failed m{WORD} on d{WORD}: {WORD}\n"
    assert plain(problem("note", "red", NASTY).plain)
