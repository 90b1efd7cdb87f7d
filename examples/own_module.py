"""A model of one's own: a function that returns the module, what is done to images, and the names of the classes.

Run it over a dataset whose classes are these, with a line of a model list:

    python:examples/own_module.py:stripes id=stripes

Weights of a file are put in with checkpoint=FILE on that line, or loaded by the function itself. The features that are
stored are the input of the final linear layer, which is found. 'extract help models' describes the line, the class
`extract.models.own.OwnModel` everything that a function may return.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Stripes(nn.Module):
    """A small convolutional classifier."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, kernel_size=5, stride=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=5, stride=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(32, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (B, C) logits of (B, 3, H, W) normalised images."""
        return self.classifier(self.body(images))


def stripes() -> dict[str, Any]:
    """Return the model; its random weights are the same ones each time."""
    return {
        "module": Stripes(classes=3),
        "preprocessing": {
            "input_size": 64,
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
        },
        "classes": ["across", "down", "plain"],
    }
