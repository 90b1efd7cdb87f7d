"""Folders and manifests: labels by what names are, rows in one order, paths that stay in their folder."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from closerlook_common.errors import UserError
from extract.classes.spaces import ClassSpace, class_space
from extract.datasets import DatasetSpec, UnreadableImage, resolve
from extract.datasets.labels import label_map
from extract.datasets.listing import list_images, safe_relative

SMALL = ClassSpace("small", ("red fox", "arctic_fox", "Fennec-Fox", "dog"))


def touch(root: Path, *names: str) -> Path:
    """Write files that hold their own name."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def spec(path: Path, **keys: object) -> DatasetSpec:
    return DatasetSpec(name="mine", path=path, **keys)  # type: ignore[arg-type]


# ---- class folders


def test_wnid_folders_by_wnid_not_by_rank(tmp_path: Path) -> None:
    wnids = class_space("imagenet-1k").wnids
    assert wnids is not None
    chosen = [999, 3, 500]
    touch(tmp_path, *(f"{wnids[i]}/{i}.JPEG" for i in chosen))
    found = resolve(spec(tmp_path))
    assert found.card.class_space == "imagenet-1k"
    assert dict(zip(found.paths, found.labels.tolist(), strict=True)) == {f"{wnids[i]}/{i}.JPEG": i for i in chosen}


def test_numeric_folders_by_number_not_by_rank(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{i}/x.jpg" for i in range(1000)))
    found = resolve(spec(tmp_path))
    assert [int(path.partition("/")[0]) for path in found.paths] == found.labels.tolist()
    # The trap: sorted as text, rank and number agree for a dozen folders only.
    ranks = [sorted(map(str, range(1000))).index(str(i)) for i in range(1000)]
    assert sum(rank == i for i, rank in enumerate(ranks)) == 12


def test_a_few_numeric_folders_must_be_explained(tmp_path: Path) -> None:
    touch(tmp_path, "10/x.jpg", "2/x.jpg")
    with pytest.raises(UserError, match='classes = "imagenet-1k"'):
        resolve(spec(tmp_path))
    assert resolve(spec(tmp_path, classes="imagenet-1k")).labels.tolist() == [10, 2]


def test_folder_names_as_classes(tmp_path: Path) -> None:
    touch(tmp_path, "zebra fish/b.jpg", "ant/a.PNG", "ant/nested/deep/c.JpEg", "ant/notes.txt", "ant/._a.jpg")
    found = resolve(spec(tmp_path, classes="folders"))
    assert found.class_space is not None
    assert found.class_space.names == ("ant", "zebra fish")
    assert found.paths == ("ant/a.PNG", "ant/nested/deep/c.JpEg", "zebra fish/b.jpg")
    assert found.labels.tolist() == [0, 0, 1]
    assert found.card.n_classes == 2
    assert found.card.class_names == ("ant", "zebra fish")


def test_equal_lists_are_one_class_space(tmp_path: Path) -> None:
    touch(tmp_path, "a/b/x.jpg", "a/c/x.jpg")
    (tmp_path / "names.txt").write_text("b\n c \n\n", encoding="utf-8")
    listed = resolve(spec(tmp_path / "a", classes=("b", "c")))
    from_file = resolve(spec(tmp_path / "a", classes=str(tmp_path / "names.txt")))
    from_folders = resolve(spec(tmp_path / "a", classes="folders"))
    assert listed.card.class_space == from_file.card.class_space == from_folders.card.class_space
    assert resolve(spec(tmp_path / "a", classes=("c", "b"))).card.class_space != listed.card.class_space


def test_names_are_matched_loosely_but_uniquely() -> None:
    assert label_map(["Red_Fox", "arctic fox", "fennec fox", "dog"], SMALL) == {
        "Red_Fox": 0, "arctic fox": 1, "fennec fox": 2, "dog": 3,
    }  # fmt: skip


def test_a_name_of_two_classes_is_refused() -> None:
    with pytest.raises(UserError, match="name of several classes"):
        label_map(["missile"], class_space("imagenet-1k"), "name")


def test_misleading_numeric_names_are_asked_about() -> None:
    digits = ClassSpace("digits", ("1", "0"))
    with pytest.raises(UserError, match="'index' or 'name'"):
        label_map(["0", "1"], digits)
    assert label_map(["0", "1"], digits, "index") == {"0": 0, "1": 1}
    assert label_map(["0", "1"], digits, "name") == {"0": 1, "1": 0}
    # Where both readings give the same labels there is nothing to ask.
    assert label_map(["0", "1"], ClassSpace("digits", ("0", "1"))) == {"0": 0, "1": 1}


def test_the_stranger_is_named_with_its_neighbour() -> None:
    with pytest.raises(UserError, match=r"'dgo'.*did you mean dog"):
        label_map(["red fox", "dgo"], SMALL)
    with pytest.raises(UserError, match="n99999999"):
        label_map(["n01440764", "n99999999"], class_space("imagenet-1k"))


def test_unknown_wnids_are_not_silently_own_classes(tmp_path: Path) -> None:
    touch(tmp_path, "n01440764/x.jpg", "n99999999/x.jpg")
    with pytest.raises(UserError, match="n99999999"):
        resolve(spec(tmp_path))
    assert resolve(spec(tmp_path, classes="folders")).labels.tolist() == [0, 1]


@given(st.lists(st.text("abc019_- n", min_size=1, max_size=9), min_size=1, max_size=8, unique=True))
def test_auto_is_one_of_the_readings_or_an_error(names: list[str]) -> None:
    space = ClassSpace("s", ("a", "b c", "0", "1", "n01440764"), ("n01440764", "n00000001", "n00000002", "a", "b"))
    readings = []
    for kind in ("wnid", "index", "name"):
        try:
            readings.append(label_map(names, space, kind))
        except UserError:
            continue
    distinct = {tuple(sorted(reading.items())) for reading in readings}
    if len(distinct) == 1:
        assert label_map(names, space) == readings[0]
    else:
        with pytest.raises(UserError):
            label_map(names, space)


# ---- order, litter, links


def test_order_is_independent_of_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{c}/{i}.{suffix}" for c in ("b", "a", "a b", "Z") for i in (10, 2, 1) for suffix in ("JPG", "png")]
    touch(tmp_path, *names)
    once = resolve(spec(tmp_path, classes="folders"))
    scandir = os.scandir

    def shuffled(path: str | Path) -> object:
        with scandir(path) as entries:
            listed = list(entries)
        random.Random(len(listed)).shuffle(listed)
        return _Entries(listed)

    monkeypatch.setattr(os, "scandir", shuffled)
    again = resolve(spec(tmp_path, classes="folders"))
    assert once.paths == again.paths == tuple(sorted(names))
    assert once.labels.tolist() == again.labels.tolist()
    assert once.digest == again.digest


class _Entries(list):  # type: ignore[type-arg]
    """What os.scandir returns: iterable and a context."""

    def __enter__(self) -> _Entries:
        return self

    def __exit__(self, *_: object) -> None: ...


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    touch(tmp_path, "store/dog/x.jpg", "data/cat/y.jpg")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "store" / "dog")
    (tmp_path / "data" / "cat" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "cat" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    listed = dict(list_images(tmp_path / "data"))
    assert set(listed) == {"cat/y.jpg", "dog/x.jpg", "cat/gone.jpg"}
    assert listed["cat/gone.jpg"] == -1


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "imagenet-a").mkdir()
    with pytest.raises(UserError, match="did you mean imagenet-a"):
        resolve(spec(tmp_path / "imagnet-a"))
    with pytest.raises(UserError, match="no images"):
        resolve(spec(tmp_path / "imagenet-a", classes="folders"))


def test_stray_images_beside_class_folders_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "dog/x.jpg", "stray.jpg")
    with pytest.raises(UserError, match=r"stray\.jpg"):
        resolve(spec(tmp_path))
    assert resolve(spec(tmp_path, labels="none")).labels.tolist() == [-1, -1]


def test_flat_folders_are_ood(tmp_path: Path) -> None:
    touch(tmp_path, "2.jpg", "10.jpg")
    found = resolve(spec(tmp_path))
    assert found.card.role == "ood"
    assert found.labels.tolist() == [-1, -1]
    assert found.card.n_classes is None
    assert found.class_space is None


def test_an_ood_folder_keeps_its_folders_as_a_column(tmp_path: Path) -> None:
    touch(tmp_path, "Caracal caracal/1.jpg", "n01440764/2.jpg")
    found = resolve(spec(tmp_path, role="ood"))
    assert found.labels.tolist() == [-1, -1]
    assert found.metadata["folder"].tolist() == ["Caracal caracal", "n01440764"]


# ---- reading, digest, per class


def test_read_and_missing_file(tmp_path: Path) -> None:
    touch(tmp_path, "a b/x.jpg")
    found = resolve(spec(tmp_path, classes="folders"))
    assert found.read(0) == b"a b/x.jpg"
    (tmp_path / "a b" / "x.jpg").unlink()
    with pytest.raises(UnreadableImage, match="missing"):
        found.open(0)


def test_digest_sees_path_label_size_and_border(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.jpg", "b/y.jpg")
    digests = {
        resolve(spec(tmp_path, classes=("a", "b"))).digest,
        resolve(spec(tmp_path, classes=("b", "a"))).digest,
    }
    digests.add(resolve(spec(tmp_path, classes=("a", "b"), border_crop=2)).digest)
    (tmp_path / "a" / "x.jpg").write_bytes(b"longer than it was")
    digests.add(resolve(spec(tmp_path, classes=("a", "b"))).digest)
    (tmp_path / "a" / "x.jpg").rename(tmp_path / "a" / "z.jpg")
    digests.add(resolve(spec(tmp_path, classes=("a", "b"))).digest)
    assert len(digests) == 5


def test_per_class_is_stable_and_nested(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{c}/{i}.jpg" for c in "ab" for i in range(9)), "c/only.jpg")
    few, more = (resolve(spec(tmp_path, classes="folders", per_class=n)) for n in (2, 5))
    assert np.bincount(few.labels).tolist() == [2, 2, 1]
    assert set(few.paths) < set(more.paths)
    assert few.paths == tuple(sorted(few.paths))
    touch(tmp_path, "d/new.jpg")
    assert set(few.paths) < set(resolve(spec(tmp_path, classes="folders", per_class=2)).paths)
    assert resolve(spec(tmp_path, classes="folders", per_class=2, seed=1)).paths != few.paths


def test_masks_and_maps_by_index_wnid_and_name(tmp_path: Path) -> None:
    touch(tmp_path, "n01440764/x.jpg")
    found = resolve(spec(tmp_path, class_mask=("goldfish", "n01440764", 7)))
    assert found.card.class_mask == (0, 1, 7)
    with pytest.raises(UserError, match="never be predicted"):
        resolve(spec(tmp_path, class_mask=("goldfish",)))
    with pytest.raises(UserError, match="did you mean goldfish"):
        resolve(spec(tmp_path, class_mask=("golfdish", 0)))
    grouped = resolve(spec(tmp_path, class_map=((0, "goldfish"), (5,))))
    assert grouped.card.class_map == ((0, 1), (5,))
    assert grouped.card.n_classes == 2
    touch(tmp_path, "n02056570/x.jpg")
    with pytest.raises(UserError, match="label 145 is not a super-class: class_map has 2"):
        resolve(spec(tmp_path, class_map=((0, "goldfish"), (5,))))


# ---- manifests


def test_manifest_columns(tmp_path: Path) -> None:
    touch(tmp_path, "im/b.jpg", "im/a.PNG", "im/c d.jpg")
    (tmp_path / "m.csv").write_text(
        "label,path,pose,score,flag,year\n1,b.jpg,left,0.5,true,2001\n0,a.PNG,,1.5,false,1999\n,c d.jpg,right,,true,\n",
        encoding="utf-8",
    )
    found = resolve(spec(tmp_path / "im", manifest=tmp_path / "m.csv", classes=("x", "y")))
    assert found.paths == ("a.PNG", "b.jpg", "c d.jpg")
    assert found.labels.tolist() == [0, 1, -1]
    assert found.metadata["pose"].tolist() == ["", "left", "right"]
    assert found.metadata["flag"].tolist() == [False, True, True]
    np.testing.assert_array_equal(found.metadata["score"], [1.5, 0.5, np.nan])
    np.testing.assert_array_equal(found.metadata["year"], [1999, 2001, np.nan])
    assert {name: column.dtype.kind for name, column in found.metadata.items()} == {
        "pose": "O", "score": "f", "flag": "b", "year": "f",
    }  # fmt: skip


@pytest.mark.parametrize("values", [["n01443537", "n01440764"], ["goldfish", "tench"], [1, 0]])
def test_manifest_labels_by_wnid_name_and_index(tmp_path: Path, values: list[object]) -> None:
    touch(tmp_path, "b.jpg", "a.jpg")
    pl.DataFrame({"path": ["b.jpg", "a.jpg"], "label": values}).write_parquet(tmp_path / "m.parquet")
    found = resolve(spec(tmp_path, manifest=tmp_path / "m.parquet", classes="imagenet-1k"))
    assert found.labels.tolist() == [0, 1]
    assert found.card.role == "id"


@pytest.mark.parametrize("path", ["file_name", "filename", "Image", "image_path", "path"])
@pytest.mark.parametrize("label", ["label", "class", "Target", "wnid"])
def test_manifest_columns_by_their_usual_names(tmp_path: Path, path: str, label: str) -> None:
    root = touch(tmp_path / "images", "b.png", "a.png")
    (tmp_path / "m.csv").write_text(f"{path},{label}\nb.png,n01440764\na.png,n01443537\n")
    dataset = resolve(spec(root, manifest=tmp_path / "m.csv"))
    assert (dataset.image_ids, dataset.labels.tolist()) == (("a.png", "b.png"), [1, 0])
    (tmp_path / "m.csv").write_text("where,what\nb.png,n01440764\n")
    with pytest.raises(UserError, match=r"no column 'path' among where, what, nor file_name, filename"):
        resolve(spec(root, manifest=tmp_path / "m.csv"))


def test_manifest_missing_files(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    pl.DataFrame({"path": ["a.jpg", "gone.jpg"]}).write_csv(tmp_path / "m.csv")
    found = resolve(spec(tmp_path, manifest=tmp_path / "m.csv"))
    assert found.sizes.tolist() == [5, -1]
    assert "1 image named by m.csv missing" in found.problems[0]
    pl.DataFrame({"path": ["no.jpg", "gone.jpg"]}).write_csv(tmp_path / "m.csv")
    with pytest.raises(UserError, match="none of its 2 images"):
        resolve(spec(tmp_path, manifest=tmp_path / "m.csv"))


@pytest.mark.parametrize(
    "path", ["../secret.jpg", "a/../../secret.jpg", "/etc/passwd", "", "..\\secret.jpg", "C:\\x.jpg", "."]
)
def test_manifest_paths_stay_in_their_folder(tmp_path: Path, path: str) -> None:
    touch(tmp_path, "secret.jpg", "im/a.jpg")
    pl.DataFrame({"path": ["a.jpg", path]}).write_parquet(tmp_path / "m.parquet")
    with pytest.raises(UserError, match="row 2"):
        resolve(spec(tmp_path / "im", manifest=tmp_path / "m.parquet"))


def test_links_out_of_the_folder_need_leave(tmp_path: Path) -> None:
    touch(tmp_path, "secret.jpg", "im/a.jpg")
    (tmp_path / "im" / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    pl.DataFrame({"path": ["a.jpg", "out.jpg"]}).write_csv(tmp_path / "m.csv")
    with pytest.raises(UserError, match="follow_links = true"):
        resolve(spec(tmp_path / "im", manifest=tmp_path / "m.csv"))
    found = resolve(spec(tmp_path / "im", manifest=tmp_path / "m.csv", follow_links=True))
    assert found.read(1) == b"secret.jpg"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=0, max_size=30))
def test_safe_relative_never_leaves(tmp_path: Path, text: str) -> None:
    try:
        relative = safe_relative(text, tmp_path)
    except UserError:
        return
    assert (tmp_path / relative).resolve().is_relative_to(tmp_path.resolve())
    assert relative
    assert not relative.startswith("/")
    assert ".." not in relative.split("/")


def test_manifest_refuses_doubles_and_bad_columns(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg")
    pl.DataFrame({"path": ["a.jpg", "./a.jpg"]}).write_csv(tmp_path / "m.csv")
    with pytest.raises(UserError, match="more than once"):
        resolve(spec(tmp_path, manifest=tmp_path / "m.csv"))
    pl.DataFrame({"paths": ["a.jpg"]}).write_csv(tmp_path / "m.csv")
    with pytest.raises(UserError, match="did you mean paths"):
        resolve(spec(tmp_path, manifest=tmp_path / "m.csv"))
    with pytest.raises(UserError, match=r"did you mean m\.csv"):
        resolve(spec(tmp_path, manifest=tmp_path / "mm.csv"))
    pl.DataFrame({"path": ["a.jpg"], "label": [0.5]}).write_parquet(tmp_path / "m.parquet")
    with pytest.raises(UserError, match="not fractions"):
        resolve(spec(tmp_path, manifest=tmp_path / "m.parquet", classes=("x",)))


def test_captions_from_repeated_rows_and_from_lists(tmp_path: Path) -> None:
    touch(tmp_path, "b.jpg", "a.jpg")
    rows = {
        "path": ["b.jpg", "a.jpg", "b.jpg"],
        "caption": ["b one", "a one", "b two"],
        "split": ["t", "u", "t"],
    }
    pl.DataFrame(rows).write_csv(tmp_path / "m.csv")
    pl.DataFrame({"path": ["b.jpg", "a.jpg"], "caption": [["b one", "b two"], ["a one"]]}).write_parquet(
        tmp_path / "m.parquet"
    )
    repeated = resolve(spec(tmp_path, manifest=tmp_path / "m.csv", captions="caption"))
    listed = resolve(spec(tmp_path, manifest=tmp_path / "m.parquet", captions="caption"))
    assert repeated.captions == listed.captions == (("a one",), ("b one", "b two"))
    assert repeated.card.role == listed.card.role == "pairs"
    assert repeated.digest == listed.digest
    assert repeated.metadata["split"].tolist() == ["u", "t"]
    pl.DataFrame({**rows, "caption": ["b one", None, "b two"]}).write_csv(tmp_path / "m.csv")
    with pytest.raises(UserError, match=r"'a\.jpg' has no caption"):
        resolve(spec(tmp_path, manifest=tmp_path / "m.csv", captions="caption"))
