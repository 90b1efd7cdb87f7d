"""Published datasets: every layout in miniature, labels by meaning, masks, maps and counts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from miniature_copies import listed, shuffled_directories, touch  # noqa: F401  # the fixture is used by itself

from closerlook_common.errors import UserError
from extract.classes.spaces import class_space
from extract.datasets import DatasetSpec, resolve
from extract.datasets.maps import class_map, index_list
from extract.datasets.recipes import all_recipes, recipe_for
from extract.datasets.recipes.shifts import CORRUPTIONS, EXTRA_CORRUPTIONS

WNIDS = class_space("imagenet-1k").wnids or ()


# ---- what every recipe must have


def test_every_recipe_states_its_paper_and_what_its_counts_rest_on() -> None:
    for name, recipe in all_recipes().items():
        assert re.search(r"\b(19|20)\d\d\b", recipe.source), name
        assert recipe.basis or "no number is published" in recipe.note, name


def test_every_recipe_of_the_study_is_there() -> None:
    recipes = all_recipes()
    names = [
        "imagenet-val",
        "imagenet-real",
        "imagenet-train",
        "imagenet-v2-a",
        "imagenet-v2-b",
        "imagenet-v2-c",
        "imagenet-a",
        "imagenet-r",
        "imagenet-sketch",
        "objectnet",
        "imagenet-vid-robust-pm0",
        "imagenet-vid-robust-pm10",
        "ytbb-robust-pm0",
        "ytbb-robust-pm10",
        "stylized-imagenet",
        "cue-conflict",
        "imagenet-cartoon",
        "imagenet-drawing",
        "inaturalist",
        "sun",
        "places",
        "textures",
        "textures-43",
        "textures-test",
        "imagenet-o",
        "openimage-o",
        "ssb-hard",
        "ninco",
        "coco-captions",
        "flickr30k",
    ]
    assert set(names) <= set(recipes)
    corruptions = [*(c for group in CORRUPTIONS.values() for c in group), *EXTRA_CORRUPTIONS]
    assert len(corruptions) == 19
    assert {f"imagenet-c-{c}-{s}" for c in corruptions for s in range(1, 6)} == set(recipes) - set(names)
    published = {
        "imagenet-val": 50_000, "imagenet-real": 46_837, "imagenet-a": 7_500, "imagenet-r": 30_000,
        "imagenet-sketch": 50_889, "imagenet-v2-b": 10_000, "cue-conflict": 1_280, "imagenet-o": 2_000,
        "openimage-o": 17_632, "ninco": 5_879, "ssb-hard": 49_000, "textures": 5_640, "textures-43": 5_160,
        "textures-test": 1_880, "imagenet-vid-robust-pm10": 22_179, "imagenet-train": 1_281_167,
    }  # fmt: skip
    for name, count in published.items():
        assert recipes[name].expected == (count,), name


@pytest.mark.parametrize("name", ["imagenet-x", "imagenet-c", "imagenet-v2", "imagenet-vid-robust"])
def test_names_that_are_several_or_none_are_explained(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"imagenet-val|two datasets|three|one dataset a"):
        recipe_for(DatasetSpec(name=name, path=tmp_path))
    assert recipe_for(DatasetSpec(name=name, path=tmp_path, recipe="none")) is None


def test_a_table_with_labels_of_its_own_is_no_recipe(tmp_path: Path) -> None:
    assert recipe_for(DatasetSpec(name="imagenet-a", path=tmp_path)) is not None
    assert recipe_for(DatasetSpec(name="imagenet-a", path=tmp_path, labels="wnid")) is None
    assert recipe_for(DatasetSpec(name="sun", path=tmp_path, classes="folders")) is None
    assert recipe_for(DatasetSpec(name="mine", path=tmp_path, recipe="imagenet-a")) is not None
    with pytest.raises(UserError, match="did you mean imagenet-a"):
        recipe_for(DatasetSpec(name="mine", path=tmp_path, recipe="imagnet-a"))


def test_a_wrong_count_stops_with_the_counts(tmp_path: Path) -> None:
    touch(tmp_path, f"{WNIDS[6]}/x.jpg")
    with pytest.raises(UserError, match=r"1 image .* has 7,500 \(.*\); set allow_count_mismatch = true"):
        resolve(DatasetSpec(name="imagenet-a", path=tmp_path))
    assert "1 image instead of 7,500" in listed("imagenet-a", tmp_path).problems[0]


# ---- shifts in ImageNet's classes


@pytest.mark.parametrize("wrap", ["", "imagenetv2-matched-frequency-format-val/"])
def test_v2_numeric_folders_are_indices(tmp_path: Path, wrap: str) -> None:
    touch(tmp_path, *(f"{wrap}{i}/{i:x}.jpeg" for i in range(0, 1000, 9)))
    found = listed("imagenet-v2-b", tmp_path)
    assert found.labels.tolist() == [int(path.partition("/")[0]) for path in found.paths]
    assert found.card.role == "shift"
    assert found.card.shift_of == "imagenet-val"


def test_v2_old_tarball_with_wnids(tmp_path: Path) -> None:
    touch(tmp_path, f"{WNIDS[10]}/a.jpeg", f"{WNIDS[2]}/b.jpeg")
    assert sorted(listed("imagenet-v2-c", tmp_path).labels.tolist()) == [2, 10]


@pytest.mark.parametrize(("name", "letter"), [("imagenet-a", "a"), ("imagenet-r", "r")])
def test_a_and_r_keep_their_200_classes(tmp_path: Path, name: str, letter: str) -> None:
    mask = index_list(letter)
    touch(tmp_path, "README.txt", *(f"{WNIDS[i]}/x.jpg" for i in mask))
    found = listed(name, tmp_path)
    assert found.card.class_mask == mask
    assert len(mask) == 200
    assert found.labels.tolist() == list(mask)
    outside = next(i for i in range(1000) if i not in mask)
    touch(tmp_path, f"{WNIDS[outside]}/x.jpg")
    with pytest.raises(UserError, match="outside class_mask"):
        listed(name, tmp_path)


def test_a_with_ranks_for_folders_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{rank}/x.jpg" for rank in range(200)))
    with pytest.raises(UserError, match="outside class_mask"):
        listed("imagenet-a", tmp_path)


@pytest.mark.parametrize("group", ["", "blur/", "anything/"])
def test_imagenet_c_is_a_finished_crop(tmp_path: Path, group: str) -> None:
    touch(tmp_path, f"{group}zoom_blur/3/{WNIDS[5]}/x.JPEG", f"{group}zoom_blur/2/{WNIDS[6]}/x.JPEG")
    found = listed("imagenet-c-zoom_blur-3", tmp_path)
    assert found.labels.tolist() == [5]
    assert found.already_cropped == 224
    with pytest.raises(UserError, match="no folders named by WordNet id"):
        listed("imagenet-c-fog-1", tmp_path)


def test_the_class_spaces_own_traps(tmp_path: Path) -> None:
    touch(tmp_path, f"{WNIDS[657]}/x.jpg", f"{WNIDS[744]}/y.jpg")  # two classes called missile
    assert listed("imagenet-sketch", tmp_path).labels.tolist() == [657, 744]


# ---- coarser classes


def test_objectnet_folders_map_and_border(tmp_path: Path) -> None:
    members = class_map("objectnet")
    touch(tmp_path / "objectnet-1.0/images", *(f"{name}/1 {name}.PNG" for name in members), "tomato/x.png")
    found = listed("objectnet", tmp_path)
    assert len(found) == 113
    assert found.card.class_map == tuple(tuple(sorted(m)) for m in members.values())
    assert found.card.class_map_rule == "restrict"
    assert found.card.n_classes == 113
    assert [list(members)[label] for label in found.labels] == found.metadata["folder"].tolist()
    assert found.border_crop == 2
    assert listed("objectnet", tmp_path, class_map_rule="max").card.class_map_rule == "max"
    own = listed("objectnet", tmp_path, classes="folders")
    assert own.class_space is not None
    assert own.card.class_map is None
    assert own.class_space.id == "objectnet-113"
    assert own.class_space.names[own.labels[0]] == own.metadata["folder"][0].replace("_", " ")


def test_objectnet_folders_with_spaces(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{name.replace('_', ' ')}/x.png" for name in class_map("objectnet")))
    assert sorted(listed("objectnet", tmp_path).labels.tolist()) == list(range(113))


def _cues(root: Path) -> list[str]:
    names = list(class_map("cue-conflict"))
    pairs = [(shape, texture) for shape in names for texture in (shape, "dog", "knife")]
    return [f"{shape}/{shape}{i}-{texture}{i + 1}.png" for i, (shape, texture) in enumerate(pairs)]


def test_cue_conflict_shape_and_texture(tmp_path: Path) -> None:
    touch(tmp_path, *_cues(tmp_path))
    found = listed("cue-conflict", tmp_path)
    names = list(class_map("cue-conflict"))
    assert [names[label] for label in found.labels] == found.metadata["shape"].tolist()
    assert all(f"-{texture}" in path for path, texture in zip(found.paths, found.metadata["texture"], strict=True))
    np.testing.assert_array_equal(found.metadata["conflict"], found.metadata["shape"] != found.metadata["texture"])
    assert 0 < int(found.metadata["conflict"].sum()) < len(found)
    assert found.card.class_map_rule == "mean"
    touch(tmp_path, "dog/dog1.png")
    with pytest.raises(UserError, match="<shape><number>-<texture><number>"):
        listed("cue-conflict", tmp_path)


def test_cue_conflict_members_are_what_their_names_say() -> None:
    names = class_space("imagenet-1k").names
    members = class_map("cue-conflict")
    assert len(members) == 16
    assert sum(map(len, members.values())) == len({i for m in members.values() for i in m}) == 207
    words = {
        "bear": "bear",
        "cat": "cat",
        "clock": "clock",
        "chair": "chair",
        "elephant": "elephant",
        "bottle": "b",
    }
    for category, word in words.items():
        fitting = [word in names[i] for i in members[category]]
        assert np.mean(fitting) >= 0.5, category
    assert all(WNIDS[i].startswith(("n0208", "n0209", "n0210", "n0211")) for i in members["dog"])


def _videos(root: Path) -> tuple[dict[str, list[int]], dict[str, list[str]]]:
    labels = {f"val/v{v}/{f:06}.JPEG": [v] if f else [v, 29] for v in (26, 4) for f in range(3)}
    sets = {f"val/v{v}/{1:06}.JPEG": [f"val/v{v}/{f:06}.JPEG" for f in (0, 2)] for v in (26, 4)}
    touch(root, *labels)
    (root / "metadata").mkdir()
    (root / "metadata" / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    (root / "metadata" / "pmsets.json").write_text(json.dumps(sets), encoding="utf-8")
    return labels, sets


@pytest.mark.parametrize("below", ["", "val"])
def test_vid_robust_anchors_groups_and_label_sets(tmp_path: Path, below: str) -> None:
    labels, sets = _videos(tmp_path)
    anchors = listed("imagenet-vid-robust-pm0", tmp_path / below)
    assert anchors.paths == tuple(sorted(sets))
    assert anchors.card.n_classes == 30
    everything = listed("imagenet-vid-robust-pm10", tmp_path / below)
    assert everything.paths == tuple(sorted(labels))
    assert everything.metadata["label_set"].tolist() == [" ".join(map(str, labels[p])) for p in everything.paths]
    for path, anchor, is_anchor in zip(
        everything.paths, everything.metadata["anchor"], everything.metadata["is_anchor"], strict=True
    ):
        assert is_anchor == (path == anchor)
        assert is_anchor or path in sets[anchor]


def test_vid_robust_names_what_is_missing(tmp_path: Path) -> None:
    labels, sets = _videos(tmp_path)
    (tmp_path / next(iter(sets[next(iter(sets))]))).unlink()
    with pytest.raises(UserError, match=r"1 of the 6 frames that labels\.json"):
        resolve(DatasetSpec(name="imagenet-vid-robust-pm10", path=tmp_path))
    (tmp_path / "metadata" / "labels.json").write_text(json.dumps({**labels, next(iter(sets)): [30]}), encoding="utf-8")
    with pytest.raises(UserError, match="labels from 0 to 29"):
        listed("imagenet-vid-robust-pm0", tmp_path)
    (tmp_path / "metadata" / "labels.json").unlink()
    with pytest.raises(UserError, match=r"no labels\.json"):
        listed("imagenet-vid-robust-pm0", tmp_path)


def test_video_frames_stay_in_their_folder(tmp_path: Path) -> None:
    touch(tmp_path, "secret.jpg", "data/a/x.jpg")
    (tmp_path / "data" / "labels.json").write_text(json.dumps({"../secret.jpg": [0]}), encoding="utf-8")
    (tmp_path / "data" / "pmsets.json").write_text(json.dumps({"../secret.jpg": []}), encoding="utf-8")
    with pytest.raises(UserError, match="leaves the folder"):
        listed("imagenet-vid-robust-pm0", tmp_path / "data")


def test_ytbb_has_classes_without_members(tmp_path: Path) -> None:
    _videos(tmp_path)
    (tmp_path / "metadata" / "labels.json").write_text(
        json.dumps({f"val/v{v}/{f:06}.JPEG": [4] for v in (26, 4) for f in range(3)}), encoding="utf-8"
    )
    found = listed("ytbb-robust-pm0", tmp_path)
    assert found.card.class_map is not None
    assert len(found.card.class_map) == 24
    assert sum(1 for members in found.card.class_map if members) == 19
    assert len({i for members in found.card.class_map for i in members}) == 231


def test_maps_have_the_published_shapes() -> None:
    objectnet, vid = class_map("objectnet"), class_map("vid-robust")
    members = [i for m in objectnet.values() for i in m]
    assert (len(objectnet), len(members), len(set(members))) == (113, 125, 125)
    assert sum(len(m) > 1 for m in objectnet.values()) == 9
    assert (len(vid), len({i for m in vid.values() for i in m})) == (30, 288)
    names = class_space("imagenet-1k").names
    for table in (objectnet, vid):
        for category in ("umbrella", "banana", "zebra", "giant_panda", "lion"):
            if category in table:
                assert [names[i] for i in table[category]] == [category.replace("_", " ")]
    assert len(set(index_list("a")) & set(index_list("r"))) == 86


# ---- out of distribution, captions


def test_ood_labels_are_none_whatever_the_folders_say(tmp_path: Path) -> None:
    touch(tmp_path / "o/imagenet-o", f"{WNIDS[1]}/a.JPEG", f"{WNIDS[2]}/b.JPEG")
    touch(tmp_path / "n/NINCO_OOD_classes", "Caracal caracal caracal/Caracal caracal caracal_000.jpg")
    touch(tmp_path / "i/images", "b.JPG", "a.jpg")
    for name, folder in (("imagenet-o", "o"), ("ninco", "n"), ("inaturalist", "i")):
        found = listed(name, tmp_path / folder)
        assert set(found.labels.tolist()) == {-1}
        assert found.card.role == "ood"
        assert found.card.class_space == "imagenet-1k"
        assert found.card.n_classes is None
    assert listed("ninco", tmp_path / "n").card.distance == "near"
    assert listed("inaturalist", tmp_path / "i").paths == ("a.jpg", "b.JPG")


def test_textures_come_in_three_sets(tmp_path: Path) -> None:
    touch(tmp_path / "dtd/images", "banded/banded_1.jpg", "bubbly/bubbly_1.jpg", "waffled/waffled_1.jpg")
    (tmp_path / "dtd" / "labels").mkdir()
    (tmp_path / "dtd" / "labels" / "test1.txt").write_text("banded/banded_1.jpg\n", encoding="utf-8")
    for path in (tmp_path / "dtd", tmp_path / "dtd" / "images"):
        assert len(listed("textures", path)) == 3
        assert listed("textures-43", path).paths == ("banded/banded_1.jpg", "waffled/waffled_1.jpg")
        assert listed("textures-test", path).paths == ("banded/banded_1.jpg",)


@pytest.mark.parametrize("keeps_folders", [True, False])
def test_karpathy_splits_and_captions(tmp_path: Path, *, keeps_folders: bool) -> None:
    def image(name: str, split: str, *texts: str) -> dict[str, object]:
        return {
            "filepath": "val2014",
            "filename": name,
            "split": split,
            "sentences": [{"raw": t} for t in texts],
        }

    entries = [
        image("2.jpg", "test", "two", "deux"),
        image("1.jpg", "test", "one"),
        image("3.jpg", "train", "three"),
    ]
    (tmp_path / "dataset_coco.json").write_text(json.dumps({"images": entries}), encoding="utf-8")
    touch(tmp_path, *(f"{'val2014/' if keeps_folders else ''}{i}.jpg" for i in (1, 2, 3)))
    found = listed("coco-captions", tmp_path)
    assert [path.rpartition("/")[2] for path in found.paths] == ["1.jpg", "2.jpg"]
    assert found.captions == (("one",), ("two", "deux"))
    assert found.card.role == "pairs"
    assert listed("coco-captions", tmp_path, split="train").captions == (("three",),)


# ---- the reference


def test_train_is_a_reference(tmp_path: Path) -> None:
    touch(tmp_path / "train", *(f"{WNIDS[i]}/{WNIDS[i]}_{j}.JPEG" for i in (7, 2) for j in range(4)))
    found = listed("imagenet-train", tmp_path)
    assert found.card.role == "reference"
    assert np.bincount(found.labels)[[2, 7]].tolist() == [4, 4]
