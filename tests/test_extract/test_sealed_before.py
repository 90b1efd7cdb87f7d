"""What a run says of stores that are there already, beside that they are."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

import pytest
import timm
from safetensors.torch import save_file

from analyze.cli import main as analyze

COMMAND = ("--model-list", "models.txt", "--cache", "cache", "--workers", "0")


def test_half_a_store_is_no_sealed_one(study: Path, run_extract, digests) -> None:
    """A copy that was broken off leaves folders without a header; they were counted as sealed for ever."""
    run_extract(*COMMAND, cwd=study)
    whole = digests(study / "cache")
    store = next((study / "cache/test_vit").glob("pets-*.zarr"))
    (store / "zarr.json").unlink()
    (head,) = (study / "cache/test_resnet/heads").glob("*.zarr")
    (head / "zarr.json").write_bytes(b"{")

    found = run_extract(*COMMAND, cwd=study, code=1)
    assert "0 done, 5 sealed before, 0 skipped, 2 failed" in found.stderr
    assert f"failed test_vit on pets: cache/test_vit/{store.name} cannot be used (has no zarr.json" in found.stderr
    assert f"cache/test_resnet/heads/{head.name} cannot be used (" in found.stderr
    assert "line 1 column 2" in found.stderr  # where the header stops being JSON
    assert "remove it and run the same command again" in found.stderr

    shutil.rmtree(store)
    shutil.rmtree(head)
    repaired = run_extract(*COMMAND, cwd=study)
    assert "1 done, 5 sealed before" in repaired.stderr
    assert digests(study / "cache") == whole


@pytest.mark.parametrize("more", [False, True])
def test_a_second_run_repeats_which_images_could_not_be_read(study: Path, pets: Path, run_extract, more: bool) -> None:
    shutil.copytree(pets, study / "own")
    (study / "own/cat/3.jpg").write_bytes(b"no image")
    (study / "datasets.toml").write_text('[own]\npath = "own"\nclass_space = "pets"\n')
    (study / "models.txt").write_text((study / "models.txt").read_text().replace("classes=pets", "classes=own"))
    first = run_extract(*COMMAND, cwd=study, code=1)
    assert first.stderr.count("failed own: 1 image cannot be read (cat/3.jpg: not an image of a known format)") == 1
    if more:  # reported once, by the pass of the third model
        with (study / "models.txt").open("a") as file:
            file.write("timm:test_vit allow_random=yes num_classes=3 classes=own input_size=64 id=third\n")
    second = run_extract(*COMMAND, cwd=study, code=int(more))
    assert second.stderr.count("sealed own: 1 image could not be read (cat/3.jpg") == int(not more)


def test_numbers_of_other_images_are_stated_apart(study: Path, pets: Path, run_extract, capsys) -> None:
    """A dataset grows between two runs of two models: their numbers stood side by side without a word."""
    shutil.copytree(pets, study / "own")
    (study / "datasets.toml").write_text('[own]\npath = "own"\nclass_space = "pets"\n')
    first, second = (study / "models.txt").read_text().replace("classes=pets", "classes=own").strip().splitlines()
    (study / "models.txt").write_text(first)
    run_extract(*COMMAND, cwd=study)
    shutil.copy(pets / "cat/3.jpg", study / "own/dog/new.jpg")
    (study / "models.txt").write_text(second)
    time.sleep(1.1)  # a seal's time is in seconds
    run_extract(*COMMAND, cwd=study)

    note = "own: the stores of test_vit are of other images than the one written last; 'extract' makes new ones"
    status = run_extract("status", "cache", cwd=study).stdout
    assert "1 sealed, 1 sealed on other images, 0 failed, 0 missing" in status
    assert note in status
    table = str(study / "results.parquet")
    assert analyze(["metrics", str(study / "cache"), "-o", table, "--only", "accuracy"]) == 0
    assert note in capsys.readouterr().err
    assert analyze(["metrics", str(study / "cache"), "-o", table, "--only", "accuracy", "--models", "test_resnet"]) == 0
    assert "of other images" not in capsys.readouterr().err

    (study / "models.txt").write_text(f"{first}\n{second}")
    assert "1 done, 1 sealed before" in run_extract(*COMMAND, cwd=study).stderr
    assert "2 sealed, 0 failed, 0 missing" in run_extract("status", "cache", cwd=study).stdout
    assert analyze(["metrics", str(study / "cache"), "-o", table, "--only", "accuracy"]) == 0
    printed = capsys.readouterr().err
    assert "of other images" not in printed
    assert "own: of a model's several stores the one written last counts" in printed


def test_a_model_that_cannot_even_be_prepared_is_on_record(study: Path, run_extract) -> None:
    good = (study / "models.txt").read_text()
    torn = "timm:test_vit checkpoint=torn.safetensors classes=pets id=torn\n"
    (study / "torn.safetensors").write_bytes(b"")
    (study / "models.txt").write_text(good + torn)
    printed = run_extract(*COMMAND, cwd=study, code=1).stderr
    assert "failed torn: " in printed
    status = run_extract("status", "cache", cwd=study, code=1).stdout
    assert "3 models x 3 datasets: 6 sealed, 3 failed, 0 missing" in status
    assert "failed torn: " in status

    save_file(timm.create_model("test_vit", num_classes=3).state_dict(), study / "torn.safetensors")
    run_extract(*COMMAND, cwd=study)
    assert "9 sealed, 0 failed" in run_extract("status", "cache", cwd=study).stdout
    # Weights that are out of reach for a moment, when all is sealed, leave no mark either.
    (study / "torn.safetensors").rename(study / "elsewhere")
    run_extract(*COMMAND, cwd=study, code=1)
    run_extract("status", "cache", cwd=study, code=1)
    (study / "elsewhere").rename(study / "torn.safetensors")
    run_extract(*COMMAND, cwd=study)
    assert "9 sealed, 0 failed" in run_extract("status", "cache", cwd=study).stdout


def test_a_name_that_is_no_text_costs_its_dataset_before_anything_runs(study: Path, pets: Path, run_extract) -> None:
    """No store can hold it, which each model found out by itself."""
    shutil.copytree(pets, study / "own")
    odd = os.fsencode(study / "own/cat") + b"/caf\xe9.jpg"
    try:
        shutil.copy(os.fsencode(pets / "cat/3.jpg"), odd)
    except OSError:
        pytest.skip("this file system takes no such name")
    with (study / "datasets.toml").open("a") as file:
        file.write('[own]\npath = "own"\nclass_space = "pets"\n')
    printed = run_extract(*COMMAND, cwd=study, code=1).stderr
    line = r"failed own: .*the name 'cat/caf\\xe9.jpg' is not valid UTF-8; rename that file or folder"
    assert len(re.findall(line, printed)) == 1
    assert "6 done, 0 sealed before, 0 skipped, 1 failed" in printed
