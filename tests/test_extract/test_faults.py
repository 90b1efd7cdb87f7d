"""What really happens to long runs: kill -9, full disks, racing workers, changing datasets, models that misbehave."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import cache_schema
from cache_schema.format import failures
from cache_schema.writing.validate import problems
from extract.passes.claims import Claims, clean_claims

N_KILLS = 30
CONTEXT = multiprocessing.get_context("forkserver")
# Started once with everything imported, so that a trial costs what the run costs and not what importing costs.
CONTEXT.set_forkserver_preload(
    ["extract.commands.session", "extract.passes.worker", "extract.libraries.timm.model", "extract.commands.progress"]
)


def in_own_group(words: list[str], folder: str, log: str = os.devnull) -> None:
    """Run the command as the leader of a process group, its output away; every pass that begins goes to a log."""
    os.setsid()
    os.chdir(folder)
    from extract.cli import main
    from extract.commands.progress import Reporter

    printed = Reporter.__call__

    def note(self, event) -> None:
        if event.kind == "pass":
            with Path(log).open("a") as file:
                file.write(f"{event.dataset}\t{event.model}\n")
        printed(self, event)

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


def words(cache: str, *more: str) -> list[str]:
    return ["--model-list", "models.txt", "--cache", cache, "--batch-size", "4", "--workers", "1", *more]


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_finishes_the_same_cache(study: Path, run_extract, digests) -> None:
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
def test_two_runs_on_one_cache_lose_time_but_no_data(study: Path, run_extract, digests) -> None:
    run_extract(*words("whole"), cwd=study)
    log = study / "passes.log"
    runs = [CONTEXT.Process(target=in_own_group, args=(words("shared"), str(study), str(log))) for _ in range(2)]
    for process in runs:
        process.start()
    for process in runs:
        process.join()
        assert process.exitcode == 0
    assert digests(study / "shared") == digests(study / "whole")
    # They notified each other of their work, so nothing was run twice.
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
    assert asking.exitcode == 7  # it was refused: the store is claimed
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


@pytest.mark.parametrize("ahead", [-86400, 86400])
def test_claims_are_judged_by_the_file_system_s_clock(tmp_path: Path, monkeypatch, ahead: int) -> None:
    where = ("model", "pets", "0" * 64)
    mine = Claims(tmp_path)
    assert mine.take(*where)
    (path,) = (tmp_path / ".claims").iterdir()
    path.write_text('{"host": "elsewhere", "pid": 1, "boot": "another"}')
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + ahead)
    clean_claims(tmp_path)
    other = Claims(tmp_path)
    assert not other.take(*where)
    assert other.owner(*where) == "process 1 on elsewhere"
    # Nor does a stamp from the future hold others up for ever.
    os.utime(path, (now + 10_000, now + 10_000))
    assert other.owner(*where) == ""
    assert other.take(*where)
    other.release()


def test_failures_come_and_go_from_many_sides(tmp_path: Path) -> None:
    """One clears the last record of a folder while another writes the next one there."""

    def both(number: int) -> None:
        for _ in range(200):
            failures.record_failure(tmp_path, "model", f"set{number}", "why")
            failures.clear_failure(tmp_path, "model", f"set{number}")

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(both, number) for number in range(4)]:
            done.result()
    assert list((tmp_path / "model").iterdir()) == []


def claim_or_exit(cache: Path, where: tuple[str, str, str], die: bool) -> None:
    claims = Claims(cache)
    if not claims.take(*where):
        os._exit(7 if claims.owner(*where).startswith("process ") else 8)
    if die:
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_model_that_gives_nan_fails_alone(study: Path, run_extract) -> None:
    import timm

    torch.manual_seed(0)
    weights = timm.create_model("test_resnet", num_classes=3).state_dict()
    weights["fc.bias"][1] = float("nan")
    save_file(weights, study / "nan.safetensors")
    assert torch.isnan(load_file(study / "nan.safetensors")["fc.bias"]).any()
    line = "timm:test_resnet checkpoint=nan.safetensors num_classes=3 classes=pets input_size=64 crop_pct=1.0 id=nan"
    (study / "models.txt").write_text((study / "models.txt").read_text() + line)
    done = run_extract(*words("cache"), cwd=study, code=1)
    assert "nan on pets" in done.stderr
    assert "NaN" in done.stderr
    assert {s.model.id for s in cache_schema.open_cache(study / "cache").stores("predictions")} == {
        "test_vit",
        "test_resnet",
    }
    failed = cache_schema.open_cache(study / "cache").failures()
    assert {failure.model for failure in failed} == {"nan"}


@pytest.mark.parametrize("stopped", ["taking", "making the folder"])
def test_a_run_that_is_stopped_while_it_takes_a_claim_leaves_none(
    study: Path, run_extract, monkeypatch, stopped
) -> None:
    take = Claims.take

    def taking(self: Claims, *where: str) -> bool:
        (study / "cut" / ".claims").mkdir(parents=True)
        if stopped == "taking":
            take(self, *where)
        raise KeyboardInterrupt

    monkeypatch.setattr(Claims, "take", taking)
    done = run_extract(*words("cut"), cwd=study, code=130)
    assert "interrupted; finished work is kept" in done.stderr
    assert not (study / "cut" / ".claims").exists()


def test_a_cache_that_cannot_be_written_to_is_one_line(study: Path, run_extract) -> None:
    done = run_extract(*words("/proc/closerlook"), cwd=study, code=2)
    assert "cannot write to the cache" in done.stderr.strip().splitlines()[-1]


def test_a_read_only_cache_can_be_read_and_nothing_else(study: Path, run_extract, small_disk) -> None:
    from analyze.cli import main as analyze

    with small_disk(study / "disk", "8m"):
        run_extract(*words("disk/cache"), cwd=study)
        subprocess.run(["mount", "-o", "remount,ro", str(study / "disk")], check=True)
        # Everything is sealed: there is nothing to write, so nothing is wrong.
        assert "0 done, 6 sealed before" in run_extract(*words("disk/cache"), cwd=study).stderr
        run_extract("status", "disk/cache", cwd=study)
        assert analyze(["metrics", str(study / "disk" / "cache"), "-o", str(study / "r.parquet")]) == 0
        with (study / "models.txt").open("a") as file:
            file.write("timm:test_byobnet allow_random=yes num_classes=3 classes=pets input_size=64\n")
        done = run_extract(*words("disk/cache"), cwd=study, code=2)
        assert "cannot write to the cache disk/cache: Read-only file system" in done.stderr.strip().splitlines()[-1]
        assert "Traceback" not in done.stderr


def test_models_that_raise_or_need_too_much_memory_fail_alone(study: Path, run_extract, monkeypatch, digests) -> None:
    from extract.libraries.timm.model import TimmModel

    run_extract(*words("whole"), cwd=study)
    line = "timm:test_vit allow_random=yes seed=1 num_classes=3 classes=pets input_size=64 crop_pct=1.0"
    with (study / "models.txt").open("a") as file:
        file.writelines(f"{line} id={name}\n" for name in ("raises", "huge", "greedy"))
    forward = TimmModel.forward
    too_many: list[int] = []

    def misbehave(self, pixels):
        if self.card.id == "greedy" and len(pixels) > 1:
            too_many.append(len(pixels))
        if self.card.id == "raises":
            raise KeyError("no such layer")
        if self.card.id == "huge" or (self.card.id == "greedy" and len(pixels) > 1):
            torch.empty(1 << 55)  # what no machine has, asked of torch's own allocator
        return forward(self, pixels)

    monkeypatch.setattr(TimmModel, "forward", misbehave)
    done = run_extract(*words("cache"), cwd=study, code=1)
    assert "raises on pets: KeyError: 'no such layer'" in done.stderr
    assert "huge on pets: " in done.stderr
    assert "allocate memory" in done.stderr
    cache = cache_schema.open_cache(study / "cache")
    assert {s.model.id for s in cache.stores("predictions")} == {"test_vit", "test_resnet", "greedy"}
    assert {(f.model, f.dataset) for f in cache.failures()} == {
        (model, dataset) for model in ("raises", "huge") for dataset in ("pets", "cats", "training")
    }
    # The others are as if nothing had happened; the one with too little memory went on image by image.
    kept = digests(study / "cache")
    assert {key: value for key, value in kept.items() if key in digests(study / "whole")} == digests(study / "whole")
    assert too_many == [4, 2]  # once, not once a dataset
    one, same = cache.store("greedy", "pets"), cache.store("test_vit", "pets")
    np.testing.assert_allclose(one.logits(), same.logits(), atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["zarr", "hdf5"])
def test_check_finds_every_flipped_byte_of_a_real_cache(study: Path, run_extract, backend: str, capsys) -> None:
    from cache_schema.cli import main as schema

    run_extract(*words("cache", "--store", backend), cwd=study)
    cache, stores = study / "cache", [store.path for store in cache_schema.open_cache(study / "cache").stores()]
    assert schema(["check", str(cache)]) == 0
    files = {
        store: [store] if store.is_file() else sorted(path for path in store.rglob("*") if path.is_file())
        for store in stores
    }
    rng = np.random.default_rng(6)
    flips = 0
    while flips < 1_000:
        # One byte of every store at a time, anywhere in any of its files: check must name them all.
        before = {}
        for store in stores:
            sizes = np.array([path.stat().st_size for path in files[store]])
            path = files[store][int(rng.choice(len(sizes), p=sizes / sizes.sum()))]
            before[path] = raw = path.read_bytes()
            changed = bytearray(raw)
            changed[int(rng.integers(len(raw)))] ^= int(rng.integers(1, 256))
            path.write_bytes(changed)
            flips += 1
        capsys.readouterr()
        assert schema(["check", str(cache)]) == 1
        printed = capsys.readouterr().out
        assert [store for store in stores if str(store.relative_to(cache)) not in printed] == []
        for path, raw in before.items():
            path.write_bytes(raw)
    assert schema(["check", str(cache)]) == 0


def test_the_slurm_script_runs_every_group_once(study: Path, run_extract) -> None:
    """The script itself, with a stand-in for srun, on the CPU."""
    import extract

    script = Path(extract.__file__).parent / "engines" / "extract.sbatch"
    tools = study / "tools"
    tools.mkdir()
    (tools / "srun").write_text('#!/bin/sh\nexec "$@"\n')
    (tools / "extract").write_text(f'#!/bin/sh\nexec {sys.executable} -m extract "$@"\n')
    for tool in tools.iterdir():
        tool.chmod(0o755)
    models = (study / "models.txt").read_text()
    (study / "models.txt").write_text(models.replace("input_size=64", "input_size=48", 1))  # two groups, one a task
    settings = {"SLURM_ARRAY_TASK_COUNT": "2", "CACHE": "array", "DEVICE": "cpu"}
    parts = []
    for index in ("0", "1"):
        environment = {**os.environ, **settings, "SLURM_ARRAY_TASK_ID": index}
        environment["PATH"] = f"{tools}:{environment['PATH']}"
        environment["PYTHONPATH"] = str(Path(extract.__file__).parent.parent)
        done = subprocess.run(
            ["bash", str(script)], cwd=study, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        parts.append({model for model, _ in sealed(study / "array")} - set().union(*parts))
    assert parts == [{"test_vit"}, {"test_resnet"}]
    names = ("pets", "cats", "training")
    assert sealed(study / "array") == {(model, name) for model in ("test_vit", "test_resnet") for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "a scheduler's warning"])
def test_a_run_that_is_asked_to_stop_leaves_nothing_half(study: Path, run_extract, sent: int, digests) -> None:
    run_extract(*words("whole"), cwd=study)
    log = study / "passes.log"
    process = CONTEXT.Process(target=in_own_group, args=(words("stopped"), str(study), str(log)))
    process.start()
    deadline = time.monotonic() + 120
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, sent)
    process.join()
    assert process.exitcode == 130
    assert [*(study / "stopped").rglob(".staged-*"), *(study / "stopped").rglob(".claims")] == []
    run_extract(*words("stopped"), cwd=study)
    assert digests(study / "stopped") == digests(study / "whole")
