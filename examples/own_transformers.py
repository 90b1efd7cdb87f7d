"""A classifier of transformers in a folder, and images from a Python object: nothing else describes them.

Run it from the checkout:

    python examples/own_transformers.py

Here the folder holds a small vision transformer with random weights; a fine-tuned one, or a CLIP, is run in the same
way. The object could be a dataset of torchvision, of Hugging Face or of WILDS.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import transformers

import closerlook

CLASSES = ("across", "down", "plain")


class Noise:
    """Images of noise with labels: anything that has a length and items of (image, label)."""

    classes = CLASSES

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """Return an image (H, W, 3) uint8 and its label."""
        if index >= len(self):
            raise IndexError(index)
        pixels = np.random.default_rng(index).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        return pixels, index % len(CLASSES)


def save_classifier(folder: Path) -> None:
    """Write what save_pretrained writes of a model and of its image processor."""
    size = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "intermediate_size": 64}
    depth = {"num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.ViTConfig(**size, **depth, id2label=dict(enumerate(CLASSES)))
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


def main(folder: Path) -> closerlook.Results:
    """Run the classifier over the images, and return every number."""
    save_classifier(folder / "my-vit")
    done = closerlook.run(
        models=f"transformers:{folder}/my-vit", datasets={"noise": Noise()}, cache=folder / "cache", workers=0
    )
    return closerlook.evaluate(done.cache)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        print(main(Path(name)).table(where={"metric": ["top1", "nll"]}))
