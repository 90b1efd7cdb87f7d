"""Shifted test sets in ImageNet's classes: V2, A, R, Sketch, stylised, cartoon and drawing, and
ImageNet-C.
"""

from __future__ import annotations

from functools import partial

from extract.datasets.maps import index_list
from extract.datasets.recipes.base import ANY_SPLIT, Recipe, class_folders
from extract.datasets.recipes.imagenet import VAL

# ImageNetV2's own lettering.
_V2 = {"a": "threshold-0.7", "b": "matched-frequency", "c": "top-images"}

CORRUPTIONS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
SEVERITIES = (1, 2, 3, 4, 5)
_C_SIDE = 224


def _v2(letter: str, variant: str) -> Recipe:
    folder = f"imagenetv2-{variant}"
    names = (f"{folder}-format-val", folder, f"imagenet-v2-{letter}")
    return Recipe(
        name=f"imagenet-v2-{letter}",
        title=f"ImageNetV2 {variant}",
        role="shift",
        source="Recht et al., ICML 2019",
        folders=names,
        expected=(10_000,),
        read=class_folders(*names, *(f"*/{name}" for name in names)),
        shift_of=VAL,
        basis="stated by its owners",
        licence="mit",
        note="numeric folders are class indices",
    )


def _corruption(group: str, corruption: str, severity: int) -> Recipe:
    place = f"{corruption}/{severity}"
    return Recipe(
        name=f"imagenet-c-{corruption}-{severity}",
        title=f"ImageNet-C {corruption.replace('_', ' ')}, severity {severity}",
        role="shift",
        source="Hendrycks and Dietterich, ICLR 2019",
        folders=("imagenet-c", "imagenetc"),
        expected=(50_000,),
        read=class_folders(place, f"{group}/{place}", f"*/{place}"),
        shift_of=VAL,
        already_cropped=_C_SIDE,
        basis="each is made from all of ImageNet-val",
        licence="cc-by-4.0",
        note="224 x 224 already: 224 models take it as it is",
    )


RECIPES = (
    *(_v2(letter, variant) for letter, variant in _V2.items()),
    Recipe(
        name="imagenet-a",
        title="ImageNet-A, natural adversarial examples",
        role="shift",
        source="Hendrycks et al., CVPR 2021",
        folders=("imagenet-a", "imageneta"),
        expected=(7_500,),
        read=class_folders("imagenet-a"),
        shift_of=VAL,
        splits=ANY_SPLIT,
        basis="counted by the ImageNet testbed",
        licence="mit",
        mask=partial(index_list, "a"),
        note="logits restricted to its 200 classes",
    ),
    Recipe(
        name="imagenet-r",
        title="ImageNet-R, renditions",
        role="shift",
        source="Hendrycks et al., ICCV 2021",
        folders=("imagenet-r", "imagenetr", "imagenet-rendition"),
        expected=(30_000,),
        read=class_folders("imagenet-r"),
        shift_of=VAL,
        splits=ANY_SPLIT,
        basis="counted by the ImageNet testbed",
        licence="mit",
        mask=partial(index_list, "r"),
        note="logits restricted to its 200 classes",
    ),
    Recipe(
        name="imagenet-sketch",
        title="ImageNet-Sketch",
        role="shift",
        source="Wang et al., NeurIPS 2019",
        folders=("imagenet-sketch", "sketch"),
        expected=(50_889,),
        read=class_folders("sketch", "imagenet-sketch", "data/sketch"),
        shift_of=VAL,
        splits=ANY_SPLIT,
        basis="counted by others; the ImageNet testbed's table rounds it to 50,000",
        note="about 51 a class, not 50",
    ),
    Recipe(
        name="stylized-imagenet",
        title="Stylized-ImageNet, validation images",
        role="shift",
        source="Geirhos et al., ICLR 2019",
        folders=("stylized-imagenet", "stylized-imagenet-val", "imagenet-stylized", "sin"),
        expected=(50_000,),
        read=class_folders("val", "stylized-imagenet/val"),
        shift_of=VAL,
        basis="made from all of ImageNet-val, as the ImageNet testbed counts it",
        note="made by each user: no two copies need be equal",
    ),
    Recipe(
        name="imagenet-cartoon",
        title="ImageNet-Cartoon",
        role="shift",
        source="Salvador and Oberman, 2022",
        folders=("imagenet-cartoon", "cartoon"),
        expected=(50_000,),
        read=class_folders("imagenet-cartoon", "val"),
        shift_of=VAL,
        basis="made from all of ImageNet-val",
        licence="cc-by-4.0",
        note="made from ImageNet-val: not independent of it",
    ),
    Recipe(
        name="imagenet-drawing",
        title="ImageNet-Drawing",
        role="shift",
        source="Salvador and Oberman, 2022",
        folders=("imagenet-drawing", "drawing"),
        expected=(50_000,),
        read=class_folders("imagenet-drawing", "val"),
        shift_of=VAL,
        basis="made from all of ImageNet-val",
        licence="cc-by-4.0",
        note="made from ImageNet-val: not independent of it",
    ),
    *(
        _corruption(group, corruption, severity)
        for group, corruptions in {**CORRUPTIONS, "extra": EXTRA_CORRUPTIONS}.items()
        for corruption in corruptions
        for severity in SEVERITIES
    ),
)
