"""Pixels that are kept: the same batches without the images, within bounds, of no other dataset."""

from __future__ import annotations

import os
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from decoding import GEOMETRY, N, coloured, decoded, replaced

from extract.datasets.base import Dataset
from extract.passes.decode import Decoder
from extract.passes.pixel_cache import PixelSource
from extract.planning.options import RunOptions
from extract.preprocess import Geometry


def test_pixel_cache_gives_the_same_batches_without_the_images(dataset: Dataset, tmp_path: Path) -> None:
    broken = replaced(dataset, 3, b"")
    options = RunOptions(cache=tmp_path / "cache", pixel_cache=tmp_path / "pixels", pixel_cache_bytes=10 << 20)

    def through(batch_size: int) -> list[tuple[int, bytes, bytes, tuple[tuple[int, str], ...]]]:
        with Decoder(0) as decoder:
            batches = PixelSource(decoder, options).batches(broken, [GEOMETRY], batch_size)
            return [
                (b.start, b.views[0].pixels.tobytes(), b.views[0].valid.tobytes(), b.views[0].problems) for b in batches
            ]

    first = through(8)
    for path in dataset.paths:
        (dataset.root / path).unlink()
    assert through(8) == first
    assert b"".join(pixels for _, pixels, _, _ in through(5)) == b"".join(pixels for _, pixels, _, _ in first)


def test_kept_pixels_are_of_this_dataset_and_no_other(dataset: Dataset, tmp_path: Path) -> None:
    options = RunOptions(cache=tmp_path / "cache", pixel_cache=tmp_path / "pixels")
    with Decoder(0) as decoder:
        source = PixelSource(decoder, options)
        for change in (
            lambda: dataset,
            lambda: replace(dataset, border_crop=2),
            lambda: replaced(dataset, 3, coloured((9, 9, 9))),
        ):
            changed = change()
            for _ in range(2):
                got = np.concatenate([batch.views[0].pixels.copy() for batch in source.batches(changed, [GEOMETRY], 8)])
                np.testing.assert_array_equal(got, decoded(changed, 0, 8)[0])
    assert len(list((tmp_path / "pixels").glob("*.u8"))) == 3


def test_kept_pixels_are_read_ahead_and_stay_until_the_next_are_asked_for(dataset: Dataset, tmp_path: Path) -> None:
    want = decoded(dataset, 0, 8)[0]
    options = RunOptions(cache=tmp_path / "cache", pixel_cache=tmp_path / "pixels")
    with Decoder(0) as decoder:
        source = PixelSource(decoder, options)
        assert len(list(source.batches(dataset, [GEOMETRY], 8))) == 5
        (kept,) = (tmp_path / "pixels").glob("*.u8")
        for batch in source.batches(dataset, [GEOMETRY], 8):
            time.sleep(0.02)  # the next batch is read meanwhile
            np.testing.assert_array_equal(batch.views[0].pixels, want[batch.start : batch.stop])
        # A run beside this one that needs the room removes the file; who reads it goes on.
        going = source.batches(dataset, [GEOMETRY], 8)
        got = [next(going).views[0].pixels.copy()]
        os.truncate(shutil.copy(kept, kept.with_name("copy")), kept.stat().st_size - 1)
        kept.unlink()
        got += [batch.views[0].pixels.copy() for batch in going]
        np.testing.assert_array_equal(np.concatenate(got), want)
        # One that is cut short is not believed; if that happens under the reader, it is reported.
        kept.with_name("copy").rename(kept)
        assert len(list(source.batches(dataset, [GEOMETRY], 8))) == 5
        going = source.batches(dataset, [GEOMETRY], 4)
        next(going)
        os.truncate(kept, 3000)
        with pytest.raises(OSError, match="has become shorter while it was read"):
            list(going)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pixels")]


def test_half_pixel_files_of_dead_processes_are_removed_those_of_living_ones_not(dataset, tmp_path: Path) -> None:
    folder = tmp_path / "pixels"
    options = RunOptions(cache=tmp_path / "cache", pixel_cache=folder)
    with Decoder(0) as decoder:
        going = PixelSource(decoder, options).batches(dataset, [GEOMETRY], 8)
        next(going)
        (living,) = folder.glob(".*.staged")
        dead = folder / ".set-0123.99.staged"
        dead.write_bytes(b"half")
        list(PixelSource(decoder, options).batches(dataset, [Geometry("squash", (9, 9), (9, 9), "bilinear")], 8))
        assert living.exists()
        assert not dead.exists()
        going.close()
        assert not living.exists()


def test_a_pixel_cache_that_cannot_be_written_costs_no_image(dataset: Dataset, tmp_path: Path, small_disk) -> None:
    want = decoded(dataset, 0, 8)[0]
    parts = []
    options = RunOptions(cache=tmp_path / "cache", pixel_cache=Path("/dev/full"))
    with Decoder(0) as decoder:
        got = [
            b.views[0].pixels.copy()
            for b in PixelSource(decoder, options, parts.append).batches(dataset, [GEOMETRY], 8)
        ]
    np.testing.assert_array_equal(np.concatenate(got), want)
    assert [event.text for event in parts] == ["decoded pixels cannot be kept in /dev/full: File exists"]
    folder = tmp_path / "small"
    with small_disk(folder, "16k"):
        options = RunOptions(cache=tmp_path / "cache", pixel_cache=folder)
        parts.clear()
        with Decoder(0) as decoder:
            got = [
                b.views[0].pixels.copy()
                for b in PixelSource(decoder, options, parts.append).batches(dataset, [GEOMETRY], 8)
            ]
        np.testing.assert_array_equal(np.concatenate(got), want)
        assert [event.text for event in parts] == [
            f"decoded pixels cannot be kept in {folder}: No space left on device"
        ]
        assert list(folder.iterdir()) == []


def test_a_run_beside_may_make_room_too(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, glob = tmp_path / "pixels", Path.glob
    gone = folder / "removed-meanwhile.u8"
    monkeypatch.setattr(Path, "glob", lambda path, pattern: [*glob(path, pattern), *[gone] * (pattern == "*.u8")])
    options = RunOptions(cache=tmp_path / "cache", pixel_cache=folder)
    with Decoder(0) as decoder:
        for geometry in (GEOMETRY, Geometry("squash", (9, 9), (9, 9), "bilinear")):
            assert len(list(PixelSource(decoder, options).batches(dataset, [geometry], 8))) == 5
    assert len(list(glob(folder, "*.u8"))) == 2


def test_pixel_cache_is_bounded_and_holds_no_half_file(dataset: Dataset, tmp_path: Path) -> None:
    size = N * 16 * 16 * 3
    folder = tmp_path / "pixels"
    options = RunOptions(cache=tmp_path / "cache", pixel_cache=folder, pixel_cache_bytes=size + 10)
    other = Geometry("squash", (16, 16), (16, 16), "bilinear")
    with Decoder(0) as decoder:
        source = PixelSource(decoder, options)
        for _ in source.batches(dataset, [GEOMETRY], 8):
            break
        assert not list(folder.glob("*.u8"))
        for geometry in (GEOMETRY, other):
            for _ in source.batches(dataset, [geometry], 8):
                pass
            (kept,) = folder.glob("*.u8")
            assert kept.stat().st_size == size
    assert not list(folder.glob(".*staged"))
