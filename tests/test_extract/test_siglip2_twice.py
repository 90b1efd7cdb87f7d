"""SigLIP 2 with the same weights through transformers and through open_clip: the same embeddings, heads and logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers as tf
from PIL import Image
from safetensors.torch import save_file
from timm.models import register_model
from timm.models.vision_transformer import _create_vision_transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from extract.classes.prompts import prompt_set
from extract.classes.spaces import ClassSpace
from extract.libraries import load, prepare
from extract.zoo.model_list import parse_line

WIDTH, LAYERS, HEADS, CONTEXT = 16, 2, 2, 40
PETS = ClassSpace("pets", ("cat", "Dog!", "snow_fox"))


@pytest.fixture(scope="module", autouse=True)
def _small_tower() -> None:
    """Give timm the tower of SigLIP 2 in a small size."""

    def vit_closerlook_siglip(pretrained: bool = False, **options: Any) -> Any:
        small = {"img_size": 32, "patch_size": 8, "embed_dim": WIDTH, "depth": LAYERS, "num_heads": HEADS}
        small |= {"class_token": False, "global_pool": "map", "act_layer": "gelu_tanh", "num_classes": 0}
        return _create_vision_transformer("vit_base_patch16_siglip_224", pretrained=False, **{**small, **options})

    vit_closerlook_siglip.__module__ = "timm.models.vision_transformer"
    if not timm.is_model("vit_closerlook_siglip"):
        register_model(vit_closerlook_siglip)


def tokenizer(folder: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<eos>", "<unk>", *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=[("<eos>", 1)])
    saved = tf.PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    saved.save_pretrained(folder)


def saved_by_transformers(folder: Path) -> dict[str, torch.Tensor]:
    shared = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": 64}
    text = {**shared, "vocab_size": 300, "max_position_embeddings": CONTEXT, "projection_size": WIDTH}
    torch.manual_seed(0)
    config = tf.SiglipConfig(text_config=text, vision_config={**shared, "image_size": 32, "patch_size": 8})
    model = tf.SiglipModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.logit_scale.fill_(3.0)
    model.save_pretrained(folder)
    tf.SiglipImageProcessor(size={"height": 32, "width": 32}, resample=Image.Resampling.BICUBIC).save_pretrained(folder)
    tokenizer(folder)
    return {name: value.clone() for name, value in model.state_dict().items()}


def for_open_clip(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the same weights by the names that open_clip and timm give them."""
    out = {name: state[name].reshape(()) for name in ("logit_scale", "logit_bias")}

    def put(new: str, old: str, *kinds: str) -> None:
        for kind in kinds or ("weight", "bias"):
            out[f"{new}.{kind}"] = state[f"{old}.{kind}"]

    trunk, seen = "visual.trunk", "vision_model"
    put(f"{trunk}.patch_embed.proj", f"{seen}.embeddings.patch_embedding")
    out[f"{trunk}.pos_embed"] = state[f"{seen}.embeddings.position_embedding.weight"][None]
    put(f"{trunk}.norm", f"{seen}.post_layernorm")
    pool, head = f"{trunk}.attn_pool", f"{seen}.head"
    out[f"{pool}.latent"] = state[f"{head}.probe"]
    for kind in ("weight", "bias"):
        joined = state[f"{head}.attention.in_proj_{kind}"]
        out[f"{pool}.q.{kind}"], out[f"{pool}.kv.{kind}"] = joined[:WIDTH], joined[WIDTH:]
    put(f"{pool}.proj", f"{head}.attention.out_proj")
    put(f"{pool}.norm", f"{head}.layernorm")
    for layer in ("fc1", "fc2"):
        put(f"{pool}.mlp.{layer}", f"{head}.mlp.{layer}")
    for index in range(LAYERS):
        for tower, old in ((f"{trunk}.blocks.{index}", seen), (f"text.transformer.resblocks.{index}", "text_model")):
            layer = f"{old}.encoder.layers.{index}"
            image = tower.startswith(trunk)
            for kind in ("weight", "bias"):
                joined = torch.cat([state[f"{layer}.self_attn.{part}_proj.{kind}"] for part in "qkv"])
                out[f"{tower}.attn.qkv.{kind}" if image else f"{tower}.attn.in_proj_{kind}"] = joined
            put(f"{tower}.attn.{'proj' if image else 'out_proj'}", f"{layer}.self_attn.out_proj")
            for number in (1, 2):
                put(f"{tower}.{'norm' if image else 'ln_'}{number}", f"{layer}.layer_norm{number}")
                name = f"fc{number}" if image else ("c_fc", "c_proj")[number - 1]
                put(f"{tower}.mlp.{name}", f"{layer}.mlp.fc{number}")
    put("text.token_embedding", "text_model.embeddings.token_embedding", "weight")
    out["text.positional_embedding"] = state["text_model.embeddings.position_embedding.weight"]
    put("text.ln_final", "text_model.final_layer_norm")
    put("text.text_projection", "text_model.head")
    return {name: value.contiguous().clone() for name, value in out.items()}


def saved_for_open_clip(folder: Path, state: dict[str, torch.Tensor]) -> None:
    text = {
        "context_length": CONTEXT, "vocab_size": 300, "width": WIDTH, "heads": HEADS, "layers": LAYERS,
        "hf_tokenizer_name": "beside", "tokenizer_kwargs": {"clean": "canonicalize"}, "no_causal_mask": True,
        "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6}, "act_kwargs": {"approximate": "tanh"},
    }  # fmt: skip
    vision = {"image_size": 32, "timm_model_name": "vit_closerlook_siglip", "timm_model_pretrained": False}
    vision |= {"timm_pool": "map", "timm_proj": "none"}
    model = {"embed_dim": WIDTH, "init_logit_bias": -10, "custom_text": True, "vision_cfg": vision, "text_cfg": text}
    seen = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    folder.mkdir()
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model, "preprocess_cfg": seen}))
    save_file(for_open_clip(state), folder / "open_clip_model.safetensors")
    tokenizer(folder)


def test_both_libraries_give_the_same_model(tmp_path: Path) -> None:
    state = saved_by_transformers(tmp_path / "one")
    saved_for_open_clip(tmp_path / "two", state)
    one, two = (
        load(prepare(parse_line(line)[0]))
        for line in (f"transformers:{tmp_path / 'one'}", f"open_clip:local-dir:{tmp_path / 'two'}")
    )
    assert one.preprocessing.mean == two.preprocessing.mean
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (50, 70 + i, 3), dtype=np.uint8)) for i in range(4)]
    shaped = [np.stack([model.preprocessing.geometry(image) for image in images]) for model in (one, two)]
    np.testing.assert_array_equal(*shaped)
    pixels = torch.from_numpy(shaped[0])
    features = [model.forward(pixels).features.numpy() for model in (one, two)]
    np.testing.assert_allclose(*features, rtol=1e-4, atol=1e-5)
    prompts = prompt_set("openai-80")
    heads = [model.head(PETS, prompts) for model in (one, two)]
    np.testing.assert_allclose(heads[0].weight, heads[1].weight, atol=1e-5)
    logits = [head.logits(rows) for head, rows in zip(heads, features, strict=True)]
    np.testing.assert_allclose(*logits, rtol=1e-4, atol=1e-4)
    assert float(np.ptp(logits[0], axis=1).min()) > 0.02
