"""An exported network: TorchScript with its features as a second output, and its line in a model list.

Run it from the checkout:

    python examples/own_exported.py

A file of this kind does not describe images or classes; the line does. An ONNX file has the same line, beginning with
'onnx:', and names its outputs: 'logits=NAME features=NAME'.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import closerlook

CLASSES = ("across", "down", "plain")


class Net(nn.Module):
    """A small network that returns logits and features."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(16, len(CLASSES))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (B, C) logits and (B, 16) features of (B, 3, H, W) normalised images."""
        features = self.body(images)
        return self.head(features), features


def main(folder: Path) -> closerlook.Results:
    """Export the network, run it over images made on the spot, and return every number."""
    torch.jit.trace(Net().eval(), torch.zeros(1, 3, 64, 64)).save(folder / "net.pt")
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    for seed, name in enumerate(CLASSES * 8):
        (folder / "images" / name).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (80, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / name / f"{seed}.png")
    line = f"torchscript:{folder}/net.pt id=net features=1 classes={folder}/classes.txt"
    line += " input_size=64 interpolation=bilinear resize_mode=squash mean=0.5 std=0.5"
    done = closerlook.run(models=line, datasets={"stripes": folder / "images"}, cache=folder / "cache", workers=0)
    return closerlook.evaluate(done.cache)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(main(Path(name)).table(where={"metric": ["top1", "nll"]}))
