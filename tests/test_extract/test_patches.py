"""Best patches of CLIP-like models: against a pass written out in float64, in stores, and in scores."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax
from tiny_clips import OTHER_TOWERS, RUN, TOWERS, VISION, clip, opened, pixels, write_study

import analyze.detectors
import cache_schema
from cache_schema.writing.validate import problems
from extract.libraries import load, prepare
from extract.passes.patches import best_patches
from extract.planning.arrays import ARRAYS, settled, subsets
from extract.zoo.model_list import parse_line

ROOT = Path(__file__).parents[2]


def images(model: Any, given_: torch.Tensor) -> torch.Tensor:
    return model._normalize(given_).double()


def from_open_clip(model: Any, given_: torch.Tensor) -> torch.Tensor:
    """Return the embeddings of all patches, the last block written out."""
    visual = copy.deepcopy(model.module.visual).double()
    last = len(visual.transformer.resblocks) - 1
    found = visual.forward_intermediates(
        images(model, given_), indices=[last - 1], output_fmt="NLC", output_extra_tokens=True
    )
    x = torch.cat([found["image_intermediates_prefix"][0], found["image_intermediates"][0]], dim=1)
    block = visual.transformer.resblocks[last]
    width = x.shape[-1]
    value = block.ln_1(x) @ block.attn.in_proj_weight[2 * width :].T + block.attn.in_proj_bias[2 * width :]
    x = x + block.ls_1(value @ block.attn.out_proj.weight.T + block.attn.out_proj.bias)
    x = x + block.ls_2(block.mlp(block.ln_2(x)))
    return visual.ln_post(x)[:, 1:] @ visual.proj


def from_transformers(model: Any, given_: torch.Tensor) -> torch.Tensor:
    """Return the embeddings of all patches, the last layer written out."""
    module = copy.deepcopy(model.module).double()
    vision = module.vision_model
    x = vision(pixel_values=images(model, given_), output_hidden_states=True).hidden_states[-2]
    layer = vision.encoder.layers[-1]
    x = x + layer.self_attn.out_proj(layer.self_attn.v_proj(layer.layer_norm1(x)))
    x = x + layer.mlp(layer.layer_norm2(x))
    return module.visual_projection(vision.post_layernorm(x))[:, 1:]


@pytest.mark.parametrize("tower", TOWERS)
def test_patches_of_open_clip(tower: str, tmp_path: Path) -> None:
    model = opened(clip(tmp_path, TOWERS[tower]))
    given_ = pixels(model)
    with torch.inference_mode():
        wanted = from_open_clip(model, given_)
    found = model.forward_with(given_, ("patches",))
    assert found.parts["patches"].shape == (3, 16, 24)
    torch.testing.assert_close(found.parts["patches"].double(), wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.features, model.forward(given_).features)
    (spec,) = parse_line(clip(tmp_path, TOWERS[tower]), "models.txt:1")
    half = load(prepare(spec), precision="bf16")
    there = half.forward_with(given_, ("patches",))
    assert torch.equal(there.features, half.forward(given_).features)
    torch.testing.assert_close(there.parts["patches"].double(), wanted, rtol=0.1, atol=0.1 * float(wanted.std()))


VIT = {
    "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, "image_size": 32,
    "patch_size": 8, "projection_dim": 24,
}  # fmt: skip
WORDS = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 99}
SAVED = {"clip": "CLIP", "metaclip_2": "MetaClip2", "altclip": "AltCLIP", "chinese_clip": "ChineseCLIP"}


@pytest.mark.parametrize("kind", SAVED)
def test_patches_of_transformers(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = getattr(tf, f"{SAVED[kind]}Config")(vision_config=VIT, text_config=dict(WORDS), projection_dim=24)
    getattr(tf, f"{SAVED[kind]}Model")(config).save_pretrained(tmp_path)
    tf.CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False).save_pretrained(tmp_path)
    model = opened(f"transformers:{tmp_path}")
    given_ = pixels(model)
    with torch.inference_mode():
        wanted = from_transformers(model, given_)
    found = model.forward_with(given_, ("patches",))
    assert found.parts["patches"].shape == (3, 16, 24)
    torch.testing.assert_close(found.parts["patches"].double(), wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(found.features, model.forward(given_).features)


@given(
    rows=st.integers(1, 5), count=st.integers(1, 6), classes=st.integers(1, 5), seed=st.integers(0, 99),
    most=st.sampled_from([1, 40, 1 << 20]),
)  # fmt: skip
def test_the_best_patch_is_the_surest_one(rows: int, count: int, classes: int, seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    patches = rng.normal(size=(rows, count, 7)).astype(np.float32)
    weight = rng.normal(size=(classes, 7)).astype(np.float32)
    weight /= np.linalg.norm(weight, axis=1, keepdims=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("extract.passes.patches.MOST_COSINES", most)
        found = {k: v.numpy() for k, v in best_patches(torch.from_numpy(patches), torch.from_numpy(weight)).items()}
    sure = local_scores(patches, weight)
    np.testing.assert_allclose(found["patch_score"], sure.max(axis=1), rtol=1e-5)
    chosen = found["patch_index"].astype(int)
    np.testing.assert_allclose(sure[np.arange(rows), chosen], sure.max(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(found["patch_features"], patches[np.arange(rows), chosen])


def local_scores(patches: NDArray[Any], weight: NDArray[Any]) -> NDArray[np.float64]:
    """Return the largest softmax of the cosines of each patch, (n, P), in float64."""
    patches = patches.astype(float)
    unit = patches / np.linalg.norm(patches, axis=-1, keepdims=True)
    return softmax(unit @ weight.astype(float).T, axis=-1).max(axis=-1)


# ---- in stores


@pytest.fixture
def clips(tmp_path: Path, pets: Path) -> Path:
    return write_study(tmp_path, pets)


def test_scores_are_those_of_all_patches(clips: Path, run_extract: Callable[..., Any]) -> None:
    done = run_extract(*RUN, "--arrays", "patches", cwd=clips, code=1)  # one image cannot be read
    assert "broken.jpg" in done.stderr
    cache = cache_schema.open_cache(clips / "cache")
    store, head = cache.store("tiny", "pets"), cache.head("tiny", "pets")
    assert (store.parts, store.header["schema_version"]) == (("patches",), 2)
    assert store.details["patches"] == {"tokens": "values of the last block", "temperature": 1.0}
    assert not problems(store.path)
    keep = store.valid
    assert keep.sum() == len(store) - 1
    model = opened((clips / "models.txt").read_text())
    from PIL import Image

    shaped = [
        model.preprocessing.geometry(Image.open(clips / "images" / name).convert("RGB"))
        for name, valid in zip(store.image_ids, keep, strict=True)
        if valid
    ]
    given_ = torch.from_numpy(np.stack(shaped))
    with torch.inference_mode():
        patches = from_open_clip(model, given_).numpy()
        image = model.forward(given_).features.double().numpy()
    sure = local_scores(patches, head.weight)
    read = {name: store.read(name) for name in ("patch_features", "patch_score", "patch_index")}
    np.testing.assert_allclose(read["patch_score"][keep], sure.max(axis=1), rtol=1e-5)
    chosen = read["patch_index"][keep]
    np.testing.assert_allclose(sure[np.arange(len(sure)), chosen], sure.max(axis=1), rtol=1e-6)
    np.testing.assert_allclose(
        read["patch_features"][keep], patches[np.arange(len(sure)), chosen], rtol=2e-3, atol=1e-3
    )
    assert read["patch_index"][~keep].tolist() == [-1]
    assert all(np.isnan(read[name][~keep]).all() for name in ("patch_features", "patch_score"))

    whole = local_scores(image[:, None], head.weight)[:, 0]
    given = {"logits": store.logits()[keep], "patch_scores": read["patch_score"][keep]}
    local = analyze.detectors.get("l-mcm").fit(head=head).score(**given)
    np.testing.assert_allclose(local, sure.max(axis=1), rtol=1e-5)
    both = analyze.detectors.get("gl-mcm", weight=0.5).fit(head=head).score(**given)
    np.testing.assert_allclose(both, whole + 0.5 * sure.max(axis=1), rtol=1e-4)


def test_a_store_with_patches_is_read_in_place_of_the_one_without(clips: Path, run_extract: Callable[..., Any]) -> None:
    (clips / "images" / "cat" / "broken.jpg").unlink()
    run_extract(*RUN, cwd=clips)
    plain = cache_schema.open_cache(clips / "cache").store("tiny", "pets")
    assert plain.header["schema_version"] == 1
    assert "extends" not in plain.record
    run_extract(*RUN, "--arrays", "patches", cwd=clips)
    cache = cache_schema.open_cache(clips / "cache")
    found = cache.store("tiny", "pets")
    assert found.record["extends"] == [plain.identity]
    for name, entry in plain.header["seal"]["arrays"].items():
        assert found.header["seal"]["arrays"][name] == entry
    assert "arrays patches: in 2 of 2 prediction stores" in run_extract("status", "cache", cwd=clips).stdout
    assert "0 done, 2 sealed before" in run_extract(*RUN, "--arrays", "patches", cwd=clips).stderr
    for path in plain.path.parent.glob(f"*-{plain.identity[:8]}*"):
        path.rename(clips / path.name)
    assert "0 done, 2 sealed before" not in run_extract(*RUN, "--dry-run", cwd=clips).stderr
    assert run_extract(*RUN, cwd=clips).stderr.count("sealed before") == 1
    assert len(cache_schema.open_cache(clips / "cache").stores("predictions")) == 3  # none was made again

    made = clips / "converted"
    from cache_schema.cli import main

    assert main(["convert", str(clips / "cache"), str(made), "--to", "hdf5"]) == 0
    other = cache_schema.open_cache(made).store("tiny", "pets")
    assert other.digest == found.digest
    np.testing.assert_array_equal(other.read("patch_features"), found.read("patch_features"))


@pytest.mark.parametrize("tower", OTHER_TOWERS)
def test_a_model_without_patches_is_refused_and_the_others_run(
    tower: str, clips: Path, run_extract: Callable[..., Any]
) -> None:
    lines = [clip(clips, VISION, "id=tiny"), clip(clips, OTHER_TOWERS[tower], "id=other")]
    (clips / "models.txt").write_text("\n".join(lines))
    (clips / "images" / "cat" / "broken.jpg").unlink()
    failed = run_extract(*RUN, "--arrays", "patches", cwd=clips, code=1)
    (line,) = (line for line in failed.stderr.splitlines() if line.startswith("failed"))
    assert "other" in line
    assert "--arrays patches: its image tower" in line
    assert tower in line
    cache = cache_schema.open_cache(clips / "cache")
    assert {store.model.id for store in cache.stores("predictions")} == {"tiny"}
    run_extract(*RUN, cwd=clips)  # without, both run
    assert {store.model.id for store in cache_schema.open_cache(clips / "cache").stores("predictions")} == {
        "tiny",
        "other",
    }


def test_compiled_models_show_no_patches(clips: Path, run_extract: Callable[..., Any]) -> None:
    failed = run_extract(*RUN, "--arrays", "patches", "--compile", cwd=clips, code=2)
    assert "--arrays patches are taken from inner layers" in failed.stderr


DYING = """
import os, signal, sys
left = int(sys.argv[1])
real = os.rename

def rename(source, target, *rest, **more):
    global left
    if str(target).endswith(".zarr"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return real(source, target, *rest, **more)

os.rename = rename
from extract.cli import main
sys.exit(main(sys.argv[2:]))
"""


def content(cache: Path) -> dict[str, bytes]:
    """Return the bytes of all arrays of prediction stores."""
    found = {}
    for store in cache_schema.open_cache(cache).stores("predictions"):
        for path in sorted(store.path.rglob("*")):
            if path.is_file() and path != store.path / "zarr.json":  # which says when it was written
                found[f"{store.dataset.id}/{path.relative_to(store.path)}"] = path.read_bytes()
        found[f"{store.dataset.id}"] = store.digest.encode()
    return found


@pytest.mark.parametrize("arrays", ["patches", "views"])
def test_a_run_that_was_killed_gives_the_same_bytes(clips: Path, run_extract: Callable[..., Any], arrays: str) -> None:
    (clips / "images" / "cat" / "broken.jpg").unlink()
    words = [*map(str, RUN), "--arrays", arrays]
    run_extract(*words, "--cache", "whole", cwd=clips)
    wanted = content(clips / "whole")
    killed = subprocess.run(
        [sys.executable, "-c", DYING, "2", *words, "--cache", "killed"],  # after the head and one store
        cwd=clips, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, capture_output=True,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert 0 < len(content(clips / "killed")) < len(wanted)
    assert "1 sealed before" in run_extract(*words, "--cache", "killed", cwd=clips).stderr
    assert content(clips / "killed") == wanted


# ---- which arrays a store gets

NAMES = st.sets(st.sampled_from(sorted(ARRAYS)))


@given(asked=NAMES, sealed=st.lists(NAMES, max_size=4))
def test_one_store_has_everything_that_was_ever_asked_for(asked: set[str], sealed: list[set[str]]) -> None:
    held = [set(one) for one in sealed]
    got = set(settled(asked, ARRAYS, lambda chosen: set(chosen) in held))
    assert asked <= got
    if any(asked <= one for one in held):
        assert got in held  # nothing is made again
        assert len(got) == min(len(one) for one in held if asked <= one)
    else:
        assert got == asked.union(*held)


def test_subsets_are_all_of_them_and_few_come_first() -> None:
    found = subsets(ARRAYS)
    assert len(found) == len(set(found)) == 2 ** len(ARRAYS)
    assert [len(one) for one in found] == sorted(len(one) for one in found)
