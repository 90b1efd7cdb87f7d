"""Loading a model, encoding texts, hashing and listing are reported once they take long. Time is a test's own."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from closerlook_common.console.waiting import printing
from extract.commands.progress import Reporter
from extract.datasets.python_data import PythonSource, read_rows
from extract.models.weights import file_digest
from extract.passes.events import Event, text_progress

Capture = pytest.CaptureFixture[str]


def test_a_long_loading_and_a_text_head_are_reported(clock: Any) -> None:
    out = io.StringIO()
    with Reporter({("slow", "pets"): 10}, 1, Console(file=out, width=200)) as reporter:
        reporter(Event("loading", "quick"))
        clock.advance(1.5)
        reporter(Event("loading", "slow"))
        clock.advance(3)
        advance = text_progress(reporter, "slow", "text head imagenet-1k, openai-80")
        for done in range(1, 81):
            clock.advance(0.5)
            advance(done, 80)
        reporter(Event("pass", "slow", "pets"))
        reporter(Event("rows", "slow", "pets", rows=5))
        clock.advance(30)
    lines = [line for line in out.getvalue().splitlines() if "images x models" not in line]
    assert lines == [
        "loading slow ...",
        "slow: text head imagenet-1k, openai-80 ...",
        "slow: text head imagenet-1k, openai-80: 32 of 80 templates.",
        "slow: text head imagenet-1k, openai-80: 72 of 80 templates.",
    ]


def test_hashing_weights_is_reported(clock: Any, tmp_path: Path, capsys: Capture, monkeypatch: Any) -> None:
    monkeypatch.setenv("CLOSERLOOK_CACHE", str(tmp_path / "user"))
    weights = tmp_path / "weights.pt"
    weights.write_bytes(b"w" * 100)

    class Slow:
        def __init__(self) -> None:
            self.sha = hashlib.sha256()

        def update(self, block: bytes) -> None:
            clock.advance(3)
            self.sha.update(block)

        def hexdigest(self) -> str:
            return self.sha.hexdigest()

    with monkeypatch.context() as patch, printing():
        patch.setattr("extract.models.weights._memo", lambda path: tmp_path / "memo.json")
        patch.setattr("extract.models.weights.hashlib", type("slow", (), {"sha256": Slow}))
        digest = file_digest(weights)
        stated = f"hashing {weights} (0.0 GB), once as long as the file does not change ...\n"
        assert capsys.readouterr().err == stated
        assert file_digest(weights) == digest == hashlib.sha256(b"w" * 100).hexdigest()
    assert capsys.readouterr().err == ""


class Items:
    """A dataset whose items take a tenth of a second each."""

    classes = ("a", "b")

    def __init__(self, clock: Any, n: int) -> None:
        self.clock, self.n = clock, n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        self.clock.advance(0.1)
        return np.full((4, 4), index, np.uint8), index % 2


@pytest.mark.parametrize("n", [15, 60])
def test_hashing_the_images_of_a_python_object_is_reported(clock: Any, capsys: Capture, n: int) -> None:
    with printing():
        read_rows(PythonSource(Items(clock, n), "pets"))
    stated = "pets: reading 60 items, for their labels and a digest of the images ...\n"
    assert capsys.readouterr().err == (stated if n == 60 else "")


def test_a_slow_listing_is_named(
    clock: Any, tmp_path: Path, pets: Path, run_extract: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from extract.datasets import listing

    size_of = listing.size_of
    monkeypatch.setattr(listing, "size_of", lambda entry: (clock.advance(0.5), size_of(entry))[1])
    (tmp_path / "models.txt").write_text("timm:test_vit allow_random=yes num_classes=3 classes=pets input_size=32")
    words = ("--model-list", "models.txt", "--dataset", f"pets={pets}", "--dry-run")
    assert "listing the images of pets ..." in run_extract(*words, cwd=tmp_path).stderr


def test_reading_a_large_manifest_is_reported(clock: Any, tmp_path: Path, capsys: Capture, monkeypatch: Any) -> None:
    import polars as pl

    from extract.datasets.manifest import read_table

    (tmp_path / "labels.csv").write_text("path,label\na.png,0\n")
    read = pl.read_csv
    monkeypatch.setattr(pl, "read_csv", lambda *args, **options: (clock.advance(3), read(*args, **options))[1])
    with printing():
        read_table(tmp_path / "labels.csv")
    assert capsys.readouterr().err == f"reading {tmp_path / 'labels.csv'} ...\n"


def test_looking_for_weights_is_reported(
    clock: Any, tmp_path: Path, pets: Path, run_extract: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from extract import libraries

    prepare = libraries.prepare
    monkeypatch.setattr(libraries, "prepare", lambda spec: (clock.advance(3), prepare(spec))[1])
    (tmp_path / "models.txt").write_text(
        "timm:test_vit id=mine allow_random=yes num_classes=3 classes=pets input_size=32"
    )
    words = ("--model-list", "models.txt", "--dataset", f"pets={pets}", "--dry-run")
    assert "looking for the weights of mine ..." in run_extract(*words, cwd=tmp_path).stderr
