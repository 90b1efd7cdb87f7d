"""Probes of your own features: a cache from arrays, a linear probe and nearest neighbours, every number of them.

Run it from the checkout:

    python examples/own_probe.py

The features could be those of any encoder; `closerlook.probe` needs no torch.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import cache_schema
import closerlook
from cache_schema.format.records import DatasetCard, ModelCard

CLASSES = ("across", "down", "plain")


def features_of(rng: np.random.Generator, labels: np.ndarray) -> np.ndarray:
    """Return (n, 16) features around a point of each class."""
    points = np.eye(len(CLASSES), 16) * 2
    return (points[labels] + rng.normal(size=(len(labels), 16))).astype(np.float32)


def main(folder: Path) -> closerlook.Results:
    """Store features of a training set and a test set, and return the accuracies of probes."""
    rng = np.random.default_rng(0)
    encoder = ModelCard(id="encoder")
    test = DatasetCard(id="test", class_space="stripes", class_names=CLASSES, n_classes=len(CLASSES))
    for card, n in ((replace(test, id="train", role="reference"), 600), (test, 300)):
        labels = rng.integers(0, len(CLASSES), n)
        cache_schema.write_store(folder, model=encoder, dataset=card, features=features_of(rng, labels), labels=labels)
    return closerlook.probe(folder, reference="train", l2_path=(0.1, 1, 10))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(main(Path(name)).table())
