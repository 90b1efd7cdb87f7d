"""Result tables of strangers: each ends in one line, whichever command reads it, and costs what it holds."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from analyze.cli import main
from analyze.results.published import read_published
from analyze.trends.families import with_families
from closerlook_common.errors import UserError

COMMANDS = (["table", "{}"], ["audit", "{}"], ["trends", "{}"], ["report", "{}", "-o", "r.html"])


def rows(options: str = "", **more: Any) -> pl.DataFrame:
    """Return a table of three models: accuracies, numbers of factors, and OOD scores."""
    common = {
        "n": 100, "direction": "up", "metric_version": 1, "group": "g", "family": "f", "options": options, **more
    }  # fmt: skip
    each = [
        {"metric": "top1", "dataset": "d", "role": "id"},
        {"metric": "top1", "dataset": "e", "role": "shift"},
        {"metric": "factor_accuracy", "dataset": "d", "role": "id", "factor": "pose=1"},
        {"metric": "auroc", "dataset": "o", "role": "ood", "id_dataset": "d", "score": "msp", "command": "ood"},
        {"metric": "auroc", "dataset": "o", "role": "ood", "id_dataset": "d", "score": "knn", "command": "ood"},
    ]
    return pl.DataFrame(
        [{**common, **row, "model": m, "value": v} for row in each for m, v in zip("abc", (0.4, 0.5, 0.6), strict=True)]
    )


def parquet(*args: Any, **more: Any) -> Callable[[Path], None]:
    return lambda path: rows(*args, **more).write_parquet(path)


def repeated(path: Path) -> None:
    pl.concat([rows()] * 4000).write_parquet(path)


def raw(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def cut(path: Path) -> None:
    rows().write_parquet(path)
    os.truncate(path, path.stat().st_size - 40)


MUCH = "times as much"
# Names that do not compress, so that it is not the size that is refused; Python 3.13 parses up to 10,000 levels.
NAMES = "".join(f'{{"{i * 2654435761 % 2**32:08x}":' for i in range(11_000))
ATTACKS: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "deep options": ("r.parquet", parquet("[" * 10_000), "nested too deeply"),
    "deep options by name": ("r.parquet", parquet(NAMES), "nested too deeply"),
    "options that are a list": ("r.parquet", parquet("[1]"), "it is no object"),
    "options that are null": ("r.parquet", parquet("null"), "it is no object"),
    "options that are no JSON": ("r.parquet", parquet("x"), "not JSON of names"),
    "options with NaN": ("r.parquet", parquet('{"fit":NaN}'), "holds NaN"),
    "options with half a character": ("r.parquet", parquet(r'{"fit":"\ud800"}'), "surrogate"),
    "options with a long number": ("r.parquet", parquet('{"fit":' + "9" * 5000 + "}"), "not JSON of names"),
    "escapes in options": ("r.csv", lambda path: rows("\x1b[2J").write_csv(path), r"\x1b[2J"),
    "many equal rows": ("r.parquet", repeated, MUCH),
    "a long text in each row": ("r.parquet", parquet(reason="x" * (1 << 20)), MUCH),
    "cut off": ("r.parquet", cut, "not a result table"),
    "nested columns": ("r.parquet", lambda path: rows().with_columns(model=[["a"]] * 15).write_parquet(path), "model"),
    "compressed": ("r.csv", lambda path: raw(gzip.compress(rows().write_csv().encode()))(path), "is compressed"),
    "short rows": (
        "r.csv",
        raw(b"model,dataset,metric,value" + b",x" * 9000 + b"\n" + b"1\n" * 9000),
        "rows have fewer",
    ),
    "zeros": ("r.csv", raw(bytes(1000)), "r.csv"),
    "a pipe": ("r.parquet", os.mkfifo, "is a pipe"),
    "a device": ("r.parquet", lambda path: path.symlink_to("/dev/zero"), "is a device"),
}


@pytest.fixture(autouse=True)
def _little_is_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("cache_schema.importing.limits.FREE_BYTES", 1 << 18)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_table_is_one_line(attack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, make, printed = ATTACKS[attack]
    make(tmp_path / name)
    for words in COMMANDS:
        code = main([word.format(name) for word in words])
        error = capsys.readouterr().err
        assert code == 2, words
        assert printed in error
        assert error.count("\n") == 1
        assert "\x1b" not in error


@pytest.mark.parametrize("value", ["[1]", "{}", '"x"', "1e300", "true", "null"])
def test_values_of_options_are_any_json(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What a plug-in may have written is shown; no command relies on its type."""
    names = ("fit", "quantiles", "fitted_on", "full_spectrum", "k", "bins", "tau", "chosen_on", "plugin")
    rows("{" + ",".join(f'"{name}":{value}' for name in names) + "}").write_parquet("r.parquet")
    for words in COMMANDS:
        assert main([word.format("r.parquet") for word in words]) in (0, 1, 2)
        assert "Traceback" not in capsys.readouterr().err


def test_changed_bytes_never_end_in_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    rows().write_parquet(tmp_path / "r.parquet")
    sound = (tmp_path / "r.parquet").read_bytes()
    codes = set()
    for _ in range(150):
        changed = bytearray(sound)
        for at in rng.integers(0, len(sound), rng.integers(1, 4)):
            changed[at] = rng.integers(0, 256)
        (tmp_path / "r.parquet").write_bytes(changed)
        codes.add(main(["table", "r.parquet"]))
        capsys.readouterr()
    assert codes == {0, 2}


@pytest.mark.parametrize("read", [read_published, lambda path: with_families(rows(), path)])
def test_other_tables_cost_what_they_hold(read: Callable[[Path], Any], tmp_path: Path) -> None:
    for content, printed in (
        (gzip.compress(b"model,family\na,b\n", mtime=0), "is compressed"),
        (b"model,family" + b",x" * 9000 + b"\n" + b"1\n" * 9000, "rows have fewer"),
    ):
        (tmp_path / "x.csv").write_bytes(content)
        with pytest.raises(UserError, match=printed):
            read(tmp_path / "x.csv")
