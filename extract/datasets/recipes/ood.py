"""Out-of-distribution sets for ImageNet-1k classifiers; every label is -1, whatever a folder is called."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from closerlook_common.errors import UserError
from extract.datasets.base import NO_LABEL
from extract.datasets.building import folder_column
from extract.datasets.folder import Rows
from extract.datasets.listing import list_images
from extract.datasets.recipes.base import ANY_SPLIT, Found, Reader, Recipe, candidates, unlabelled
from extract.datasets.specs import DatasetSpec

# Textures whose images show ImageNet's classes too often, left out by the 5,160-image variant.
_LEFT_OUT = frozenset({"bubbly", "cobwebbed", "honeycombed", "spiralled"})
_N_TEXTURES = 47


def _textures(variant: str) -> Reader:
    """Return a reader of the Describable Textures: ``all``, ``43`` classes, or the first ``test`` split."""

    def read(path: Path, spec: DatasetSpec) -> Found:
        places = list(candidates(path, ("images", "dtd/images", "dtd/dtd/images")))
        root = next((p for p in places if (p / "banded").is_dir()), None)
        if root is None:
            raise UserError(f"{path} does not hold the {_N_TEXTURES} texture folders (banded ...); set path = to them")
        listed = [item for item in list_images(root) if "/" in item.path]
        if variant == "43":
            listed = [item for item in listed if item.path.partition("/")[0] not in _LEFT_OUT]
        elif variant == "test":
            split = next(
                (p / "labels" / "test1.txt" for p in (root, root.parent, path) if (p / "labels").is_dir()),
                None,
            )
            if split is None or not split.is_file():
                raise UserError(f"no labels/test1.txt beside {root}; it lists the test split")
            kept = set(split.read_text(encoding="utf-8").split())
            listed = [item for item in listed if item.path in kept]
        rows = Rows(
            tuple(item.path for item in listed),
            np.full(len(listed), NO_LABEL, dtype=np.int32),
            np.asarray([item.size for item in listed], dtype=np.int64),
        )
        return Found(root=root, rows=rows, layout=f"texture folders, {variant}", metadata=folder_column(rows))

    return read


def _ood(
    name: str,
    title: str,
    count: int,
    read: Reader,
    *folders: str,
    basis: str,
    source: str,
    distance: str = "",
    licence: str = "",
    note: str = "",
) -> Recipe:
    return Recipe(
        name=name,
        title=title,
        role="ood",
        folders=(name, *folders),
        expected=(count,),
        read=read,
        packable=not name.startswith("textures"),
        splits=ANY_SPLIT,
        basis=basis,
        source=source,
        distance=distance,
        licence=licence,
        note=note,
    )


# Near and far as OpenOOD 1.5 divides its ImageNet sets; the variants of Textures go with the one that it uses. SUN,
# Places and ImageNet-O are not among its sets, and are neither.
_HUANG_LI = "stated by others of the subset of Huang and Li"

RECIPES = (
    _ood(
        "inaturalist", "iNaturalist, subset of Huang and Li", 10_000, unlabelled("images"),
        source="Van Horn et al., CVPR 2018; subset: Huang and Li, CVPR 2021", basis=_HUANG_LI, distance="far",
    ),
    _ood(
        "sun", "SUN, subset of Huang and Li", 10_000, unlabelled("images"),
        source="Xiao et al., CVPR 2010; subset: Huang and Li, CVPR 2021", basis=_HUANG_LI,
    ),
    _ood(
        "places", "Places, subset of Huang and Li", 10_000, unlabelled("images"), "places365",
        source="Zhou et al., TPAMI 2018; subset: Huang and Li, CVPR 2021", basis=_HUANG_LI,
    ),
    _ood(
        "textures", "Textures, all 47 classes", 5_640, _textures("all"), "dtd",
        source="Cimpoi et al., CVPR 2014", basis="47 classes of 120 images, as its owners state", distance="far",
    ),
    _ood(
        "textures-43", "Textures without four classes", 5_160, _textures("43"), "textures", "dtd",
        source="Cimpoi et al., CVPR 2014; variant: Wang et al., CVPR 2022",
        basis="counted in ViM's list of images", distance="far",
        note="without bubbly, cobwebbed, honeycombed, spiralled",
    ),
    _ood(
        "textures-test", "Textures, first test split", 1_880, _textures("test"), "textures", "dtd",
        source="Cimpoi et al., CVPR 2014", basis="a third of all, as its owners state", distance="far",
    ),
    _ood(
        "imagenet-o", "ImageNet-O", 2_000, unlabelled("imagenet-o"), "imageneto",
        source="Hendrycks et al., CVPR 2021", basis="stated by its owners", licence="mit",
        note="folders name the class that an image resembles, not its label",
    ),
    _ood(
        "openimage-o", "OpenImage-O", 17_632, unlabelled("images"), "openimageo", "openimages-o",
        source="Wang et al., CVPR 2022", basis="counted in ViM's list of images", distance="far",
        note="OpenOOD's test list has 15,869 of them: give it as manifest = and set the role",
    ),
    _ood(
        "ssb-hard", "SSB-hard, near classes of ImageNet-21k", 49_000, unlabelled("ssb_hard"), "ssbhard",
        source="Vaze et al., ICLR 2022", basis="stated by OpenOOD", distance="near",
        note="depends on the Winter 2021 release of ImageNet-21k",
    ),
    _ood(
        "ninco", "NINCO, 64 classes checked by hand", 5_879,
        unlabelled("NINCO_OOD_classes", "NINCO/NINCO_OOD_classes"),
        source="Bitterwolf, Mueller and Hein, ICML 2023", basis="counted in its own list of images", distance="near",
    ),
)  # fmt: skip
