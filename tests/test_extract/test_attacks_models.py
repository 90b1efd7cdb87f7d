"""Files that were made to do harm, where ``extract`` reads model lists, configurations and weights: one row per attack.

Each is one line of error and exit code 2, in bounded time and memory; beside a model that works it costs itself alone.
What would run code is in ``test_remote_code.py``.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

FINE = "timm:test_vit allow_random=yes num_classes=3 classes=pets input_size=64 id=fine"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
MOST_BYTES = 1 << 30
CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1},
}
LOOK = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}

# ---- model lists


def listed(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


LISTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pipe": (os.mkfifo, "model list models.txt is a pipe"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "model list models.txt is a device"),
    "a folder": (lambda path: path.mkdir(), "model list models.txt is a folder"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    "empty": (listed(b""), "models.txt: no model in this list"),
    "a Git LFS pointer": (listed(POINTER), "Git LFS"),
    "huge": (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 1 << 40), "is larger than 4 MiB"),
    "binary": (listed(bytes(range(256)) * 100), "is not UTF-8 text"),
    "zeros": (listed(bytes(1 << 20)), "1,048,576 characters long"),
    "one long line": (listed(b"timm:" + b"x" * (1 << 20)), "no line of a model list is"),
    "long options": (listed(b"timm:test_vit " + b"y" * (1 << 13)), "is not key=value"),
    "many wrong lines": (listed(b"timm:resnet5000\n" * 100_000), "the lines after these were not read"),
    "itself": (listed(b"@models.txt\n"), "no list @models.txt"),
    "quotes": (listed(b"'" * 9_999), "a quotation is not closed"),
}

# ---- configurations and weights: each builder writes into a folder and returns a line


def clip(folder: Path, change: Callable[[dict[str, Any]], object], look: dict[str, Any] | None = None) -> str:
    config = json.loads(json.dumps(CLIP))
    change(config)
    saved = {"model_cfg": config, "preprocess_cfg": {**LOOK, **(look or {})}}
    (folder / "clip.json").write_text(json.dumps(saved))
    return f"open_clip:clip config={folder / 'clip.json'} allow_random=yes"


def text(folder: Path, **changes: Any) -> str:
    return clip(folder, lambda config: config["text_cfg"].update(changes))


def image(folder: Path, **changes: Any) -> str:
    return clip(folder, lambda config: config["vision_cfg"].update(changes))


def pipe(folder: Path, line: str) -> str:
    os.mkfifo(folder / "p")
    return f"{line}={folder / 'p'}"


def raw_clip(folder: Path, content: bytes) -> str:
    (folder / "clip.json").write_bytes(content)
    return f"open_clip:clip config={folder / 'clip.json'} allow_random=yes"


def timm_folder(folder: Path, **saved: Any) -> str:
    whole = {"architecture": "test_vit", "pretrained_cfg": {}, **saved}
    (folder / "config.json").write_text(json.dumps(whole))
    (folder / "model.safetensors").write_bytes(b"x")
    return f"timm:local-dir:{folder} allow_random=yes"


def weights(folder: Path, name: str, content: bytes) -> str:
    (folder / name).write_bytes(content)
    return f"timm:test_vit checkpoint={folder / name} classes=pets"


def saved(folder: Path, content: Any, **options: Any) -> str:
    torch.save(content, folder / "w.pth", **options)
    return f"timm:test_vit checkpoint={folder / 'w.pth'} classes=pets"


def compressed(folder: Path) -> str:
    """A gigabyte of zeros in a megabyte."""
    torch.save({"head.weight": torch.zeros(3, 64)}, folder / "small.pth")
    with zipfile.ZipFile(folder / "small.pth") as before, zipfile.ZipFile(folder / "w.pth", "w", 8) as after:
        for entry in before.infolist():
            with after.open(entry.filename, "w", force_zip64=True) as file:
                for part in [bytes(1 << 20)] * 1024 if entry.filename.endswith("data/0") else [before.read(entry)]:
                    file.write(part)
    return f"timm:test_vit checkpoint={folder / 'w.pth'} classes=pets"


def expanding_npz(folder: Path) -> str:
    with zipfile.ZipFile(folder / "w.npz", "w", 8) as archive, archive.open("a.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (1 << 28,)})
        for _ in range(1 << 10):
            file.write(bytes(1 << 20))
    return f"timm:vit_base_patch16_224 checkpoint={folder / 'w.npz'} classes=pets num_classes=3"


def boasting_npz(folder: Path) -> str:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)})
    with zipfile.ZipFile(folder / "w.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue())
    return f"timm:vit_base_patch16_224 checkpoint={folder / 'w.npz'} classes=pets num_classes=3"


def wide_safetensors(folder: Path, shape: list[int]) -> str:
    header = json.dumps({"head.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}).encode()
    return weights(folder, "w.safetensors", struct.pack("<Q", len(header)) + header)


def laughs() -> Any:
    value: Any = {"a": torch.zeros(1)}
    for _ in range(4):
        value = dict.fromkeys(map(str, range(1000)), value)
    return value


def sparse() -> torch.Tensor:
    with torch.sparse.check_sparse_tensor_invariants(enable=True):
        return torch.sparse_coo_tensor(torch.zeros(2, 1, dtype=torch.long), torch.ones(1), (10**9, 64))


BYTES_OF_ANY_SIZE = b"\x80\x02}X\x01\0\0\0ac__builtin__\nbytearray\nJ\0\0\0\x7f\x85Rs."

GIVEN: dict[str, tuple[Callable[[Path], str], str]] = {
    "config: deep": (lambda f: raw_clip(f, b'{"a":' * 100_000), "is nested too deeply"),
    "config: a list": (lambda f: raw_clip(f, b"[]"), "is not of an open_clip model"),
    "config: NaN": (lambda f: raw_clip(f, b'{"embed_dim": NaN}'), "holds NaN, which is not JSON"),
    "config: 1e999": (lambda f: raw_clip(f, json.dumps(CLIP).replace("24", "1e999").encode()), "embed_dim is inf"),
    "config: empty": (lambda f: raw_clip(f, b""), "clip.json is empty"),
    "config: pointer": (lambda f: raw_clip(f, POINTER), "Git LFS"),
    "config: binary": (lambda f: raw_clip(f, b"\xff" * 999), "is not UTF-8 text"),
    "config: a pipe": (lambda f: pipe(f, "open_clip:a allow_random=yes config"), "is a pipe"),
    "config: a device": (lambda f: "open_clip:a config=/dev/zero allow_random=yes", "is a device"),
    "config: a billion layers": (lambda f: text(f, layers=10**9), "layers is 1000000000"),
    "config: half a layer": (lambda f: text(f, layers=0.5), "not a whole number"),
    "config: no layer": (lambda f: image(f, layers=-1), "layers is -1, outside 1 to"),
    "config: wide": (lambda f: text(f, width=65536), "describes a model of"),
    "config: large images": (lambda f: image(f, image_size=10**6), "image_size is"),
    "config: words": (lambda f: text(f, vocab_size=10**12), "vocab_size is"),
    "config: text_cfg": (lambda f: clip(f, lambda c: c.update(text_cfg=[1])), "text_cfg is [1], not an object"),
    "config: strange width": (lambda f: text(f, width="x"), "width is 'x', not a number"),
    "config: std of 0": (lambda f: clip(f, lambda c: None, {"std": [0, 0, 0]}), "it takes numbers above 0"),
    "config: mean in words": (lambda f: clip(f, lambda c: None, {"mean": "abc"}), "mean and std are numbers"),
    "timm: classes": (lambda f: timm_folder(f, num_classes=10**12), "num_classes is 1000000000000"),
    "timm: no classes": (lambda f: timm_folder(f, num_classes="x"), "num_classes is 'x'"),
    "timm: depth": (lambda f: timm_folder(f, model_args={"depth": 10**9}), "model_args says depth = 1000000000"),
    "timm: image": (lambda f: timm_folder(f, pretrained_cfg={"input_size": [3, 1e6, 1e6]}), "not channels, height"),
    "timm: crop": (lambda f: timm_folder(f, pretrained_cfg={"crop_pct": -1}), "crop_pct is -1; it takes"),
    "timm: small crop": (lambda f: timm_folder(f, pretrained_cfg={"crop_pct": 1e-9}), "images are resized to"),
    "timm: look": (lambda f: timm_folder(f, pretrained_cfg={"mean": "abc"}), "mean is 'abc'"),
    "timm: a list": (lambda f: timm_folder(f, pretrained_cfg=[]), "not timm's description of a saved model"),
    "line: classes": (lambda f: "timm:test_vit allow_random=yes num_classes=1e12", "is not between 0 and 10,000,000"),
    "line: NaN": (lambda f: "timm:test_vit allow_random=yes mean=nan", "mean=nan is not a list of numbers"),
    "line: size": (lambda f: "timm:test_vit allow_random=yes input_size=1000000", "its sides go from 1 to 8,192"),
    "line: seed": (lambda f: f"timm:test_vit allow_random=yes seed={'9' * 50}", "is not a whole number from 0 to 2^63"),
    "weights: a folder": (lambda f: f"timm:test_vit checkpoint={f}", "is a folder"),
    "weights: a device": (lambda f: "timm:test_vit checkpoint=/dev/zero", "is a device"),
    "weights: a pipe": (lambda f: pipe(f, "timm:test_vit checkpoint"), "is a pipe"),
    "weights: empty": (lambda f: weights(f, "w.pth", b""), "w.pth is empty"),
    "weights: empty tensors": (lambda f: weights(f, "w.safetensors", b""), "w.safetensors is empty"),
    "weights: pointer": (lambda f: weights(f, "w.bin", POINTER), "Git LFS"),
    "weights: gzip": (lambda f: weights(f, "w.pth", b"\x1f\x8b\x08" + bytes(50)), "it is compressed (gzip)"),
    "weights: noise": (lambda f: weights(f, "w.pth", b"\x80\x02" + bytes(range(256))), "it is "),
    "weights: a list": (lambda f: saved(f, [torch.ones(3)]), "it holds a list, not tensors by name"),
    "weights: one tensor": (lambda f: saved(f, torch.ones(3)), "it holds one tensor without a name"),
    "weights: nothing": (lambda f: saved(f, {}), "it holds nothing"),
    "weights: another pickle": (
        lambda f: weights(f, "w.pkl", pickle.dumps({"a": 1}, 2)), "it is a pickle that torch.save did not write"
    ),
    "weights: compressed": (compressed, "it is a compressed archive"),
    "weights: cut off": (
        lambda f: (saved(f, {"a": torch.ones(9999)}), os.truncate(f / "w.pth", 9999))[0],
        "w.pth cannot be used: it is ",
    ),
    "weights: another archive": (
        lambda f: (zipfile.ZipFile(f / "w.pth", "w").writestr("a", "b"), f"timm:test_vit checkpoint={f / 'w.pth'}")[1],
        "it is ",
    ),
    "weights: stretched": (
        lambda f: saved(f, {"head.weight": torch.zeros(1).expand(10**9, 64)}), "claims the shape (1000000000, 64)"
    ),
    "weights: sparse": (lambda f: saved(f, {"head.weight": sparse()}), "is sparse, quantized or without values"),
    "weights: no values": (lambda f: saved(f, {"head.weight": torch.zeros(10**9, 64, device="meta")}), "is sparse"),
    "weights: the same again and again": (lambda f: saved(f, laughs()), "does not hold the weights of test_vit"),
    "weights: bytes of any size": (lambda f: weights(f, "w.pth", BYTES_OF_ANY_SIZE), "(builtins.bytearray)"),
    "weights: no width": (lambda f: wide_safetensors(f, [10**12, 0]), "hold no values"),
    "weights: long header": (lambda f: weights(f, "w.safetensors", struct.pack("<Q", 1 << 60)), "w.safetensors"),
    "weights: .npz that expands": (expanding_npz, "it expands to more than 8 times its size"),
    "weights: .npz that boasts": (boasting_npz, "which it does not hold"),
    "weights: .npz that is none": (lambda f: weights(f, "w.npz", b"PK\x03\x04"), "it is not an archive of numpy.savez"),
}  # fmt: skip


def peak_bytes() -> int:
    """Return the most memory that this process has taken since its peak was last reset."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def test_a_peak_is_seen_whatever_was_taken_before() -> None:
    assert np.ones(MOST_BYTES >> 3).all()
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_bytes()
    assert np.ones(MOST_BYTES >> 4).all()
    assert peak_bytes() - before > MOST_BYTES >> 2


def one_line(stderr: str) -> str:
    assert "Traceback" not in stderr
    return stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("attack", LISTS)
def test_a_model_list_costs_one_line(attack: str, tmp_path: Path, pets: Path, run_extract) -> None:
    build, says = LISTS[attack]
    build(tmp_path / "models.txt")
    done = run_extract("--model-list", "models.txt", "--dataset", f"pets={pets}", cwd=tmp_path, code=2)
    assert says in one_line(done.stderr)


@pytest.mark.parametrize("attack", GIVEN)
def test_a_model_costs_itself_alone(attack: str, tmp_path: Path, pets: Path, run_extract) -> None:
    build, says = GIVEN[attack]
    (tmp_path / "given").mkdir()
    line = build(tmp_path / "given")
    (tmp_path / "models.txt").write_text(f"{line} id=bad\n")
    words = ["--model-list", "models.txt", "--dataset", f"pets={pets}", "--workers", 0, "--device", "cpu"]
    Path("/proc/self/clear_refs").write_text("5")  # what tests before have taken at most is forgotten
    before = peak_bytes()
    alone = run_extract(*words, cwd=tmp_path, code=None)
    assert alone.returncode in (1, 2)  # 1 where building the model shows it, after planning
    assert "Traceback" not in alone.stderr
    assert says in alone.stderr
    (tmp_path / "models.txt").write_text(f"{FINE}\n{line} id=bad\n")
    both = run_extract(*words, cwd=tmp_path, code=1)
    assert "Traceback" not in both.stderr
    assert "1 done" in both.stderr
    assert says in both.stderr
    assert peak_bytes() - before < MOST_BYTES
