"""Decoding: same pixels with any number of workers; broken, crashing and hanging images cost themselves alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from decoding import GEOMETRY, Counting, Harmful, N, Owned, Reporting, Victim, coloured, decoded, make, replaced
from hypothesis import given
from hypothesis import strategies as st

from extract.datasets.base import Dataset
from extract.passes.decode import Decoder
from extract.passes.image_rows import DatasetChangedError, changed_since
from extract.passes.pixel_room import room_of


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
    with Decoder(2) as decoder:
        for _ in range(2):
            got = np.concatenate([b.views[0].pixels.copy() for b in decoder.batches(dataset, [GEOMETRY], 8)])
            np.testing.assert_array_equal(got, want)
            for worker in decoder.pool.processes:
                worker.process.kill()
                worker.process.join()


STOPPED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import decoding
root = Path(sys.argv[2])
names = sorted(path.name for path in root.glob("*.png"))
dataset = decoding.make(root, names, [(root / name).stat().st_size for name in names])
slow = decoding.Slow(**vars(decoding.GEOMETRY))
if __name__ == "__main__":
    print("ready", flush=True)
    pixels, valid, problems = decoding.decoded(dataset, 1, 8, slow, stuck_seconds=2.0, stuck_image_seconds=2.0)
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
    with Decoder(2) as decoder:
        for batch in decoder.batches(dataset, [GEOMETRY], 4):
            assert batch.start == 0
            break
        again = np.concatenate([b.views[0].pixels.copy() for b in decoder.batches(dataset, [GEOMETRY], 4)])
    np.testing.assert_array_equal(again, want)


@pytest.mark.parametrize("batch_size", [9, 16, 20, 32, N])
def test_processes_fill_a_batch_together(dataset: Dataset, batch_size: int) -> None:
    """One process would keep the models waiting for the first batch, by as much as there are processes."""
    owned = Owned(**vars(GEOMETRY))
    with Decoder(3) as decoder:
        list(decoder.batches(dataset, [GEOMETRY], batch_size))  # all processes are running
        first = next(iter(decoder.batches(dataset, [owned], batch_size)))
        assert len({tuple(pixels[0, 0]) for pixels in first.views[0].pixels}) == min(-(-batch_size // 8), 3)
        assert first.views[0].valid.all()


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 128))
def test_room_for_large_batches_is_room_for_small_ones(one: int, other: int, workers: int) -> None:
    small, large = sorted((one, other))
    assert 3 * small < room_of(small, workers) <= room_of(large, workers) <= 5 * large + 18 * workers


def test_decoding_goes_on_while_the_models_work(dataset: Dataset, tmp_path: Path) -> None:
    counting = Counting(**vars(GEOMETRY), log=str(tmp_path / "count"))
    with Decoder(1) as decoder:
        for batch in decoder.batches(dataset, [counting], 4):
            # The models are not done before the whole next batch is decoded, by whoever does that meanwhile.
            deadline = time.monotonic() + 60
            while (tmp_path / "count").stat().st_size < min(batch.stop + 4, N):
                assert time.monotonic() < deadline, f"nothing is decoded after row {batch.stop}"
                time.sleep(0.002)


def test_decoding_processes_are_spawned_and_know_nothing_of_torch(dataset: Dataset) -> None:
    printed = Reporting(GEOMETRY.resize_mode, GEOMETRY.resize, GEOMETRY.crop, GEOMETRY.interpolation)
    pixels, _, _ = decoded(dataset, 1, 8, printed)
    assert pixels[:, 0, 0].tolist() == [[1, 0, 1]] * N
