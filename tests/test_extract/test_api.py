"""``closerlook.run`` and ``closerlook.load_model``: what the command does, as calls."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import cache_schema
import closerlook
from closerlook_common.errors import IncompleteWarning, UserError

VIT = "timm:test_vit allow_random=yes seed=1 num_classes=3 classes=pets input_size=64 crop_pct=1.0"


def test_run_makes_the_stores_of_the_command(study: Path, pets: Path, run_extract, tmp_path: Path, capfd) -> None:
    run_extract("--model-list", "models.txt", "--cache", "cache", "--workers", 0, cwd=study)
    capfd.readouterr()
    found = closerlook.run(
        models=study / "models.txt", datasets=study / "datasets.toml", cache=tmp_path / "own", workers=0
    )
    assert capfd.readouterr() == ("", "")
    assert len(found.done) == 6
    assert (found.sealed, found.skipped, found.failed) == (0, (), ())
    for store in cache_schema.open_cache(study / "cache").stores("predictions"):
        own = found.open().store(store.model.id, store.dataset.id)
        assert own.digest == store.digest
    again = closerlook.run(models=study / "models.txt", datasets=study / "datasets.toml", cache=found.cache, workers=0)
    assert (again.done, again.sealed) == ((), 6)


def test_models_and_datasets_can_be_given_as_they_are(pets: Path, tmp_path: Path) -> None:
    table = {"path": pets, "class_space": "pets"}
    found = closerlook.run(models=VIT, datasets={"pets": table}, cache=tmp_path / "own", workers=0, batch_size=8)
    assert found.done == (("test_vit", "pets"),)
    store = found.open().store("test_vit", "pets")
    assert store.record["batch_size"] == 8
    spec = closerlook.DatasetSpec(name="pets", path=pets, class_space="pets")
    again = closerlook.run(models=[VIT], datasets=[spec], cache=tmp_path / "own", workers=0)
    assert (again.done, again.sealed) == ((), 1)


def test_what_fails_is_a_warning_and_the_rest_runs(pets: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    bad = f"{VIT} id=bad checkpoint={tmp_path / 'bad.pth'}".replace("allow_random=yes seed=1 ", "")
    with pytest.warns(IncompleteWarning, match="bad"):
        found = closerlook.run(
            models=[bad, VIT],
            datasets={"pets": {"path": pets, "class_space": "pets"}},
            cache=tmp_path / "own",
            workers=0,
        )
    assert found.done == (("test_vit", "pets"),)
    assert {model for model, _, _ in found.failed} == {"bad"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"models": VIT}, "`models` and `datasets`"),
        ({"models": VIT, "datasets": {"p": "PETS"}, "store": "npz"}, "`store` 'npz': choose zarr, hdf5"),
        ({"models": VIT, "datasets": {"p": "PETS"}, "shard": "2/2"}, "`shard` takes i/n"),
        ({"models": VIT, "datasets": {"p": "PETS"}, "device": "tpu"}, "`device` takes auto, cpu, cuda"),
        ({"models": VIT, "datasets": {"p": "PETS"}, "address": "x"}, "`address` names a Ray cluster"),
        ({"models": VIT, "datasets": {"p": "PETS"}, "batch_size": 0}, "`batch_size` takes"),
        ({"models": VIT, "datasets": {"p": {"path": "PETS", "rol": "id"}}}, "did you mean role"),
        ({"study": "@holistic", "models": VIT}, "`study` names the models and datasets"),
    ],
)
def test_errors_name_arguments(options: dict, words: str, pets: Path, tmp_path: Path) -> None:
    def placed(value):
        return (
            {k: placed(v) for k, v in value.items()}
            if isinstance(value, dict)
            else str(pets)
            if value == "PETS"
            else value
        )

    with pytest.raises(UserError) as caught:
        closerlook.run(**{"cache": tmp_path / "own", **placed(options)})
    assert words in str(caught.value)
    assert " --" not in f" {caught.value}"
    assert not (tmp_path / "own").exists()


def test_load_model_runs_as_the_extraction_does(pets: Path, tmp_path: Path) -> None:
    found = closerlook.run(
        models=VIT, datasets={"pets": {"path": pets, "class_space": "pets"}}, cache=tmp_path / "c", workers=0
    )
    model = closerlook.load_model(
        "timm:test_vit", allow_random=True, seed=1, num_classes=3, classes="pets", input_size=64, crop_pct=1.0
    )
    store = found.open().store("test_vit", "pets")
    assert model.feature_width == store.features().shape[1]
    pixels = torch.zeros((2, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        outputs = model.forward(pixels)
    assert outputs.logits is not None
    assert np.isfinite(outputs.logits.numpy()).all()
    with pytest.raises(UserError, match=r"stands for [0-9]+ models"):
        closerlook.load_model("timm:test_*")
    with pytest.raises(UserError, match="`precision` 'fp8'"):
        closerlook.load_model(VIT, precision="fp8")
