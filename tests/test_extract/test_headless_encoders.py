"""Encoders without a head: features alone in ordinary stores, also of a training set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image

import cache_schema
import closerlook
from extract.classes.spaces import class_space
from extract.libraries import load, prepare
from extract.models.base import HeadUnavailable
from extract.zoo.model_list import parse_line

WORDS = ("--model-list", "models.txt", "--batch-size", 8, "--workers", 1, "--cache", "cache")
SIZE = {"height": 32, "width": 32}
VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
PATCHES = {"image_size": 32, "patch_size": 8}

OWN = """
from torch import nn


def encoder():
    body = nn.Sequential(nn.Conv2d(3, 8, 5, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return {"module": body, "outputs": "features", "preprocessing": {"input_size": 32, "mean": 0.5, "std": 0.5,
            "interpolation": "bilinear"}}
"""


def dinov2(folder: Path) -> None:
    tf.Dinov2Model(tf.Dinov2Config(**VIT, **PATCHES, mlp_ratio=2)).save_pretrained(folder)


def dino(folder: Path) -> None:
    tf.ViTModel(tf.ViTConfig(**VIT, **PATCHES), add_pooling_layer=False).save_pretrained(folder)


def mae(folder: Path) -> None:
    decoder = {"decoder_hidden_size": 8, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    config = tf.ViTMAEConfig(**VIT, **PATCHES, decoder_intermediate_size=16, **decoder)
    tf.ViTMAEForPreTraining(config).save_pretrained(folder)


def resnet(folder: Path) -> None:
    config = tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    tf.ResNetModel(config).save_pretrained(folder)


def clip_vision(folder: Path) -> None:
    tf.CLIPVisionModel(tf.CLIPVisionConfig(**VIT, **PATCHES)).save_pretrained(folder)


def class_token(model: Any, values: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=values).last_hidden_state[:, 0]


def pooled(model: Any, values: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=values).pooler_output.flatten(1)


Theirs = Callable[[Any, torch.Tensor], torch.Tensor]
SAVED: dict[str, tuple[Callable[[Path], None], str, Theirs]] = {
    "dinov2": (dinov2, "Dinov2Model", pooled),
    "dino": (dino, "ViTModel", class_token),
    "resnet": (resnet, "ResNetModel", pooled),
    "clip vision": (clip_vision, "CLIPVisionModel", pooled),
}


def opened(folder: Path) -> Any:
    tf.ViTImageProcessor(size=SIZE).save_pretrained(folder)
    return load(prepare(parse_line(f"transformers:{folder} id=mine", "models.txt:1")[0]))


def run_on_noise(model: Any) -> tuple[torch.Tensor, Any]:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    processor = tf.ViTImageProcessor(size=SIZE)
    values = processor(images=[Image.fromarray(image) for image in pixels], return_tensors="pt")["pixel_values"]
    return values, model.forward(torch.from_numpy(pixels))


@pytest.mark.parametrize("name", SAVED)
def test_an_encoder_of_transformers_gives_its_features(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save, kind, theirs = SAVED[name]
    save(tmp_path)
    model = opened(tmp_path)
    values, out = run_on_noise(model)
    with torch.inference_mode():
        expected = theirs(getattr(tf, kind).from_pretrained(tmp_path, dtype=torch.float32).eval(), values)
    torch.testing.assert_close(out.features, expected)
    assert out.logits is None
    assert (model.card.feature_width, model.card.extra["n_classes"]) == (16, 0)
    with pytest.raises(HeadUnavailable, match="no classifier"):
        model.head(class_space("imagenet-1k"))


def test_a_masked_autoencoder_sees_every_patch_each_time(tmp_path: Path) -> None:
    torch.manual_seed(0)
    mae(tmp_path)
    model = opened(tmp_path)
    values, out = run_on_noise(model)
    again = run_on_noise(model)[1]
    assert torch.equal(out.features, again.features)
    # Without masking the class token does not depend on the order in which patches are drawn.
    theirs = tf.ViTMAEModel.from_pretrained(tmp_path, dtype=torch.float32, mask_ratio=0.0).eval()
    with torch.inference_mode():
        found = theirs(pixel_values=values)
    assert found.last_hidden_state.shape[1] == 16 + 1
    torch.testing.assert_close(out.features, found.last_hidden_state[:, 0], atol=1e-5, rtol=1e-4)


def test_features_alone_of_every_set_and_a_probe_of_them(tmp_path: Path, pets: Path, run_extract: Any) -> None:
    torch.manual_seed(0)
    dinov2(tmp_path / "saved")
    tf.ViTImageProcessor(size=SIZE).save_pretrained(tmp_path / "saved")
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "models.txt").write_text(
        "timm:test_vit allow_random=yes num_classes=0 input_size=64 id=tower\n"
        "transformers:saved id=dinov2\n"
        "python:own.py:encoder id=own\n"
        "timm:test_resnet allow_random=yes num_classes=3 classes=pets input_size=64 id=net\n"
    )
    (tmp_path / "datasets.toml").write_text(
        f'[pets]\npath = "{pets}"\nclass_space = "pets"\n[training]\npath = "{pets}"\nclass_space = "pets"\n'
        f'[else]\npath = "{pets}/cat"\nlabels = "none"\n'
    )
    run_extract(*WORDS, "--reference", "training", cwd=tmp_path)
    cache = cache_schema.open_cache(tmp_path / "cache")
    found = {(s.model.id, s.dataset.id): s for s in cache.stores("predictions")}
    for name in ("tower", "dinov2", "own"):
        assert {dataset for model, dataset in found if model == name} == {"pets", "training", "else"}
        for dataset in ("pets", "training", "else"):
            store = found[name, dataset]
            assert store.has_features
            assert not store.has_logits
        assert found[name, "training"].dataset.role == "reference"
    assert {s.model.id for s in cache.stores("reference")} == {"net"}
    assert {s.model.id for s in cache.stores("head")} == {"net"}
    before = {store.path: store.path.stat().st_mtime_ns for store in cache.stores()}
    run_extract(*WORDS, "--reference", "training", cwd=tmp_path)
    assert {
        store.path: store.path.stat().st_mtime_ns for store in cache_schema.open_cache(cache.path).stores()
    } == before
    results = closerlook.probe(cache.path, reference="training", l2_path=[1.0])
    assert set(results.models) == {f"{m}[{p}]" for m in ("tower", "dinov2", "own") for p in ("linear:l2=1", "knn")}
    assert set(results.datasets) == {"pets"}
