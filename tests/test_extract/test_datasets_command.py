"""``extract datasets``: what is on disk, as a table and as a file."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from closerlook_common.errors import UserError
from extract.classes.spaces import class_space
from extract.datasets import DatasetSpec, read_datasets_toml, resolve
from extract.datasets.finding import find
from extract.datasets.maps import class_map

WNIDS = class_space("imagenet-1k").wnids or ()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder with a whole set, a set that is too small, and things that are no datasets."""
    images = tmp_path / "data" / "shape" / "Cue_Conflict"
    for shape in class_map("cue-conflict"):
        (images / shape).mkdir(parents=True)
        for index in range(80):
            (images / shape / f"{shape}{index}-dog{index}.png").touch()
    few = tmp_path / "data" / "ImageNet_A" / WNIDS[6]
    few.mkdir(parents=True)
    (few / "x.jpg").touch()
    (tmp_path / "data" / "sun").mkdir()
    return tmp_path / "data"


def test_root_finds_checks_and_writes(shelf: Path, tmp_path: Path, run_extract: Callable[..., Any]) -> None:
    out = tmp_path / "datasets.toml"
    done = run_extract("datasets", "--root", shelf, "--write", out, code=1)
    assert "1,280" in done.stdout
    assert "7,500" in done.stdout
    assert "allow_count_mismatch" in done.stdout
    assert "1 found whole, 2 with a problem" in done.stdout
    assert "Not found: imagenet-val" in done.stdout
    assert "imagenet-c-* (95)" in done.stdout
    (spec,) = read_datasets_toml(out)
    assert (spec.name, spec.path) == ("cue-conflict", shelf / "shape" / "Cue_Conflict")
    text = out.read_text(encoding="utf-8")
    assert "# imagenet-a is left out" in text
    checked = run_extract("datasets", "--datasets", out)
    assert "cue-conflict" in checked.stdout
    again = run_extract("datasets", "--root", shelf, "--write", out, code=2)
    assert "left as it is" in again.stderr


def test_findings_name_their_places(shelf: Path) -> None:
    findings = {finding.name: finding for finding in find(shelf)}
    whole, small, empty = findings["cue-conflict"], findings["imagenet-a"], findings["sun"]
    assert whole.dataset is not None
    assert len(whole.dataset) == 1_280
    assert small.dataset is None
    assert small.path == shelf / "ImageNet_A"
    assert "has 7,500" in small.problem
    assert "no images" in empty.problem
    assert findings["imagenet-r"].path is None


def test_a_file_with_one_bad_table_still_tells_the_others(
    tmp_path: Path, pets: Path, run_extract: Callable[..., Any]
) -> None:
    (tmp_path / "datasets.toml").write_text(
        f'[pets]\npath = "{pets}"\nclasses = "folders"\n[gone]\npath = "nowhere"\n', encoding="utf-8"
    )
    done = run_extract("datasets", cwd=tmp_path, code=1)
    assert "45" in done.stdout
    assert "is not a folder" in done.stdout


def test_without_anything_the_known_ones_are_listed(tmp_path: Path, run_extract: Callable[..., Any]) -> None:
    done = run_extract("datasets", cwd=tmp_path)
    for word in ("imagenet-val", "50,000", "objectnet", "18,574 or 18,514", "--root DIR"):
        assert word in done.stdout


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_no_word_is_cut_off_at_any_width(
    shelf: Path, run_extract: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    words = ["imagenet-a", "7,500", "ImageNet_A", "shape/Cue_Conflict", "allow_count_mismatch", "with a problem"]
    monkeypatch.setenv("COLUMNS", str(width))
    lines = run_extract("datasets", "--root", shelf, code=1).stdout.splitlines()
    text = "\n".join(lines)
    assert all(word in text for word in words)
    assert "…" not in text
    known = run_extract("datasets", cwd=shelf).stdout
    assert all(len(line) <= width for line in known.splitlines()[:-1])


def test_sets_in_one_folder_that_are_not_there_are_no_problems(tmp_path: Path, run_extract: Callable[..., Any]) -> None:
    """ImageNet's folder without a training set, ImageNet-C with one corruption of nineteen."""
    for place in ("ImageNet/val", "ImageNet-C/fog/1"):
        (tmp_path / place / WNIDS[0]).mkdir(parents=True)
        (tmp_path / place / WNIDS[0] / "ILSVRC2012_val_00000001.JPEG").touch()
    done = run_extract("datasets", "--root", tmp_path, code=1)
    assert "Not found: imagenet-train" in done.stdout
    assert "imagenet-c-* (94)" in done.stdout
    assert "imagenet-c-fog-1" in done.stdout
    assert "3 with a problem" in done.stdout  # imagenet-val, imagenet-real, imagenet-c-fog-1


def test_packed_copies_are_found_by_the_names_that_they_bear(tmp_path: Path) -> None:
    write_tar(tmp_path / "wds_imagenet-a" / "test" / "0.tar", {"a.jpg": b"x", "a.cls": b"6"})
    place = tmp_path / "hub" / "datasets--somebody--imagenet-1k-wds" / "snapshots" / "abc"
    write_tar(place / "imagenet1k-validation-00.tar", {"a.jpg": b"x", "a.cls": b"6"})
    (place.parent.parent / "refs").mkdir()
    (place.parent.parent / "refs" / "main").write_text("abc")
    findings = {finding.name: finding for finding in find(tmp_path)}
    for name in ("imagenet-a", "imagenet-val"):
        assert "1 image " in findings[name].problem
        assert findings[name].count == 1
    assert findings["imagenet-train"].path is None
    with pytest.raises(UserError, match="holds the split 'imagenet1k-validation' alone; train is wanted"):
        resolve(DatasetSpec(name="imagenet-train", path=place, allow_count_mismatch=True))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--write", "x.toml"], "--root DIR"),
        (["--root", "nowhere"], "nowhere is not a folder"),
        (["--root", ".", "--datasets", "x.toml"], "give one of them"),
        (["--datasets", "x.toml"], "no file x.toml"),
    ],
)
def test_bad_options(tmp_path: Path, run_extract: Callable[..., Any], words: list[str], message: str) -> None:
    assert message in run_extract("datasets", *words, cwd=tmp_path, code=2).stderr
