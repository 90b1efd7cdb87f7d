"""Publish, find, pull: the card says what is there, licences are asked about, an index leads to the stores."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cache_schema
from cache_schema.cli import main
from cache_schema.copying.description import Description, Published, describe, readme, unclear_licences
from cache_schema.copying.registry import Index
from cache_schema.reading.places.base import LocalPlace

pytest.importorskip("fsspec")
# aiohttp closes its sockets when they are collected, which is not the tests' business.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

Capture = pytest.CaptureFixture[str]


def write(cache: Path, model: str, dataset: str, licence: str = "mit", of_set: str = "cc-by-4.0") -> Any:
    rng = np.random.default_rng(len(model) + len(dataset))
    return cache_schema.write_store(
        cache,
        model=cache_schema.ModelCard(id=model, licence=licence),
        dataset=cache_schema.DatasetCard(id=dataset, n_classes=3, class_names=("a", "b", "c"), licence=of_set),
        logits=rng.normal(size=(20, 3)).astype(np.float32),
        labels=np.arange(20, dtype=np.int32) % 3,
        image_ids=[f"{i}.png" for i in range(20)],
    )


def test_publish_find_pull_gives_the_same_stores(tmp_path: Path, bucket: Any, capsys: Capture) -> None:
    cache, index = tmp_path / "cache", f"{bucket.cache.rpartition('/')[0]}/index.json"
    stores = [write(cache, "one", "val"), write(cache, "two", "val"), write(cache, "two", "shifted")]
    assert main(["publish", str(cache), bucket.cache, "--title", "Two models", "--index", index]) == 0
    assert main(["find", index, "--model", "tw*", "--dataset", "val"]) == 0
    out = capsys.readouterr().out
    assert bucket.cache in out
    assert stores[1].identity[:8] in out
    assert stores[0].identity[:8] not in out
    assert main(["pull", bucket.cache, str(tmp_path / "pulled")]) == 0
    pulled = {store.digest for store in cache_schema.open_cache(tmp_path / "pulled").stores()}
    assert pulled == {store.digest for store in stores}
    (listed,) = Index(index).caches()
    here = LocalPlace(tmp_path / "pulled")
    assert listed["digest"] == describe(here, here.names(), title="any").digest
    assert main(["find", index, "--model", "three"]) == 1


def test_a_folder_gets_a_card_that_says_what_is_there(tmp_path: Path, capsys: Capture) -> None:
    cache, folder = tmp_path / "cache", tmp_path / "repository"
    store = write(cache, "one", "val")
    folder.mkdir()
    assert main(["publish", str(cache), str(folder), "--title", "My study", "--index", str(tmp_path / "i.json")]) == 0
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlicense: other\n")
    for part in ("# My study", "| one |", "| val | id | 20 | cc-by-4.0 |", "NeurIPS 2023", "1 predictions"):
        assert part in card
    record = json.loads((folder / "closerlook.json").read_text())
    assert [entry["digest"] for entry in record["stores"]] == [store.digest]
    size = sum(file.stat().st_size for file in store.path.rglob("*") if file.is_file())
    assert record["bytes"] == size
    assert main(["check", str(folder)]) == 0, "the card does not disturb the cache"


@pytest.mark.parametrize("licence", ["cc-by-nc-4.0", "unknown", "", "seer-license"])
def test_an_unclear_licence_stops_everything_until_it_is_accepted(
    licence: str, tmp_path: Path, capsys: Capture
) -> None:
    cache, folder = tmp_path / "cache", tmp_path / "repository"
    write(cache, "one", "val", licence)
    write(cache, "two", "val")
    words = ["publish", str(cache), str(folder), "--title", "t"]
    assert main(words) == 2
    name = licence or "unknown"
    assert f"--accept '{name}'" in capsys.readouterr().err
    assert not folder.exists()
    assert main([*words, "--model", "two"]) == 0
    assert main([*words, "--accept", name]) == 0
    assert f"these licences allow redistribution: {name}" in (folder / "README.md").read_text()


def test_the_index_replaces_an_address_and_keeps_the_others(tmp_path: Path) -> None:
    cache, index = tmp_path / "cache", tmp_path / "index.json"
    write(cache, "one", "val")
    for n, folder in enumerate("aba"):
        assert main(["publish", str(cache), str(tmp_path / folder), "--title", folder, "--index", str(index)]) == 0
        write(cache, f"more-{n}", "val")
    caches = Index(str(index)).caches()
    assert [cache["title"] for cache in caches] == ["b", "a"]
    assert [len(cache["stores"]) for cache in caches] == [2, 3]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not an index"),
        ("[]", "does not say 'format'"),
        ('{"format": "closerlook-index", "version": 2, "caches": []}', "has version 2"),
        ('{"format": "closerlook-index", "version": 1, "caches": [{"address": 3}]}', "is damaged"),
        ('{"format": "closerlook-index", "version": 1, "caches": {}}', "is damaged"),
        ('{"format": "closerlook-index", "version": 1, "caches": [{"address": "a", "digest": "", "title": "",'
         ' "stores": [["n", "k", "m", "d", "i"]]}]}', "is damaged"),
    ],
)  # fmt: skip
def test_a_damaged_index_is_one_line_and_nothing_is_copied(
    text: str, says: str, tmp_path: Path, capsys: Capture
) -> None:
    cache, index = tmp_path / "cache", tmp_path / "index.json"
    write(cache, "one", "val")
    index.write_text(text)
    assert main(["find", str(index)]) == 2
    assert main(["publish", str(cache), str(tmp_path / "to"), "--title", "t", "--index", str(index)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert all(says in line for line in lines)
    assert not (tmp_path / "to").exists()


def test_what_an_index_says_is_shown_as_text(tmp_path: Path, capsys: Capture) -> None:
    index = tmp_path / "index.json"
    store = ["n", "predictions", "[bold]m[/bold]\x1b[2J", "d", "i" * 64, "e" * 64]
    cache = {"address": "s3://b\x1b[31m", "digest": "f", "title": "t", "bytes": 0, "stores": [store]}
    index.write_text(json.dumps({"format": "closerlook-index", "version": 1, "caches": [cache]}))
    assert main(["find", str(index)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "[bold]m[/bold]" in out


def test_only_takes_summaries_a_model_or_a_dataset(tmp_path: Path, serve: Callable[..., Any], capsys: Capture) -> None:
    cache = tmp_path / "cache"
    stores = [write(cache, "one", "val"), write(cache, "two", "val"), write(cache, "two", "ViT Set")]
    write(cache, "val", "one")
    web = serve(cache)
    for only, wanted in (("two", {stores[1].digest, stores[2].digest}), ("ViT Set", {stores[2].digest})):
        target = tmp_path / only
        assert main(["pull", web.address, str(target), "--only", only]) == 0
        assert {store.digest for store in cache_schema.open_cache(target).stores()} == wanted
    assert main(["pull", web.address, str(tmp_path / "x"), "--only", "summaries"]) == 2
    assert "holds no summary stores" in capsys.readouterr().err
    assert main(["pull", web.address, str(tmp_path / "x"), "--only", "val"]) == 2
    assert "use --model or --dataset" in capsys.readouterr().err


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(name=NAMES, licence=NAMES)
def test_a_name_cannot_leave_its_cell_in_the_card(name: str, licence: str) -> None:
    facts = {"library": name, "name": name, "tag": "", "group": name, "source": name, "licence": licence}
    store = Published("a/b-00000000.zarr", "predictions", name, "d", "0" * 64, "1" * 64, 3)
    description = Description(name, (store,), {name: facts}, {})
    lines = readme(description, address="s3://b").splitlines()
    row = next(line for line in lines if line.count("| ") >= 5 and "licence" not in line and "---" not in line)
    assert row.replace("\\\\", "").replace("\\|", "").count("|") == 7
    assert "<" not in row.replace("\\<", "")
    assert sum(line.startswith("# ") for line in lines) == 1


@given(licence=st.sampled_from(["MIT", "apache-2.0", "cc-by-4.0", "cc-by-sa-4.0", "bsd-3-clause"]))
def test_open_licences_are_not_asked_about(licence: str) -> None:
    facts = {"library": "", "name": "", "tag": "", "group": "", "source": "", "licence": licence}
    description = Description("t", (), {"m": facts}, {"d": {"role": "id", "images": 1, "licence": "cc-by-nc-sa-4.0"}})
    assert unclear_licences(description) == {"cc-by-nc-sa-4.0": ["dataset d"]}
    assert not unclear_licences(replace(description, datasets={}))


def test_an_index_that_is_missing_is_an_error(tmp_path: Path, capsys: Capture) -> None:
    assert main(["find", str(tmp_path / "none.json")]) == 2
    assert "there is no index at" in capsys.readouterr().err
