"""What is typed wrongly is answered in one line that names the nearest, never in a page of options."""

from __future__ import annotations

import pytest

import analyze.cli
import cache_schema.cli
from closerlook_common.errors import nearest


@pytest.mark.parametrize(
    ("main", "words", "printed"),
    [
        (analyze.cli.main, ["tabel"], "no command 'tabel'; did you mean table? There are "),
        (analyze.cli.main, ["zzz"], "no command 'zzz'; there are "),
        (analyze.cli.main, ["show", "cache"], "the following arguments are required: model; 'analyze show --help'"),
        (analyze.cli.main, ["table", "t.parquet", "--colums", "a"], "--colums a; did you mean --columns or "),
        (analyze.cli.main, ["figures", "t.parquet", "--format"], "argument --format: expected one argument; "),
        (cache_schema.cli.main, ["check"], "the following arguments are required"),
        (cache_schema.cli.main, ["pull", "a", "b", "--sumaries"], "--sumaries; did you mean --summaries "),
    ],
)
def test_one_line(main, words: list[str], printed: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(words)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    out, err = capsys.readouterr()
    assert printed in err
    assert (out, err.count("\n")) == ("", 1)


def test_nearest() -> None:
    assert nearest("zzz", ["cat", "dog"]) == ""
    assert nearest("cats", ["cat", "dog"]) == "; did you mean cat?"
    assert nearest("cats", ["cat", "dog"], list_all=True) == "; did you mean cat? There are cat, dog"
    assert nearest("zzz", ["cat", "dog"], list_all=True) == "; there are cat, dog"
