"""Data sets of Hugging Face as its own library writes them: rows, labels and pixels as timm's reader gives them."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import datasets as hf
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

from closerlook_common.errors import UserError
from extract.classes.spaces import class_space
from extract.datasets import DatasetSpec, UnreadableImage, resolve
from extract.datasets.base import Dataset
from extract.datasets.maps import index_list, real_labels

IMAGENET = class_space("imagenet-1k")
WNIDS = IMAGENET.wnids or ()


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hf.config, "HF_DATASETS_OFFLINE", True)
    hf.disable_progress_bars()


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def table(labels: list[int], names: list[str], files: list[str] | None = None) -> hf.Dataset:
    """Image number v is a picture of colour v."""
    features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=names), "place": hf.Value("string")})
    rows = {
        "image": [
            {"bytes": png(value), "path": files[value] if files else f"{value}.png"} for value in range(len(labels))
        ],
        "label": labels,
        "place": [f"p{value}" for value in range(len(labels))],
    }
    return hf.Dataset.from_dict(rows, features=features)


def listed(path: Path, name: str = "mine", **keys: object) -> Dataset:
    return resolve(DatasetSpec(name=name, path=path, allow_count_mismatch=True, **keys))  # type: ignore[arg-type]


PETS = ["cat", "hot dog", "fox", "newt"]


def _saved(set_: hf.Dataset, place: Path) -> Path:
    set_.save_to_disk(place / "saved", num_shards=min(3, len(set_)))
    return place / "saved"


def _saved_splits(set_: hf.Dataset, place: Path) -> Path:
    counts = {"train": 1, "test": min(2, len(set_))}
    hf.DatasetDict({"train": set_.select([0]), "test": set_}).save_to_disk(place / "splits", num_shards=counts)
    return place / "splits"


def _hub(set_: hf.Dataset, place: Path) -> Path:
    (place / "hub" / "data").mkdir(parents=True)
    for number in range(2):
        part = set_.shard(2, number, contiguous=True)
        part.to_parquet(place / "hub" / "data" / f"test-{number:05}-of-00002-0123456789abcdef.parquet")
    set_.select([0]).to_parquet(place / "hub" / "data" / "train-00000-of-00001.parquet")
    return place / "hub"


def _hub_cache(set_: hf.Dataset, place: Path) -> Path:
    """A repository in the hub's cache: links into blobs."""
    repository = place / "datasets--somebody--pets"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc123")
    data = repository / "snapshots" / "abc123" / "data"
    data.mkdir(parents=True)
    (repository / "blobs").mkdir()
    set_.to_parquet(repository / "blobs" / "f00")
    (data / "test-00000-of-00001.parquet").symlink_to("../../../blobs/f00")
    old = repository / "snapshots" / "0ld" / "data"
    old.mkdir(parents=True)
    set_.select([1]).to_parquet(old / "test-00000-of-00001.parquet")
    return repository


def _converted(set_: hf.Dataset, place: Path) -> Path:
    """As the hub converts a repository: one folder a configuration and split."""
    (place / "converted" / "default" / "test").mkdir(parents=True)
    set_.to_parquet(place / "converted" / "default" / "test" / "0000.parquet")
    return place / "converted"


def _library_cache(set_: hf.Dataset, place: Path) -> Path:
    """What ``load_dataset`` leaves in its cache."""
    hub = _hub(set_, place)
    hf.load_dataset(str(hub), cache_dir=str(place / "cache"), split="test")
    (arrow,) = (place / "cache").rglob("*-test*.arrow")
    return arrow.parent


LAYOUTS = [_saved, _saved_splits, _hub, _hub_cache, _converted, _library_cache]


@pytest.mark.parametrize("build", LAYOUTS)
def test_every_layout_gives_the_same_rows(tmp_path: Path, build: Callable[[hf.Dataset, Path], Path]) -> None:
    labels = [value % 4 for value in range(150)]
    place = build(table(labels, PETS), tmp_path)
    found = listed(place, split="" if build in (_saved, _hub_cache, _converted) else "test", licence="mine")
    assert found.class_space is not None
    assert found.class_space.names == tuple(PETS)
    assert found.labels.tolist() == labels
    assert found.metadata["place"].tolist() == [f"p{value}" for value in range(150)]
    assert found.metadata["file_name"].tolist() == [f"{value}.png" for value in range(150)]
    assert len(set(found.image_ids)) == 150
    assert found.card.role == "id"
    found = pickle.loads(pickle.dumps(found))  # as a decoding process gets it
    for row in (0, 149, 64, 63, 100, 49, 50, 128):
        assert found.open(row).getpixel((0, 0)) == (row, 0, 0)


def test_rows_are_those_of_timms_reader(tmp_path: Path) -> None:
    from timm.data.readers.reader_hfds import ReaderHfds

    hub = _hub(table([value % 4 for value in range(30)], PETS), tmp_path)
    theirs = ReaderHfds(str(hub), root=str(tmp_path / "cache"), split="test")
    ours = listed(hub, split="test")
    assert len(theirs) == len(ours)
    for row in range(30):
        stream, label = theirs[row]
        assert stream.read() == ours.read(row)
        assert label == ours.labels[row]
        assert theirs.filename(row) == ours.metadata["file_name"][row]
    # What timm's reader cannot open at all.
    with pytest.raises(ValueError, match="save_to_disk"):
        ReaderHfds(str(_saved(table([0], PETS), tmp_path)), root=str(tmp_path / "cache"), split="train")


def test_sizes_of_arrow_rows_are_those_of_the_images(tmp_path: Path) -> None:
    found = listed(_saved(table([0, 1, 2, 3], PETS), tmp_path))
    assert found.sizes.tolist() == [len(png(value)) for value in range(4)]
    other = listed(_saved(table([0, 1, 2, 3], PETS), tmp_path / "b"))
    assert found.digest == other.digest
    assert listed(_saved(table([0, 1, 2, 2], PETS), tmp_path / "c")).digest != found.digest


# ---- labels: what numbers count is stated by names


@pytest.mark.parametrize("build", [_saved, _hub_cache])
def test_ranks_of_wnids_become_classes(tmp_path: Path, build: Callable[[hf.Dataset, Path], Path]) -> None:
    """ImageNet-A made by an image-folder loader: 200 WordNet ids numbered from 0 to 199."""
    members = index_list("a")
    place = build(table(list(range(200)), [WNIDS[i] for i in members]), tmp_path)
    assert listed(place, "imagenet-a").labels.tolist() == list(members)
    plain = listed(place)
    assert plain.class_space is IMAGENET
    assert plain.labels.tolist() == list(members)
    with pytest.raises(UserError, match="outside class_mask"):
        listed(place, "imagenet-a", recipe="imagenet-a", labels="index")


def test_numeric_folders_in_the_order_of_text_become_indices(tmp_path: Path) -> None:
    """ImageNetV2 made by an image-folder loader: class 2 is folder '10', since text sorts so."""
    names = sorted(map(str, range(1000)))
    place = _saved(table([0, 1, 2, 3, 999], names), tmp_path)
    for name in ("imagenet-v2-b", "mine"):
        assert listed(place, name).labels.tolist() == [0, 1, 10, 100, 999]


def test_synonyms_in_the_order_of_imagenet_are_its_classes(tmp_path: Path) -> None:
    from timm.data.imagenet_info import ImageNetInfo

    known = ImageNetInfo()
    synonyms = [f"{known.index_to_description(i)}, {WNIDS[i]}" for i in range(1000)]
    assert listed(_saved(table([7, 999], synonyms), tmp_path), "imagenet-val").labels.tolist() == [7, 999]
    turned = [*synonyms[1:], synonyms[0]]
    with pytest.raises(UserError, match="its labels count 1,000 classes of its own"):
        listed(_saved(table([7, 999], turned), tmp_path / "b"), "imagenet-val")


def test_labels_that_are_text(tmp_path: Path) -> None:
    rows = {"image": [{"bytes": png(i), "path": None} for i in range(3)], "label": [WNIDS[9], WNIDS[4], WNIDS[9]]}
    features = hf.Features({"image": hf.Image(), "label": hf.Value("string")})
    place = _saved(hf.Dataset.from_dict(rows, features=features), tmp_path)
    found = listed(place)
    assert found.labels.tolist() == [9, 4, 9]
    assert found.class_space is IMAGENET
    assert set(listed(place, "sun").labels.tolist()) == {-1}


def test_imagenet_val_in_tables_goes_by_file_name(tmp_path: Path) -> None:
    files = [f"ILSVRC2012_val_{number:08}_{WNIDS[5]}.JPEG" for number in (3, 1, 2)]
    found = listed(_hub_cache(table([5, 5, 5], list(WNIDS), files), tmp_path), "imagenet-val", split="test")
    assert found.image_ids == tuple(f"ILSVRC2012_val_{number:08}.JPEG" for number in (1, 2, 3))
    assert [found.open(row).getpixel((0, 0))[0] for row in range(3)] == [1, 2, 0]  # type: ignore[index]
    assert found.metadata["place"].tolist() == ["p1", "p2", "p0"]
    assert found.metadata["real_labels"].tolist() == [" ".join(map(str, real_labels()[i])) for i in range(3)]


# ---- mistakes


def test_mistakes_are_answered(tmp_path: Path) -> None:
    place = _saved_splits(table([0, 1], PETS), tmp_path)
    with pytest.raises(UserError, match="say which: split = 'test' or 'train'"):
        listed(place)
    with pytest.raises(UserError, match=r"split = 'tset' is not there.*did you mean test"):
        listed(place, split="tset")
    (place / "test" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(UserError, match=r"names data-00001-of-00002\.arrow, which is not there"):
        listed(place, split="test")
    (place / "test" / "state.json").write_text("[")
    with pytest.raises(UserError, match=r"state\.json is not JSON"):
        listed(place, split="test")
    torn = _saved(table([0, 1], PETS), tmp_path)
    (torn / "data-00000-of-00002.arrow").write_bytes(b"no arrow")
    with pytest.raises(UserError, match="cannot be read as an Arrow file"):
        listed(torn)
    for config in ("a", "b"):
        (tmp_path / "configs" / config / "test").mkdir(parents=True)
        table([0], PETS).to_parquet(tmp_path / "configs" / config / "test" / "0000.parquet")
    with pytest.raises(UserError, match=r"set path = to one of its a/test, b/test"):
        listed(tmp_path / "configs")


def test_images_that_are_only_named_are_answered(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.table({"image": pa.array([{"bytes": None, "path": "/gone/1.png"}], kind)})
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file, pa.ipc.new_stream(file, images.schema) as out:
        out.write_table(images)
    with pytest.raises(UserError, match="names its images and does not hold them"):
        listed(tmp_path)


def test_a_file_that_changes_later_is_one_unreadable_image(tmp_path: Path) -> None:
    place = _saved(table([0, 1, 2], PETS), tmp_path)
    found = listed(place)
    (place / "data-00000-of-00003.arrow").unlink()
    with pytest.raises(UnreadableImage, match="cannot be read"):
        found.read(0)
    assert found.read(2) == png(2)


# ---- folders of images with a metadata file


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_image_folder_with_metadata(tmp_path: Path, suffix: str) -> None:
    for value in range(3):
        (tmp_path / f"{value}.png").write_bytes(png(value))
    frame = pl.DataFrame({"file_name": ["2.png", "0.png", "1.png"], "label": ["cat", "fox", "cat"], "pose": [2, 0, 1]})
    write = {"csv": frame.write_csv, "jsonl": frame.write_ndjson, "parquet": frame.write_parquet}
    write[suffix](str(tmp_path / f"metadata.{suffix}"))
    found = listed(tmp_path)
    assert found.paths == ("0.png", "1.png", "2.png")
    assert found.metadata["pose"].tolist() == [0, 1, 2]
    assert found.class_space is not None
    assert [found.class_space.names[label] for label in found.labels] == ["fox", "cat", "cat"]


def test_metadata_without_labels_leaves_them_to_the_folders(tmp_path: Path) -> None:
    for value, name in enumerate(("cat", "fox")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(png(value))
    pl.DataFrame({"file_name": ["cat/x.png", "fox/x.png"], "pose": [4, 5]}).write_csv(tmp_path / "metadata.csv")
    found = listed(tmp_path)
    assert found.labels.tolist() == [0, 1]
    assert found.metadata["pose"].tolist() == [4, 5]
    (tmp_path / "metadata.csv").write_text("something,else\n1,2\n")
    assert listed(tmp_path).metadata == {}


def test_metadata_json_lines_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png(0))
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": "x.png"}) + "\n{")
    with pytest.raises(UserError, match=r"metadata\.jsonl cannot be read"):
        listed(tmp_path)


def test_pyarrow_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    place = _saved(table([0], PETS), tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pyarrow: pip install .*\[extract\]"):
        listed(place)


def test_columns_are_numpy(tmp_path: Path) -> None:
    found = listed(_saved(table([0, 1], PETS), tmp_path))
    assert all(isinstance(column, np.ndarray) for column in found.metadata.values())
