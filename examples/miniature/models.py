"""The models: which are trained, on what, how long; their lines in ``models.txt``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from examples.miniature.datasets import DATASETS
from examples.miniature.shapes import CLASS_SPACE, CLASSES

TITLES = {
    "clip-zero-shot": "zero-shot CLIP",
    "clip-ft-in1k": "CLIP fine-tuned on IN-1k",
    "clip-ft-in12k": "CLIP fine-tuned via IN-12k",
    "supervised-in1k": "supervised IN-1k",
    "self-supervised": "self-supervised",
    "more-data": "pre-trained on more data",
}
"""The study's groups of models, in its order."""

ARCHITECTURES = {
    "vit": ("test_vit", 48), "byobnet": ("test_byobnet", 32), "resnet": ("test_resnet", 32),
    "efficientnet": ("test_efficientnet", 32), "convnext": ("test_convnext", 32), "coatnet": ("test_coatnet", 32),
}  # fmt: skip
"""Short name -> timm's name, and the side of the input in pixels."""

FAMILIES = {"vit": "vit", "coatnet": "hybrid"}
"""Family of an architecture that is no cnn."""


Stages = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Recipe:
    """One training run and the models that come out of it."""

    id: str  # of its model too where it has one only
    method: str  # "supervised", "clip", "finetune" (of a CLIP's image tower) or "simclr"
    arch: str  # of the image tower
    group: str
    source: str
    stages: Stages  # datasets and augmented images seen: "web" (14 classes) before "train" (10)
    lr: float
    start: str = ""  # the CLIP that a fine-tuning starts from
    keep: Mapping[str, int] = field(default_factory=dict)  # model -> images of the last stage that it has seen

    @property
    def side(self) -> int:
        """Side of the input in pixels."""
        return ARCHITECTURES[self.arch][1]

    def models(self) -> dict[str, int]:
        """Return model id -> images of the last stage that it has seen."""
        return dict(self.keep) or {self.id: self.stages[-1][1]}


def _clip(id: str, arch: str, lr: float, data: str, *keep: int) -> Recipe:
    kept = {f"{id}-{n // 1000}k": n for n in keep}
    return Recipe(id, "clip", arch, "clip-zero-shot", f"mini-{id.split('-')[0]}", ((data, keep[-1]),), lr, keep=kept)


def _finetune(id: str, start: str, arch: str, lr: float, stages: Stages) -> Recipe:
    group = "clip-ft-in12k" if len(stages) > 1 else "clip-ft-in1k"
    return Recipe(id, "finetune", arch, group, f"mini-{start.split('-')[0]}", stages, lr, start)


def _supervised(arch: str, samples: int, lr: float, **keep: int) -> Recipe:
    kept = {name.replace("_", "-"): n for name, n in keep.items()}
    return Recipe(arch, "supervised", arch, "supervised-in1k", "mini-train", (("train", samples),), lr, keep=kept)


_TRAIN, _BOTH = (("train", 5_000),), (("web", 5_000), ("train", 5_000))
_SELF, _MORE = (("train", 16_000),), (("web", 8_000), ("train", 10_000))

RECIPES: tuple[Recipe, ...] = (
    _clip("laion-vit", "vit", 2e-3, "web", 15_000, 25_000, 36_000),
    _clip("wit-vit", "vit", 2e-3, "train", 6_000, 18_000),
    _clip("laion-cnn", "byobnet", 3e-3, "web", 8_000, 16_000),
    _clip("wit-cnn", "byobnet", 3e-3, "train", 4_000, 10_000),
    _supervised("vit", 14_000, 2e-3, vit_short=5_000, vit=14_000),
    _supervised("resnet", 10_000, 5e-3),
    _supervised("efficientnet", 12_000, 5e-3),
    _supervised("convnext", 10_000, 3e-3),
    _supervised("coatnet", 5_000, 2e-3),
    _finetune("ft-wit-vit", "wit-vit-18k", "vit", 1e-3, _TRAIN),
    _finetune("ft-laion-vit", "laion-vit-36k", "vit", 1e-3, _TRAIN),
    _finetune("ft-laion-cnn", "laion-cnn-16k", "byobnet", 2e-3, _TRAIN),
    _finetune("ft12k-laion-vit", "laion-vit-36k", "vit", 1e-3, _BOTH),
    _finetune("ft12k-laion-cnn", "laion-cnn-16k", "byobnet", 2e-3, _BOTH),
    Recipe("simclr-byobnet", "simclr", "byobnet", "self-supervised", "mini-train", _SELF, 3e-3),
    Recipe("more-efficientnet", "supervised", "efficientnet", "more-data", "mini-web", _MORE, 5e-3),
)
"""Runs; one that another starts from comes before it, long ones come early."""

QUICK = (_clip("wit-cnn", "byobnet", 3e-3, "train", 1_000, 2_000), _supervised("resnet", 256, 5e-3))

_HEADER = """\
# The models of the miniature study ('python -m examples.miniature' builds it), one a line: LIBRARY:NAME key=value ...
# Where a library knows the weights, the name is enough; wildcards mean several:
#
#     timm:resnet50.a1_in1k
#     open_clip:*/laion2b*
#
# group, family, source, source_size and samples_seen colour and sort the figures. 'extract help models' explains
# every key, 'extract models' lists the names.
"""


def model_lines(recipe: Recipe, folder: str = "weights") -> list[str]:
    """Return a run's lines of ``models.txt``, one a model."""
    lines = []
    for name, samples in recipe.models().items():
        if recipe.method == "clip":
            own = f"open_clip:{recipe.id} config={folder}/{recipe.id}.json"
        else:
            own = f"timm:{ARCHITECTURES[recipe.arch][0]} num_classes={len(CLASSES)} classes={CLASS_SPACE}"
            own += f" input_size={recipe.side} crop_pct=1.0"
        seen = sum(n for _, n in recipe.stages[:-1]) + samples
        lines.append(
            f"{own} checkpoint={folder}/{name}.safetensors id={name} group={recipe.group}"
            f" family={FAMILIES.get(recipe.arch, 'cnn')} source={recipe.source}"
            f" source_size={DATASETS[recipe.stages[0][0]].n} samples_seen={seen} licence=MIT"
        )
    return lines


def models_txt(recipes: tuple[Recipe, ...] = RECIPES, folder: str = "weights") -> str:
    """Return the text of ``models.txt``; ``folder`` is where the weights lie, relative to the list."""
    parts = [_HEADER]
    for group, title in TITLES.items():
        lines = [line for recipe in recipes if recipe.group == group for line in model_lines(recipe, folder)]
        if lines:
            parts.append("\n".join([f"# {title}", *lines]) + "\n")
    return "\n".join(parts)
