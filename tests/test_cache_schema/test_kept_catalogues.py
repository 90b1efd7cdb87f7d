"""Listings from a kept catalogue are those without one, whatever happened to the stores and whatever it holds."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cache_schema
from cache_schema import DatasetCard, ModelCard
from cache_schema.reading import listing
from cache_schema.reading.catalogues import kept
from cache_schema.reading.catalogues.columns import encode, parse
from cache_schema.reading.places.base import LocalPlace
from closerlook_common.errors import CorruptStoreError

Write = Callable[..., cache_schema.PredictionStore]
TICK_NS = 20_000_000
"""Longer than a file system's clock stands still."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep catalogues of the smallest caches, in a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(listing, "WORTH", 1)
    monkeypatch.setattr(listing, "SETTLED_NS", 0)
    return tmp_path / "home" / "closerlook" / kept.FOLDER


@pytest.fixture
def cache(write: Write, model: ModelCard, dataset: DatasetCard, tmp_path: Path) -> Path:
    """A cache of two prediction stores, a summary and a head."""
    write()
    write(dataset=replace(dataset, id="other"), backend="hdf5")
    folder = tmp_path / "cache"
    columns = {"confidence": np.ones(3, np.float32)}
    record = {"source_digest": "5" * 64, "key": "k"}
    cache_schema.write_summary(folder, model=model, dataset=dataset, columns=columns, record=record)
    cache_schema.write_head(folder, model=model, class_space="in1k", class_names=["a", "b"], weight=np.eye(2))
    time.sleep(2 * TICK_NS / 1e9)
    return folder


def shown(cache: cache_schema.Cache) -> list[Any]:
    """Return all that a listing holds: facts that a catalogue keeps first, then headers, then what was refused."""
    found: list[Any] = []
    for store in cache.stores():
        facts = [store.path, store.title, store.kind, len(store), store.identity, store.digest, store.written]
        facts += [store.model_id, store.dataset_id, store.model, store.details, store.array_names, repr(store)]
        facts += [store.dataset if store.dataset_id else None, type(store), store.recorded("source_digest")]
        found.append(facts)
    headers = [store.header for store in cache.stores()]
    return [found, headers, cache.refused()]


def without_catalogue(folder: Path) -> list[Any]:
    """Return the same of a cache that uses no catalogue."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "WORTH", 10**9)
        return shown(cache_schema.open_cache(folder))


def test_no_store_is_opened_that_a_catalogue_holds(cache: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = sorted(cache.rglob("*"))
    expected = without_catalogue(cache)
    assert not home.exists()
    assert shown(cache_schema.open_cache(cache)) == expected
    (file,) = home.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(cache.rglob("*")) == before  # nothing is added to the cache itself
    assert shown(cache_schema.open_cache(cache)) == expected

    def never(*arguments: object) -> Any:
        raise AssertionError(arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LocalPlace, "reader", never)
        opened = cache_schema.open_cache(cache)
        stores = opened.stores()
        assert [store.path for store in stores] == [facts[0] for facts in expected[0]]
        assert {card.id for card in opened.datasets()} == {"imagenet", "other"}
        assert opened.roles().facts.keys() == {"imagenet", "other"}
        assert [store.recorded("key") for store in opened.stores("summary")] == ["k"]
        assert opened.stores()[0] is stores[0]
    labels = [store.labels for store in stores if isinstance(store, cache_schema.PredictionStore)]
    assert [len(each) for each in labels] == [70, 70]


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Stores of one name and size each, to put into caches."""
    folder, found = tmp_path_factory.mktemp("templates"), []
    for i, backend in enumerate(("zarr", "zarr", "hdf5")):
        store = cache_schema.write_store(
            folder / str(i), model=ModelCard(id=f"m{i}"), dataset=DatasetCard(id="d"), backend=backend,
            logits=np.full((4, 3), i, np.float32), labels=np.zeros(4, np.int32),
        )  # fmt: skip
        found.append(store.path)
    return found


def change(cache: Path, what: str, place: int, templates: list[Path], which: int) -> None:
    """Add, replace, remove or damage a store; sizes and times of the content stay as they are where they can."""
    template = templates[which]
    at = cache / f"model{place % 2}" / f"d{place}-00000000{template.suffix}"
    header = at / "zarr.json" if at.suffix == ".zarr" else at
    if what in ("put", "remove"):
        shutil.rmtree(at) if at.is_dir() else at.unlink(missing_ok=True)
    if what == "put":
        at.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(template, at) if template.is_dir() else shutil.copy2(template, at)
    elif header.exists():
        status = header.stat()
        raw = bytearray(header.read_bytes())
        if what == "flip":
            raw[-90] ^= 1
        elif what == "cut":
            del raw[-40:]
        elif what == "swap" and at.suffix == ".zarr":
            raw = bytearray((templates[1 - which] / "zarr.json").read_bytes())
        header.write_bytes(raw)
        os.utime(header, ns=(status.st_atime_ns, status.st_mtime_ns))


WHAT = ("put", "put", "put", "remove", "flip", "cut", "swap", "touch")
CHANGES = st.tuples(st.sampled_from(WHAT), st.integers(0, 2), st.integers(0, 2))


@settings(max_examples=20)
@given(rounds=st.lists(st.lists(CHANGES, min_size=1, max_size=4), min_size=2, max_size=5))
def test_any_changes_are_seen_at_once(templates: list[Path], rounds: list[list[tuple[str, int, int]]]) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", f"{name}/home")
        patch.setattr(listing, "WORTH", 1)
        patch.setattr(listing, "SETTLED_NS", TICK_NS)
        folder = Path(name) / "cache"
        folder.mkdir()
        lasting = cache_schema.open_cache(folder)
        for number, changes in enumerate(rounds):
            for what, place, which in changes:
                change(folder, what, place, templates, which)
            if number % 2:  # some listings follow at once, when nothing may be kept yet
                time.sleep(2 * TICK_NS / 1e9)
            expected = without_catalogue(folder)
            assert shown(cache_schema.open_cache(folder)) == expected
            assert shown(cache_schema.open_cache(folder)) == expected
            assert shown(lasting) == expected


def test_what_changed_just_now_is_not_kept(cache: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "SETTLED_NS", 10**12)
    assert len(cache_schema.open_cache(cache).stores()) == 4
    assert not home.exists() or not list(home.iterdir())


def test_a_store_whose_damage_another_file_may_show_is_not_kept(stores: list[Any], tmp_path: Path) -> None:
    """The first of them is laid out in another way: its arrays' metadata are read when it is opened."""
    time.sleep(2 * TICK_NS / 1e9)
    folder = tmp_path / "cache"
    cache_schema.open_cache(folder).stores()
    metadata = stores[0].path / "logits" / "zarr.json"
    metadata.write_bytes(metadata.read_bytes().replace(b"zstd", b"zsdt"))
    opened = cache_schema.open_cache(folder)
    assert stores[0].path not in [store.path for store in opened.stores()]
    assert [bad.path for bad in opened.refused()] == [stores[0].path]


def forge(raw: bytes, **changed: Any) -> bytes:
    """Return a catalogue with parts, or values of its first line, changed, and the digest computed again."""
    magic, line, rest = raw.split(b"\n", 2)
    about = json.loads(line)
    parts = {}
    for name, length in zip(PARTS, about["parts"], strict=True):
        parts[name], rest = rest[:length], rest[length:]
    for name in parts.keys() & changed.keys():
        parts[name] = changed.pop(name)(parts[name])
    about["parts"] = [len(part) for part in parts.values()]
    body = b"\n".join([magic, json.dumps(about | changed).encode(), b"".join(parts.values())])
    return body + hashlib.sha256(body).digest()


PARTS = ("numbers", "digests", "shared", "path", "written", "source_digest", "key", "prompt_set", "head_identity",
         "imported_from")  # fmt: skip


def number(column: int, value: int) -> Callable[[bytes], bytes]:
    """Return a change of one number of the first row."""

    def change(raw: bytes) -> bytes:
        values = np.frombuffer(raw, "<i8").copy()
        values[column] = value
        return values.tobytes()

    return change


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "array of numbers cut": lambda raw: forge(raw, numbers=lambda part: part[:-8]),
    "bytes changed": lambda raw: raw[:-50] + b"x" + raw[-49:],
    "cut": lambda raw: raw[: len(raw) // 2],
    "deep documents": lambda raw: forge(raw, shared=lambda part: b"[" * 100_000 + part),
    "deep line": lambda raw: raw.split(b"\n")[0] + b"\n" + b"[" * 50_000,
    "document index": lambda raw: forge(raw, numbers=number(6, 10**6)),
    "documents are numbers": lambda raw: forge(raw, shared=lambda part: b"\0".join([b"1"] * (part.count(0) + 1))),
    "empty": lambda raw: b"",
    "kind": lambda raw: forge(raw, numbers=number(4, 77)),
    "lengths": lambda raw: forge(raw, parts=[2**62] * len(PARTS)),
    "lengths are texts": lambda raw: forge(raw, parts=["1"] * len(PARTS)),
    "long line": lambda raw: raw.split(b"\n")[0] + b"\n" + b" " * 1_000_000,
    "negative": lambda raw: forge(raw, numbers=number(5, -1)),
    "newer": lambda raw: forge(raw, version=99),
    "no rows": lambda raw: forge(raw, rows=0),
    "not UTF-8": lambda raw: forge(raw, path=lambda part: b"\xff" + part[1:]),
    "of another cache": lambda raw: forge(raw, about={}),
    "of another kind": lambda raw: forge(raw, numbers=number(4, 0)),
    "pickle": lambda raw: b"cposix\nsystem\n(S'touch ran'\ntR.",
    "rows": lambda raw: forge(raw, rows=10**15),
    "rows are a truth": lambda raw: forge(raw, rows=True),
    "same path twice": lambda raw: forge(raw, path=lambda part: b"\0".join([b"a"] * (part.count(0) + 1))),
    "texts": lambda raw: forge(raw, written=lambda part: part + b"\0more"),
    "way out": lambda raw: forge(raw, path=lambda part: b"\0".join(b"../../%d" % i for i in range(part.count(0) + 1))),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_hostile_catalogues_change_nothing(cache: Path, home: Path, name: str) -> None:
    expected = without_catalogue(cache)
    cache_schema.open_cache(cache).stores()
    (file,) = home.iterdir()
    hostile = HOSTILE[name](file.read_bytes())
    assert hostile != file.read_bytes()
    file.write_bytes(hostile)
    assert shown(cache_schema.open_cache(cache)) == expected
    assert shown(cache_schema.open_cache(cache)) == expected
    assert file.read_bytes() != hostile  # it was made again


def test_a_catalogue_with_unchanged_parts_is_the_same(cache: Path, home: Path) -> None:
    """So that the hostile ones are refused for what was changed."""
    cache_schema.open_cache(cache).stores()
    raw = next(home.iterdir()).read_bytes()
    assert forge(raw) == raw
    line = json.loads(raw.split(b"\n")[1])
    columns = parse(raw, line["about"])
    assert encode([columns.row(i) for i in range(4)], line["about"]) == raw


@pytest.mark.parametrize("what", ["huge", "link", "open to all", "pipe"])
def test_files_that_others_may_have_put_there_are_not_read(
    cache: Path, home: Path, what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cache_schema.open_cache(cache).stores()
    (file,) = home.iterdir()
    expected = without_catalogue(cache)
    if what == "huge":
        with file.open("r+b") as opened:
            opened.truncate(kept.LARGEST + 1)  # sparse
    elif what == "link":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    elif what == "pipe":
        file.unlink()
        os.mkfifo(file)
    else:
        file.chmod(0o666)
    assert kept.KeptCatalogue(cache).load() is None
    assert shown(cache_schema.open_cache(cache)) == expected
    assert kept.KeptCatalogue(cache).load() is not None  # replaced


def test_the_catalogue_of_another_user_is_not_read(cache: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = without_catalogue(cache)
    cache_schema.open_cache(cache).stores()
    uid = os.geteuid()
    monkeypatch.setattr("os.geteuid", lambda: uid + 1)
    assert kept.KeptCatalogue(cache).load() is None
    assert shown(cache_schema.open_cache(cache)) == expected


@pytest.mark.parametrize("blocked", ["XDG_CACHE_HOME is a file", "no home"])
def test_a_cache_is_listed_where_nothing_can_be_kept(
    cache: Path, tmp_path: Path, blocked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if blocked == "no home":
        monkeypatch.delenv("XDG_CACHE_HOME")

        def homeless() -> Path:
            raise RuntimeError

        monkeypatch.setattr(Path, "home", homeless)
    else:
        (tmp_path / "home").write_text("")
    assert len(cache_schema.open_cache(cache).stores()) == 4
    assert cache_schema.open_cache(cache).refused() == []


def test_false_facts_of_a_store_end_when_it_is_opened(cache: Path, home: Path) -> None:
    cache_schema.open_cache(cache).stores()
    (file,) = home.iterdir()
    raw = file.read_bytes()
    file.write_bytes(forge(raw, shared=lambda part: part.replace(b"ViT-B-32/openai", b"ViT-L-14/openai")))
    opened = cache_schema.open_cache(cache)
    store = opened.stores("predictions")[0]
    assert store.model_id == "ViT-L-14/openai"
    for read in (lambda: store.labels, lambda: store.header, store.n_bytes):
        with pytest.raises(CorruptStoreError, match="the catalogue was deleted, run the same command again"):
            read()
    assert not file.exists()
    assert {store.model_id for store in opened.stores()} == {"ViT-B-32/openai"}
    assert shown(opened) == without_catalogue(cache)


def test_a_store_that_is_replaced_after_it_was_listed_is_not_read_as_the_old_one(
    cache: Path, home: Path, write: Write, outputs: dict[str, Any]
) -> None:
    cache_schema.open_cache(cache).stores()
    listed = cache_schema.open_cache(cache).store("ViT-B-32/openai", "imagenet")
    write(labels=np.zeros(70, np.int32), overwrite=True)
    with pytest.raises(CorruptStoreError, match="was replaced while it was read; run the same command again"):
        _ = listed.labels
    assert list(home.iterdir())  # the catalogue is not to blame
    assert not cache_schema.open_cache(cache).store("ViT-B-32/openai", "imagenet").labels.any()


def test_several_writers_at_once_leave_one_whole_catalogue(cache: Path, home: Path) -> None:
    def work() -> None:
        for _ in range(5):
            (home / "nothing").parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            for file in home.glob("*.catalogue"):
                file.unlink(missing_ok=True)
            assert len(cache_schema.open_cache(cache).stores()) == 4

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache_schema.open_cache(cache).stores()
    columns = kept.KeptCatalogue(cache).load()
    assert columns is not None
    assert sorted(columns.row_of) == LocalPlace(cache).names()
    assert [file.suffix for file in home.iterdir()] == [".catalogue"]


@pytest.fixture
def old(home: Path) -> Path:
    home.mkdir(parents=True, mode=0o700)
    return home / ("0" * 32 + ".catalogue")


def test_catalogues_that_were_not_used_for_long_are_deleted(cache: Path, home: Path, old: Path) -> None:
    mine = home / "notes.txt"
    for file in (old, mine):
        file.write_text("")
        os.utime(file, (1, 1))
    cache_schema.open_cache(cache).stores()
    assert not old.exists()
    assert mine.exists()
    (file,) = home.glob("*.catalogue")
    os.utime(file, (1, 1))
    cache_schema.open_cache(cache).stores()
    assert time.time() - file.stat().st_mtime < 3600  # in use
