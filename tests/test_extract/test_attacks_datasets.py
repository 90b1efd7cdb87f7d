"""Datasets made to do harm: each is refused in one line, or costs the image that does it, and reads nothing else.

One row of `ATTACKS` and of `IMAGES` an attack, and the words of the error that must come of it. Where there are none,
what is read must be the images that are well.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import folder, png
from harmful_data import (
    ALIASES,
    DEEP,
    PAX_CHAIN,
    Build,
    arrow,
    billion_rows,
    compressed_arrow,
    deep_folders,
    fifo_named,
    jpeg,
    linked_manifest,
    long_texts,
    manifest,
    many_links,
    member,
    moving,
    pickled_type,
    png_of,
    raw_tar,
    small_shard,
    small_table,
    sparse,
    tar_of,
    text_file,
    torn,
    wild_offsets,
)

from closerlook_common.errors import UserError
from extract.classes.spaces import class_space
from extract.datasets import DatasetSpec, UnreadableImage, resolve

SECRET = b"SECRET"
ATTACKS: dict[str, tuple[Build, str]] = {
    # ---- archives: an empty expectation means that the sample that is well is read, alone
    "tar: symbolic link": (tar_of(member("x.png", kind=tarfile.SYMTYPE, linkname="/etc/passwd")), ""),
    "tar: hard link": (tar_of(member("x.png", kind=tarfile.LNKTYPE, linkname="../secret")), ""),
    "tar: device": (tar_of(member("x.png", kind=tarfile.CHRTYPE, devmajor=1, devminor=5)), ""),
    "tar: pipe": (tar_of(member("x.png", kind=tarfile.FIFOTYPE)), ""),
    "tar: label is a link": (tar_of(member("good.txt", kind=tarfile.SYMTYPE, linkname="/etc/passwd")), ""),
    "tar: sparse terabyte": (sparse, "stored sparsely"),
    "tar: negative size": (raw_tar((b"0", b"\xff" * 12)), "cannot be read as a tar file|damaged"),
    "tar: size of an exabyte": (raw_tar((b"0", b"\x80" + b"\0" * 3 + b"\x7f" * 8)), "cannot be read as a tar file"),
    "tar: 3,000 chained headers": (PAX_CHAIN, "cannot be read as a tar file"),
    "tar: header of an exabyte": (raw_tar((b"x", b"\x80" + b"\0" * 3 + b"\x7f" * 8)), "cannot be read as a tar file"),
    "tar: label of 17 MB": (tar_of(member("x.cls", b"0" * (17 << 20))), "too many for a label"),
    "tar: label of deep JSON": (tar_of(member("x.json", DEEP.encode()), member("x.png", png())), ""),
    "tar: name with a zero byte": (
        tar_of(member("x\0.png", png(), pax_headers={"path": "x\0.png"})),
        "zero byte|tar file",
    ),
    "tar: is a pipe": (fifo_named("val.tar", reader="webdataset"), "no regular file"),
    "tar: _info.json of deep JSON": (text_file("_info.json", DEEP, small_shard), "nested too deeply|not JSON"),
    "tar: nshards.txt is not a number": (text_file("nshards.txt", "1e9", small_shard), "should hold a number"),
    "tar: classnames.txt of zeros": (text_file("classnames.txt", bytes(100), small_shard), "zero byte|class|label"),
    # ---- tables
    "parquet: four million rows in 1 KB": (billion_rows, "says that it has 4,000,000 rows"),
    "parquet: 600 MB of text in 1 MB": (long_texts, "unpacks to more than"),
    "parquet: torn footer": (torn("parquet", 0.97), "cannot be read"),
    "parquet: not one": (
        text_file("test.parquet", b"PAR1" + bytes(50) + b"PAR1", reader="huggingface"),
        "cannot be read",
    ),
    "parquet: is a pipe": (fifo_named("test.parquet", reader="huggingface"), "no regular file"),
    "parquet: card that multiplies": (text_file("README.md", f"---\n{ALIASES}---\n", small_table), ""),
    "arrow: compressed": (compressed_arrow, "is compressed"),
    "arrow: offsets beyond the file": (wild_offsets, "cannot be read as an Arrow file"),
    "arrow: type that is a pickle": (pickled_type, "is damaged"),
    "arrow: torn header": (torn("arrow", 0.02), "Arrow"),
    "arrow: not one": (text_file("x.arrow", bytes(100), reader="huggingface"), "Arrow"),
    # ---- manifests
    "csv: a million columns": (manifest("m.csv", "path," + "x," * 400_000 + "\n"), "columns; a manifest has at most"),
    "csv: header of 2 MB": (manifest("m.csv", "path," + "x" * (2 << 20) + "\n"), "line longer than"),
    "csv: line of 5 MB": (manifest("m.csv", "path\na.png\n" + "x" * (5 << 20) + "\n"), "line longer than"),
    "csv: zeros": (manifest("m.csv", bytes(1000)), "not UTF-8 text"),
    "csv: UTF-16": (manifest("m.csv", "path\na.png\n".encode("utf-16")), "not UTF-8 text"),
    "csv: out of the folder": (manifest("m.csv", "path\n../secret.png\n"), "leaves the folder"),
    "csv: absolute": (manifest("m.csv", "path\n/etc/passwd\n"), "lies outside"),
    "csv: link out of the folder": (linked_manifest("/etc/passwd"), "follow_links = true"),
    "csv: is a pipe": (lambda root: fifo_named("m.csv", manifest=root / "m.csv")(root), "no manifest"),
    "txt: line of 5 MB": (manifest("m.txt", "a.png 0\n" + "x" * (5 << 20)), "line longer than"),
    "jsonl: deep": (manifest("m.jsonl", DEEP), "cannot be read"),
    "parquet manifest: not one": (manifest("m.parquet", b"PAR1" * 10), "cannot be read"),
    "names: is /dev/zero": (
        lambda root: {"classes": "/dev/zero.txt"} if folder(root, "a/a.png") else {},
        "cannot be read",
    ),
    # ---- folders
    "folders that link to each other": (many_links, "on more than 16 ways"),
    "folders 1,500 deep": (deep_folders, ""),
}


def spec_of(root: Path, keys: dict[str, Any]) -> DatasetSpec:
    return DatasetSpec(name="attacked", path=root, **keys)


@pytest.fixture
def guarded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder beside a secret; starting a program, or running what a file holds, fails the test."""

    class_space("imagenet-1k")  # libraries look for others with programs when they are imported

    def refuse(*words: object, **_: object) -> None:
        raise AssertionError(f"a program was started: {words}")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    monkeypatch.setattr(os, "system", refuse)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "secret.png").write_bytes(SECRET)
    (tmp_path / "data").mkdir()
    yield tmp_path / "data"
    assert not (tmp_path / "executed").exists()
    monkeypatch.undo()
    # pytest removes old folders by recursion, which one of 1,500 levels would end with an error of its own.
    subprocess.run(["rm", "-rf", "--", str(tmp_path / "data")], check=True)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused_or_left_out(guarded: Path, attack: str) -> None:
    build, says = ATTACKS[attack]
    spec = spec_of(guarded, build(guarded))
    if says:
        with pytest.raises(UserError, match=says) as raised:
            resolve(spec)
        assert len(str(raised.value)) < 3000
        return
    found = resolve(spec)
    for row in range(len(found)):
        try:
            data = found.read(row)
        except UnreadableImage:
            continue
        assert SECRET not in data
        assert data.startswith(b"\x89PNG")


def test_names_in_archives_are_never_paths(guarded: Path) -> None:
    tar_of(member("../../secret.png", png(7)), member("../../secret.cls", b"1"))(guarded)
    found = resolve(spec_of(guarded, {"reader": "webdataset", "classes": ("a", "b")}))
    assert found.labels.tolist() == [1, 0]
    assert found.open(0).getpixel((0, 0)) == (7, 0, 0)
    assert (guarded.parent / "secret.png").read_bytes() == SECRET


# ---- annotations

OBJECT = "<annotation><object><name>{}</name></object></annotation>"
LAUGHS = (
    "<!DOCTYPE l [<!ENTITY a 'x'>"
    + "".join(f"<!ENTITY {b} '{f'&{a};' * 10}'>" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "]>"
)
XML = {
    "plain": OBJECT.format("n01440764"),
    "entities that multiply": LAUGHS + OBJECT.format("&i;"),
    "external entity": f"<!DOCTYPE a [<!ENTITY s SYSTEM '{{secret}}'>]>{OBJECT.format('&s;')}",
    "external document type": f"<!DOCTYPE a SYSTEM '{{secret}}'>{OBJECT.format('n01440764')}",
    "deep": "<a>" * 50_000,
    "no XML": "\x00\x01",
}


@pytest.mark.parametrize("kind", XML)
def test_annotations_declare_nothing(guarded: Path, kind: str) -> None:
    name = "ILSVRC2012_val_00000001"
    folder(guarded / "images", f"{name}.JPEG")
    (guarded / "Annotations" / "val").mkdir(parents=True)
    secret = guarded.parent / "wnid"
    secret.write_text("n01440764")
    (guarded / "Annotations" / "val" / f"{name}.xml").write_text(XML[kind].replace("{secret}", secret.as_uri()))
    spec = DatasetSpec(name="imagenet-val", path=guarded / "images", allow_count_mismatch=True)
    if kind == "plain":
        assert resolve(spec).labels.tolist() == [0]
        return
    with pytest.raises(UserError, match="says nothing of ILSVRC2012_val_00000001"):
        resolve(spec)


# ---- images


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(/etc/passwd) run\n%%EOF\n"
TIFF = struct.pack("<2sHIHHHIIHHII", b"II", 42, 8, 2, 256, 4, 1, 1 << 30, 257, 4, 1, 1 << 30) + bytes(8)
BMP = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 60, 0, 0, 54, 40, 1 << 30, 1 << 30, 1, 24, *[0] * 6)
IMAGES: dict[str, tuple[bytes, str]] = {
    "bomb.png": (png_of(60_000, 60_000), "too many pixels"),
    "dimensions.png": (png_of(2**31 - 1, 2**31 - 1, data=b"x"), "pixels|image|limit|broken"),
    "postscript.jpg": (EPS, "not an image"),
    "metafile.png": (b"\xd7\xcd\xc6\x9a" + bytes(100), "not an image"),
    "vector.jpg": (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", "not an image"),
    "script.png": (b"#!/bin/sh\ntouch executed\n", "not an image"),
    "text-bomb.png": (png_of(4, 4, (b"zTXt", b"a\0\0" + zlib.compress(bytes(80 << 20)))), "too large"),
    "icc-bomb.png": (png_of(4, 4, (b"iCCP", b"a\0\0" + zlib.compress(bytes(80 << 20)))), "too large"),
    "icc-broken.jpg": (jpeg(icc_profile=b"\xff" * 500), ""),
    "exif-broken.jpg": (jpeg(exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), ""),
    "cut.jpg": (jpeg()[:-40], "[Tt]runcated"),
    "moving.gif": (moving(300), ""),
    "large.tif": (TIFF, "pixels|image|cannot|unknown"),
    "large.pnm": (b"P6 100000 100000 255\n" + bytes(10), "too many pixels"),
    "large.bmp": (BMP, "pixels"),
}  # fmt: skip


def test_images_cost_themselves_alone(guarded: Path) -> None:
    """Also what is not a file: a pipe, a socket, a device, links to nowhere, to themselves and out of the folder."""
    for name, (data, _) in IMAGES.items():
        (guarded / name).write_bytes(data)
    os.mkfifo(guarded / "pipe.png")
    (guarded / "device.png").symlink_to("/dev/zero")
    (guarded / "round.png").symlink_to("round.png")
    (guarded / "outside.png").symlink_to("../secret.png")
    os.chdir(guarded)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.png")
    reasons = {name: reason for name, (_, reason) in IMAGES.items()}
    reasons |= {"pipe.png": "not a file", "device.png": "not a file", "round.png": "symbolic", "socket.png": "device"}
    reasons["outside.png"] = "not an image"
    found = resolve(spec_of(guarded, {}))
    assert set(found.paths) == set(reasons)
    assert any("2 links lead out of" in line for line in found.problems), found.problems
    for row, name in enumerate(found.paths):
        if reasons[name]:
            with pytest.raises(UnreadableImage, match=reasons[name]):
                found.open(row)
        else:
            assert found.open(row).mode == "RGB", name


# ---- files of every kind with bytes changed at random


@pytest.mark.parametrize("kind", ["tar", "parquet", "arrow"])
def test_changed_bytes_never_end_in_a_traceback(guarded: Path, kind: str) -> None:
    rng = np.random.default_rng(11)
    build = {"tar": tar_of(), "parquet": small_table, "arrow": lambda root: {"x": arrow(root)}}[kind]
    build(guarded)
    (path,) = guarded.iterdir()
    whole = path.read_bytes()
    keys = {"reader": "webdataset" if kind == "tar" else "huggingface", "classes": ("a", "b")}
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            found = resolve(spec_of(guarded, keys))
        except UserError:
            refused += 1
            continue
        for row in range(len(found)):
            try:
                found.open(row)
            except UnreadableImage:
                continue
    assert refused
