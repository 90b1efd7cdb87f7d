"""Roles from the first run to the next: what datasets.toml says changes the cache's, what was guessed does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import cache_schema
from cache_schema.format.dataset_facts import FOLDER, DatasetFacts, record_facts
from cache_schema.format.records import DatasetCard, ModelCard
from extract.commands.roles import with_settled_roles
from extract.datasets import read_datasets_toml
from extract.datasets.borrowing import resolve_all

OUTPUTS = {"logits": np.eye(3, dtype=np.float32)[[0, 1, 2, 0]], "labels": [0, 1, 2, 0], "image_ids": list("abcd")}


def settled(folder: Path, toml: str, capsys: pytest.CaptureFixture[str], *, record: bool = True) -> tuple[dict, str]:
    """Return the facts of each dataset of a ``datasets.toml`` beside the cache, and what was printed."""
    (folder / "datasets.toml").write_text(toml)
    specs = read_datasets_toml(folder / "datasets.toml")
    datasets, reasons = resolve_all(specs)
    assert not reasons
    capsys.readouterr()
    found = with_settled_roles(specs, datasets, folder / "cache", Console(stderr=True, width=500), record=record)
    return {d.card.id: str(DatasetFacts.of(d.card)) for d in found}, capsys.readouterr().err


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    for name in ("val", "photos"):
        cache_schema.write_store(
            tmp_path / "cache",
            model=ModelCard(id="m"),
            dataset=DatasetCard(id=name, class_space="three", n_classes=3),
            **OUTPUTS,
        )
    return tmp_path / "cache"


def test_what_is_given_changes_the_cache_and_is_reported(cache: Path, pets: Path, tmp_path: Path, capsys) -> None:
    text = f'[photos]\npath = "{pets}"\nshift_of = "val"\n'
    facts, printed = settled(tmp_path, text, capsys, record=False)
    assert facts["photos"] == "role shift, shift_of val"
    assert "role id becomes role shift, shift_of val, for all models of this cache (not in a dry run)" in printed
    assert not (cache / FOLDER).exists()
    facts, printed = settled(tmp_path, text, capsys)
    assert "not in a dry run" not in printed
    assert cache_schema.open_cache(cache).store("m", "photos").dataset.role == "shift"
    assert settled(tmp_path, text, capsys) == (facts, ""), "nothing to report the second time"
    # what was not given is kept, for a model that is added now too
    facts, printed = settled(tmp_path, f'[photos]\npath = "{pets}"\n', capsys)
    assert facts["photos"] == "role shift, shift_of val"
    assert "this cache has role shift, shift_of val, which is kept; to change it: 'python -m cache_schema" in printed


def test_stores_that_disagree_are_settled_by_what_is_given(cache: Path, pets: Path, tmp_path: Path, capsys) -> None:
    cache_schema.write_store(
        cache,
        model=ModelCard(id="n"),
        dataset=DatasetCard(id="photos", role="shift", class_space="three", n_classes=3),
        **OUTPUTS,
    )
    _, printed = settled(tmp_path, f'[photos]\npath = "{pets}"\n', capsys)
    assert "the role of photos is unclear" in printed
    assert "photos --role ROLE" in printed
    _, printed = settled(tmp_path, f'[photos]\npath = "{pets}"\nrole = "ood"\nlabels = "none"\n', capsys)
    assert "photos: role ood from now on, for all models of this cache" in printed
    assert cache_schema.open_cache(cache).roles().facts["photos"] == DatasetFacts(role="ood")


def test_two_sets_taken_as_in_distribution_are_named_with_what_decides(pets: Path, tmp_path: Path, capsys) -> None:
    two = f'[pets]\npath = "{pets}"\n[photos]\npath = "{pets}"\n'
    _, printed = settled(tmp_path, two, capsys)
    assert "pets, photos are all taken as in-distribution test sets" in printed
    assert 'role = "shift" and shift_of = "pets" in datasets.toml' in printed
    assert "dataset" in printed
    assert "photos --role shift --shift-of pets" in printed
    both = two.replace("[photos]", 'role = "id"\n[photos]') + 'role = "id"\n'
    for decided in (both, two + 'shift_of = "pets"\n', f'[pets]\npath = "{pets}"\n'):
        assert "in-distribution" not in settled(tmp_path, decided, capsys)[1], decided


def test_a_set_that_is_added_counts_with_those_in_the_cache(cache: Path, pets: Path, tmp_path: Path, capsys) -> None:
    record_facts(cache, "photos", DatasetFacts(role="shift"))
    _, printed = settled(tmp_path, f'[pets]\npath = "{pets}"\n', capsys)
    assert "pets, val are all taken as in-distribution test sets" in printed


def test_the_command_stores_the_new_role_and_the_next_run_changes_it(study: Path, run_extract, pets: Path) -> None:
    (study / "models.txt").write_text((study / "models.txt").read_text().splitlines()[1] + "\n")
    words = ("--model-list", "models.txt", "--cache", "cache", "--batch-size", 8, "--workers", 1)
    lines = f'[pets]\npath = "{pets}"\nclass_space = "pets"\n[again]\npath = "{pets}"\nclass_space = "pets"\n'
    (study / "datasets.toml").write_text(lines)
    first = run_extract(*words, cwd=study)
    assert "again" in first.stderr
    assert "--shift-of pets" in " ".join(first.stderr.split())
    (study / "datasets.toml").write_text(lines + 'shift_of = "pets"\n')
    second = run_extract(*words, cwd=study)
    assert "again: role id becomes role shift, shift_of pets" in " ".join(second.stderr.split())
    assert "0 done, 2 sealed before" in second.stderr, "no store is written again"
    opened = cache_schema.open_cache(study / "cache")
    assert [(card.id, card.role) for card in opened.datasets()] == [("again", "shift"), ("pets", "id")]
