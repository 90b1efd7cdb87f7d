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
from extract.claims import Claims
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


def in_own_group(words: list[str], folder: str, log: str = os.devnull) -> None:
    """Run the command as the leader of a process group, its output away; every pass that begins goes to a log."""
    os.setsid()
    os.chdir(folder)
    from extract.cli import main
    from extract.progress import Reporter

    told = Reporter.__call__

    def note(self, event) -> None:
        if event.kind == "pass":
            with Path(log).open("a") as file:
                file.write(f"{event.dataset}\t{event.model}\n")
        told(self, event)

    Reporter.__call__ = note
    with open(os.devnull, "w") as away, contextlib.redirect_stdout(away), contextlib.redirect_stderr(away):  # noqa: PTH123
        code = main(words)
    os._exit(code)


def passes(log: Path) -> list[set[tuple[str, str]]]:
    """Return the passes that began, each as (model, dataset) pairs."""
    if not log.exists():
        return []
    lines = [line.split("\t") for line in log.read_text().splitlines()]
    return [{(model, dataset) for model in models.split(", ")} for dataset, models in lines]


def sealed(cache: Path) -> set[tuple[str, str]]:
    if not cache.is_dir():
        return set()
    opened = cache_schema.open_cache(cache)
    return {(s.model.id, s.dataset.id) for kind in ("predictions", "reference") for s in opened.stores(kind)}


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
    log = study / "passes.log"
    while killed < N_KILLS:
        before = sealed(study / "killed")
        log.unlink(missing_ok=True)
        process = CONTEXT.Process(target=in_own_group, args=(words("killed"), str(study), str(log)))
        process.start()
        process.join(float(rng.uniform(0, lasts)))
        if process.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            killed += 1
        process.join()
        begun_passes, now = passes(log), sealed(study / "killed")
        # What was sealed is never run again, and a kill costs the pass that it fell into, no other.
        assert not [one for one in begun_passes if one & before]
        assert sum(not one <= now for one in begun_passes) <= 1
        if (study / "killed").is_dir():
            for store in cache_schema.open_cache(study / "killed").stores():
                assert problems(store.path) == []  # whatever is published is whole, after every kill
        if process.exitcode == 0 and killed < N_KILLS:
            # Start over, so that kills fall on every stage of a run and not on a finished cache.
            shutil.rmtree(study / "killed")
    run_extract(*words("killed"), cwd=study)
    assert digests(study / "killed") == digests(study / "whole")
    left = [*(study / "killed").rglob(".staged-*"), *(study / "killed").rglob(".claims")]
    assert left == []


@pytest.mark.slow
def test_two_runs_on_one_cache_lose_time_but_no_data(study: Path, run_extract) -> None:
    run_extract(*words("whole"), cwd=study)
    log = study / "passes.log"
    runs = [CONTEXT.Process(target=in_own_group, args=(words("shared"), str(study), str(log))) for _ in range(2)]
    for process in runs:
        process.start()
    for process in runs:
        process.join()
        assert process.exitcode == 0
    assert digests(study / "shared") == digests(study / "whole")
    # They told each other what they were at, so nothing was run twice.
    begun = [pair for one in passes(log) for pair in one]
    assert sorted(begun) == sorted(sealed(study / "shared"))
    assert not (study / "shared" / ".claims").exists()


def test_claims_are_seen_by_others_renewed_and_forgotten(tmp_path: Path) -> None:
    where = ("model", "pets", "0" * 64)
    mine = Claims(tmp_path)
    assert mine.take(*where)
    assert mine.owner(*where) == ""
    asking = CONTEXT.Process(target=claim_or_exit, args=(tmp_path, where, False))
    asking.start()
    asking.join()
    assert asking.exitcode == 7  # it was told that somebody is at it
    mine.release()
    assert not (tmp_path / ".claims").exists()
    # A process that dies with its claim held, on this machine: free at once.
    dying = CONTEXT.Process(target=claim_or_exit, args=(tmp_path, where, True))
    dying.start()
    dying.join()
    assert dying.exitcode == -signal.SIGKILL
    (left,) = (tmp_path / ".claims").iterdir()
    assert Claims(tmp_path).owner(*where) == ""
    # The same of another machine: it counts until it has not been renewed for a while.
    left.write_text('{"host": "elsewhere", "pid": 1, "boot": "another"}')
    assert Claims(tmp_path).owner(*where) == "process 1 on elsewhere"
    assert not Claims(tmp_path).take(*where)
    os.utime(left, (time.time() - 1000, time.time() - 1000))
    clean = Claims(tmp_path)
    assert clean.take(*where)
    clean.release()


def claim_or_exit(cache: Path, where: tuple[str, str, str], die: bool) -> None:
    claims = Claims(cache)
    if not claims.take(*where):
        os._exit(7 if claims.owner(*where).startswith("process ") else 8)
    if die:
        os.kill(os.getpid(), signal.SIGKILL)


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
