"""Trains the recipes on the CPU, from fixed seeds, and writes weights and configs that the ordinary adapters load.

Every run draws its randomness from generators of its own and runs on one thread, so the same versions of torch, timm
and open_clip on the same kind of processor give the same weights bit for bit. Others add up in another order: the
weights then differ in the last digits and, after some hundred steps, in some predictions.
"""

from __future__ import annotations

import csv
import json
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import nn

from examples.miniature.models import ARCHITECTURES, Recipe
from examples.miniature.shapes import CLASSES, LARGER_CLASSES

BATCH = 64

CONTEXT = 16
"""Tokens of a caption."""

WIDTH = 64
"""Width of the shared embedding and of the text tower."""

Loss = Callable[[torch.Tensor, torch.Generator], torch.Tensor]
"""Loss of a batch, given the rows of its images."""


@dataclass(frozen=True)
class Images:
    """A training set in memory: ``(n, 3, side, side)`` uint8, labels, and several captions an image."""

    pixels: torch.Tensor
    labels: torch.Tensor
    captions: tuple[tuple[str, ...], ...]


@cache
def read_images(folder: Path, side: int) -> Images:
    """Read a folder of class folders, in the order of the sorted paths, resized to ``side``."""
    classes = LARGER_CLASSES if folder.name == "web" else CLASSES
    paths = sorted(path for name in classes for path in (folder / name).iterdir())
    pixels = torch.empty((len(paths), 3, side, side), dtype=torch.uint8)
    for row, path in enumerate(paths):
        with Image.open(path) as file:
            image = file.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        pixels[row] = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    labels = torch.tensor([classes.index(path.parent.name) for path in paths])
    texts: dict[str, list[str]] = {}
    with (folder / "captions.csv").open(newline="", encoding="utf-8") as table:
        for record in csv.DictReader(table):
            texts.setdefault(record["path"], []).append(record["caption"])
    return Images(pixels, labels, tuple(tuple(texts[path.relative_to(folder).as_posix()]) for path in paths))


@dataclass(frozen=True)
class Augmentation:
    """Random crop, shift, mirror and brightness; ``colour`` above 0 also mixes the channels."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    zoom: tuple[float, float] = (0.85, 1.05)
    shift: float = 0.06
    light: float = 0.2
    colour: float = 0.0

    def __call__(self, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return a normalised float batch of the same size from ``(b, 3, side, side)`` uint8."""

        def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
            return torch.rand(len(pixels), *shape, generator=generator) * (high - low) + low

        zoom = uniform(*self.zoom)
        theta = torch.zeros(len(pixels), 2, 3)
        theta[:, 0, 0], theta[:, 1, 1] = zoom * torch.where(uniform(0, 1) < 0.5, -1.0, 1.0), zoom
        theta[:, :, 2] = uniform(-self.shift, self.shift, 2)
        x = pixels.to(torch.float32) / 255
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        x = x * uniform(1 - self.light, 1 + self.light, 1, 1, 1)
        if self.colour:
            x = x * uniform(1 - self.colour, 1 + self.colour, 3, 1, 1)
            x = torch.where(uniform(0, 1, 1, 1, 1) < 0.2, x.mean(dim=1, keepdim=True), x)
        mean, std = torch.tensor(self.mean).view(3, 1, 1), torch.tensor(self.std).view(3, 1, 1)
        return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def _batches(n: int, steps: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield batches of indices, epoch after epoch, each epoch in a new order."""
    order, start = torch.randperm(n, generator=generator), 0
    for _ in range(steps):
        if start + BATCH > n:
            order, start = torch.randperm(n, generator=generator), 0
        yield order[start : start + BATCH]
        start += BATCH


def _descend(
    model: nn.Module, n: int, samples: int, *, lr: float, seed: int, loss: Loss, keep: Mapping[int, Callable[[], None]]
) -> None:
    """Train on ``samples`` of n images by AdamW, which decays matrices only; ``keep`` is called after so many."""
    generator = torch.Generator().manual_seed(seed)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": 0.05},
        {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]
    descent = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)
    steps = max(2, samples // BATCH)
    rate = torch.optim.lr_scheduler.OneCycleLR(descent, lr, steps, pct_start=0.1, cycle_momentum=False)
    due = {max(1, round(seen / samples * steps)): call for seen, call in keep.items()}
    model.to(memory_format=torch.channels_last).train()
    for step, rows in enumerate(_batches(n, steps, generator)):
        descent.zero_grad(set_to_none=True)
        loss(rows, generator).backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        descent.step()
        rate.step()
        if step + 1 in due:
            model.eval()
            due[step + 1]()
            model.train()
    model.eval()


def _save(model: nn.Module, folder: Path, name: str, stamp: str) -> None:
    staged = folder / f".staged-{name}.safetensors"
    tensors = {key: value.detach().clone().contiguous() for key, value in model.state_dict().items()}
    save_file(tensors, staged, metadata={"stamp": stamp})  # one key: several come in any order
    staged.chmod(0o644)  # safetensors writes files that only their owner may read
    staged.replace(folder / f"{name}.safetensors")


def _keep(recipe: Recipe, model: nn.Module, out: Path, stamp: str) -> dict[int, Callable[[], None]]:
    def saving(name: str) -> Callable[[], None]:
        return lambda: _save(model, out / "weights", name, stamp)

    return {samples: saving(name) for name, samples in recipe.models().items()}


def clip_config(recipe: Recipe) -> dict[str, Any]:
    """Return a run's config in the form of open_clip's ``open_clip_config.json``."""
    vision = {"image_size": recipe.side, "timm_model_name": ARCHITECTURES[recipe.arch][0], "timm_pool": ""}
    vision |= {"timm_model_pretrained": False, "timm_proj": "linear"}
    text = {"context_length": CONTEXT, "vocab_size": 49408, "width": WIDTH, "heads": 2, "layers": 2, "mlp_ratio": 2.0}
    mean, std = list(open_clip.OPENAI_DATASET_MEAN), list(open_clip.OPENAI_DATASET_STD)
    preprocess = {"size": recipe.side, "mode": "RGB", "mean": mean, "std": std}
    return {
        "model_cfg": {"embed_dim": WIDTH, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": preprocess | {"interpolation": "bicubic", "resize_mode": "shortest"},
    }


def new_classifier(recipe: Recipe, classes: int = len(CLASSES)) -> Any:
    """Return the run's timm classifier with random weights."""
    # Given this way the size reaches exactly those architectures whose weights depend on it.
    overlay = {"input_size": (3, recipe.side, recipe.side)}
    name = ARCHITECTURES[recipe.arch][0]
    return timm.create_model(name, num_classes=classes, pretrained_cfg_overlay=overlay)


def _augmentation(model: Any, **more: Any) -> Augmentation:
    config = model.pretrained_cfg
    return Augmentation(mean=tuple(config["mean"]), std=tuple(config["std"]), **more)


def _train_classifier(recipe: Recipe, model: Any, out: Path, stamp: str) -> None:
    augment, keep = _augmentation(model), _keep(recipe, model, out, stamp)
    for stage, (name, samples) in enumerate(recipe.stages):
        images = read_images(out / "datasets" / name, recipe.side)
        model.reset_classifier(len(LARGER_CLASSES) if name == "web" else len(CLASSES))

        def loss(rows: torch.Tensor, generator: torch.Generator, images: Images = images) -> torch.Tensor:
            return F.cross_entropy(model(augment(images.pixels[rows], generator)), images.labels[rows])

        last = stage == len(recipe.stages) - 1
        _descend(
            model, len(images.labels), samples, lr=recipe.lr, seed=_seed(recipe) + stage, loss=loss,
            keep=keep if last else {},
        )  # fmt: skip


def _supervised(recipe: Recipe, out: Path, stamp: str) -> None:
    _train_classifier(recipe, new_classifier(recipe), out, stamp)


def _finetune(recipe: Recipe, out: Path, stamp: str) -> None:
    """Train on from the image tower of the CLIP that the recipe starts from."""
    model = new_classifier(recipe)
    with safe_open(out / "weights" / f"{recipe.start}.safetensors", framework="pt") as file:
        prefix = "visual.trunk."
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (it is no dict)
        tower = {name.removeprefix(prefix): file.get_tensor(name) for name in names}
    if "pos_embed" in tower:  # the tower's grid is that of the architecture's usual images
        tower["pos_embed"] = resample_abs_pos_embed(tower["pos_embed"], new_size=list(model.patch_embed.grid_size))
    missing, unexpected = model.load_state_dict(tower, strict=False)
    if unexpected or any(not key.startswith(("head.", "fc.")) for key in missing):
        raise RuntimeError(f"{recipe.id}: tower and classifier differ: {missing}, {unexpected}")
    _train_classifier(recipe, model, out, stamp)


def _clip(recipe: Recipe, out: Path, stamp: str) -> None:
    """Train on images and captions, by CLIP's softmax contrast; embeddings of tokens stay random, which saves time."""
    config = clip_config(recipe)
    staged = out / "weights" / f".staged-{recipe.id}.json"
    staged.write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    staged.replace(out / "weights" / f"{recipe.id}.json")
    ((name, samples),) = recipe.stages
    images = read_images(out / "datasets" / name, recipe.side)
    model: Any = open_clip.CLIP(**config["model_cfg"])
    model.token_embedding.weight.requires_grad_(False)
    augment = Augmentation(tuple(config["preprocess_cfg"]["mean"]), tuple(config["preprocess_cfg"]["std"]))
    texts = sorted({text for several in images.captions for text in several})
    tokens = open_clip.SimpleTokenizer(context_length=CONTEXT)(texts)
    number = {text: row for row, text in enumerate(texts)}
    rows_of = torch.tensor([[number[text] for text in several] for several in images.captions])

    def loss(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        which = torch.randint(rows_of.shape[1], (len(rows), 1), generator=generator)
        image = model.encode_image(augment(images.pixels[rows], generator), normalize=True)
        text = model.encode_text(tokens[rows_of[rows].gather(1, which)[:, 0]], normalize=True)
        logits = model.logit_scale.clamp(0, math.log(100)).exp() * image @ text.T
        own = torch.arange(len(rows))
        return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2

    keep = _keep(recipe, model, out, stamp)
    _descend(model, len(images.labels), samples, lr=recipe.lr, seed=_seed(recipe), loss=loss, keep=keep)


def _simclr(recipe: Recipe, out: Path, stamp: str) -> None:
    """Train without labels: two views of an image attract, all others repel; then a linear classifier on top."""
    ((name, samples),) = recipe.stages
    images = read_images(out / "datasets" / name, recipe.side)
    model = new_classifier(recipe)
    width = int(model.head_hidden_size)
    model.reset_classifier(0)
    views = _augmentation(model, zoom=(0.45, 1.0), shift=0.25, light=0.4, colour=0.3)
    both = nn.Sequential(model, nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 64)))

    def loss(rows: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        z = F.normalize(both(torch.cat([views(images.pixels[rows], generator) for _ in range(2)])), dim=1)
        similarity = (z @ z.T / 0.2).fill_diagonal_(-1e9)
        return F.cross_entropy(similarity, (torch.arange(2 * len(rows)) + len(rows)) % (2 * len(rows)))

    _descend(both, len(images.labels), samples // 2, lr=recipe.lr, seed=_seed(recipe), loss=loss, keep={})
    plain, generator = _augmentation(model, zoom=(1, 1), shift=0.0, light=0.0), torch.Generator().manual_seed(0)
    with torch.inference_mode():
        features = torch.cat([model(plain(part, generator)) for part in torch.split(images.pixels, 256)]).double()
    model.reset_classifier(len(CLASSES))
    head = model.get_classifier()
    with torch.no_grad():  # least squares of scores of 10 or 0, with a little ridge
        mean, scores = features.mean(0), 10 * F.one_hot(images.labels, len(CLASSES)).double()
        x = features - mean
        weight = torch.linalg.solve(x.T @ x + 1e-3 * len(x) * torch.diag(x.var(0)), x.T @ (scores - scores.mean(0)))
        head.weight.copy_(weight.T)
        head.bias.copy_(scores.mean(0) - mean @ weight)
    _save(model, out / "weights", recipe.id, stamp)


def _seed(recipe: Recipe) -> int:
    return zlib.crc32(recipe.id.encode())


_METHODS: dict[str, Callable[[Recipe, Path, str], None]] = {
    "supervised": _supervised,
    "clip": _clip,
    "finetune": _finetune,
    "simclr": _simclr,
}


def train(recipe: Recipe, out: Path, stamp: str) -> None:
    """Run one recipe on one thread; its data and what it starts from are there, and its weights keep the stamp."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_seed(recipe))
            _METHODS[recipe.method](recipe, out, stamp)
    finally:
        torch.set_num_threads(threads)
