"""Decoding: same pixels with any number of workers; broken, crashing and hanging images cost themselves alone."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache_schema.records import DatasetCard
from extract.datasets.base import Dataset, manifest_digest
from extract.passes.decode import Decoder
from extract.passes.image_rows import DatasetChangedError, changed_since
from extract.passes.pixel_cache import PixelSource
from extract.planning.options import RunOptions
from extract.preprocess import Geometry

GEOMETRY = Geometry("shortest", (20, 20), (16, 16), "bicubic")
N = 37


@dataclass(frozen=True)
class Harmful(Geometry):
    """Kills or hangs its process on an image whose first pixel says so."""

    def __call__(self, image: Image.Image) -> np.ndarray:
        red, green, blue = image.getpixel((0, 0))
        if (red, green, blue) == (1, 2, 3):
            os.kill(os.getpid(), signal.SIGKILL)
        if (red, green, blue) == (3, 2, 1):
            time.sleep(600)
        return super().__call__(image)


@dataclass(frozen=True)
class Telling(Geometry):
    """Tells of its process: spawned, has torch, is another than the one that decodes nothing."""

    def __call__(self, image: Image.Image) -> np.ndarray:
        out = super().__call__(image).copy()
        spawned = multiprocessing.get_start_method() == "spawn"
        out[0, 0] = spawned, "torch" in sys.modules, multiprocessing.parent_process() is not None
        return out


@dataclass(frozen=True)
class Victim(Geometry):
    """Has its process killed, the first few times that it is used."""

    log: str = ""
    times: int = 0

    def __call__(self, image: Image.Image) -> np.ndarray:
        path = Path(self.log)
        if not path.exists() or path.stat().st_size < self.times:
            with path.open("ab") as file:
                file.write(b"!")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(image)


@dataclass(frozen=True)
class Counting(Geometry):
    """Adds a byte to a file for each image."""

    log: str = ""

    def __call__(self, image: Image.Image) -> np.ndarray:
        pixels = super().__call__(image)
        with Path(self.log).open("ab") as file:
            file.write(b"!")
        return pixels


@dataclass(frozen=True)
class Slow(Geometry):
    """Takes its time without taking a core."""

    def __call__(self, image: Image.Image) -> np.ndarray:
        time.sleep(0.04)
        return super().__call__(image)


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    rng = np.random.default_rng(0)
    paths, sizes = [], []
    for index in range(N):
        path = tmp_path / f"{index:03}.png"
        Image.fromarray(rng.integers(0, 255, (24, 30, 3), np.uint8)).save(path)
        paths.append(path.name)
        sizes.append(path.stat().st_size)
    return make(tmp_path, paths, sizes)


def make(root: Path, paths: list[str], sizes: list[int]) -> Dataset:
    labels = np.full(len(paths), -1, np.int32)
    byte_sizes = np.array(sizes, np.int64)
    digest = manifest_digest(paths, labels, byte_sizes)
    card = DatasetCard(id="set", role="ood", digest=digest, n_images=len(paths))
    return Dataset(card=card, root=root, paths=tuple(paths), labels=labels, sizes=byte_sizes)


def replaced(dataset: Dataset, row: int, data: bytes) -> Dataset:
    (dataset.root / dataset.paths[row]).write_bytes(data)
    sizes = dataset.sizes.tolist()
    sizes[row] = len(data)
    return make(dataset.root, list(dataset.paths), sizes)


def coloured(colour: tuple[int, int, int]) -> bytes:
    out = BytesIO()
    Image.new("RGB", (24, 24), colour).save(out, "PNG")
    return out.getvalue()


def decoded(dataset: Dataset, workers: int, batch_size: int, geometry: Geometry = GEOMETRY, **limits: float):
    with Decoder(workers, batch_size * 16 * 16 * 3, **limits) as decoder:
        batches = [
            (b.start, b.stop, b.pixels.copy(), b.valid, b.problems)
            for b in decoder.batches(dataset, geometry, batch_size)
        ]
    assert [start for start, *_ in batches] == list(range(0, len(dataset), batch_size))
    pixels = np.concatenate([b[2] for b in batches])
    valid = np.concatenate([b[3] for b in batches])
    return pixels, valid, dict(problem for b in batches for problem in b[4])


def test_pixels_do_not_depend_on_workers_or_batch_size(dataset: Dataset) -> None:
    want, valid, problems = decoded(dataset, 0, N)
    assert valid.all()
    assert not problems
    for row in (0, N - 1):
        np.testing.assert_array_equal(want[row], GEOMETRY(dataset.open(row)))
    for workers, batch_size in ((0, 5), (1, 4), (2, 3), (3, 50)):
        np.testing.assert_array_equal(decoded(dataset, workers, batch_size)[0], want)


def test_unreadable_images_keep_their_rows(dataset: Dataset) -> None:
    want = decoded(dataset, 0, 8)[0]
    broken = replaced(replaced(dataset, 3, b""), 20, b"no image at all")
    (dataset.root / dataset.paths[5]).unlink()
    broken = make(dataset.root, list(broken.paths), [*broken.sizes[:5].tolist(), -1, *broken.sizes[6:].tolist()])
    for workers in (0, 2):
        pixels, valid, problems = decoded(broken, workers, 8)
        assert np.flatnonzero(~valid).tolist() == [3, 5, 20] == sorted(problems)
        assert "empty" in problems[3]
        assert "missing" in problems[5]
        np.testing.assert_array_equal(pixels[valid], want[valid])
        assert not pixels[~valid].any()


@pytest.mark.slow
def test_a_crash_and_a_hang_cost_one_image_each(dataset: Dataset) -> None:
    want = decoded(dataset, 0, 8)[0]
    bad = replaced(replaced(dataset, 9, coloured((1, 2, 3))), 30, coloured((3, 2, 1)))
    harmful = Harmful(GEOMETRY.resize_mode, GEOMETRY.resize, GEOMETRY.crop, GEOMETRY.interpolation)
    pixels, valid, problems = decoded(bad, 2, 8, harmful, stuck_seconds=6.0, stuck_image_seconds=4.0)
    assert np.flatnonzero(~valid).tolist() == [9, 30]
    assert "crashed" in problems[9]
    assert "hung" in problems[30]
    np.testing.assert_array_equal(pixels[valid], want[valid])


@pytest.mark.slow
def test_a_decoder_that_is_killed_for_others_costs_nothing(dataset: Dataset, tmp_path: Path) -> None:
    """The out-of-memory killer takes a process twice: with its batch, and again with an image of it alone."""
    want = decoded(dataset, 0, 8)[0]
    victim = Victim(**vars(GEOMETRY), log=str(tmp_path / "killed"), times=2)
    pixels, valid, problems = decoded(dataset, 1, 8, victim)
    assert len((tmp_path / "killed").read_bytes()) == 2
    assert valid.all()
    assert not problems
    np.testing.assert_array_equal(pixels, want)


@pytest.mark.slow
def test_a_decoder_that_dies_idle_is_replaced(dataset: Dataset) -> None:
    want = decoded(dataset, 0, 8)[0]
    with Decoder(2, 8 * 16 * 16 * 3) as decoder:
        for _ in range(2):
            got = np.concatenate([b.pixels.copy() for b in decoder.batches(dataset, GEOMETRY, 8)])
            np.testing.assert_array_equal(got, want)
            for worker in decoder._workers:
                worker.process.kill()
                worker.process.join()


STOPPED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import test_decode
root = Path(sys.argv[2])
names = sorted(path.name for path in root.glob("*.png"))
dataset = test_decode.make(root, names, [(root / name).stat().st_size for name in names])
slow = test_decode.Slow(**vars(test_decode.GEOMETRY))
if __name__ == "__main__":
    print("ready", flush=True)
    pixels, valid, problems = test_decode.decoded(dataset, 1, 8, slow, stuck_seconds=2.0, stuck_image_seconds=2.0)
    print(int(valid.sum()), problems, flush=True)
"""


@pytest.mark.slow
def test_a_run_that_is_stopped_for_a_while_has_not_hung(dataset: Dataset, tmp_path: Path) -> None:
    """Ctrl-Z, a debugger, a suspended laptop: all processes stand still for longer than an image may take."""
    (tmp_path / "stopped.py").write_text(STOPPED)
    words = [sys.executable, str(tmp_path / "stopped.py"), str(Path(__file__).parent), str(dataset.root)]
    root = str(Path(__file__).parents[2])
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "PYTHONPATH": root}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.7)
            os.killpg(process.pid, signal.SIGSTOP)
            time.sleep(3.0)
            os.killpg(process.pid, signal.SIGCONT)
        assert process.stdout.read() == f"{N} {{}}\n"


def test_a_changed_file_stops_the_dataset(dataset: Dataset) -> None:
    assert changed_since(dataset) == ""
    with (dataset.root / dataset.paths[11]).open("ab") as file:
        file.write(b"more")
    assert dataset.paths[11] in changed_since(dataset)
    for workers in (0, 1):
        with pytest.raises(DatasetChangedError, match=r"011\.png"):
            decoded(dataset, workers, 8)


def test_leaving_early_leaves_the_workers_usable(dataset: Dataset) -> None:
    want = decoded(dataset, 0, 4)[0]
    with Decoder(2, 4 * 16 * 16 * 3) as decoder:
        for batch in decoder.batches(dataset, GEOMETRY, 4):
            assert batch.start == 0
            break
        again = np.concatenate([b.pixels.copy() for b in decoder.batches(dataset, GEOMETRY, 4)])
    np.testing.assert_array_equal(again, want)


def test_decoding_goes_on_while_the_models_work(dataset: Dataset, tmp_path: Path) -> None:
    counting = Counting(**vars(GEOMETRY), log=str(tmp_path / "count"))
    with Decoder(1, 4 * 16 * 16 * 3) as decoder:
        for batch in decoder.batches(dataset, counting, 4):
            # The models are not done before the whole next batch is decoded, by whoever does that meanwhile.
            deadline = time.monotonic() + 60
            while (tmp_path / "count").stat().st_size < min(batch.stop + 4, N):
                assert time.monotonic() < deadline, f"nothing is decoded after row {batch.stop}"
                time.sleep(0.002)


def test_pixel_cache_gives_the_same_batches_without_the_images(dataset: Dataset, tmp_path: Path) -> None:
    broken = replaced(dataset, 3, b"")
    options = RunOptions(cache=tmp_path / "cache", pixel_cache=tmp_path / "pixels", pixel_cache_bytes=10 << 20)

    def through(batch_size: int) -> list[tuple[int, bytes, bytes, tuple[tuple[int, str], ...]]]:
        with Decoder(0, 1) as decoder:
            batches = PixelSource(decoder, options).batches(broken, GEOMETRY, batch_size)
            return [(b.start, b.pixels.tobytes(), b.valid.tobytes(), b.problems) for b in batches]

    first = through(8)
    for path in dataset.paths:
        (dataset.root / path).unlink()
    assert through(8) == first
    assert b"".join(pixels for _, pixels, _, _ in through(5)) == b"".join(pixels for _, pixels, _, _ in first)


def test_kept_pixels_are_of_this_dataset_and_no_other(dataset: Dataset, tmp_path: Path) -> None:
    options = RunOptions(cache=tmp_path / "cache", pixel_cache=tmp_path / "pixels")
    with Decoder(0, 1) as decoder:
        source = PixelSource(decoder, options)
        for change in (
            lambda: dataset,
            lambda: replace(dataset, border_crop=2),
            lambda: replaced(dataset, 3, coloured((9, 9, 9))),
        ):
            changed = change()
            for _ in range(2):
                got = np.concatenate([batch.pixels.copy() for batch in source.batches(changed, GEOMETRY, 8)])
                np.testing.assert_array_equal(got, decoded(changed, 0, 8)[0])
    assert len(list((tmp_path / "pixels").glob("*.u8"))) == 3


def test_decoding_processes_are_spawned_and_know_nothing_of_torch(dataset: Dataset) -> None:
    told = Telling(GEOMETRY.resize_mode, GEOMETRY.resize, GEOMETRY.crop, GEOMETRY.interpolation)
    pixels, _, _ = decoded(dataset, 1, 8, told)
    assert pixels[:, 0, 0].tolist() == [[1, 0, 1]] * N


def test_kept_pixels_are_read_ahead_and_stay_until_the_next_are_asked_for(dataset: Dataset, tmp_path: Path) -> None:
    want = decoded(dataset, 0, 8)[0]
    options = RunOptions(cache=tmp_path / "cache", pixel_cache=tmp_path / "pixels")
    with Decoder(0, 1) as decoder:
        source = PixelSource(decoder, options)
        assert len(list(source.batches(dataset, GEOMETRY, 8))) == 5
        (kept,) = (tmp_path / "pixels").glob("*.u8")
        for batch in source.batches(dataset, GEOMETRY, 8):
            time.sleep(0.02)  # the next batch is read meanwhile
            np.testing.assert_array_equal(batch.pixels, want[batch.start : batch.stop])
        # A run beside this one that needs the room removes the file; who reads it goes on.
        going = source.batches(dataset, GEOMETRY, 8)
        got = [next(going).pixels.copy()]
        os.truncate(shutil.copy(kept, kept.with_name("copy")), kept.stat().st_size - 1)
        kept.unlink()
        got += [batch.pixels.copy() for batch in going]
        np.testing.assert_array_equal(np.concatenate(got), want)
        # One that is cut short is not believed; if that happens under the reader, it is told.
        kept.with_name("copy").rename(kept)
        assert len(list(source.batches(dataset, GEOMETRY, 8))) == 5
        going = source.batches(dataset, GEOMETRY, 4)
        next(going)
        os.truncate(kept, 3000)
        with pytest.raises(OSError, match="has become shorter while it was read"):
            list(going)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pixels")]


def test_half_pixel_files_of_dead_processes_are_removed_those_of_living_ones_not(dataset, tmp_path: Path) -> None:
    folder = tmp_path / "pixels"
    options = RunOptions(cache=tmp_path / "cache", pixel_cache=folder)
    with Decoder(0, 1) as decoder:
        going = PixelSource(decoder, options).batches(dataset, GEOMETRY, 8)
        next(going)
        (living,) = folder.glob(".*.staged")
        dead = folder / ".set-0123.99.staged"
        dead.write_bytes(b"half")
        list(PixelSource(decoder, options).batches(dataset, Geometry("squash", (9, 9), (9, 9), "bilinear"), 8))
        assert living.exists()
        assert not dead.exists()
        going.close()
        assert not living.exists()


def test_a_pixel_cache_that_cannot_be_written_costs_no_image(dataset: Dataset, tmp_path: Path, small_disk) -> None:
    want = decoded(dataset, 0, 8)[0]
    told = []
    options = RunOptions(cache=tmp_path / "cache", pixel_cache=Path("/dev/full"))
    with Decoder(0, 1) as decoder:
        got = [b.pixels.copy() for b in PixelSource(decoder, options, told.append).batches(dataset, GEOMETRY, 8)]
    np.testing.assert_array_equal(np.concatenate(got), want)
    assert [event.text for event in told] == ["decoded pixels cannot be kept in /dev/full: File exists"]
    folder = tmp_path / "small"
    with small_disk(folder, "16k"):
        options = RunOptions(cache=tmp_path / "cache", pixel_cache=folder)
        told.clear()
        with Decoder(0, 1) as decoder:
            got = [b.pixels.copy() for b in PixelSource(decoder, options, told.append).batches(dataset, GEOMETRY, 8)]
        np.testing.assert_array_equal(np.concatenate(got), want)
        assert [event.text for event in told] == [f"decoded pixels cannot be kept in {folder}: No space left on device"]
        assert list(folder.iterdir()) == []


def test_pixel_cache_is_bounded_and_holds_no_half_file(dataset: Dataset, tmp_path: Path) -> None:
    size = N * 16 * 16 * 3
    folder = tmp_path / "pixels"
    options = RunOptions(cache=tmp_path / "cache", pixel_cache=folder, pixel_cache_bytes=size + 10)
    other = Geometry("squash", (16, 16), (16, 16), "bilinear")
    with Decoder(0, 1) as decoder:
        source = PixelSource(decoder, options)
        for _ in source.batches(dataset, GEOMETRY, 8):
            break
        assert not list(folder.glob("*.u8"))
        for geometry in (GEOMETRY, other):
            for _ in source.batches(dataset, geometry, 8):
                pass
            (kept,) = folder.glob("*.u8")
            assert kept.stat().st_size == size
    assert not list(folder.glob(".*staged"))
