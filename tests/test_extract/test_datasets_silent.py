"""Nothing about a dataset changes in silence: missing labels, class folders, shards and files are reported."""

from __future__ import annotations

import gzip
import io
import itertools
import shutil
import tarfile
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from dataset_files import folder, png, spec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from analyze.annotations import image_key
from closerlook_common.errors import UserError
from extract.classes.spaces import ClassSpace
from extract.datasets import resolve, spec_from_table
from extract.datasets.building import build
from extract.datasets.folder import Rows
from extract.datasets.images import IMAGE_SUFFIXES, UnreachableImage, decode_rgb

# ---- which column is the label


@pytest.mark.parametrize(
    "header", ["path,label", "path, label", "Path ,Label", "path,target.cls", "image_path,Class Name"]
)
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_columns_and_separators_people_use(tmp_path: Path, header: str, separator: str) -> None:
    folder(tmp_path, "a.png", "b.png")
    lines = [header, "a.png, cat", "b.png,dog"]
    (tmp_path / "m.csv").write_text("\n".join(lines).replace(",", separator))
    found = resolve(spec(tmp_path, manifest=tmp_path / "m.csv"))
    assert found.card.class_names == ("cat", "dog")
    assert found.labels.tolist() == [0, 1]
    assert found.card.role == "id"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_the_index_of_a_pandas_frame_is_no_column(tmp_path: Path, suffix: str) -> None:
    folder(tmp_path, "a.png", "b.png")
    frame = pd.DataFrame({"path": ["a.png", "b.png"], "label": ["cat", "dog"]}, index=[3, 1])
    getattr(frame, f"to_{suffix}")(tmp_path / f"m.{suffix}")
    found = resolve(spec(tmp_path, manifest=tmp_path / f"m.{suffix}"))
    assert found.labels.tolist() == [0, 1]
    assert not found.metadata
    assert any("the index of a pandas frame) is left out" in problem for problem in found.problems)
    (tmp_path / "named.csv").write_text(",label\na.png,cat\nb.png,dog\n")
    with pytest.raises(UserError, match=r"no column 'path' among \(no name\), label"):
        resolve(spec(tmp_path, manifest=tmp_path / "named.csv"))


def test_labels_of_a_categorical_column(tmp_path: Path) -> None:
    folder(tmp_path, "a.png", "b.png")
    labels = pd.Categorical(["dog", "cat"], categories=["dog", "cat", "bird"])
    pd.DataFrame({"path": ["a.png", "b.png"], "label": labels}).to_parquet(tmp_path / "m.parquet")
    found = resolve(spec(tmp_path, manifest=tmp_path / "m.parquet"))
    assert [found.card.class_names[label] for label in found.labels] == ["dog", "cat"]


def test_paths_as_windows_writes_them(tmp_path: Path) -> None:
    folder(tmp_path, "in/a.png", "in/b.png")
    (tmp_path / "m.csv").write_text("path,label\r\nin\\a.png,cat\r\nin\\b.png,dog\r\n")
    assert resolve(spec(tmp_path, manifest=tmp_path / "m.csv")).paths == ("in/a.png", "in/b.png")


def test_a_manifest_that_is_no_utf8_csv_says_so(tmp_path: Path) -> None:
    folder(tmp_path, "a.png")
    for content, says in (
        (gzip.compress(b"path,label\na.png,0\n", mtime=0), "is compressed; unpack it first"),
        ("path,label\na.png,0\n".encode("utf-16"), "not UTF-8 text"),
        (b"path,label\ra.png,0\r", "lines end in a carriage return alone"),
    ):
        for name in ("m.csv", "m.csv.gz"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(UserError, match=says if name == "m.csv" else "m.csv.gz is compressed; unpack it first"):
                resolve(spec(tmp_path, manifest=tmp_path / name))


LABEL_KINDS = {
    "species": ["cat", "dog"],
    "target": [0.0, 1.0],
    "category": ["cat", "dog"],
    "labels": [[0], [1]],
    "class": [False, True],
    "cls": [0, 1],
}


@pytest.mark.parametrize("packed", [False, True], ids=["manifest", "packed"])
@pytest.mark.parametrize("name", LABEL_KINDS)
def test_a_label_column_is_used_or_the_columns_are_named(tmp_path: Path, name: str, packed: bool) -> None:
    folder(tmp_path / "im", "a.png", "b.png")
    rows = {name: LABEL_KINDS[name], "size": [1, 2]}
    if packed:
        rows |= {"image": [{"bytes": png(0), "path": "a"}, {"bytes": png(1), "path": "b"}]}
        (tmp_path / "hub").mkdir()
        pl.DataFrame(rows).write_parquet(tmp_path / "hub" / "test.parquet")
        mine = spec(tmp_path / "hub", reader="huggingface", classes=() if name == "x" else "")
    else:
        pl.DataFrame({"path": ["a.png", "b.png"], **rows}).write_parquet(tmp_path / "m.parquet")
        mine = spec(tmp_path / "im", manifest=tmp_path / "m.parquet")
    numbers = name in ("target", "labels", "cls")
    from dataclasses import replace

    if numbers:
        mine = replace(mine, classes=("cat", "dog"))
    if name == "species":
        with pytest.raises(UserError, match=r"species.*label_column = .*labels = \"none\""):
            resolve(mine)
        mine = replace(mine, label_column="species")
    found = resolve(mine)
    assert found.labels.tolist() == [0, 1]
    assert found.card.role == "id"
    assert found.card.class_names == (("false", "true") if name == "class" else ("cat", "dog"))
    if name == "species":
        with pytest.raises(UserError, match=r"label_column = 'specie' is not among .*did you mean species"):
            resolve(replace(mine, label_column="specie"))
        assert resolve(replace(mine, label_column="", labels="none")).card.role == "ood"
        assert resolve(replace(mine, label_column="", role="ood")).card.role == "ood"


@pytest.mark.parametrize("values", [[0.5, 1.0], [[0, 1], [1]], [{"a": 1}, {"a": 2}], [2**40, 1], [-7, 1]])
def test_labels_that_are_none_are_refused(tmp_path: Path, values: list[object]) -> None:
    rows = {"label": values, "image": [{"bytes": png(0), "path": "a"}, {"bytes": png(1), "path": "b"}]}
    pl.DataFrame(rows).write_parquet(tmp_path / "test.parquet")
    with pytest.raises(UserError, match=r"label"):
        resolve(spec(tmp_path, reader="huggingface", classes=("cat", "dog")))


def test_blank_labels_are_named_and_nan_is_none(tmp_path: Path) -> None:
    folder(tmp_path, "a.png", "b.png", "c.png")
    (tmp_path / "m.csv").write_text("path,label\nc.png,cat\nb.png, \na.png,nan\n")
    found = resolve(spec(tmp_path, manifest=tmp_path / "m.csv"))
    assert found.card.class_names == ("cat",)
    assert found.labels.tolist() == [-1, -1, 0]
    assert any("1 row has a blank label (first: row 2, 'b.png')" in line for line in found.problems)
    assert any("2 of 3 images have no label" in line for line in found.problems)
    (tmp_path / "names.txt").write_text("cat\n\ndog\n")
    with pytest.raises(UserError, match=r"names\.txt, line 2 is blank"):
        resolve(spec(tmp_path, manifest=tmp_path / "m.csv", classes=str(tmp_path / "names.txt")))
    with pytest.raises(UserError, match="the name of class 1 is blank"):
        resolve(spec(tmp_path, manifest=tmp_path / "m.csv", classes=("cat", " ")))


@pytest.mark.parametrize(
    ("given_name", "hint"),
    [("a", "did you mean 'a.png'"), ("B.PNG", "did you mean 'b.png'"), ("im/a.png", "set path = to that folder")],
)
def test_names_that_lead_to_no_file_are_explained(tmp_path: Path, given_name: str, hint: str) -> None:
    folder(tmp_path / "im", "a.png", "b.png")
    (tmp_path / "m.csv").write_text(f"path,label\n{given_name},cat\n")
    with pytest.raises(UserError, match=hint):
        resolve(spec(tmp_path / "im", manifest=tmp_path / "m.csv"))
    (tmp_path / "m.csv").write_text(f"path,label\n{given_name},cat\nb.png,dog\n")
    assert any(hint in line for line in resolve(spec(tmp_path / "im", manifest=tmp_path / "m.csv")).problems)


def test_ids_keep_their_zeros_and_headers_are_asked_for(tmp_path: Path) -> None:
    folder(tmp_path, "007.png")
    (tmp_path / "m.csv").write_text("image_id,label\n007,01\n")
    with pytest.raises(UserError, match=r"did you mean '007.png'"):
        resolve(spec(tmp_path, manifest=tmp_path / "m.csv", classes=("a", "b")))
    (tmp_path / "m.csv").write_text("007.png,cat\n008.png,dog\n")
    with pytest.raises(UserError, match=r"its first line .* is data, not the names of columns"):
        resolve(spec(tmp_path, manifest=tmp_path / "m.csv"))


@pytest.mark.parametrize("line", ["{0} {1}", "{0}\t{1}", "{0}"])
def test_lists_of_files(tmp_path: Path, line: str) -> None:
    folder(tmp_path, "a b.png", "c/d.png")
    names = {"a b.png": 1, "c/d.png": -1}
    (tmp_path / "list.txt").write_text("\n".join(line.format(*item) for item in names.items()) + "\n\n")
    found = resolve(spec(tmp_path, manifest=tmp_path / "list.txt", classes=("x", "y") if "{1}" in line else ""))
    assert found.paths == ("a b.png", "c/d.png")
    assert found.labels.tolist() == ([1, -1] if "{1}" in line else [-1, -1])
    (tmp_path / "list.txt").write_text('a b.png 1\nc/d.png {"label": 1}\n')
    with pytest.raises(UserError, match=r"line 2: .* is not 'path label'"):
        resolve(spec(tmp_path, manifest=tmp_path / "list.txt"))


def test_a_manifest_beside_the_images(tmp_path: Path) -> None:
    folder(tmp_path / "data" / "photos", "a.png")
    (tmp_path / "data" / "labels.csv").write_text("path,label\na.png,cat\n")
    table = {"path": "data/photos", "manifest": "labels.csv"}
    assert resolve(spec_from_table("mine", table, tmp_path)).card.class_names == ("cat",)
    shutil.copy(tmp_path / "data" / "labels.csv", tmp_path / "data" / "photos")
    with pytest.raises(UserError, match=r"could be .*photos/labels.csv and .*data/labels.csv; write its whole path"):
        spec_from_table("mine", table, tmp_path)


# ---- folders


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    folder(tmp_path, "cat/a.png", "dog/b.png")
    (tmp_path / "ant").mkdir()
    found = resolve(spec(tmp_path))
    assert found.card.n_classes == 2
    assert found.empty_classes == ("ant",)
    assert "1 class folder holds no images: 'ant'" in found.problems


@pytest.mark.parametrize(("outputs", "code"), [(3, 0), (4, 1)])
def test_a_head_with_an_output_for_an_empty_folder_is_an_error(
    tmp_path: Path, pets: Path, run_extract: Callable, outputs: int, code: int
) -> None:
    shutil.copytree(pets, tmp_path / "pets")
    (tmp_path / "pets" / "newt").mkdir()
    line = f"timm:test_vit allow_random=yes num_classes={outputs} classes=pets input_size=32"
    (tmp_path / "models.txt").write_text(line)
    words = ("--model-list", "models.txt", "--dataset", "pets=pets", "--workers", "0")
    done = run_extract(*words, cwd=tmp_path, code=code)
    assert "note pets: 1 class folder holds no images: 'newt'" in done.stderr
    assert ("its head has 4 outputs, 3 class folders of pets hold images and 1 do not ('newt')" in done.stderr) == bool(
        code
    )


def test_files_that_look_like_images_are_counted(tmp_path: Path) -> None:
    folder(tmp_path, "cat/a.png")
    (tmp_path / "cat" / "photo.HEIC").write_bytes(b"x")
    (tmp_path / "cat" / "photo2.heic").write_bytes(b"x")
    (tmp_path / "cat" / "IMG_0001").write_bytes(png())
    (tmp_path / "cat" / "b.png_original").write_bytes(png())
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (remark,) = resolve(spec(tmp_path)).problems
    assert "skipped 4 files of images" in remark
    assert "2 .heic" in remark
    assert "2 without a known suffix" in remark


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read_as_pillow_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (24, 32, 3), np.uint8)
    (tmp_path / "cat").mkdir()
    Image.fromarray(pixels).save(tmp_path / "cat" / "a.avif", quality=60)
    found = resolve(spec(tmp_path))
    with Image.open(tmp_path / "cat" / "a.avif") as image:
        np.testing.assert_array_equal(np.asarray(found.open(0)), np.asarray(image.convert("RGB")))
    monkeypatch.setattr("extract.datasets.images._formats", lambda: ("JPEG", "PNG"))
    with pytest.raises(UnreachableImage, match=r"pillow 11.3"):
        decode_rgb((tmp_path / "cat" / "a.avif").read_bytes())
    assert ".avif" in IMAGE_SUFFIXES


# ---- names


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.sampled_from("éüñ가a"), min_size=1, max_size=4), st.integers(0, 10**9))
def test_composed_and_decomposed_names_are_one(tmp_path: Path, name: str, number: int) -> None:
    forms = [unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    found = []
    for place, (on_disk, written) in enumerate(itertools.product(forms, forms)):
        root = folder(tmp_path / f"{number}-{place}", f"{on_disk}/{on_disk}.png")
        manifest = root.with_suffix(".csv")
        manifest.write_text(f"path,label\n{written}/{written}.png,{written}\n", encoding="utf-8")
        found += [resolve(spec(root)), resolve(spec(root, manifest=manifest)), resolve(spec(root, classes=(written,)))]
        shutil.rmtree(root)
    assert len({dataset.digest for dataset in found}) == 1
    assert {dataset.image_ids for dataset in found} == {(f"{forms[0]}/{forms[0]}.png",)}
    assert {dataset.card.class_names for dataset in found[:2]} == {(forms[0],)}
    assert len({dataset.class_space.digest for dataset in found[:2] if dataset.class_space}) == 1


def test_names_that_differ_in_unicode_form_alone_are_refused(tmp_path: Path) -> None:
    folder(tmp_path, "caf\u00e9/a.png", "cafe\u0301/b.png")
    for keys in ({}, {"labels": "none"}, {"classes": ("caf\u00e9",)}):
        if keys == {"labels": "none"}:
            assert len(resolve(spec(tmp_path, **keys))) == 2  # the files' own names differ
            continue
        with pytest.raises(UserError, match="composed and decomposed"):
            resolve(spec(tmp_path, **keys))
    (tmp_path / "cafe\u0301" / "a.png").write_bytes(png())
    with pytest.raises(UserError, match="composed and decomposed"):
        resolve(spec(tmp_path, labels="none"))


@pytest.mark.parametrize("place", ["folder", "file", "tar"])
def test_names_that_are_no_utf8_are_one_line(tmp_path: Path, place: str) -> None:
    root = tmp_path / "images"
    if place == "tar":
        with tarfile.open(root.with_suffix(".tar"), "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as tar:
            info_ = tarfile.TarInfo("caf\u00e9.png")
            info_.size = len(png())
            tar.addfile(info_, io.BytesIO(png()))
        root = tmp_path
    else:
        folder(root, "cat/a.png")
        name = b"caf\xe9" if place == "folder" else b"cat/caf\xe9.png"
        target = Path(str(root).encode().decode() + "/" + name.decode("utf-8", "surrogateescape"))
        if place == "folder":
            target.mkdir()
            (target / "a.png").write_bytes(png())
        else:
            target.write_bytes(png())
    with pytest.raises(UserError, match=r"caf\\xe9.* is not valid UTF-8; rename"):
        resolve(spec(root))


def test_images_of_one_name_are_refused(tmp_path: Path) -> None:
    folder(tmp_path, "a.png")
    rows = Rows(("a.png", "a.png"), np.array([0, 0], np.int32), np.array([1, 1]))
    with pytest.raises(UserError, match=r"two images are called 'a\.png'"):
        build(spec(tmp_path), rows, ClassSpace("x", ("a",)))


def test_factor_tables_match_names_in_either_form() -> None:
    names = [unicodedata.normalize(form, "caf\u00e9/\uac00\u00e9.png") for form in ("NFC", "NFD")]
    assert image_key(names[0]) == image_key(names[1])
