"""Files made to harm whoever imports them: one row an attack; each costs little and ends in one line.

All attacks run in one process of their own, one after the other, so that a crash or memory without bound is seen.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import cache_schema

ROOT = Path(cache_schema.__file__).parents[1]
N, C = 20, 4
LOGITS = np.random.default_rng(0).normal(size=(N, C)).astype(np.float32)
LABELS = np.arange(N) % C
MEMORY = 700 << 20
"""Bytes that the process may have in use at most: with all imports loaded it has about 250 MB."""
SECONDS = 20


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=True)
    return file.getvalue()


def announced(header: str, body: bytes = b"\0" * 64, *, version: int = 1) -> bytes:
    """An array whose header says anything."""
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode() + body


def archive(path: Path, *members: tuple[str, bytes], how: int = zipfile.ZIP_DEFLATED, plain_too: bool = True) -> None:
    """An ``.npz`` of these members beside whatever a good one needs."""
    names = [name for name, _ in members]
    good = [("logits.npy", npy(LOGITS)), ("labels.npy", npy(LABELS))] if plain_too else []
    with zipfile.ZipFile(path, "w", how) as zipped:
        for name, data in [*members, *(item for item in good if item[0] not in names)]:
            zipped.writestr(name, data)


class Harmful:
    """Unpickled, it leaves a file behind."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("was-run"),)


def harmful() -> np.ndarray:
    held = np.empty(N, object)
    held[:] = [Harmful()] * N
    return held


def cut(path: Path, share: float) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: int(len(raw) * share)])


def encrypted(path: Path) -> None:
    archive(path)
    raw = bytearray(path.read_bytes())
    for magic, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := raw.find(magic, start + 1)) >= 0:
            raw[start + flags] |= 1
    path.write_bytes(raw)


def shrunk(path: Path) -> None:
    """The directory says that a member has 100 bytes."""
    archive(path, how=zipfile.ZIP_STORED)
    raw = bytearray(path.read_bytes())
    place = raw.find(b"PK\x01\x02")
    raw[place + 20 : place + 28] = struct.pack("<II", 100, 100)
    path.write_bytes(raw)


def flipped(path: Path) -> None:
    archive(path)
    raw = bytearray(path.read_bytes())
    raw[120] ^= 0xFF
    path.write_bytes(raw)


def twice(path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive(path, ("labels.npy", npy(LABELS)), ("labels.npy", npy(LABELS[::-1])))


def many_members(path: Path) -> None:
    archive(path, *((f"x{i}.npy", b"") for i in range(5000)), plain_too=False)


def answers(n: int = N) -> pl.DataFrame:
    return pl.DataFrame(
        {"image_id": [f"{i}.jpg" for i in range(n)], "label": [0] * n, "predicted": [0] * n}
    ).with_columns(confidence=pl.lit(0.5))


BOMB = b"\0" * (40 << 20)
LONG = "x" * (1 << 20)

MUCH = "in memory, more than"
OBJECTS = "holds Python objects"
BAD_HEADER = "its header is not one"
NOT_A_FILE = "name a file"
Maker = Callable[[Path], Any]


def npz(name: str, data: bytes | np.ndarray) -> Maker:
    return lambda path: archive(path, (f"{name}.npy", npy(data) if isinstance(data, np.ndarray) else data))


def says(shape: str, descr: str = "'<f4'", body: bytes = b"\0" * 64, name: str = "logits", version: int = 1) -> Maker:
    return npz(
        name, announced(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n", body, version=version)
    )


def raw(data: bytes | str) -> Maker:
    return lambda path: path.write_bytes(data.encode() if isinstance(data, str) else data)


def zeros(n: int) -> pl.DataFrame:
    return pl.select(**{name: pl.repeat(0.0, n) for name in ("logit_0", "logit_1", "label")})


HUGE = announced("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4), }\n")
ROW = "image_id,label,predicted,confidence\n"
WIDE = ",".join(f"logit_{i}" for i in range(30_000))
NESTED = {"label": [[1], [2]], "logit_0": [[0.5], [0.5]]}

ATTACKS: dict[str, tuple[str, Maker, str]] = {
    # name: (file, how it is made, what the one line says)
    "zip bomb": ("a.npz", npz("logits", np.zeros((8 << 20, 1), "f4")), MUCH),
    "zip bomb beside": ("a.npz", npz("junk", BOMB), MUCH),
    "header bomb": ("a.npz", npz("labels", announced(" " * (8 << 20), version=2)), "its header has"),
    "1e12 rows by a formula": ("a.npz", says("(10**12, 4)"), "cannot be read"),
    "1e12 rows": ("a.npz", says("(1000000000000, 4)"), "announces"),
    "1e12 rows of nothing": ("a.npz", says("(1000000000000, 0)", body=b""), "nothing to store"),
    "1e12 names of nothing": ("a.npz", says("(1000000000000,)", "'<U0'", b"", "image_ids"), "of no bytes"),
    "1e12 classes": ("a.npz", says("(0, 1000000000000)", body=b""), "nothing to store"),
    "a wrapping shape": ("a.npz", says("(4294967296, 4294967296)", body=b""), "announces"),
    "negative shape": ("a.npz", says("(-20, -4)", body=npy(LOGITS)), "its shape is"),
    "deep header": ("a.npz", npz("logits", announced("(" * 9000)), BAD_HEADER),
    "deep minus": ("a.npz", npz("logits", announced("-" * 9000 + "1")), BAD_HEADER),
    "deep type": ("a.npz", says("(20, 4)", "[" * 90 + "]" * 90), BAD_HEADER),
    "unknown version": ("a.npz", says("(20, 4)", version=9), "its version is 9.0"),
    "pickle as labels": ("a.npz", npz("labels", harmful()), OBJECTS),
    "pickle as ids": ("a.npz", npz("image_ids", harmful()), OBJECTS),
    "pickle as metadata": ("a.npz", npz("metadata.x", harmful()), OBJECTS),
    "pickle in a structure": ("a.npz", says("(20,)", "[('a', '|O')]", name="labels"), OBJECTS),
    "pickle called npz": ("a.npz", raw(pickle.dumps(Harmful())), "is not an .npz file"),
    "pickle called npy": ("a.npy", raw(pickle.dumps(Harmful())), "does not begin like"),
    "objects in an npy": ("a.npy", raw(npy(harmful())), "Python objects"),
    "1e12 rows in an npy": ("a.npy", raw(HUGE), "announces"),
    "long npy": ("a.npy", raw(npy(LOGITS) + b"\0" * 100), "announces"),
    "deep npy": ("a.npy", raw(announced("-" * 9000 + "1")), BAD_HEADER),
    "structured logits": ("a.npz", npz("logits", np.zeros((N, C), [("a", "f4")])), "not floats"),
    "complex logits": ("a.npz", npz("logits", LOGITS.astype("c8")), "not floats"),
    "complex features": ("a.npz", npz("features", LOGITS.astype("c8")), "features are complex64"),
    "dates as labels": ("a.npz", npz("labels", LABELS.astype("M8[s]")), "not 20 class indices"),
    "void as ids": ("a.npz", npz("image_ids", np.zeros(N, "V8")), "not names"),
    "cut in the directory": ("a.npz", lambda p: (archive(p), cut(p, 0.9)), "is not an .npz file"),
    "cut npy": ("a.npy", lambda p: (p.write_bytes(npy(LOGITS)), cut(p, 0.7)), "announces"),
    "flipped byte": ("a.npz", flipped, "cannot be read"),
    "encrypted": ("a.npz", encrypted, "cannot be read"),
    "lying directory": ("a.npz", shrunk, "cannot be read"),
    "packed with lzma": ("a.npz", lambda p: archive(p, how=zipfile.ZIP_LZMA), "compressed in a way"),
    "duplicate members": ("a.npz", twice, "holds 2 arrays called 'labels'"),
    "thousands of members": ("a.npz", many_members, "5,000 in all"),
    "a folder": ("a.npz", lambda p: p.mkdir(), NOT_A_FILE),
    "a pipe": ("a.npz", os.mkfifo, NOT_A_FILE),
    "a pipe called csv": ("a.csv", os.mkfifo, NOT_A_FILE),
    "a device": ("a.npy", lambda p: p.symlink_to("/dev/zero"), NOT_A_FILE),
    "a device called csv": ("a.csv", lambda p: p.symlink_to("/dev/zero"), NOT_A_FILE),
    "short rows": ("a.csv", raw(f"{WIDE}\n" + "1\n" * 30_000), "rows have fewer"),
    "compressed csv": ("a.csv", raw(gzip.compress(BOMB)), "is compressed"),
    "binary csv": ("a.csv", raw(bytes(range(256)) * 100), "a.csv"),
    "utf-16 csv": ("a.csv", raw(answers().write_csv().encode("utf-16")), "a.csv"),
    "empty csv": ("a.csv", raw(""), "cannot be read"),
    "heading alone": ("a.csv", raw(ROW), "has no rows"),
    "escapes in a heading": ("a.csv", raw("image_id,label,\x1b[2J\na,0,0\n"), "no column 'predicted'"),
    "integers beyond int64": ("a.csv", raw(f"{ROW}a,{10**30},0,0.5\n"), "'label'"),
    "parquet cut": ("a.parquet", lambda p: (answers().write_parquet(p), cut(p, 0.6)), "cannot be read"),
    "parquet that is text": ("a.parquet", raw("PAR1 and nothing else PAR1"), "cannot be read"),
    "parquet bomb of numbers": ("a.parquet", zeros(2 << 20).write_parquet, MUCH),
    "parquet bomb of text": ("a.parquet", answers(64).with_columns(note=pl.lit(LONG)).write_parquet, MUCH),
    "parquet of lists": ("a.parquet", pl.DataFrame(NESTED).write_parquet, "a.parquet"),
}

HARMLESS: dict[str, tuple[str, Maker]] = {
    "longdouble": ("a.npz", npz("logits", LOGITS.astype("g"))),
    "big endian": ("a.npz", npz("logits", LOGITS.astype(">f8"))),
    "fortran order": ("a.npz", npz("logits", np.asfortranarray(LOGITS))),
    "traversal in a name": ("a.npz", npz("../../../outside", LABELS)),
    "traversal in metadata": ("a.npz", npz("metadata.../../../outside", LABELS)),
    "other files in the zip": ("a.npz", lambda p: archive(p, ("evil.pkl", pickle.dumps(Harmful())))),
    "glob in the path": ("a[1]*.parquet", answers().write_parquet),
    "glob in the path of a csv": ("a[1]*.csv", answers().write_csv),
    "lists beside answers": ("a.parquet", answers().with_columns(x=pl.concat_list("label", "label")).write_parquet),
}

WORKER = """
import contextlib, io, json, re, sys, time
from pathlib import Path
from cache_schema.cli import main
from cache_schema.importing import limits
limits.FREE_BYTES = 16 << 20
for folder in sys.argv[1:]:
    (file,) = [p for p in Path(folder).iterdir()]
    err, began = io.StringIO(), time.perf_counter()
    words = ["--model", "m", "--dataset", "d", "--role", "ood", "--cache", folder + "-cache"]
    with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(["import", str(file), *words])
        except BaseException as error:
            code = repr(error)
    # Not ru_maxrss: a program that another one starts takes over the peak of its parent.
    used = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10
    took = time.perf_counter() - began
    print(json.dumps({"code": code, "err": err.getvalue(), "used": used, "seconds": took}), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("attacks")
    files = {name: (file, make) for name, (file, make, _) in ATTACKS.items()} | HARMLESS
    folders = []
    for place, (file, make) in enumerate(files.values()):
        folders.append(root / f"{place:03d}")
        folders[-1].mkdir()
        make(folders[-1] / file)
    done = subprocess.run(
        [sys.executable, "-c", WORKER, *map(str, folders)], cwd=root, capture_output=True, text=True, timeout=300,
        env={**os.environ, "POLARS_MAX_THREADS": "2", "PYTHONPATH": str(ROOT)},
        check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(files), f"{list(files)[len(lines)]} ended the process: {done.stderr[-2000:]}"
    found: dict[str, Any] = dict(zip(files, lines, strict=True))
    assert not (root / "was-run").exists(), "code from a file was run"
    assert not list(root.rglob("outside*.npy"))
    return found


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_costs_little_and_ends_in_one_line(name: str, outcomes: dict[str, Any]) -> None:
    outcome = outcomes[name]
    assert outcome["code"] == 2, outcome
    *reports, error = outcome["err"].splitlines()
    waits = f"/{ATTACKS[name][0]} ..."  # printed where the machine is slow
    assert all("left out" in line or (line.startswith("importing ") and line.endswith(waits)) for line in reports), (
        reports
    )
    assert ATTACKS[name][2] in error
    assert "\x1b" not in outcome["err"]
    assert outcome["used"] < MEMORY
    assert outcome["seconds"] < SECONDS


@pytest.mark.parametrize("name", HARMLESS)
def test_odd_files_are_imported(name: str, outcomes: dict[str, Any]) -> None:
    assert outcomes[name]["code"] == 0, outcomes[name]
