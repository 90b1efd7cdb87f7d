"""Trains the recipes and writes weights and configs that the ordinary adapters load."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import nn

from examples.miniature.other_shapes import LARGER_CLASSES
from examples.miniature.recipes import Recipe
from examples.miniature.shapes import CLASSES
from examples.miniature.training import (
    Augmentation,
    Images,
    linear_probe,
    read_images,
    train_classifier,
    train_clip,
    train_simclr,
)

CONTEXT = 16
"""Tokens of a caption."""

WIDTH = 64
"""Width of the shared embedding and of the text tower."""

Progress = Callable[[int], None]


def _save(model: nn.Module, folder: Path, name: str, stamp: str) -> None:
    staged = folder / f".staged-{name}.safetensors"
    tensors = {key: value.detach().clone().contiguous() for key, value in model.state_dict().items()}
    save_file(tensors, staged, metadata={"stamp": stamp})  # one key: several come in any order
    staged.chmod(0o644)  # safetensors writes files that only their owner may read
    staged.replace(folder / f"{name}.safetensors")


def clip_config(recipe: Recipe) -> dict[str, Any]:
    """Return a run's config in the form of open_clip's ``open_clip_config.json``."""
    vision: dict[str, Any] = {"image_size": recipe.side}
    if recipe.arch == "vit-native":
        vision |= {"layers": 3, "width": 64, "head_width": 32, "patch_size": 16, "mlp_ratio": 2.0}
    else:
        vision |= {
            "timm_model_name": recipe.arch,
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
        }
    text = {
        "context_length": CONTEXT,
        "vocab_size": 49408,
        "width": WIDTH,
        "heads": 2,
        "layers": 2,
        "mlp_ratio": 2.0,
    }
    model: dict[str, Any] = {"embed_dim": WIDTH, "vision_cfg": vision, "text_cfg": text}
    if recipe.settings.get("sigmoid"):
        model |= {"custom_text": True, "init_logit_bias": -5.0, "init_logit_scale": 2.3}
    preprocess = {
        "size": recipe.side,
        "mode": "RGB",
        "mean": list(open_clip.OPENAI_DATASET_MEAN),
        "std": list(open_clip.OPENAI_DATASET_STD),
        "interpolation": "bicubic",
        "resize_mode": "shortest",
    }
    return {"model_cfg": model, "preprocess_cfg": preprocess}


def new_clip(recipe: Recipe) -> nn.Module:
    """Return the run's CLIP with random weights."""
    config = {key: value for key, value in clip_config(recipe)["model_cfg"].items() if key != "custom_text"}
    kind = open_clip.CustomTextCLIP if recipe.settings.get("sigmoid") else open_clip.CLIP
    return kind(**config)  # type: ignore[no-any-return]


def new_classifier(arch: str, classes: int, side: int) -> nn.Module:
    """Return a timm classifier with random weights for inputs of ``side`` pixels."""
    # Given this way the size reaches exactly those architectures whose weights depend on it.
    overlay = {"input_size": (3, side, side)}
    return timm.create_model(arch, num_classes=classes, pretrained_cfg_overlay=overlay)


def _augmentation(model: nn.Module, **more: Any) -> Augmentation:
    config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    return Augmentation(mean=tuple(config["mean"]), std=tuple(config["std"]), **more)


def _channels_last(model: nn.Module) -> nn.Module:
    """Put convolutions in the order of memory that is up to twice as fast on a CPU."""
    return model.to(memory_format=torch.channels_last)


@cache
def _images(folder: Path, name: str, side: int) -> Images:
    return read_images(folder / name, LARGER_CLASSES if name == "web" else CLASSES, side)


def train(recipe: Recipe, out: Path, stamp: str, progress: Progress) -> None:
    """Run one recipe on one thread and write its models.

    Parameters
    ----------
    recipe
        What to train.
    out
        The miniature's folder, with its datasets written and, for a fine-tuning, the weights it starts from.
    stamp
        Kept in the weight files.
    progress
        Called with the number of images seen since the last call.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_seed(recipe))
            _METHODS[recipe.method](recipe, out, stamp, progress)
    finally:
        torch.set_num_threads(threads)


def _seed(recipe: Recipe) -> int:
    return int.from_bytes(hashlib.sha256(recipe.id.encode()).digest()[:4], "big")


def _snapshots(recipe: Recipe, model: nn.Module, folder: Path, stamp: str) -> dict[str, Any]:
    shares = recipe.models()
    steps = sorted(shares.items(), key=lambda item: item[1])
    waiting = iter(steps)

    def snapshot() -> None:
        _save(model, folder, next(waiting)[0], stamp)

    return {"snapshots": tuple(share for _, share in steps), "snapshot": snapshot}


def _train_stages(recipe: Recipe, model: nn.Module, out: Path, stamp: str, progress: Progress) -> None:
    augment = _augmentation(model)
    for stage, (name, samples) in enumerate(zip(recipe.data, recipe.samples, strict=True)):
        last = stage == len(recipe.data) - 1
        classes = len(LARGER_CLASSES) if name == "web" else len(CLASSES)
        model.reset_classifier(classes)  # type: ignore[operator]
        keep = _snapshots(recipe, model, out / "weights", stamp) if last else {"snapshots": ()}
        train_classifier(
            _channels_last(model),
            _images(out / "datasets", name, recipe.side),
            augment,
            samples=samples,
            seed=_seed(recipe) + stage,
            progress=progress,
            **keep,
            **recipe.settings,
        )


def _supervised(recipe: Recipe, out: Path, stamp: str, progress: Progress) -> None:
    _train_stages(recipe, new_classifier(recipe.arch, len(CLASSES), recipe.side), out, stamp, progress)


def _clip(recipe: Recipe, out: Path, stamp: str, progress: Progress) -> None:
    config = clip_config(recipe)
    staged = out / "weights" / f".staged-{recipe.id}.json"
    staged.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    staged.replace(out / "weights" / f"{recipe.id}.json")
    model = new_clip(recipe)
    mean, std = config["preprocess_cfg"]["mean"], config["preprocess_cfg"]["std"]
    tokenizer = open_clip.SimpleTokenizer(context_length=CONTEXT)
    train_clip(
        _channels_last(model),
        _images(out / "datasets", recipe.data[0], recipe.side),
        Augmentation(tuple(mean), tuple(std)),
        lambda texts: tokenizer(texts),
        samples=recipe.samples[0],
        seed=_seed(recipe),
        progress=progress,
        **_snapshots(recipe, model, out / "weights", stamp),
        **recipe.settings,
    )


def _finetune(recipe: Recipe, out: Path, stamp: str, progress: Progress) -> None:
    model = new_classifier(recipe.arch, len(CLASSES), recipe.side)
    with safe_open(out / "weights" / f"{recipe.start}.safetensors", framework="pt") as file:
        prefix = "visual.trunk."
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (it is no dict)
        tower = {name.removeprefix(prefix): file.get_tensor(name) for name in names}
    own = model.state_dict()
    if "pos_embed" in own and own["pos_embed"].shape != tower["pos_embed"].shape:
        grid = model.patch_embed.grid_size  # type: ignore[union-attr]
        tower["pos_embed"] = resample_abs_pos_embed(tower["pos_embed"], new_size=list(grid))  # type: ignore[arg-type]
    missing, unexpected = model.load_state_dict(tower, strict=False)
    if unexpected or any(not key.startswith(("head.", "fc.")) for key in missing):
        raise RuntimeError(f"{recipe.id}: tower and classifier differ: {missing}, {unexpected}")
    _train_stages(recipe, model, out, stamp, progress)


def _simclr(recipe: Recipe, out: Path, stamp: str, progress: Progress) -> None:
    images = _images(out / "datasets", recipe.data[0], recipe.side)
    model = new_classifier(recipe.arch, len(CLASSES), recipe.side)
    width = int(model.head_hidden_size)  # type: ignore[arg-type]
    model.reset_classifier(0)  # type: ignore[operator]
    views = _augmentation(model, zoom=(0.45, 1.0), shift=0.25, light=0.4, colour=0.3)
    _channels_last(model)
    train_simclr(model, images, views, width=width, samples=recipe.samples[0], seed=_seed(recipe), progress=progress)
    plain = _augmentation(model, zoom=(0.95, 0.95), shift=0.0, light=0.0)
    generator = torch.Generator().manual_seed(_seed(recipe) + 1)
    with torch.inference_mode():
        features = torch.cat([model(plain(part, generator)) for part in torch.split(images.pixels, 256)]).clone()
    head = linear_probe(features, images.labels, len(CLASSES))
    model.reset_classifier(len(CLASSES))  # type: ignore[operator]
    classifier = model.get_classifier()  # type: ignore[operator]
    classifier.load_state_dict(head.state_dict())
    _save(model, out / "weights", recipe.id, stamp)


_METHODS: dict[str, Callable[[Recipe, Path, str, Progress], None]] = {
    "supervised": _supervised,
    "clip": _clip,
    "finetune": _finetune,
    "simclr": _simclr,
}
