"""Images with captions: COCO and Flickr30k in Karpathy's test splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from closerlook_common.errors import UserError
from closerlook_common.input_files import read_json_file
from extract.datasets.base import NO_LABEL
from extract.datasets.folder import Rows
from extract.datasets.listing import safe_relative, size_of
from extract.datasets.recipes.base import Found, Reader, Recipe
from extract.datasets.specs import DatasetSpec

_LEVELS_UP = 2


def _karpathy(file_name: str, *places: str) -> Reader:
    """Return a reader of the images that ``file_name`` puts in the split (``test``, or ``split =`` of the
    spec).
    """

    def read(path: Path, spec: DatasetSpec) -> Found:
        folders = [base / sub for base in (path, *list(path.parents)[:_LEVELS_UP]) for sub in ("", "annotations")]
        file = next((folder / file_name for folder in folders if (folder / file_name).is_file()), None)
        if file is None:
            raise UserError(f"no {file_name} in or above {path}; it holds splits and captions")
        try:
            images = read_json_file(file, "caption file")["images"]
            split = spec.split or "test"
            chosen = [
                (
                    f"{image.get('filepath', '')}/{image['filename']}".lstrip("/"),
                    [s["raw"] for s in image["sentences"]],
                )
                for image in images
                if image["split"] == split
            ]
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{file} is not in Karpathy's form: {error!r}") from None
        if not chosen:
            raise UserError(f"{file} has no image in split {split!r}")
        roots = [path, *(path / place for place in places)]
        # Copies keep COCO's year folders or not.
        by_name = [(name.rpartition("/")[2], texts) for name, texts in chosen]
        for root, named in ((r, n) for n in (chosen, by_name) for r in roots):
            if (root / safe_relative(named[0][0], root, where=str(file))).is_file():
                break
        else:
            raise UserError(f"{chosen[0][0]} is not below {path}; set path = to the folder of images")
        pairs = sorted((safe_relative(name, root, where=str(file)), tuple(texts)) for name, texts in named)
        sizes = [size_of(root / name) for name, _ in pairs]
        rows = Rows(
            tuple(name for name, _ in pairs),
            np.full(len(pairs), NO_LABEL, dtype=np.int32),
            np.asarray(sizes, dtype=np.int64),
        )
        captions = tuple(texts for _, texts in pairs)
        return Found(root=root, rows=rows, layout=file_name, captions=captions)

    return read


RECIPES = (
    Recipe(
        name="coco-captions",
        title="COCO, Karpathy's test split",
        role="pairs",
        source="Lin et al., ECCV 2014; split: Karpathy and Fei-Fei, CVPR 2015",
        folders=("coco", "coco-captions", "mscoco"),
        expected=(5_000,),
        read=_karpathy("dataset_coco.json", "images"),
        packable=False,
        basis="the size that the split is known by: COCO 5k test",
        note='split = "val" takes the other one',
    ),
    Recipe(
        name="flickr30k",
        title="Flickr30k, Karpathy's test split",
        role="pairs",
        source="Young et al., TACL 2014; split: Karpathy and Fei-Fei, CVPR 2015",
        folders=("flickr30k", "flickr30k-images"),
        expected=(1_000,),
        read=_karpathy("dataset_flickr30k.json", "images", "flickr30k-images", "flickr30k_images"),
        packable=False,
        basis="the size that the split is known by: Flickr 1k test",
    ),
)
