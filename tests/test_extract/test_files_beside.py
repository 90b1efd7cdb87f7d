"""Files beside weights that change a model's outputs are part of its stores' identity and of the text cache's key."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from safetensors.torch import save_file

from extract.classes.prompts import PromptSet
from extract.classes.spaces import ClassSpace
from extract.libraries import load, prepare
from extract.models.base import Prepared
from extract.planning.jobs import _architecture, head_identity
from extract.zoo.model_list import parse_line

TEXT = {"context_length": 12, "vocab_size": 40, "width": 32, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16}
CONFIG: dict[str, Any] = {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT}
LOOK = "mean=0.5 std=0.5 interpolation=bicubic resize_mode=squash"
WORDS = ("[PAD]", "[UNK]", "a", "cat", "dog")
PETS = ClassSpace("pets", ("cat", "dog"))
ONE = PromptSet("one", ("a {}",))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def rewrite(file: Path, content: Any) -> None:
    """Write a JSON file and give it one size and time, as a synchronised copy may have."""
    file.write_text(json.dumps(content).ljust(4096))
    os.utime(file, (1_000_000_000, 1_000_000_000))


def tokenizer(folder: Path, words: tuple[str, ...]) -> None:
    folder.mkdir(exist_ok=True)
    model = {"type": "WordLevel", "vocab": {word: i for i, word in enumerate(words)}, "unk_token": "[UNK]"}
    rewrite(folder / "tokenizer.json", {
        "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": {"type": "Whitespace"},
        "decoder": None, "truncation": None, "padding": None, "post_processor": None, "model": model,
    })  # fmt: skip
    saved = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    rewrite(folder / "tokenizer_config.json", saved)


def clip(folder: Path, **text: Any) -> Path:
    folder.mkdir()
    rewrite(folder / "open_clip_config.json", {"model_cfg": {**CONFIG, "text_cfg": {**TEXT, **text}}})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = open_clip.CLIP(24, dict(VISION), dict(TEXT)).state_dict()
    save_file(dict(weights), folder / "open_clip_model.safetensors")
    return folder


def prepared(line: str) -> Prepared:
    return prepare(parse_line(line, "models.txt:1")[0])


def test_the_configuration_of_a_folder_is_part_of_the_identity(tmp_path: Path) -> None:
    folder = clip(tmp_path / "clip")
    line = f"open_clip:local-dir:{folder}"
    before, again = prepared(line), prepared(line)
    assert head_identity(before, "w", PETS, ONE) == head_identity(again, "w", PETS, ONE)
    gelu = {**CONFIG, "quick_gelu": True}  # other numbers from the same weights
    rewrite(folder / "open_clip_config.json", {"model_cfg": gelu})
    assert head_identity(before, "w", PETS, ONE) != head_identity(prepared(line), "w", PETS, ONE)


def test_the_configuration_of_a_folder_of_timm_is_part_of_the_identity(tmp_path: Path) -> None:
    model = timm.create_model("test_vit", num_classes=3)
    timm.models.save_for_hf(model, str(tmp_path / "saved"), safe_serialization=True)
    line = f"timm:local-dir:{tmp_path / 'saved'} classes=birds"
    before = _architecture(prepared(line))
    file = tmp_path / "saved" / "config.json"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert before == f"local-dir:{tmp_path / 'saved'} files={digest}"
    file.write_text(json.dumps({**json.loads(file.read_text()), "model_args": {"class_token": False}}))
    assert _architecture(prepared(line)) != before


def test_other_models_have_the_identity_that_they_had(tmp_path: Path) -> None:
    folder = clip(tmp_path / "clip")
    config = folder / "open_clip_config.json"
    lines = {
        "timm:test_vit.r160_in1k": "test_vit.r160_in1k",
        "open_clip:ViT-B-32/laion2b_s34b_b79k": "ViT-B-32/laion2b_s34b_b79k",
        f"open_clip:x config={config} checkpoint={folder / 'open_clip_model.safetensors'} {LOOK}":
            f"x config={hashlib.sha256(config.read_bytes()).hexdigest()}",
    }  # fmt: skip
    for line, wanted in lines.items():
        assert _architecture(prepared(line)) == wanted


@pytest.mark.parametrize("place", ["folder", "config"])
def test_a_changed_tokenizer_is_seen(place: str, tmp_path: Path) -> None:
    folder = clip(tmp_path / "clip", hf_tokenizer_name="words")
    config, weights = folder / "open_clip_config.json", folder / "open_clip_model.safetensors"
    line = {
        "folder": f"open_clip:local-dir:{folder}",
        "config": f"open_clip:x config={config} checkpoint={weights} {LOOK}",
    }[place]
    heads, identities = [], []
    for words in (WORDS, WORDS[::-1]):
        tokenizer(folder / "words", words)
        found = prepared(line)
        heads.append(load(found).head(PETS, ONE).weight)
        identities.append(head_identity(found, "w", PETS, ONE))
    assert not np.array_equal(*heads)
    assert len(set(identities)) == 2
    assert len(list((tmp_path / "cache" / "closerlook" / "texts").glob("*.npy"))) == 2


def test_the_configuration_of_a_text_tower_on_this_machine_counts(tmp_path: Path) -> None:
    folder = clip(tmp_path / "clip", hf_model_name=str(tmp_path / "tower"), hf_pooler_type="mean_pooler")
    (tmp_path / "tower").mkdir()
    line = f"open_clip:x config={folder / 'open_clip_config.json'} allow_random=yes {LOOK}"
    names = []
    for activation in ("gelu", "relu"):
        (tmp_path / "tower" / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_act": activation}))
        names.append(_architecture(prepared(line)))
    assert len(set(names)) == 2
