"""Result tables, figures and reports are there whole or not at all, and no row of a command beside is lost."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from analyze.cli import main
from analyze.results import ResultRow, merge_results, read_results, to_frame, write_results
from analyze.results.joining import all_rows, write_all
from closerlook_common.errors import UserError
from closerlook_common.user_cache import PART_SECONDS, replaced_whole


def rows(model: str, command: str, value: float = 0.5) -> pl.DataFrame:
    return to_frame([ResultRow(model=model, dataset="d", metric="top1", value=value, command=command)])


def test_commands_that_write_one_table_at_once_lose_no_row(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    problems: list[Exception] = []

    def work(number: int) -> None:
        try:
            for step in range(5):
                merge_results(rows(f"m{number}-{step}", "ood"), path, command="ood", adds=True)
        except Exception as error:  # noqa: BLE001  reported below
            problems.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert len(read_results(path)) == 30
    assert not list(tmp_path.glob(".results.parquet.*"))


def test_a_writer_that_is_killed_at_any_moment_leaves_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shown rows and those kept beside are two files; whichever was replaced last, the table on disk has its rows."""
    path = tmp_path / "results.parquet"
    write_all(pl.concat([rows("a", "metrics"), rows("a", "prompts", 0.7)]), path)
    before = all_rows(path)
    assert len(before) == 2
    new = pl.concat([rows("a", "metrics", 0.1), rows("a", "prompts", 0.2), rows("b", "ood")])
    real, calls = Path.replace, 0

    class Killed(BaseException):
        pass

    def replace(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls > allowed:
            raise Killed
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    for allowed in range(4):
        calls = 0
        try:
            write_all(new, path)
        except Killed:
            assert len(all_rows(path)) == (2 if allowed < 2 else 3), allowed
    assert sorted(all_rows(path)["value"]) == [0.1, 0.2, 0.5]


def test_what_a_killed_writer_left_is_deleted_later(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    left, young, other = (tmp_path / name for name in (".x.csv.7.0123abcd", ".x.csv.8.0123abcd", ".x.csv.mine"))
    for file in (left, young, other):
        file.write_text("part")
    old = time.time() - PART_SECONDS - 5
    os.utime(left, (old, old))
    os.utime(other, (old, old))
    with replaced_whole(path) as part:
        part.write_text("whole")
    assert {file.name for file in tmp_path.iterdir()} == {"x.csv", young.name, other.name}
    with pytest.raises(UnicodeEncodeError), replaced_whole(path) as part:
        part.write_text("half \ud800", encoding="utf-8")
    assert path.read_text() == "whole"
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "below a file"])
@pytest.mark.parametrize(
    "words",
    [["metrics", "c"], ["ood", "c"], ["prompts", "c"], ["factors", "c"], ["retrieval", "c"], ["report", "c"],
     ["compare", "c", "a", "b"], ["import-results", "x.csv"]],
)  # fmt: skip
def test_an_output_that_is_no_file_is_refused_first(kind: str, words: list[str], tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "out"
    if kind == "folder":
        target.mkdir()
    elif kind == "pipe":
        os.mkfifo(target)
    elif kind == "device":
        target = Path("/dev/null")
    else:
        target.write_text("")
        target = target / "results.parquet"
    assert main([*words, "-o", str(target)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "not a regular file" in err or "is a folder" in err or "is not a folder" in err
    assert Path("/dev/null").is_char_device()
    with pytest.raises((UserError, OSError)):
        write_results(rows("a", "metrics"), target)
    assert Path("/dev/null").is_char_device()
