"""ImageNet-val in every layout that people keep: one dataset, whatever the folders are called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from miniature_copies import listed, shuffled_directories, touch  # noqa: F401  # the fixture is used by itself
from scipy.io import savemat

from closerlook_common.errors import UserError
from extract.classes.spaces import class_space
from extract.datasets.maps import real_labels

WNIDS = class_space("imagenet-1k").wnids or ()


# ---- ImageNet-val

VAL = {
    "ILSVRC2012_val_00000003.JPEG": 230,
    "ILSVRC2012_val_00000001.JPEG": 65,
    "ILSVRC2012_val_00000010.JPEG": 332,
}
"""Three images of ImageNet-val and their classes."""


def _wnid_folders(root: Path) -> Path:
    return touch(root / "val", *(f"{WNIDS[label]}/{name}" for name, label in VAL.items()))


def _index_folders(root: Path) -> Path:
    return touch(root / "val", *(f"{label}/{name}" for name, label in VAL.items()))


def _kaggle(root: Path) -> Path:
    images = touch(root / "ILSVRC/Data/CLS-LOC/val", *VAL)
    rows = [f"{Path(name).stem},{WNIDS[label]} 1 2 3 4 {WNIDS[0]} 1 2 3 4" for name, label in VAL.items()]
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]), encoding="utf-8")
    return images


def _list(root: Path) -> Path:
    images = touch(root / "val", *VAL)
    (root / "val.txt").write_text("".join(f"{n} {label}\n" for n, label in VAL.items()), encoding="utf-8")
    return images


def _synsets(root: Path) -> Path:
    images = touch(root / "val", *VAL)
    lines = [WNIDS[999]] * 50
    for name, label in VAL.items():
        lines[int(name[15:23]) - 1] = WNIDS[label]
    (root / "imagenet_2012_validation_synset_labels.txt").write_text("\n".join(lines), encoding="utf-8")
    return images


def _devkit(root: Path) -> Path:
    """Write a ground truth that counts backwards, as it may: only meta.mat shows it."""
    images = touch(root / "val", *VAL)
    kit = root / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    truth = [1] * 50
    for name, label in VAL.items():
        truth[int(name[15:23]) - 1] = 1000 - label
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("\n".join(map(str, truth)), encoding="utf-8")
    synsets = np.zeros((1000, 1), dtype=[("ILSVRC2012_ID", object), ("WNID", object)])
    for index, wnid in enumerate(WNIDS):
        synsets[index, 0] = (1000 - index, wnid)
    savemat(kit / "meta.mat", {"synsets": synsets})
    return images


def _annotations(root: Path) -> Path:
    images = touch(root / "Data/CLS-LOC/val", *VAL)
    place = root / "Annotations/CLS-LOC/val"
    place.mkdir(parents=True)
    for name, label in VAL.items():
        text = f"<annotation><filename>x</filename><object><name>{WNIDS[label]}</name></object></annotation>"
        (place / f"{Path(name).stem}.xml").write_text(text, encoding="utf-8")
    return images


LAYOUTS = [_wnid_folders, _index_folders, _kaggle, _list, _synsets, _devkit, _annotations]


@pytest.mark.parametrize("build", LAYOUTS)
@pytest.mark.parametrize("from_above", [False, True], ids=["at the images", "above them"])
def test_val_in_every_layout_is_the_same_dataset(
    tmp_path: Path, build: Callable[[Path], Path], *, from_above: bool
) -> None:
    images = build(tmp_path)
    found = listed("imagenet-val", tmp_path if from_above else images)
    assert found.image_ids == tuple(sorted(VAL))
    assert found.labels.tolist() == [VAL[name] for name in sorted(VAL)]
    assert found.metadata["real_labels"].tolist() == [
        " ".join(map(str, real_labels()[int(name[15:23]) - 1])) for name in sorted(VAL)
    ]
    assert Path(found.read(0).decode()).name == found.image_ids[0]


def test_val_layouts_share_one_digest(tmp_path: Path) -> None:
    digests = set()
    for index, build in enumerate(LAYOUTS):
        images = build(tmp_path / str(index))
        for file in images.rglob("*.JPEG"):
            file.write_bytes(b"same bytes")
        digests.add(listed("imagenet-val", images).digest)
    assert len(digests) == 1


def test_flat_val_without_labels_names_the_files_that_would_help(tmp_path: Path) -> None:
    images = touch(tmp_path / "val", *VAL)
    with pytest.raises(UserError, match=r"LOC_val_solution\.csv, val\.txt"):
        listed("imagenet-val", images)
    (tmp_path / "val.txt").write_text("ILSVRC2012_val_00000001.JPEG 65\n", encoding="utf-8")
    with pytest.raises(UserError, match="says nothing of ILSVRC2012_val_0000"):
        listed("imagenet-val", images)
    (tmp_path / "val.txt").unlink()
    (tmp_path / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"meta\.mat"):
        listed("imagenet-val", images)


def test_real_labels_drop_the_empty_and_keep_the_sets(tmp_path: Path) -> None:
    empty = next(i for i, labels in enumerate(real_labels()) if not labels)
    several = next(i for i, labels in enumerate(real_labels()) if len(labels) > 1)
    names = [f"ILSVRC2012_val_{i + 1:08}.JPEG" for i in (empty, several)]
    touch(tmp_path, *(f"{WNIDS[0]}/{name}" for name in names))
    found = listed("imagenet-real", tmp_path)
    assert found.image_ids == (names[1],)
    assert found.metadata["label_set"].tolist() == [" ".join(map(str, real_labels()[several]))]
    assert found.labels.tolist() == [real_labels()[several][0]]
