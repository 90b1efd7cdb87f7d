"""A library of models of one's own: names in a model list, and a function that makes each model.

    extract --model-list models.txt --plugins examples/own_library.py        with the line  edges:small  in models.txt

A model is a torch module with what is done to images and the names of its classes (`extract.models.own.OwnModel`);
where names, weights or preprocessing need more than that, derive from ``Library`` itself.
"""

from closerlook.plugins import FunctionLibrary, UserError

CHANNELS = {"small": 8, "large": 32}
IMAGES = {"input_size": 64, "crop_pct": 0.875, "interpolation": "bilinear", "mean": (0.5,) * 3, "std": (0.5,) * 3}


class Edges(FunctionLibrary):
    """Tiny networks with random weights."""

    name = "edges"

    def make(self, name: str) -> dict:
        """Return a network by name."""
        from torch import nn  # not before it is needed: 'extract --help' stays fast

        if name not in CHANNELS:
            raise UserError(f"edges:{name}: there are {', '.join(CHANNELS)}")
        body = nn.Conv2d(3, CHANNELS[name], 5, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        module = nn.Sequential(*body, nn.Linear(CHANNELS[name], 3))
        return {"module": module, "preprocessing": IMAGES, "classes": ["cat", "dog", "fox"]}


LIBRARIES = (Edges(),)
