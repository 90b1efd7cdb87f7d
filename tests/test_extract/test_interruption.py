"""Ctrl-C at its worst moments leaves nothing half behind."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path
from types import FrameType

import numpy as np
import pytest
import torch

from extract.models.base import Outputs
from extract.passes import sealing
from extract.passes.batches import PixelBatch, View
from extract.passes.forward import run_pass
from extract.passes.runners import Runner


def interrupt() -> None:
    """Send Ctrl-C to the main thread, wherever it is."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)


class SlowSink:
    """Is interrupted while it opens its store, as the loop waits for its last rows."""

    def __init__(self, finishing: threading.Event) -> None:
        self.finishing = finishing
        self.calls: list[str] = []

    def append(self, *_: object) -> None:
        self.calls.append("begin")
        interrupt()
        assert self.finishing.wait(60)
        time.sleep(0.5)
        self.calls.append("end")

    def finish(self, record: dict[str, object]) -> None:
        raise AssertionError("interrupted before")

    def abort(self) -> None:
        self.calls.append("abort")


def test_a_store_is_not_removed_while_it_is_opened() -> None:
    class Model:
        def forward(self, pixels: torch.Tensor) -> Outputs:
            return Outputs(pixels.float().mean((2, 3)), None)

    finishing = threading.Event()

    def handler(number: int, frame: FrameType | None) -> None:
        finishing.set()
        signal.default_int_handler(number, frame)

    runners = [Runner(Model(), SlowSink(finishing)) for _ in range(3)]  # type: ignore[arg-type]
    batch = PixelBatch(0, 4, (View(np.zeros((4, 8, 8, 3), np.uint8), np.ones(4, bool)),))
    before = signal.signal(signal.SIGINT, handler)
    with pytest.raises(KeyboardInterrupt):
        run_pass(runners, [batch], torch.device("cpu"))
    signal.signal(signal.SIGINT, before)
    for runner in runners:
        runner.sink.abort()
    calls = [runner.sink.calls for runner in runners]  # type: ignore[attr-defined]
    assert calls[0] == ["begin", "end", "abort"]
    assert calls[1:] == [["abort"], ["abort"]]  # nothing is begun any more


@pytest.mark.parametrize("where", ["finished_line", "first_seal"])
def test_between_a_pass_and_its_seals(where: str, tmp_path: Path, pets: Path, run_extract, monkeypatch) -> None:
    (tmp_path / "models.txt").write_text(
        "".join(
            f"timm:test_resnet allow_random=yes seed={i} num_classes=3 classes=pets input_size=64 id=m{i}\n"
            for i in range(3)
        )
    )
    (tmp_path / "datasets.toml").write_text(f'[pets]\npath = "{pets}"\nclass_space = "pets"\n')
    words = ("--model-list", "models.txt", "--cache", "cache", "--batch-size", 4, "--workers", 0)
    with monkeypatch.context() as patch:
        if where == "finished_line":

            def interrupted(clock: object) -> str:
                raise KeyboardInterrupt

            patch.setattr(sealing, "finished_line", interrupted)
        else:
            store = sealing.Sealing._is_stored

            def once(self, member, *rest) -> bool:
                if member.id == "m0":
                    interrupt()
                    time.sleep(0.2)
                return store(self, member, *rest)

            patch.setattr(sealing.Sealing, "_is_stored", once)
        run_extract(*words, cwd=tmp_path, code=130)
    assert list((tmp_path / "cache").rglob(".staged-*")) == []
    sealed = {path.parent.name for path in (tmp_path / "cache").rglob("pets-*.zarr")}
    assert ("m0" in sealed) == (where == "first_seal")  # what was begun is finished
    assert not (tmp_path / "cache" / ".failures").exists()
    assert f"{3 - len(sealed)} done, {len(sealed)} sealed before" in run_extract(*words, cwd=tmp_path).stderr
