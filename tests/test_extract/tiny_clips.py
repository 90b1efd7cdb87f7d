"""Tiny CLIPs with random weights, and a study of one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from extract.libraries import load, prepare
from extract.models.base import LoadedModel
from extract.zoo.model_list import parse_line

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "layers": 3, "width": 64, "head_width": 32, "patch_size": 8}
LOOK = "mean=0.5,0.5,0.5 std=0.5,0.5,0.5 interpolation=bicubic resize_mode=squash"
TOWERS = {
    "plain": VISION,
    "scaled": {**VISION, "ls_init_value": 0.1, "mlp_ratio": 2.0},
    "norm after pooling": {**VISION, "final_ln_after_pool": True},
}
OTHER_TOWERS = {
    "ResNet": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16},
    "timm's test_vit": {"image_size": 160, "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear"},
    "pools all": {**VISION, "pool_type": "avg"},
}


def clip(folder: Path, vision: dict[str, Any], more: str = "") -> str:
    """Write a config, and return the line of a model with random weights."""
    file = folder / f"{hashlib.sha256(repr(vision).encode()).hexdigest()[:8]}.json"
    file.write_text(json.dumps({"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}))
    return f"open_clip:tiny config={file} allow_random=yes seed=3 {LOOK} {more}"


def opened(line: str) -> LoadedModel:
    (spec,) = parse_line(line, "models.txt:1")
    return load(prepare(spec))


def pixels(model: LoadedModel, n: int = 3) -> torch.Tensor:
    size = model.preprocessing.geometry.output_size
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, *size, 3), dtype=np.uint8))


RUN = ("--model-list", "models.txt", "--batch-size", 4, "--workers", 0, "--prompts", "openai-7")


def write_study(tmp_path: Path, pets: Path) -> Path:
    """A tiny CLIP, a labelled set with an image that cannot be read, and an OOD set."""
    (tmp_path / "models.txt").write_text(clip(tmp_path, VISION, "id=tiny"))
    (tmp_path / "images" / "cat").mkdir(parents=True)
    for image in sorted((pets / "cat").iterdir())[:9]:
        (tmp_path / "images" / "cat" / image.name).write_bytes(image.read_bytes())
    (tmp_path / "images" / "cat" / "broken.jpg").write_bytes(b"no picture")
    for name in ("dog", "fox"):
        (tmp_path / "images" / name).mkdir()
        image = next(iter(sorted((pets / name).iterdir())))
        (tmp_path / "images" / name / image.name).write_bytes(image.read_bytes())
    (tmp_path / "datasets.toml").write_text(
        f'[pets]\npath = "{tmp_path}/images"\nclass_space = "pets"\n'
        f'[others]\npath = "{pets}/fox"\nrole = "ood"\nlabels = "none"\nclass_space = "pets"\n'
    )
    return tmp_path
