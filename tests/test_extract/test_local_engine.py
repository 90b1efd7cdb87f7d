"""Several devices of one machine: a process each, the same stores, also where a process dies in the middle."""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

import cache_schema
from cache_schema.errors import UserError
from cache_schema.staging import stages
from extract.commands import run
from extract.commands.session import _devices, _options, _settle
from extract.engines.local import _Processes, see_only

MODELS = "\n".join(
    f"timm:test_resnet allow_random=yes seed={i} num_classes=3 classes=pets input_size={size} crop_pct=1.0 id=m{i}"
    for i, size in enumerate((64, 48, 56, 40, 72))
)


def digests(cache: Path) -> dict[tuple[str, str, str], object]:
    found = {}
    for store in cache_schema.open_cache(cache).stores():
        name = f"{store.class_space}/{store.prompt_set}" if store.kind == "head" else store.dataset.id
        found[store.kind, store.model.id, name] = store.header["seal"]["arrays"]
    return found


@pytest.fixture
def study(tmp_path: Path, pets: Path, run_extract) -> Path:
    (tmp_path / "models.txt").write_text(MODELS)
    (tmp_path / "datasets.toml").write_text(f'[pets]\npath = "{pets}"\nclass_space = "pets"\n')
    run_extract("--model-list", "models.txt", "--cache", "one", "--batch-size", 4, "--workers", 0, cwd=tmp_path)
    return tmp_path


@pytest.mark.slow
def test_two_processes_give_the_stores_of_one(study: Path, run_extract, monkeypatch) -> None:
    started: list[str] = []
    start = _Processes._start
    monkeypatch.setattr(_Processes, "_start", lambda self, name: started.append(name) or start(self, name))
    words = ("--model-list", "models.txt", "--cache", "two", "--batch-size", 4, "--workers", 0, "--devices", "cpu,cpu")
    done = run_extract(*words, cwd=study)
    assert "5 done, 0 sealed before, 0 skipped, 0 failed" in done.stderr
    assert started == ["cpu", "cpu"]  # for five geometries: they stay alive over all of them
    assert digests(study / "two") == digests(study / "one")
    assert "0 done, 5 sealed before" in run_extract(*words, cwd=study).stderr


@pytest.mark.slow
def test_a_process_that_dies_is_replaced_and_its_work_done(study: Path, run_extract) -> None:
    killed: list[int] = []

    def harm() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not killed:
            for stage in stages(study / "two") if (study / "two").is_dir() else ():
                pid = int(json.loads((stage / "owner.json").read_text())["pid"])
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)
                break
            time.sleep(0.005)

    thread = threading.Thread(target=harm)
    thread.start()
    words = ("--model-list", "models.txt", "--cache", "two", "--batch-size", 4, "--workers", 0, "--devices", "cpu,cpu")
    done = run_extract(*words, cwd=study)
    thread.join()
    assert killed
    assert killed[0] != os.getpid()
    assert "died (exit code -9): once more" in done.stderr
    assert digests(study / "two") == digests(study / "one")


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
    args = parser.parse_args(["--device", device, "--devices", devices])
    _settle(args, None)
    options = _options(args)
    assert _devices(args) == found
    assert options.device == found[0]
    on_cpu = found[0] == "cpu"
    assert (options.precision, options.batch_size) == (("fp32", 32) if on_cpu else (on_gpu, 256))
    with pytest.raises(UserError, match="one run is either on GPUs or on the CPU"):
        _devices(parser.parse_args(["--devices", "cpu,cuda:0"]))


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
