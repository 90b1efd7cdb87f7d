"""Class tokens, also of four blocks, and means of patches: those of timm's and open_clip's own passes, in stores."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import strategies as st
from tiny_clips import OTHER_TOWERS, RUN, TOWERS, VISION, clip, opened, pixels, write_study

import cache_schema
import closerlook
from cache_schema.writing.validate import problems
from extract.models.inner import four_blocks

LINE = "timm:{} allow_random=yes seed=1 num_classes=3 classes=pets input_size=64 crop_pct=1.0 {}"
TIMM = {
    "test_vit": 64,
    "vit_tiny_patch16_224": 32,
    "deit_tiny_distilled_patch16_224": 32,  # two tokens before the patches
    "vit_small_patch14_reg4_dinov2": 28,  # registers
    "eva02_tiny_patch14_224": 28,
    "beit_base_patch16_224": 224,  # pools the mean, and norms after it
}


@pytest.fixture
def clips(tmp_path: Path, pets: Path) -> Path:
    return write_study(tmp_path, pets)


@pytest.mark.parametrize("tower", [name for name in TOWERS if name != "norm after pooling"])
def test_tokens_of_open_clip(tower: str, tmp_path: Path) -> None:
    model = opened(clip(tmp_path, TOWERS[tower]))
    given = pixels(model)
    visual = copy.deepcopy(model.module.visual)
    visual.proj, visual.output_tokens = None, True  # open_clip's own way to them
    with torch.inference_mode():
        pooled, tokens = visual(model._normalize(given))
    found = model.forward_with(given, ("patches", "tokens"))
    assert torch.equal(found.parts["token_class"], pooled)
    assert torch.equal(found.parts["token_mean"], tokens.mean(dim=1))
    assert torch.equal(found.parts["patches"], model.forward_with(given, ("patches",)).parts["patches"])
    assert torch.equal(found.features, model.forward(given).features)
    assert model.part_details("tokens") == {"layer": "ln_post"}


@pytest.mark.parametrize("name", TIMM)
def test_tokens_of_timm(name: str) -> None:
    model = opened(LINE.format(name, "").replace("input_size=64", f"input_size={TIMM[name]}"))
    given = pixels(model)
    with torch.inference_mode():
        tokens = model.module.forward_features(model._normalize(given))
    found = model.forward_with(given, ("tokens",))
    assert torch.equal(found.parts["token_class"], tokens[:, 0])
    assert torch.equal(found.parts["token_mean"], tokens[:, model.module.num_prefix_tokens :].mean(dim=1))
    plain = model.forward(given)
    assert torch.equal(found.features, plain.features)
    assert (found.logits is None) == (plain.logits is None)
    if plain.logits is not None:
        assert torch.equal(found.logits, plain.logits)


@pytest.mark.parametrize("name", [name for name in TIMM if name != "test_vit"])
def test_blocks_of_timm(name: str) -> None:
    model = opened(LINE.format(name, "").replace("input_size=64", f"input_size={TIMM[name]}"))
    given = pixels(model)
    with torch.inference_mode():
        found = model.module.forward_intermediates(
            model._normalize(given), indices=[2, 5, 8, 11], return_prefix_tokens=True, output_fmt="NLC",
            intermediates_only=True,
        )  # fmt: skip
    wanted = torch.stack([prefix[:, 0] for _, prefix in found], dim=1)
    both = model.forward_with(given, ("tokens", "blocks"))
    assert set(both.parts) == {"token_class", "token_mean", "block_class"}
    assert torch.equal(both.parts["block_class"], wanted)
    assert torch.equal(both.features, model.forward(given).features)
    assert model.part_details("blocks") == {"numbers": (2, 5, 8, 11), "of": 12}


@pytest.mark.parametrize("layers", [4, 6])
def test_blocks_of_open_clip(layers: int, tmp_path: Path) -> None:
    model = opened(clip(tmp_path, {**VISION, "layers": layers}))
    given = pixels(model)
    numbers = {4: [0, 1, 2, 3], 6: [0, 2, 3, 5]}[layers]
    with torch.inference_mode():
        found = model.module.visual.forward_intermediates(
            model._normalize(given), indices=numbers, output_extra_tokens=True
        )
    wanted = torch.cat(found["image_intermediates_prefix"], dim=1)
    got = model.forward_with(given, ("patches", "tokens", "blocks"))
    assert torch.equal(got.parts["block_class"], wanted)
    assert torch.equal(got.features, model.forward(given).features)
    assert model.part_details("blocks") == {"numbers": tuple(numbers), "of": layers}


@drawn(depth=st.integers(4, 200))
def test_blocks_are_evenly_spaced(depth: int) -> None:
    found = four_blocks(depth)
    assert found[-1] == depth - 1
    assert len(set(found)) == 4
    gaps = np.diff([-1, *found])
    assert gaps.max() - gaps.min() <= 1


def test_blocks_are_stored_and_few_of_them_refused(clips: Path, run_extract: Callable[..., Any]) -> None:
    lines = [clip(clips, {**VISION, "layers": 5}, "id=deep"), clip(clips, VISION, "id=flat")]
    (clips / "models.txt").write_text("\n".join(lines))
    failed = run_extract(*RUN, "--arrays", "blocks", cwd=clips, code=1)  # and an image that cannot be read
    assert "--arrays blocks: its image tower has only 3 blocks" in failed.stderr
    store = cache_schema.open_cache(clips / "cache").store("deep", "pets")
    assert store.shape("block_class") == (12, 4, 64)
    assert store.details["blocks"] == {"numbers": [0, 1, 2, 4], "of": 5}
    assert np.isnan(store.read("block_class")[~store.valid]).all()
    assert not problems(store.path)


def test_a_store_of_tokens_and_the_models_without(study: Path, run_extract: Callable[..., Any]) -> None:
    lines = [
        LINE.format("test_vit", "id=vit"),
        LINE.format("test_resnet", "id=cnn"),
        LINE.format("test_vit4", "id=gap"),
    ]
    (study / "models.txt").write_text("\n".join(lines))
    words = ("--model-list", "models.txt", "--batch-size", 8, "--workers", 0)
    failed = run_extract(*words, "--arrays", "tokens", cwd=study, code=1)
    refused = [line for line in failed.stderr.splitlines() if line.startswith("failed")]
    assert any("cnn" in line and "is not a vision transformer" in line for line in refused)
    assert any("gap" in line and "has no class token" in line for line in refused)
    assert "--arrays tokens" in refused[0]
    cache = cache_schema.open_cache(study / "cache")
    assert {store.model.id for store in cache.stores("predictions")} == {"vit"}
    assert {store.model.id for store in cache.stores("reference")} == {"vit", "cnn", "gap"}  # holds none of any model
    store = cache.store("vit", "pets")
    assert not problems(store.path)
    assert store.details["tokens"] == {"layer": "forward_features"}
    np.testing.assert_array_equal(store.read("token_class"), store.read("features"))  # what test_vit pools


def test_asked_for_later_they_join_what_is_there(clips: Path, run_extract: Callable[..., Any]) -> None:
    (clips / "images" / "cat" / "broken.jpg").unlink()
    run_extract(*RUN, "--arrays", "patches", cwd=clips)
    first = cache_schema.open_cache(clips / "cache").store("tiny", "pets")
    assert "2 stores to make" in run_extract(*RUN, "--arrays", "tokens", "--dry-run", cwd=clips).stderr
    run_extract(*RUN, "--arrays", "tokens", cwd=clips)
    cache = cache_schema.open_cache(clips / "cache")
    both = cache.store("tiny", "pets")
    assert both.parts == ("patches", "tokens")
    assert first.identity in both.record["extends"]
    for name, entry in first.header["seal"]["arrays"].items():
        assert both.header["seal"]["arrays"][name] == entry
    for arrays in ((), ("--arrays", "tokens"), ("--arrays", "patches,tokens")):
        assert "2 sealed before" in run_extract(*RUN, *arrays, cwd=clips).stderr


@pytest.mark.parametrize("tower", OTHER_TOWERS)
def test_towers_of_open_clip_without_tokens_are_refused(
    tower: str, clips: Path, run_extract: Callable[..., Any]
) -> None:
    (clips / "models.txt").write_text(clip(clips, OTHER_TOWERS[tower], "id=other"))
    (clips / "images" / "cat" / "broken.jpg").unlink()
    if tower == "pools all":  # which has a class token all the same
        run_extract(*RUN, "--arrays", "tokens", cwd=clips)
        assert cache_schema.open_cache(clips / "cache").store("other", "pets").parts == ("tokens",)
    else:
        failed = run_extract(*RUN, "--arrays", "tokens", cwd=clips, code=1)
        assert "--arrays tokens: its image tower is" in failed.stderr


def test_probes_take_them(study: Path, run_extract: Callable[..., Any]) -> None:
    line = "timm:test_vit allow_random=yes seed=1 num_classes=0 input_size=64 crop_pct=1.0 id=vit"
    (study / "models.txt").write_text(line)
    text = (study / "datasets.toml").read_text()
    (study / "datasets.toml").write_text(text + text.replace("[pets]", "[again]").split("[cats]")[0])
    run_extract("--model-list", "models.txt", "--batch-size", 8, "--workers", 0, "--arrays", "tokens", cwd=study)
    found = closerlook.probe(
        study / "cache", reference="training", methods=["linear"], l2_path=[1.0], features="class+mean"
    )
    assert set(found.models) == {"vit[linear:class+mean:l2=1]"}
    store = cache_schema.open_cache(study / "cache").store("vit[linear:class+mean:l2=1]", "pets")
    tokens = cache_schema.open_cache(study / "cache").store("vit", "pets").shape("token_class")
    assert store.feature_width == 2 * tokens[1]
