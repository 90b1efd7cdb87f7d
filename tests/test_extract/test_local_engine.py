"""Several devices of one machine: a process each, the same stores, also where a process dies in the middle."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import cache_schema
from closerlook_common.errors import UserError
from extract.commands import run
from extract.commands.devices import devices_of
from extract.commands.request import RunRequest
from extract.commands.session import _options
from extract.engines.local import _Processes, see_only

MODELS = "\n".join(
    f"timm:test_resnet allow_random=yes seed={i} num_classes=3 classes=pets input_size={size} crop_pct=1.0 id=m{i}"
    for i, size in enumerate((64, 48, 56, 40, 72))
)


@pytest.fixture
def study(tmp_path: Path, pets: Path, run_extract) -> Path:
    (tmp_path / "models.txt").write_text(MODELS)
    (tmp_path / "datasets.toml").write_text(f'[pets]\npath = "{pets}"\nclass_space = "pets"\n')
    run_extract("--model-list", "models.txt", "--cache", "one", "--batch-size", 4, "--workers", 0, cwd=tmp_path)
    return tmp_path


def at_work(cache: Path, model: str = "*") -> set[int]:
    """Return the processes that are at a model: claimed from before its decoding to after its seal."""
    pids = set()
    for claim in (cache / ".claims").glob(f"{model}--*"):
        with contextlib.suppress(OSError, ValueError):  # it may be given up meanwhile
            pids.add(int(json.loads(claim.read_text())["pid"]))
    return pids


def watched(cache: Path, pids: set[int], stop: threading.Event) -> None:
    """Note which processes are at something."""
    while not stop.wait(0.002):
        pids |= at_work(cache)


@pytest.mark.slow
def test_two_processes_give_the_stores_of_one(study: Path, run_extract, digests, monkeypatch) -> None:
    started: list[str] = []
    start = _Processes._start
    monkeypatch.setattr(_Processes, "_start", lambda self, name: started.append(name) or start(self, name))
    pids, stop = set[int](), threading.Event()
    thread = threading.Thread(target=watched, args=(study / "two", pids, stop))
    thread.start()
    words = ("--model-list", "models.txt", "--cache", "two", "--batch-size", 4, "--workers", 0, "--devices", "cpu,cpu")
    done = run_extract(*words, cwd=study)
    stop.set()
    thread.join()
    assert "5 done, 0 sealed before, 0 skipped, 0 failed" in done.stderr
    assert started == ["cpu", "cpu"]  # for five geometries: they stay alive over all of them
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert digests(study / "two") == digests(study / "one")
    assert "0 done, 5 sealed before" in run_extract(*words, cwd=study).stderr


@pytest.mark.slow
def test_a_process_that_dies_is_replaced_and_its_work_done(study: Path, run_extract, digests) -> None:
    killed: list[int] = []

    def harm() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not killed:
            for pid in list(at_work(study / "two"))[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
            time.sleep(0.002)

    thread = threading.Thread(target=harm)
    thread.start()
    words = ("--model-list", "models.txt", "--cache", "two", "--batch-size", 4, "--workers", 0, "--devices", "cpu,cpu")
    done = run_extract(*words, cwd=study)
    thread.join()
    assert killed
    assert killed[0] != os.getpid()
    assert "died (exit code -9): once more" in done.stderr
    assert digests(study / "two") == digests(study / "one")


def started(study: Path) -> subprocess.Popen[str]:
    """Start the command on two processes over many images; return when both are at a store."""
    (study / "datasets.toml").write_text(
        "".join(f'[pets{i}]\npath = "{pets_of(study)}"\nclasses = "names.txt"\n' for i in range(60))
    )
    (study / "names.txt").write_text("cat\ndog\nfox\n")
    (study / "models.txt").write_text(MODELS.replace("classes=pets", "classes=names.txt"))
    words = ["--model-list", "models.txt", "--cache", "cut", "--batch-size", "4", "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "extract", *words, "--devices", "cpu,cpu"],
        cwd=study, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(Path(cache_schema.__file__).parent.parent)},
    )  # fmt: skip
    pids: set[int] = set()
    deadline, stop = time.monotonic() + 120, threading.Event()
    thread = threading.Thread(target=watched, args=(study / "cut", pids, stop))
    thread.start()
    while len(pids) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    stop.set()
    thread.join()
    process.device_pids = pids  # type: ignore[attr-defined]
    return process


def pets_of(study: Path) -> str:
    return (study / "datasets.toml").read_text().split('path = "')[1].partition('"')[0]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "a scheduler's warning"])
def test_asked_to_stop_all_processes_leave_nothing_half(study: Path, sent: int) -> None:
    """To the whole group, as terminals and schedulers do, and more than once."""
    process = started(study)
    for _ in range(3):
        os.killpg(process.pid, sent)
        time.sleep(0.05)
    error = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert error.strip().splitlines()[-1].startswith("extract: interrupted; finished work is kept")
    assert "Traceback" not in error
    assert [*(study / "cut").rglob(".staged-*"), *(study / "cut").rglob(".claims")] == []
    assert not any(map(alive, process.device_pids))  # type: ignore[attr-defined]


@pytest.mark.slow
def test_processes_do_not_outlive_a_parent_that_was_killed(study: Path) -> None:
    process = started(study)
    pids = process.device_pids  # type: ignore[attr-defined]
    assert all(map(alive, pids))
    process.kill()
    process.communicate(timeout=60)
    deadline = time.monotonic() + 60
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, pids))
    # They went in order, and had sealed a part of the work: they were not waited for until all of it was done.
    assert [*(study / "cut").rglob(".staged-*")] == []
    assert len(cache_schema.open_cache(study / "cut").stores("predictions")) < 5 * 60


@pytest.mark.slow
def test_a_unit_whose_process_dies_twice_is_a_failure_on_record(study: Path, run_extract) -> None:
    """As by a model that the machine's memory cannot hold: the others are done, and 'status' says what is not."""
    killed: set[int] = set()

    def harm() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and len(killed) < 2:
            for pid in at_work(study / "two", "m4") - killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)
            time.sleep(0.002)

    thread = threading.Thread(target=harm)
    thread.start()
    words = ("--model-list", "models.txt", "--cache", "two", "--batch-size", 4, "--workers", 0, "--devices", "cpu,cpu")
    done = run_extract(*words, cwd=study, code=1)
    thread.join()
    assert len(killed) == 2
    assert "failed m4 on pets: the process of cpu died 2 times at it (exit code -9)" in done.stderr
    assert "4 done, 0 sealed before, 0 skipped, 1 failed" in done.stderr
    (failure,) = cache_schema.open_cache(study / "two").failures()
    assert (failure.model, failure.dataset) == ("m4", "pets")
    assert "died 2 times at it" in run_extract("status", "two", cwd=study, code=1).stdout
    assert "1 done, 4 sealed before" in run_extract(*words, cwd=study).stderr


@pytest.mark.parametrize(
    ("device", "devices", "found"),
    [
        ("auto", "", ["cuda:0"]),
        ("cuda:1", "", ["cuda:1"]),
        ("auto", "all", ["cuda:0", "cuda:1"]),
        ("auto", "0,1", ["cuda:0", "cuda:1"]),
        ("cpu", "cuda:1, cuda:0", ["cuda:1", "cuda:0"]),
        ("auto", "cpu,cpu", ["cpu", "cpu"]),
    ],
)
@pytest.mark.parametrize(("capability", "on_gpu"), [((7, 5), "fp32"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_devices_and_their_precision(monkeypatch, device: str, devices: str, found, capability, on_gpu: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda name: capability)
    parser = argparse.ArgumentParser()
    run.add_arguments(parser)
    request = RunRequest.of(parser.parse_args(["--device", device, "--devices", devices]))
    options = _options(request)
    assert devices_of(request) == found
    assert options.device == found[0]
    on_cpu = found[0] == "cpu"
    assert (options.precision, options.batch_size) == (("fp32", 32) if on_cpu else (on_gpu, 256))
    with pytest.raises(UserError, match="one run is either on GPUs or on the CPU"):
        devices_of(RunRequest(devices="cpu,cuda:0"))


@pytest.mark.parametrize(
    ("visible", "device", "name", "left"),
    [
        (None, "cuda:2", "cuda:0", "2"),
        ("4, 5,6", "cuda:1", "cuda:0", "5"),
        ("GPU-a,GPU-b", "cuda:0", "cuda:0", "GPU-a"),
        ("4,5", "cpu", "cpu", "4,5"),
    ],
)
def test_a_process_sees_its_own_device_alone(monkeypatch, visible, device: str, name: str, left: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert see_only(device) == name
    assert os.environ["CUDA_VISIBLE_DEVICES"] == left
