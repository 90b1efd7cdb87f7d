"""A dataset's role beside the stores: changed without rewriting, joined by copying, never picked in silence."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cache_schema
from cache_schema.cli import main
from cache_schema.format.dataset_facts import (
    FACT_ROLES,
    FOLDER,
    LARGEST_RECORD,
    DatasetFacts,
    FactsRecord,
    parse_record,
    record_facts,
    recorded_in,
)
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.format.seal import DIGEST_KEY, dump_with_digest
from cache_schema.writing.dataset_roles import require_roles
from closerlook_common.errors import CorruptStoreError, NewerSchemaError, UserError

Capture = pytest.CaptureFixture[str]
SHIFT = DatasetFacts(role="shift", shift_of="val")


def add(cache: Path, model: str, dataset: str, **card: Any) -> cache_schema.PredictionStore:
    labels = np.arange(12) % 3
    return cache_schema.write_store(
        cache,
        model=ModelCard(id=model),
        dataset=DatasetCard(id=dataset, class_space="three", n_classes=3, **card),
        logits=np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32),
        labels=np.full(12, -1) if card.get("role") == "ood" else labels,
        image_ids=[f"{i}.png" for i in range(12)],
    )


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    for model in ("a", "b"):
        add(tmp_path / "cache", model, "val")
        add(tmp_path / "cache", model, "other")
    add(tmp_path / "cache", "a", "sun", role="ood", distance="far")
    return tmp_path / "cache"


def roles_in(cache: Path | str) -> dict[str, str]:
    opened = cache_schema.open_cache(cache)
    cards = {card.id: card for card in opened.datasets()}
    assert all(store.dataset.role == cards[store.dataset.id].role for store in opened.stores("predictions"))
    return {name: str(facts) for name, facts in require_roles(opened).items()}


def test_the_command_changes_every_store_of_the_dataset_and_rewrites_none(cache: Path, capsys: Capture) -> None:
    opened = cache_schema.open_cache(cache)
    store = opened.store("a", "other")
    before = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    assert store.dataset.role == "id"
    assert main(["dataset", str(cache), "other", "--role", "shift", "--shift-of", "val"]) == 0
    assert "other: role id becomes role shift, shift_of val" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in before} == before
    assert roles_in(cache)["other"] == "role shift, shift_of val"
    assert opened.store("a", "other").dataset == store.dataset, "an open cache sees the change"
    assert store.dataset.role == "shift"
    assert store.sealed_dataset.role == "id"
    add(cache, "c", "other")  # sealed with the old role: the record counts
    assert roles_in(cache)["other"] == "role shift, shift_of val"
    assert main(["dataset", str(cache), "other", "--role", "shift"]) == 0
    assert "as before" in capsys.readouterr().out
    assert main(["dataset", str(cache), "other", "--role", "id"]) == 0
    assert roles_in(cache)["other"] == "role id"
    assert len(list((cache / FOLDER).iterdir())) == 1, "what was replaced is removed"
    assert main(["check", str(cache)]) == 0
    assert main(["dataset", str(cache)]) == 0
    assert "sun" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["othr", "--role", "shift"], "did you mean other"),
        (["other", "--shift-of", "val"], "shift_of is for shifted and OOD sets"),
        (["other", "--role", "shift", "--shift-of", "vl"], "did you mean val"),
        (["other", "--role", "shift", "--shift-of", "other"], "names the dataset itself"),
        (["other", "--role", "shift", "--shift-of", "sun"], "whose role is ood"),
        (["other", "--distance", "far"], "distance is for OOD sets"),
        (["sun", "--role", "id"], "has no labels"),
        (["--role", "id"], "name the dataset"),
    ],
)
def test_what_does_not_go_together_is_refused(cache: Path, words: list[str], printed: str, capsys: Capture) -> None:
    assert main(["dataset", str(cache), *words]) == 2
    assert printed in capsys.readouterr().err
    assert not (cache / FOLDER).exists()


def test_stores_that_disagree_are_reported_until_somebody_chooses(cache: Path, capsys: Capture) -> None:
    add(cache, "c", "other", role="shift", shift_of="val")
    opened = cache_schema.open_cache(cache)
    with pytest.raises(UserError, match=r"role of other is unclear.*dataset .* other --role ROLE"):
        require_roles(opened)
    assert main(["dataset", str(cache)]) == 1
    assert "role id (2 stores); role shift, shift_of val (1 store)" in capsys.readouterr().out
    assert main(["dataset", str(cache), "other", "--shift-of", "val"]) == 2
    assert main(["dataset", str(cache), "other", "--role", "id"]) == 0
    assert roles_in(cache)["other"] == "role id"


def test_joined_caches_keep_what_replaced_and_report_what_contradicts(cache: Path, tmp_path: Path) -> None:
    record_facts(cache, "other", SHIFT)
    shutil.copytree(cache, tmp_path / "node2")
    record_facts(cache, "other", DatasetFacts(role="ood"))
    shutil.copytree(tmp_path / "node2", cache, dirs_exist_ok=True)
    assert roles_in(cache)["other"] == "role ood", "the older record came back, and is known to be replaced"
    record_facts(tmp_path / "node2", "other", DatasetFacts(role="id"))
    shutil.copytree(tmp_path / "node2", cache, dirs_exist_ok=True)
    with pytest.raises(UserError, match="records of it contradict each other"):
        roles_in(cache)
    assert main(["dataset", str(cache), "other", "--role", "shift", "--shift-of", "val"]) == 0
    assert roles_in(cache)["other"] == str(SHIFT)


facts = st.builds(
    lambda role, of, far: DatasetFacts(
        role=role, shift_of="val" if of and role != "id" else "", distance="far" if far and role == "ood" else ""
    ),
    st.sampled_from(FACT_ROLES), st.booleans(), st.booleans(),
)  # fmt: skip


@settings(max_examples=40)
@given(steps=st.lists(st.tuples(st.sampled_from("ab"), facts | st.none()), max_size=12))
def test_any_sequence_of_changes_and_joins_keeps_the_last_or_says_that_there_are_two(
    steps: list[tuple[str, DatasetFacts | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A step with facts changes a cache, one without joins the other cache into it."""
    caches = {name: tmp_path_factory.mktemp(name) for name in "ab"}
    heads: dict[str, set[FactsRecord]] = {"a": set(), "b": set()}
    for name, change in steps:
        if change is not None:
            record_facts(caches[name], "x", change)
            assert recorded_in(caches[name]).facts("x") == (change,), "who changes it settles it"
            heads[name] = set(recorded_in(caches[name]).records["x"])
        else:
            other = "b" if name == "a" else "a"
            shutil.copytree(caches[other], caches[name], dirs_exist_ok=True)
            every = heads[name] | heads[other]
            replaced = {digest for record in every for digest in record.replaces}
            heads[name] = {record for record in every if record.digest not in replaced}
            assert set(recorded_in(caches[name]).records.get("x", ())) == heads[name], "nothing is lost"


def valid_document() -> dict[str, Any]:
    record = FactsRecord(dataset="other", facts=SHIFT, when="2026-01-01T00:00:00Z")
    return {**json.loads(record.to_bytes()), DIGEST_KEY: None}


@pytest.mark.parametrize(
    "change",
    [
        {"role": "train"}, {"role": 3}, {"distance": "far"}, {"dataset": ""}, {"dataset": "\ud800"},
        {"replaces": ["x"]}, {"replaces": "ab"},
        {"facts_version": "1"}, {"facts_version": True}, {"format": "other"}, {"shift_of": None},
        {"dataset": "val"},
    ],
)  # fmt: skip
def test_a_record_of_something_else_is_refused(change: dict[str, Any]) -> None:
    name = FactsRecord(dataset="other", facts=SHIFT).name
    document = json.dumps({**valid_document(), **change}, separators=(",", ":"))
    raw = dump_with_digest({**valid_document(), **change}) if "\\ud800" not in document else document.encode()
    with pytest.raises(CorruptStoreError, match=r"remove it|delete it"):
        parse_record(raw, name, "file")


def test_a_record_of_a_newer_version_is_refused() -> None:
    raw = dump_with_digest({**valid_document(), "facts_version": 2})
    with pytest.raises(NewerSchemaError, match="install a newer one"):
        parse_record(raw, FactsRecord(dataset="other", facts=SHIFT).name, "file")


def test_every_changed_byte_of_a_record_is_found(cache: Path) -> None:
    raw = FactsRecord(dataset="other", facts=SHIFT, when="2026-01-01T00:00:00Z").to_bytes()
    name = FactsRecord(dataset="other", facts=SHIFT).name
    assert parse_record(raw, name, "file").facts == SHIFT
    for place in range(len(raw)):
        with pytest.raises(CorruptStoreError):
            parse_record(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :], name, "file")


def test_damaged_and_hostile_files_stop_the_analysis_and_nothing_else(cache: Path, capsys: Capture) -> None:
    record_facts(cache, "other", SHIFT)
    name = next((cache / FOLDER).iterdir()).name
    for ignored in (".DS_Store", "._x-0123456789abcdef.json", "notes.txt"):
        (cache / FOLDER / ignored).write_bytes(b"\0")
    (cache / FOLDER / "link-0123456789abcdef.json").symlink_to("/etc/passwd")
    os.mkfifo(cache / FOLDER / "pipe-0123456789abcdef.json")
    assert roles_in(cache)["other"] == str(SHIFT)
    huge = cache / FOLDER / "huge-0123456789abcdef.json"
    with huge.open("wb") as file:
        file.truncate(LARGEST_RECORD + 1)
    (cache / FOLDER / name).write_bytes(b"{}")
    (cache / FOLDER / "deep-0123456789abcdef.json").write_bytes(b"[" * 100_000)
    with pytest.raises(UserError, match="larger than a record"):
        require_roles(cache_schema.open_cache(cache))
    assert main(["check", str(cache)]) == 1
    assert "3 problems" in capsys.readouterr().out
    assert main(["show", str(cache)]) == 0
    assert "other" in capsys.readouterr().out


def test_records_go_with_the_stores_wherever_they_are_copied(
    cache: Path, tmp_path: Path, serve: Any, capsys: Capture
) -> None:
    record_facts(cache, "other", SHIFT)
    served = tmp_path / "served"
    assert main(["push", str(cache), f"file://{served}"]) == 0
    assert roles_in(f"file://{served}")["other"] == str(SHIFT)
    assert roles_in(serve(served).address)["other"] == str(SHIFT), "by the index"
    record_facts(cache, "other", DatasetFacts(role="ood", distance="near"))
    assert main(["push", str(cache), f"file://{served}"]) == 0
    assert roles_in(f"file://{served}")["other"] == "role ood, distance near", "what was replaced is removed there"
    (served / "index.json").unlink()
    assert roles_in(serve(served).address)["other"] == "role ood, distance near", "by listings"
    assert main(["pull", f"file://{served}", str(tmp_path / "pulled")]) == 0
    assert roles_in(tmp_path / "pulled")["other"] == "role ood, distance near"
    assert main(["convert", str(cache), str(tmp_path / "converted"), "--to", "hdf5"]) == 0
    assert roles_in(tmp_path / "converted")["other"] == "role ood, distance near"
    assert main(["dataset", f"file://{served}", "other", "--role", "id"]) == 2
    assert "change the cache on this machine" in capsys.readouterr().err


def test_an_import_takes_the_role_that_the_cache_has_and_says_what_it_changes(
    cache: Path, tmp_path: Path, capsys: Capture
) -> None:
    record_facts(cache, "other", SHIFT)
    file = tmp_path / "mine.npz"
    np.savez(file, logits=np.eye(3, dtype=np.float32)[np.arange(12) % 3] * 5, labels=np.arange(12) % 3)
    words = ["import", str(file), "--dataset", "other", "--cache", str(cache)]
    assert main([*words, "--model", "mine"]) == 0
    assert "role shift, shift_of val, which is kept" in capsys.readouterr().out
    assert cache_schema.open_cache(cache).store("mine", "other").sealed_dataset.role == "shift"
    assert main([*words, "--model", "again", "--role", "ood", "--distance", "near"]) == 0
    assert "becomes role ood, distance near, for all models" in capsys.readouterr().out
    assert roles_in(cache)["other"] == "role ood, distance near"
