"""Training loops of the miniature: small, on the CPU, from fixed seeds.

Every loop draws its randomness from one generator of its own and runs on one thread, so the same versions of
torch, timm and open_clip on the same kind of processor give the same weights bit for bit. Other versions or
processors add up in another order: the weights then differ in the last digits and, after some hundred steps,
in some predictions.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

Snapshot = Callable[[], None]
"""Called when a checkpoint is due."""

Progress = Callable[[int], None]
"""Called with the number of images seen since the last call."""


@dataclass(frozen=True)
class Images:
    """A training set in memory.

    Attributes
    ----------
    pixels
        ``(n, 3, side, side)`` uint8.
    labels
        ``(n,)`` int64.
    captions
        Several captions an image, in the same order; empty lists without a caption file.
    """

    pixels: torch.Tensor
    labels: torch.Tensor
    captions: tuple[tuple[str, ...], ...]


def read_images(folder: Path, classes: Sequence[str], side: int) -> Images:
    """Read a folder of class folders, in the order of the sorted paths, resized to ``side``."""
    paths = sorted(path for name in classes for path in (folder / name).iterdir())
    pixels = torch.empty((len(paths), 3, side, side), dtype=torch.uint8)
    for row, path in enumerate(paths):
        with Image.open(path) as file:
            image = file.convert("RGB")
        if image.size != (side, side):
            image = image.resize((side, side), Image.Resampling.BICUBIC)
        pixels[row] = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    labels = torch.tensor([classes.index(path.parent.name) for path in paths])
    texts: dict[str, list[str]] = {}
    with (folder / "captions.csv").open(newline="", encoding="utf-8") as table:
        for record in csv.DictReader(table):
            texts.setdefault(record["path"], []).append(record["caption"])
    captions = tuple(tuple(texts[path.relative_to(folder).as_posix()]) for path in paths)
    return Images(pixels, labels, captions)


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
        mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
        theta = torch.zeros(len(pixels), 2, 3)
        theta[:, 0, 0], theta[:, 1, 1] = zoom * mirror, zoom
        theta[:, :, 2] = uniform(-self.shift, self.shift, 2)
        x = pixels.to(torch.float32) / 255
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        x = x * uniform(1 - self.light, 1 + self.light, 1, 1, 1)
        if self.colour:
            x = x * uniform(1 - self.colour, 1 + self.colour, 3, 1, 1)
            grey = uniform(0, 1, 1, 1, 1) < 0.2
            x = torch.where(grey, x.mean(dim=1, keepdim=True), x)
        mean, std = torch.tensor(self.mean).view(3, 1, 1), torch.tensor(self.std).view(3, 1, 1)
        return ((x - mean) / std).contiguous(memory_format=torch.channels_last)


def batches(n: int, size: int, steps: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield ``steps`` batches of indices, epoch after epoch, each epoch in a new order."""
    order = torch.randperm(n, generator=generator)
    start = 0
    for _ in range(steps):
        if start + size > n:
            order, start = torch.randperm(n, generator=generator), 0
        yield order[start : start + size]
        start += size


def optimiser(model: nn.Module, lr: float, weight_decay: float = 0.05) -> torch.optim.Optimizer:
    """Return AdamW that decays matrices only (embeddings, biases and norms are left alone)."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            (free if weight.ndim < 2 or "embed" in name else decayed).append(weight)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)


def schedule(step: int, steps: int, warmup: float = 0.1) -> float:
    """Return the learning rate's factor: linear warm-up, then a cosine down to 2 %."""
    ramp = max(1, int(steps * warmup))
    if step < ramp:
        return (step + 1) / ramp
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, steps - ramp)))


def _descend(
    model: nn.Module,
    losses: Iterator[torch.Tensor],
    steps: int,
    batch: int,
    lr: float,
    snapshots: Sequence[float],
    snapshot: Snapshot,
    progress: Progress,
) -> None:
    """Take a step for every loss; call ``snapshot`` after those shares of the steps that are asked for."""
    descent = optimiser(model, lr)
    due = {max(1, round(share * steps)) for share in snapshots}
    model.train()
    for step, loss in enumerate(losses):
        for group in descent.param_groups:
            group["lr"] = lr * schedule(step, steps)
        descent.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        descent.step()
        progress(batch)
        if step + 1 in due:
            model.eval()
            snapshot()
            model.train()
    model.eval()


def train_classifier(
    model: nn.Module,
    images: Images,
    augment: Augmentation,
    *,
    samples: int,
    seed: int,
    lr: float = 2e-3,
    batch: int = 32,
    smoothing: float = 0.0,
    snapshots: Sequence[float] = (1.0,),
    snapshot: Snapshot = lambda: None,
    progress: Progress = lambda _: None,
) -> None:
    """Train with labels: cross-entropy over ``samples`` augmented images."""
    generator = torch.Generator().manual_seed(seed)
    steps = max(2, samples // batch)

    def losses() -> Iterator[torch.Tensor]:
        for rows in batches(len(images.labels), batch, steps, generator):
            logits = model(augment(images.pixels[rows], generator))
            yield F.cross_entropy(logits, images.labels[rows], label_smoothing=smoothing)

    _descend(model, losses(), steps, batch, lr, snapshots, snapshot, progress)


def train_clip(
    model: nn.Module,
    images: Images,
    augment: Augmentation,
    tokenize: Callable[[list[str]], torch.Tensor],
    *,
    samples: int,
    seed: int,
    lr: float = 2e-3,
    batch: int = 32,
    sigmoid: bool = False,
    snapshots: Sequence[float] = (1.0,),
    snapshot: Snapshot = lambda: None,
    progress: Progress = lambda _: None,
) -> None:
    """Train an open_clip model on images and captions: softmax (CLIP) or sigmoid (SigLIP) contrast."""
    generator = torch.Generator().manual_seed(seed)
    steps = max(2, samples // batch)
    texts = sorted({text for several in images.captions for text in several})
    number = {text: row for row, text in enumerate(texts)}
    tokens = tokenize(texts)
    rows_of = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor([number[text] for text in several]) for several in images.captions], batch_first=True
    )
    count = torch.tensor([len(several) for several in images.captions])

    def losses() -> Iterator[torch.Tensor]:
        for rows in batches(len(images.labels), batch, steps, generator):
            which = (torch.rand(len(rows), generator=generator) * count[rows]).long()
            chosen = rows_of[rows, which]
            image = model.encode_image(augment(images.pixels[rows], generator), normalize=True)  # type: ignore[operator]
            text = model.encode_text(tokens[chosen], normalize=True)  # type: ignore[operator]
            logits = model.logit_scale.exp() * image @ text.T  # type: ignore[operator]
            if sigmoid:
                same = (chosen[:, None] == chosen[None, :]).float() * 2 - 1
                yield -F.logsigmoid(same * (logits + model.logit_bias)).sum() / len(rows)
            else:
                own = torch.arange(len(rows))
                yield (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
            with torch.no_grad():
                model.logit_scale.clamp_(0, math.log(100))  # type: ignore[operator]

    _descend(model, losses(), steps, batch, lr, snapshots, snapshot, progress)


def train_simclr(
    model: nn.Module,
    images: Images,
    augment: Augmentation,
    *,
    width: int,
    samples: int,
    seed: int,
    lr: float = 2e-3,
    batch: int = 64,
    temperature: float = 0.2,
    progress: Progress = lambda _: None,
) -> None:
    """Train without labels (SimCLR): two views of an image attract, all others in the batch repel.

    ``model`` gives ``(b, width)`` features; the projection head is thrown away.
    """
    generator = torch.Generator().manual_seed(seed)
    steps = max(2, samples // (2 * batch))
    projection = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 64))
    both = nn.Sequential(model, projection)

    def losses() -> Iterator[torch.Tensor]:
        for rows in batches(len(images.labels), batch, steps, generator):
            views = torch.cat([augment(images.pixels[rows], generator) for _ in range(2)])
            z = F.normalize(both(views), dim=1)
            similarity = z @ z.T / temperature
            similarity.fill_diagonal_(-1e9)
            yield F.cross_entropy(similarity, (torch.arange(2 * len(rows)) + len(rows)) % (2 * len(rows)))

    _descend(both, losses(), steps, 2 * batch, lr, (), lambda: None, progress)


def linear_probe(
    features: torch.Tensor, labels: torch.Tensor, classes: int, *, steps: int = 300, lr: float = 0.05
) -> nn.Linear:
    """Fit a linear classifier on fixed features (n, width) by full-batch Adam; starts from zero."""
    mean, std = features.mean(0), features.std(0) + 1e-6
    x = (features - mean) / std
    head = nn.Linear(features.shape[1], classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    descent = torch.optim.Adam(head.parameters(), lr=lr, weight_decay=1e-4)
    for _ in range(steps):
        descent.zero_grad(set_to_none=True)
        F.cross_entropy(head(x), labels).backward()
        descent.step()
    with torch.no_grad():  # fold the standardisation into the head
        head.weight.div_(std)
        head.bias.sub_(head.weight @ mean)
    return head
