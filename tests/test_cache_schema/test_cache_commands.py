"""``python -m cache_schema show | check | convert``: what they print and the exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import cache_schema
from cache_schema.cli import main
from cache_schema.writing.staging import Stage

Write = Callable[..., cache_schema.PredictionStore]
Capture = pytest.CaptureFixture[str]


def test_show(write: Write, capsys: Capture, tmp_path: Path) -> None:
    store = write(model=cache_schema.ModelCard(id="[bold]m[/bold]"))
    cache_schema.record_failure(tmp_path / "cache", "other", "imagenet", "no [red]weights")
    assert main(["show", str(tmp_path / "cache")]) == 0
    out = capsys.readouterr().out
    assert "[bold]m[/bold]" in out  # names are never markup
    assert "failed: other on imagenet: no [red]weights" in out
    for cell in (
        "predictions",
        "imagenet",
        "70",
        store.identity[:8],
        store.digest[:8],
        "1 store of 1 model",
    ):
        assert cell in out
    assert main(["show", str(store.path)]) == 0
    assert store.digest in capsys.readouterr().out
    assert main(["show", str(tmp_path / "cache"), "--json", "--kind", "predictions"]) == 0
    assert json.loads(capsys.readouterr().out)["identity"] == store.identity
    assert main(["show", str(tmp_path / "cache"), "--model", "none"]) == 0
    assert "0 stores" in capsys.readouterr().out
    assert main(["show", str(tmp_path / "nowhere")]) == 2


def test_check(write: Write, capsys: Capture, tmp_path: Path) -> None:
    good = write()
    bad = write(dataset=cache_schema.DatasetCard(id="other"), backend="hdf5")
    assert main(["check", str(tmp_path / "cache")]) == 0
    assert "2 stores checked, 0 problems" in capsys.readouterr().out
    raw = bytearray(bad.path.read_bytes())
    raw[3000] ^= 4
    bad.path.write_bytes(raw)
    for words in ([], ["--bytes-only"]):
        assert main(["check", str(tmp_path / "cache"), *words]) == 1
        out = capsys.readouterr().out
        assert f"{bad.path}: its bytes are not those that were sealed" in out
        assert "2 stores checked, 1 problem" in out
    assert main(["check", str(good.path)]) == 0
    assert main(["check", str(bad.path)]) == 1
    assert main(["check", str(tmp_path / "nowhere")]) == 2


def test_check_of_the_rest(write: Write, capsys: Capture, tmp_path: Path) -> None:
    store = write()
    stage = Stage(store.path.with_name("x-00000000.zarr"))
    assert main(["check", str(tmp_path / "cache"), "--clean"]) == 0
    assert f"{stage.folder}: being written" in capsys.readouterr().out
    stage.remove()
    cache_schema.record_failure(tmp_path / "cache", "other", "imagenet", "no weights")
    path = next((tmp_path / "cache").glob("*/failures/*.json"))
    path.write_text(path.read_text().replace("no", "on"))
    assert main(["check", str(tmp_path / "cache")]) == 1
    assert "not those that were sealed" in capsys.readouterr().out
    (tmp_path / "empty").mkdir()
    assert main(["check", str(tmp_path / "empty")]) == 2


def test_convert(write: Write, capsys: Capture, tmp_path: Path) -> None:
    store = write()
    where = str(tmp_path / "converted")
    assert main(["convert", str(tmp_path / "cache"), where, "--to", "hdf5"]) == 0
    (made,) = cache_schema.open_cache(where).stores()
    assert made.path.suffix == ".h5"
    assert made.digest == store.digest
    assert main(["convert", str(tmp_path / "cache"), where, "--to", "hdf5"]) == 0
    assert "0 stores converted, 1 there already, 0 failed" in capsys.readouterr().out
    assert main(["convert", where, where, "--to", "zarr", "--replace"]) == 0
    (back,) = cache_schema.open_cache(where).stores()
    assert (back.path.suffix, back.digest) == (".zarr", store.digest)
    assert main(["convert", str(tmp_path / "nowhere"), where, "--to", "zarr"]) == 2


def test_a_damaged_store_is_not_converted(write: Write, capsys: Capture, tmp_path: Path) -> None:
    store = write()
    shard = store.path / "logits/c/0/0"
    raw = bytearray(shard.read_bytes())
    raw[100] ^= 1
    shard.write_bytes(raw)
    write(dataset=cache_schema.DatasetCard(id="healthy"))
    assert main(["convert", str(tmp_path / "cache"), str(tmp_path / "to"), "--to", "hdf5"]) == 1
    assert "1 store converted, 0 there already, 1 failed" in capsys.readouterr().out
    assert [found.dataset.id for found in cache_schema.open_cache(tmp_path / "to").stores()] == ["healthy"]
