"""Shards and Parquet tables: rows in one order, read at any place, labels by meaning."""

from __future__ import annotations

import gc
import io
import json
import pickle
import random
import tarfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from closerlook_common.errors import UserError
from extract.classes.spaces import class_space
from extract.datasets import DatasetSpec, UnreadableImage, resolve
from extract.datasets.maps import index_list

WNIDS = class_space("imagenet-1k").wnids or ()


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (value, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Six images in two shards, in a shuffled order; image v is of class v."""
    for shard, values in (("val-000000", (5, 3, 4)), ("val-000001", (1, 2, 0))):
        members: dict[str, bytes] = {}
        for value in values:
            members |= {f"s{value}.cls": str(value).encode(), f"s{value}.PNG": png(value), f"s{value}.json": b"{}"}
        write_tar(tmp_path / "wds" / f"{shard}.tar", members)
    write_tar(tmp_path / "wds" / "train-000000.tar", {"t.jpg": png(9), "t.cls": b"9"})
    return tmp_path / "wds"


def spec(path: Path, reader: str, **keys: object) -> DatasetSpec:
    return DatasetSpec(name="packed", path=path, reader=reader, **keys)  # type: ignore[arg-type]


def test_shards_are_read_at_any_place(shards: Path) -> None:
    found = resolve(spec(shards, "webdataset", split="val", classes="imagenet-1k"))
    assert found.paths == tuple(f"val-{s:06}/s{v}.PNG" for s, vs in ((0, (3, 4, 5)), (1, (0, 1, 2))) for v in vs)
    assert found.labels.tolist() == [3, 4, 5, 0, 1, 2]
    found = pickle.loads(pickle.dumps(found))  # as a decoding process gets it
    rows = list(range(6))
    random.Random(0).shuffle(rows)
    for row in rows:
        assert found.open(row).getpixel((0, 0)) == (found.labels[row], 0, 0)
        assert len(found.read(row)) == found.sizes[row]


def test_shards_agree_with_the_readers_of_timm(shards: Path) -> None:
    """timm's reader of images in tar files finds the same bytes (it does not know sample parts)."""
    from timm.data.readers.reader_image_tar import ReaderImageTar

    theirs = ReaderImageTar(str(shards / "val-000000.tar"))
    names = [theirs.filename(i, basename=True) for i in range(len(theirs))]
    ours = resolve(spec(shards, "webdataset", split="val-000000", labels="none"))
    assert sorted(names) == [path.partition("/")[2] for path in ours.paths]
    for row, path in enumerate(ours.paths):
        stream, _ = theirs[names.index(path.partition("/")[2])]
        assert stream.read() == ours.read(row)
    theirs.tarfile.close()


def test_shard_splits_by_info_file(shards: Path) -> None:
    info = {"splits": {"validation": {"filenames": ["val-000001.tar"], "num_samples": 3}}}
    (shards / "_info.json").write_text(json.dumps(info), encoding="utf-8")
    assert len(resolve(spec(shards, "webdataset", split="validation", classes="imagenet-1k"))) == 3
    assert len(resolve(spec(shards, "webdataset", split="val", classes="imagenet-1k"))) == 3
    with pytest.raises(UserError, match="split = 'test' is not there of the splits 'validation'"):
        resolve(spec(shards, "webdataset", split="test", classes="imagenet-1k"))
    info["splits"]["validation"]["filenames"].append("val-000002.tar")  # type: ignore[union-attr]
    (shards / "_info.json").write_text(json.dumps(info), encoding="utf-8")
    with pytest.raises(UserError, match=r"1 of the 2 shards of 'validation'"):
        resolve(spec(shards, "webdataset", split="validation", classes="imagenet-1k"))
    (shards / "_info.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="does not list the files of each split"):
        resolve(spec(shards, "webdataset", split="validation", classes="imagenet-1k"))


def test_several_splits_of_shards_are_asked_for_or_looked_for(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="say which: split = 'train' or 'val'"):
        resolve(spec(shards, "webdataset", classes="imagenet-1k"))
    val = resolve(DatasetSpec(name="imagenet-val", path=shards, allow_count_mismatch=True))
    train = resolve(DatasetSpec(name="imagenet-train", path=shards, allow_count_mismatch=True))
    assert (len(val), len(train)) == (6, 1)
    for split in ("train", "test"):
        write_tar(tmp_path / "folders" / split / "0.tar", {"k.jpg": png(1), "k.cls": b"3"})
    found = resolve(spec(tmp_path / "folders", "webdataset", split="test", classes="imagenet-1k"))
    assert found.paths == ("0/k.jpg",)
    assert found.open(0).getpixel((0, 0)) == (1, 0, 0)


def test_shards_whose_numbers_count_names_of_their_own(tmp_path: Path) -> None:
    """A set of 200 classes numbers them from 0 on; classnames.txt says what they are."""
    wanted = index_list("a")
    names = class_space("imagenet-1k").names
    parts = [(("png", png(1)), ("cls", str(rank).encode())) for rank in range(200)]
    members = {f"s{rank}.{part}": data for rank, pair in enumerate(parts) for part, data in pair}
    write_tar(tmp_path / "wds_imagenet-a" / "test" / "0.tar", members)
    with pytest.raises(UserError, match="outside class_mask"):
        resolve(DatasetSpec(name="imagenet-a", path=tmp_path / "wds_imagenet-a", allow_count_mismatch=True))
    (tmp_path / "wds_imagenet-a" / "classnames.txt").write_text("\n".join(names[i] for i in wanted), encoding="utf-8")
    found = resolve(DatasetSpec(name="imagenet-a", path=tmp_path / "wds_imagenet-a", allow_count_mismatch=True))
    ranks = [int(path.rpartition("/s")[2].removesuffix(".png")) for path in found.paths]
    assert found.labels.tolist() == [wanted[rank] for rank in ranks]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_shards_agree_with_the_stream_of_timm(shards: Path) -> None:
    """timm's reader of samples gives the same images and labels, in its own order and without names."""
    from timm.data.readers.reader_wds import ReaderWds

    info = {"name": "val", "num_samples": 6, "shard_lengths": [3, 3]}
    info["filenames"] = ["val-000000.tar", "val-000001.tar"]
    (shards / "_info.json").write_text(json.dumps({"splits": {"val": info}}), encoding="utf-8")
    theirs = ReaderWds(root=str(shards), name="", split="val")
    ours = resolve(spec(shards, "webdataset", split="val", classes="imagenet-1k"))
    seen = sorted((np.asarray(image).tobytes(), int(label)) for image, label in theirs)
    assert seen == sorted((np.asarray(ours.open(row)).tobytes(), int(ours.labels[row])) for row in range(6))
    del theirs
    gc.collect()  # webdataset leaves its files open


def test_imagenet_val_in_shards_is_the_same_dataset_as_in_folders(tmp_path: Path) -> None:
    values = {3: 230, 1: 65, 10: 332}
    members: dict[str, bytes] = {}
    for number, label in values.items():
        name = f"ILSVRC2012_val_{number:08}"
        (tmp_path / "val" / WNIDS[label]).mkdir(parents=True)
        (tmp_path / "val" / WNIDS[label] / f"{name}.JPEG").write_bytes(png(number))
        members |= {f"{WNIDS[label]}_{name}.jpg": png(number), f"{WNIDS[label]}_{name}.cls": str(label).encode()}
    write_tar(tmp_path / "shards" / "imagenet1k-validation-00.tar", members)
    folders, packed = (
        resolve(DatasetSpec(name=name, path=tmp_path / place, allow_count_mismatch=True))
        for name, place in (("imagenet-val", "val"), ("imagenet-val", "shards"))
    )
    assert packed.digest == folders.digest
    assert packed.image_ids == folders.image_ids
    assert packed.metadata["real_labels"].tolist() == folders.metadata["real_labels"].tolist()
    assert [packed.read(row) for row in range(3)] == [folders.read(row) for row in range(3)]
    real, real_packed = (
        resolve(DatasetSpec(name="imagenet-real", path=tmp_path / place, allow_count_mismatch=True))
        for place in ("val", "shards")
    )
    assert real_packed.digest == real.digest
    assert real_packed.read(0) == real.read(0)
    members = {f"{row}.{part}": data for row in range(3) for part, data in (("jpg", png(row)), ("cls", b"5"))}
    write_tar(tmp_path / "unnamed" / "val-0.tar", members)
    unnamed = resolve(DatasetSpec(name="imagenet-val", path=tmp_path / "unnamed", allow_count_mismatch=True))
    assert unnamed.image_ids == ("val-0/0.jpg", "val-0/1.jpg", "val-0/2.jpg")
    with pytest.raises(UserError, match="ILSVRC2012_val_<number>"):
        resolve(DatasetSpec(name="imagenet-real", path=tmp_path / "unnamed", allow_count_mismatch=True))


def test_labels_of_the_json_part_where_there_is_no_other(tmp_path: Path) -> None:
    members = {"a.jpg": png(1), "a.json": b'{"label": 7}', "b.json": b'{"label": 5}', "b.jpg": png(2), "b.cls": b"6"}
    members |= {"c.jpg": png(3), "c.json": b"[]", "d.jpg": png(4), "d.cls": b"3", "d.json": b'{"label": 2}'}
    write_tar(tmp_path / "a.tar", members)
    assert resolve(spec(tmp_path, "webdataset", classes="imagenet-1k")).labels.tolist() == [7, 6, -1, 3]


def test_archives_without_labels_or_beside_images_are_no_layout(tmp_path: Path) -> None:
    write_tar(tmp_path / "ILSVRC2012_img_val.tar", {f"ILSVRC2012_val_{i:08}.JPEG": png(i) for i in range(1, 4)})
    with pytest.raises(UserError, match="hold no labels; unpack them"):
        resolve(DatasetSpec(name="imagenet-val", path=tmp_path, allow_count_mismatch=True))
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG").write_bytes(png(1))
    with pytest.raises(UserError, match="no file holds their labels"):
        resolve(DatasetSpec(name="imagenet-val", path=tmp_path, allow_count_mismatch=True))


def test_shard_labels_need_a_class_space_unless_they_name_one(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the classes are numbers"):
        resolve(spec(shards, "webdataset", split="val"))
    assert resolve(spec(shards, "webdataset", split="val", labels="none")).card.role == "ood"
    write_tar(tmp_path / "w" / "a.tar", {"k.jpg": png(1), "k.cls": WNIDS[7].encode(), "l.jpg": png(2)})
    assert resolve(spec(tmp_path / "w", "webdataset")).labels.tolist() == [7, -1]


def test_bad_shards_are_answered(tmp_path: Path, shards: Path) -> None:
    write_tar(tmp_path / "two" / "a.tar", {"k.jpg": png(1), "k.png": png(2)})
    with pytest.raises(UserError, match="'k' has two images"):
        resolve(spec(tmp_path / "two", "webdataset"))
    write_tar(tmp_path / "gz" / "a.tar.gz", {"k.jpg": png(1)}, "w:gz")
    with pytest.raises(UserError, match=r"unpack it to \.tar"):
        resolve(spec(tmp_path / "gz", "webdataset"))
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "a.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(UserError, match="cannot be read as a tar file"):
        resolve(spec(tmp_path / "junk", "webdataset"))
    with pytest.raises(UserError, match="split = 'test' is not there"):
        resolve(spec(shards, "webdataset", split="test"))


def test_a_shard_cut_short_later_is_one_unreadable_image(shards: Path) -> None:
    found = resolve(spec(shards, "webdataset", split="val-000000", labels="none"))
    path = shards / "val-000000.tar"
    last = int(np.argmax(found.source.offset))  # type: ignore[union-attr]
    path.write_bytes(path.read_bytes()[: int(found.source.offset[last]) + 10])  # type: ignore[union-attr]
    with pytest.raises(UnreadableImage, match="cut short"):
        found.read(last)
    path.unlink()
    with pytest.raises(UnreadableImage):
        found.read(0)


def test_recipes_read_shards_too(shards: Path) -> None:
    found = resolve(
        DatasetSpec(name="imagenet-val", path=shards, reader="webdataset", split="val", allow_count_mismatch=True)
    )
    assert found.card.class_space == "imagenet-1k"
    assert found.labels.tolist() == [3, 4, 5, 0, 1, 2]
    ood = resolve(DatasetSpec(name="sun", path=shards, reader="webdataset", split="val", allow_count_mismatch=True))
    assert set(ood.labels.tolist()) == {-1}
    with pytest.raises(UserError, match="50,000"):
        resolve(DatasetSpec(name="imagenet-val", path=shards, reader="webdataset", split="val"))
    with pytest.raises(UserError, match="read from files"):
        resolve(DatasetSpec(name="objectnet", path=shards, reader="webdataset"))


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A data set of 150 images in two files, as the hub keeps it."""
    names = [f"class {i}" for i in range(4)]
    features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}, "image": {"_type": "Image"}}}}
    for number, values in enumerate((range(100), range(100, 150))):
        frame = pl.DataFrame(
            {
                "image": [{"bytes": png(value), "path": f"{value}.png"} for value in values],
                "label": [value % 4 for value in values],
                "place": [f"p{value}" for value in values],
            }
        )
        (tmp_path / "hf" / "data").mkdir(parents=True, exist_ok=True)
        frame.write_parquet(
            tmp_path / "hf" / "data" / f"validation-{number:05}-of-00002.parquet",
            metadata={"huggingface": json.dumps(features)},
            row_group_size=30,
        )
    return tmp_path / "hf"


def test_parquet_tables(tables: Path) -> None:
    found = resolve(spec(tables, "huggingface"))
    assert len(found) == 150
    assert found.class_space is not None
    assert found.class_space.names == tuple(f"class {i}" for i in range(4))
    assert found.labels.tolist() == [value % 4 for value in range(150)]
    assert found.metadata["place"].tolist() == [f"p{value}" for value in range(150)]
    assert found.paths[100] == "data/validation-00001-of-00002/00000000"
    found = pickle.loads(pickle.dumps(found))
    for row in (0, 149, 64, 63, 100, 99, 128):
        assert found.open(row).getpixel((0, 0)) == (row, 0, 0)


def test_parquet_labels_in_imagenet(tables: Path) -> None:
    with pytest.raises(UserError, match='labels = "index" takes the numbers'):
        resolve(spec(tables, "huggingface", classes="imagenet-1k"))
    found = resolve(spec(tables, "huggingface", classes="imagenet-1k", labels="index", per_class=2))
    assert np.bincount(found.labels).tolist() == [2, 2, 2, 2]
    for row in range(8):
        red = found.open(row).getpixel((0, 0))[0]  # type: ignore[index]
        assert red % 4 == found.labels[row]


def test_parquet_splits_and_mistakes(tables: Path, tmp_path: Path) -> None:
    (tables / "data" / "train-00000-of-00001.parquet").write_bytes(
        (tables / "data" / "validation-00001-of-00002.parquet").read_bytes()
    )
    with pytest.raises(UserError, match="split = 'train' or 'validation'"):
        resolve(spec(tables, "huggingface"))
    assert len(resolve(spec(tables, "huggingface", split="train"))) == 50
    (tmp_path / "text").mkdir()
    with pytest.raises(UserError, match=r"holds no \.parquet or \.arrow file"):
        resolve(spec(tmp_path / "text", "huggingface"))
    pl.DataFrame({"text": ["x"]}).write_parquet(tmp_path / "text" / "x.parquet")
    with pytest.raises(UserError, match="no column of images among text"):
        resolve(spec(tmp_path / "text", "huggingface"))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "x.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UserError, match="cannot be read"):
        resolve(spec(tmp_path / "torn", "huggingface"))
    pl.DataFrame({"img": [png(1), png(2)]}).write_parquet(tmp_path / "bare.parquet")
    bare = resolve(spec(tmp_path, "huggingface", split="bare"))
    assert bare.labels.tolist() == [-1, -1]
    assert bare.open(1).getpixel((0, 0)) == (2, 0, 0)
    with pytest.raises(UserError, match="manifest needs image files"):
        resolve(spec(tables, "huggingface", manifest=tmp_path / "m.csv"))
