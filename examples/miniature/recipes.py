"""The zoo of the miniature: which models are trained, on what, how long; their lines in ``models.txt``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ZOO_VERSION = 1
"""Raised by hand whenever a training loop changes, so that finished weights are trained again."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run and the models that come out of it.

    Attributes
    ----------
    id
        Name of the run; of its model too where it has one only.
    method
        ``supervised``, ``clip``, ``finetune`` (of a CLIP's image tower) or ``simclr``.
    arch
        timm architecture (of the image tower), or ``vit-native`` for open_clip's own.
    group, family, source
        As in a model card.
    side
        Input side in pixels.
    data
        Datasets trained on, one stage each: ``web`` (14 classes) before ``train`` (10).
    samples
        Augmented images seen, one number a stage.
    start
        The model (a CLIP) that a fine-tuning starts from.
    checkpoints
        Name of a model -> share of the run after which it is kept; empty: the end alone, named like the run.
    settings
        Further arguments of the training loop.
    options
        Further keys of the line in ``models.txt``.
    """

    id: str
    method: str
    arch: str
    group: str
    family: str
    source: str
    data: tuple[str, ...]
    samples: tuple[int, ...]
    side: int = 64
    start: str = ""
    checkpoints: Mapping[str, float] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)

    def models(self) -> dict[str, float]:
        """Return model id -> share of the (last stage of the) run."""
        return dict(self.checkpoints) or {self.id: 1.0}


def _supervised(id: str, arch: str, family: str, samples: int, side: int = 64, **more: Any) -> Recipe:
    return Recipe(
        id=id,
        method="supervised",
        arch=arch,
        group="supervised-in1k",
        family=family,
        source="mini-train",
        data=("train",),
        samples=(samples,),
        side=side,
        **more,
    )


def _clip(
    id: str, arch: str, family: str, source: str, samples: int, checkpoints: Mapping[str, float], **more: Any
) -> Recipe:
    return Recipe(
        id=id,
        method="clip",
        arch=arch,
        group="clip-zero-shot",
        family=family,
        source=source,
        data=("train" if source == "mini-wit" else "web",),
        samples=(samples,),
        checkpoints=checkpoints,
        **more,
    )


def _finetune(id: str, start: Recipe, samples: tuple[int, ...]) -> Recipe:
    two = len(samples) == 2
    return Recipe(
        id=id,
        method="finetune",
        arch=start.arch,
        group="clip-ft-in12k" if two else "clip-ft-in1k",
        family=start.family,
        source=start.source,
        data=("web", "train") if two else ("train",),
        samples=samples,
        start=list(start.models())[-1],
        side=start.side,
        settings={"lr": 2e-3 if start.family == "cnn" else 1e-3},
    )


_VIT = {"lr": 1e-3}
_FAST = {"lr": 4e-3}  # nets with batch norm bear it
_WIT_VIT = _clip(
    "wit-vit",
    "test_vit",
    "vit",
    "mini-wit",
    32_000,
    {"wit-vit-8k": 0.25, "wit-vit-16k": 0.5, "wit-vit-32k": 1.0},
    settings=_VIT,
)
_LAION_VIT = _clip(
    "laion-vit",
    "test_vit",
    "vit",
    "mini-laion",
    60_000,
    {"laion-vit-20k": 1 / 3, "laion-vit-40k": 2 / 3, "laion-vit-60k": 1.0},
    settings=_VIT,
)
_WIT_CNN = _clip(
    "wit-cnn", "test_byobnet", "cnn", "mini-wit", 16_000, {"wit-cnn-6k": 0.375, "wit-cnn-16k": 1.0}, side=48
)
_LAION_CNN = _clip(
    "laion-cnn", "test_byobnet", "cnn", "mini-laion", 24_000, {"laion-cnn-12k": 0.5, "laion-cnn-24k": 1.0}, side=48
)

RECIPES: tuple[Recipe, ...] = (
    _WIT_VIT,
    _LAION_VIT,
    _WIT_CNN,
    _LAION_CNN,
    _clip("laion-sigmoid", "vit-native", "vit", "mini-laion", 16_000, {}, settings={"sigmoid": True, "lr": 1e-3}),
    _supervised("resnet", "test_resnet", "cnn", 12_000, 48, settings=_FAST),
    _supervised("efficientnet", "test_efficientnet", "cnn", 14_000, 48, settings=_FAST),
    _supervised("convnext", "test_convnext", "cnn", 12_000, 48, settings={"smoothing": 0.1}),
    _supervised("byobnet", "test_byobnet", "cnn", 12_000, 48, options={"crop_pct": "1.0"}, settings=_FAST),
    _supervised("mambaout", "test_mambaout", "cnn", 14_000, 48),
    _supervised("coatnet", "test_coatnet", "hybrid", 5_000),
    _supervised("vit", "test_vit", "vit", 20_000, checkpoints={"vit-short": 0.25, "vit": 1.0}, settings=_VIT),
    _finetune("ft-wit-vit", _WIT_VIT, (6_000,)),
    _finetune("ft-laion-vit", _LAION_VIT, (6_000,)),
    _finetune("ft-laion-cnn", _LAION_CNN, (8_000,)),
    _finetune("ft12k-laion-vit", _LAION_VIT, (6_000, 6_000)),
    _finetune("ft12k-laion-cnn", _LAION_CNN, (6_000, 6_000)),
    Recipe(
        id="simclr-byobnet",
        method="simclr",
        arch="test_byobnet",
        group="self-supervised",
        family="cnn",
        source="mini-train",
        data=("train",),
        samples=(20_000,),
        side=48,
    ),
    Recipe(
        id="more-efficientnet",
        method="supervised",
        arch="test_efficientnet",
        group="more-data",
        family="cnn",
        source="mini-web",
        data=("web", "train"),
        samples=(12_000, 10_000),
        side=48,
        settings=_FAST,
    ),
)

COUNTS: dict[str, int] = {
    "train": 3000,
    "web": 3500,
    "val": 2000,
    "v2": 800,
    "sketch": 500,
    "rendition": 500,
    "hard": 300,
    "kinds": 240,
    "cue-conflict": 450,
    "ood-shapes": 300,
    "textures": 300,
    "noise": 300,
    "scenes": 300,
    "captions": 300,
}
"""Dataset -> number of pictures."""


@dataclass(frozen=True)
class Size:
    """How much is built."""

    name: str
    counts: Mapping[str, int]
    recipes: tuple[Recipe, ...]


FULL = Size("full", COUNTS, RECIPES)


def quick_size() -> Size:
    """Return the same study with a fortieth of the pictures and two short runs: for tests of the code."""
    counts = {name: max(24, n // 40 // 4 * 4) for name, n in COUNTS.items()}
    chosen = (
        _clip("wit-cnn", "test_byobnet", "cnn", "mini-wit", 256, {"wit-cnn-6k": 0.5, "wit-cnn-16k": 1.0}, side=48),
        _supervised("byobnet", "test_byobnet", "cnn", 256, 48),
    )
    return Size("quick", counts, chosen)
