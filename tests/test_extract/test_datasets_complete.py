"""Shards and Hugging Face data sets that are not all there are noticed by what they state about themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import datasets as hf
import pytest
from dataset_files import png, spec, write_tar

from closerlook_common.errors import UserError
from extract.datasets import resolve

# ---- shards


def samples(*values: int) -> dict[str, bytes]:
    return {name: data for v in values for name, data in ((f"s{v}.png", png(v)), (f"s{v}.cls", str(v).encode()))}


def shards(root: Path) -> Path:
    write_tar(root / "val-00000.tar", samples(0, 1))
    write_tar(root / "val-00001.tar", samples(2))
    return root


def info(root: Path, **split: object) -> None:
    names = ["val-00000.tar", "val-00001.tar"]
    (root / "_info.json").write_text(json.dumps({"splits": {"val": {"filenames": names, **split}}}))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut at a member": (lambda r: write_tar(r / "val-00001.tar", samples(2), end=False), "has no end mark"),
    "two joined": (
        lambda r: (r / "val-00001.tar").write_bytes((r / "val-00000.tar").read_bytes() * 2),
        "goes on behind",
    ),
    "num_samples": (lambda r: info(r, num_samples=4), "has 3 samples, but its info file says 4"),
    "shard_lengths": (lambda r: info(r, shard_lengths=[2, 2]), "holds 1 samples, but the info file says 2"),
    "filenames": (lambda r: (info(r), (r / "val-00001.tar").unlink()), "1 of the 2 shards"),
    "nshards": (lambda r: (r / "nshards.txt").write_text("3\n"), "holds 2 shards, but nshards.txt says 3"),
    "sizes": (lambda r: (r / "sizes.json").write_text('{"val-00001.tar": 5}'), "sizes.json says 5"),
    "sizes absent": (
        lambda r: (r / "sizes.json").write_text('{"val-00002.tar": 5}'),
        "1 shards of sizes.json are missing",
    ),
    "len": (lambda r: (r / "__len__").write_text("4"), "__len__ says 4"),
    "stats": (lambda r: (r / "val-00000_stats.json").write_text('{"successes": 3}'), "stats.json says 3"),
    "of": (
        lambda r: [p.rename(r / f"val-{i:05}-of-00003.tar") for i, p in enumerate(sorted(r.glob("*.tar")))],
        "2 of the 3 files",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_shards_that_are_not_all_there(tmp_path: Path, damage: str) -> None:
    root = shards(tmp_path)
    mine = {"reader": "webdataset", "classes": ("a", "b", "c")}
    assert len(resolve(spec(root, **mine))) == 3
    harm, says = DAMAGE[damage]
    harm(root)
    with pytest.raises(UserError, match=says):
        resolve(spec(root, **mine))
    found = resolve(spec(root, **mine, allow_count_mismatch=True))
    assert any(says in line for line in found.problems)


def test_a_damaged_header_inside_a_shard_is_not_its_end(tmp_path: Path) -> None:
    data = bytearray(write_tar(tmp_path / "a.tar", samples(0, 1, 2)).read_bytes())
    data[2048:2050] = b"??"
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(UserError, match="damaged at byte 2,048"):
        resolve(spec(tmp_path, reader="webdataset", classes=("a", "b", "c")))


def test_gaps_and_samples_without_images_are_reported(tmp_path: Path) -> None:
    root = shards(tmp_path)
    write_tar(root / "val-00003.tar", samples(0) | {"x.heic": b"?", "x.cls": b"1"})
    found = resolve(spec(root, reader="webdataset", classes=("a", "b", "c")))
    assert any("1 number missing among the files val-*.tar" in line for line in found.problems)
    assert any("1 samples" in line and "1 .heic" in line for line in found.problems)


@pytest.mark.parametrize("part", ["cls", "target.cls", "species", "json.kind"])
def test_labels_of_shards_by_their_part(tmp_path: Path, part: str) -> None:
    members: dict[str, bytes] = {}
    for value, name in enumerate(("cat", "dog")):
        label = json.dumps({"kind": name}) if part == "json.kind" else name
        members |= {f"{value}.{'json' if part == 'json.kind' else part}": label.encode(), f"{value}.png": png(value)}
    write_tar(tmp_path / "val.tar", members)
    mine = {"reader": "webdataset"}
    if part in ("species", "json.kind"):
        with pytest.raises(UserError, match=rf"{part} is recognised as the labels; label_column|{part}.*label_column"):
            resolve(spec(tmp_path, **mine))
        assert resolve(spec(tmp_path, **mine, labels="none")).card.role == "ood"
        mine["label_column"] = part
    found = resolve(spec(tmp_path, **mine))
    assert (found.card.class_names, found.labels.tolist()) == (("cat", "dog"), [0, 1])


# ---- Hugging Face


def table(n: int) -> hf.Dataset:
    kinds = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=["a", "b"])})
    rows = {"image": [{"bytes": png(v), "path": None} for v in range(n)], "label": [v % 2 for v in range(n)]}
    return hf.Dataset.from_dict(rows, features=kinds)


def hub(root: Path, parts: int = 3) -> Path:
    (root / "data").mkdir(parents=True)
    for number in range(parts):
        piece = table(6).shard(parts, number, contiguous=True)
        piece.to_parquet(root / "data" / f"test-{number:05}-of-{parts:05}.parquet")
    return root


@pytest.fixture(autouse=True)
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf.config, "HF_DATASETS_OFFLINE", True)
    hf.disable_progress_bars()


def test_hub_files_and_rows_are_counted(tmp_path: Path) -> None:
    root = hub(tmp_path)
    card = "---\ndataset_info:\n  splits:\n  - name: test\n    num_examples: {}\n---\n# Card\n"
    (root / "README.md").write_text(card.format(6))
    assert len(resolve(spec(root))) == 6
    (root / "README.md").write_text(card.format(7))
    with pytest.raises(UserError, match=r"holds 6 rows of split 'test', but README\.md says 7"):
        resolve(spec(root))
    (root / "README.md").unlink()
    (root / "dataset_infos.json").write_text(
        json.dumps({"default": {"splits": {"test": {"name": "test", "num_examples": 9}}}})
    )
    with pytest.raises(UserError, match=r"dataset_infos\.json says 9"):
        resolve(spec(root))
    (root / "dataset_infos.json").unlink()
    (root / "data" / "test-00001-of-00003.parquet").unlink()
    with pytest.raises(UserError, match="2 of the 3 files"):
        resolve(spec(root))


def test_arrow_streams_cut_between_batches_and_missing_files(tmp_path: Path) -> None:
    table(6).save_to_disk(tmp_path / "saved", num_shards=2)
    file = tmp_path / "saved" / "data-00001-of-00002.arrow"
    whole = file.read_bytes()
    assert len(resolve(spec(tmp_path / "saved"))) == 6
    file.write_bytes(whole[:-8])
    with pytest.raises(UserError, match="no end mark"):
        resolve(spec(tmp_path / "saved"))
    file.unlink()
    with pytest.raises(UserError, match="which is not there"):
        resolve(spec(tmp_path / "saved"))


def test_rows_of_a_saved_selection_are_reported(tmp_path: Path) -> None:
    root = hub(tmp_path / "hub", 1)
    loaded = hf.load_dataset(str(root), cache_dir=str(tmp_path / "cache"), split="test")
    loaded.filter(lambda row: row["label"] == 0)  # leaves a file of its own beside them
    (arrow,) = (tmp_path / "cache").rglob("*-test.arrow")
    assert len(resolve(spec(arrow.parent))) == 6
    loaded.select(range(2)).flatten_indices().save_to_disk(tmp_path / "saved")
    found = resolve(spec(tmp_path / "saved"))
    assert any(
        "holds 2 rows of split '', but dataset_info.json says 6: right for a selection" in p for p in found.problems
    )
    notes = json.loads((arrow.parent / "dataset_info.json").read_text())
    notes["splits"]["test"]["num_examples"] = 7
    (arrow.parent / "dataset_info.json").write_text(json.dumps(notes))
    with pytest.raises(UserError, match=r"dataset_info\.json says 7"):
        resolve(spec(arrow.parent))
