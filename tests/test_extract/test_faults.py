"""What really happens to long runs: kill -9, full disks, racing workers, changing datasets, models that misbehave."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import cache_schema
from cache_schema.validate import problems
from extract.forward import Runner, forward_halving
from extract.models.base import Outputs

MODELS = """
timm:test_vit allow_random=yes seed=1 num_classes=3 classes=pets input_size=64 crop_pct=1.0
timm:test_resnet allow_random=yes seed=2 num_classes=3 classes=pets input_size=64 crop_pct=1.0
"""
N_KILLS = 30
CONTEXT = multiprocessing.get_context("forkserver")
# Started once with everything imported, so that a trial costs what the run costs and not what importing costs.
CONTEXT.set_forkserver_preload(["extract.session", "extract.worker", "extract.models.timm_models", "extract.progress"])


def digests(cache: Path) -> dict[tuple[str, str, str], object]:
    found = {}
    for store in cache_schema.open_cache(cache).stores():
        name = f"{store.class_space}/{store.prompt_set}" if store.kind == "head" else store.dataset.id
        found[store.kind, store.model.id, name] = store.header["seal"]["arrays"]
    return found


def in_own_group(words: list[str], folder: str) -> None:
    """Run the command as the leader of a process group, its output away."""
    os.setsid()
    os.chdir(folder)
    from extract.cli import main

    with open(os.devnull, "w") as away, contextlib.redirect_stdout(away), contextlib.redirect_stderr(away):  # noqa: PTH123
        code = main(words)
    os._exit(code)


@pytest.fixture
def study(tmp_path: Path, pets: Path) -> Path:
    (tmp_path / "models.txt").write_text(MODELS)
    (tmp_path / "datasets.toml").write_text(
        f'[pets]\npath = "{pets}"\nclass_space = "pets"\n[cats]\npath = "{pets}/cat"\nlabels = "none"\n'
        f'[training]\npath = "{pets}"\nclass_space = "pets"\nrole = "reference"\nper_class = 4\n'
    )
    return tmp_path


def words(cache: str, *more: str) -> list[str]:
    return ["--model-list", "models.txt", "--cache", cache, "--batch-size", "4", "--workers", "1", *more]


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_finishes_the_same_cache(study: Path, run_extract) -> None:
    warm_up = CONTEXT.Process(target=time.sleep, args=(0,))
    warm_up.start()
    warm_up.join()
    begun = time.monotonic()
    whole = CONTEXT.Process(target=in_own_group, args=(words("whole"), str(study)))
    whole.start()
    whole.join()
    assert whole.exitcode == 0
    lasts = time.monotonic() - begun
    rng = np.random.default_rng(0)
    killed = 0
    while killed < N_KILLS:
        process = CONTEXT.Process(target=in_own_group, args=(words("killed"), str(study)))
        process.start()
        process.join(float(rng.uniform(0, lasts)))
        if process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            killed += 1
        process.join()
        if (study / "killed").is_dir():
            for store in cache_schema.open_cache(study / "killed").stores():
                assert problems(store.path) == []  # whatever is published is whole, after every kill
        if process.exitcode == 0 and killed < N_KILLS:
            # Start over, so that kills fall on every stage of a run and not on a finished cache.
            shutil.rmtree(study / "killed")
    run_extract(*words("killed"), cwd=study)
    assert digests(study / "killed") == digests(study / "whole")
    left = list((study / "killed").rglob(".staged-*"))
    assert left == []


@pytest.mark.slow
def test_two_runs_on_one_cache_lose_time_but_no_data(study: Path, run_extract) -> None:
    run_extract(*words("whole"), cwd=study)
    runs = [CONTEXT.Process(target=in_own_group, args=(words("shared"), str(study))) for _ in range(2)]
    for process in runs:
        process.start()
    for process in runs:
        process.join()
        assert process.exitcode == 0
    assert digests(study / "shared") == digests(study / "whole")


@contextlib.contextmanager
def small_disk(folder: Path, size: str):
    """Mount a tmpfs of a few kilobytes; where that is not allowed, the test cannot be made."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False).returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_line_and_the_run_goes_on_after_room_is_made(study: Path, run_extract) -> None:
    run_extract(*words("whole"), cwd=study)
    with small_disk(study / "small", "400k"):
        (study / "small" / "ballast").write_bytes(b"x" * 200_000)
        done = run_extract(*words("small/cache"), cwd=study, code=2)
        assert "make room and run the same command again" in done.stderr.strip().splitlines()[-1]
        assert "Traceback" not in done.stderr
        for store in cache_schema.open_cache(study / "small" / "cache").stores():
            assert problems(store.path) == []
        (study / "small" / "ballast").unlink()
        subprocess.run(["mount", "-o", "remount,size=4m", str(study / "small")], check=True)
        run_extract(*words("small/cache"), cwd=study)
        assert digests(study / "small" / "cache") == digests(study / "whole")


def test_a_model_that_gives_nan_fails_alone(study: Path, run_extract) -> None:
    import timm

    torch.manual_seed(0)
    weights = timm.create_model("test_resnet", num_classes=3).state_dict()
    weights["fc.bias"][1] = float("nan")
    save_file(weights, study / "nan.safetensors")
    assert torch.isnan(load_file(study / "nan.safetensors")["fc.bias"]).any()
    line = "timm:test_resnet checkpoint=nan.safetensors num_classes=3 classes=pets input_size=64 crop_pct=1.0 id=nan"
    (study / "models.txt").write_text(MODELS + line)
    done = run_extract(*words("cache"), cwd=study, code=1)
    assert "nan on pets" in done.stderr
    assert "NaN" in done.stderr
    assert {s.model.id for s in cache_schema.open_cache(study / "cache").stores("predictions")} == {
        "test_vit",
        "test_resnet",
    }
    failed = cache_schema.open_cache(study / "cache").failures()
    assert {failure.model for failure in failed} == {"nan"}


def test_a_dataset_that_changes_under_the_run_is_stopped(study: Path, pets: Path, run_extract, monkeypatch) -> None:
    copy = study / "copy"
    shutil.copytree(pets, copy)
    (study / "datasets.toml").write_text(
        f'[pets]\npath = "{copy}"\nclass_space = "pets"\n[cats]\npath = "{pets}/cat"\nlabels = "none"\n'
    )
    from extract.progress import Reporter

    told = Reporter.__call__

    def meddle(self, event) -> None:
        if event.kind == "rows" and event.dataset == "pets":
            with (copy / "cat" / "0.jpg").open("ab") as file:
                file.write(b"!")
        told(self, event)

    monkeypatch.setattr(Reporter, "__call__", meddle)
    done = run_extract(*words("cache"), cwd=study, code=1)
    assert "cat/0.jpg had" in done.stderr
    assert {s.dataset.id for s in cache_schema.open_cache(study / "cache").stores("predictions")} == {"cats"}


def test_a_cache_that_cannot_be_written_to_is_one_line(study: Path, run_extract) -> None:
    done = run_extract(*words("/proc/closerlook"), cwd=study, code=2)
    assert "cannot write to the cache" in done.stderr.strip().splitlines()[-1]


def test_unreadable_images_are_counted_and_told(study: Path, pets: Path, run_extract) -> None:
    copy = study / "copy"
    shutil.copytree(pets, copy)
    (copy / "dog" / "3.jpg").write_bytes((copy / "dog" / "3.jpg").read_bytes()[:200])
    (copy / "fox" / "1.jpg").write_bytes(b"")
    (study / "datasets.toml").write_text(f'[pets]\npath = "{copy}"\nclass_space = "pets"\n')
    done = run_extract(*words("cache"), cwd=study, code=1)
    assert "2 images cannot be read" in done.stderr
    store = cache_schema.open_cache(study / "cache").store("test_vit", "pets")
    assert [store.image_ids[row] for row in np.flatnonzero(~store.valid)] == ["dog/3.jpg", "fox/1.jpg"]
    assert np.isnan(store.logits()[~store.valid]).all()
    assert store.record["n_unreadable"] == 2


@dataclass
class Greedy:
    """A model whose device holds three images at a time."""

    calls: list[int]
    most: int = 3

    def forward(self, pixels: torch.Tensor) -> Outputs:
        self.calls.append(len(pixels))
        if len(pixels) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return Outputs(pixels.float().mean((2, 3)), pixels.float().sum((2, 3)))


def test_out_of_memory_halves_the_batch_once_and_remembers() -> None:
    model = Greedy([])
    runner = Runner(model, sink=None)
    pixels = torch.randint(0, 256, (10, 3, 4, 4), dtype=torch.uint8)
    for _ in range(2):
        features, logits = forward_halving(runner, pixels)
        torch.testing.assert_close(features, pixels.float().mean((2, 3)))
        torch.testing.assert_close(logits, pixels.float().sum((2, 3)))
    assert model.calls == [10, 5, *[2] * 5, *[2] * 5]
    model.most = 0
    with pytest.raises(torch.OutOfMemoryError):
        forward_halving(runner, pixels)
