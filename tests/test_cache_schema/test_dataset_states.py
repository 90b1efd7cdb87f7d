"""Which stores are of the images of today, where a dataset changed between two runs."""

from __future__ import annotations

import os
import time
from datetime import datetime, tzinfo
from pathlib import Path

import pytest

import cache_schema
from cache_schema.cli import main
from cache_schema.reading.dataset_states import on_other_images, other_images


class Clock:
    """A clock that stands still."""

    def __init__(self, second: int) -> None:
        self.second = second

    def now(self, zone: tzinfo) -> datetime:
        """Return the moment."""
        return datetime.fromtimestamp(self.second, zone)


def test_a_model_without_a_store_of_the_last_state_is_named(write, tmp_path: Path, monkeypatch) -> None:
    def at(second: int, model: str, digest: str, record: dict[str, object] | None = None) -> None:
        monkeypatch.setattr("cache_schema.writing.builder.datetime", Clock(second))
        write(
            model=cache_schema.ModelCard(id=model),
            dataset=cache_schema.DatasetCard(id="pets", digest=digest),
            identity=f"{second:x}" * 64,
            record=record or {},
        )

    at(1, "old", "a" * 64)
    at(2, "both", "a" * 64)
    assert on_other_images(cache_schema.open_cache(tmp_path / "cache").stores()) == {}
    at(3, "both", "b" * 64)
    at(4, "new", "b" * 64)
    at(5, "theirs", "c" * 64, {"imported_from": "val.npz"})
    assert on_other_images(cache_schema.open_cache(tmp_path / "cache").stores()) == {"pets": ["old"]}
    at(6, "old", "b" * 64)
    assert on_other_images(cache_schema.open_cache(tmp_path / "cache").stores()) == {}


def test_many_models_are_stated_in_one_line() -> None:
    assert other_images("pets", ["a", "b"]).startswith("pets: the stores of a, b are of other images")
    assert "9 models (a, b ...)" in other_images("pets", list("abcdefghi"))


def test_the_folder_of_one_model_is_not_taken_for_a_cache(write, tmp_path: Path, capsys) -> None:
    """Only what lies in folders below it was seen: `check` found nothing wrong with the rest."""
    store = write()
    folder = store.path.parent
    for words in (["check", str(folder)], ["show", str(folder)]):
        assert main(words) == 2
        assert f"name the cache, {tmp_path / 'cache'}" in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("")
    assert main(["check", str(tmp_path / "notes.txt")]) == 2
    assert "neither a cache nor a store" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "push"])
def test_a_store_without_header_is_named_once(write, tmp_path: Path, capsys, command: str) -> None:
    store = write()
    (store.path / "zarr.json").unlink()
    cache = str(tmp_path / "cache")
    assert main([command, cache] if command == "check" else [command, cache, f"file://{tmp_path}/there"]) == 1
    line = capsys.readouterr().out.splitlines()[0]
    assert line == f"{store.path} has no zarr.json: it is not a store, or its writer was stopped."
    (refused,) = cache_schema.open_cache(cache).refused()
    assert f"{refused.reason}." == line


def test_what_dead_writers_left_is_cleaned_where_nothing_is_sealed_yet(tmp_path: Path, capsys) -> None:
    """`show` names this command as the fix, and it reported only that there is no store."""
    stage = tmp_path / "cache/m" / f".staged-here-{2**22 + 1}-0123abcd-pets-00000000.zarr"
    stage.mkdir(parents=True)
    old = time.time() - 3 * 86400
    os.utime(stage, (old, old))
    assert main(["show", str(tmp_path / "cache")]) == 0
    assert "'check --clean' removes it" in capsys.readouterr().out
    assert main(["check", str(tmp_path / "cache"), "--clean"]) == 0
    assert f"{stage}: removed, its writer has exited" in capsys.readouterr().out
    assert not stage.exists()
    assert main(["check", str(tmp_path / "cache")]) == 2
