"""No configuration and no weight file runs code, whichever way it asks; only the user's own line can allow it."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from closerlook_common.errors import UserError
from extract.classes.spaces import ClassSpace
from extract.libraries import load, prepare
from extract.zoo.model_list import parse_line

TEXT = {"context_length": 16, "vocab_size": 64, "width": 32, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16}
PETS = ClassSpace("pets", ("cat", "dog"))
CODE = """
from pathlib import Path
Path({canary!r}).write_text("run")
from transformers import PreTrainedConfig, PreTrainedTokenizerFast
class Own(PreTrainedTokenizerFast): pass
class OwnConfig(PreTrainedConfig):
    model_type = "own"
"""
VOCABULARY = {"[UNK]": 0, "a": 1, "cat": 2, "dog": 3}
WORDS = {
    "version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": None, "decoder": None, "truncation": None, "padding": None,
    "model": {"type": "WordLevel", "vocab": VOCABULARY, "unk_token": "[UNK]"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.dynamic_module_utils as dynamic

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(dynamic, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.setattr("builtins.input", lambda prompt="": "y")  # as 'yes |' would answer


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


class Bomb:
    """Pickled, writes the canary when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.canary)!r}, 'w').write('run')",)


def clip(folder: Path, text: dict[str, Any] | None = None, vision: dict[str, Any] | None = None, **more: Any) -> Path:
    """Write a folder as open_clip saves one: configuration and weights that fit plain towers."""
    folder.mkdir()
    config = {"embed_dim": 24, "vision_cfg": {**VISION, **(vision or {})}, "text_cfg": {**TEXT, **(text or {})}, **more}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = open_clip.CLIP(24, dict(VISION), dict(TEXT))
    save_file(dict(plain.state_dict()), folder / "open_clip_model.safetensors")
    return folder


def tokenizer_with_code(folder: Path, canary: Path) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "own.py").write_text(CODE.format(canary=str(canary)))
    mapped = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}}
    special = {"pad_token": "[UNK]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**mapped, **special}))
    (folder / "tokenizer.json").write_text(json.dumps(WORDS))


def asked_for_by_a_folder(folder: Path, canary: Path) -> str:
    clip(folder, {"hf_tokenizer_name": "own", "tokenizer_kwargs": {"trust_remote_code": True}})
    tokenizer_with_code(folder, canary)
    return f"open_clip:local-dir:{folder}"


def asked_for_by_a_config(folder: Path, canary: Path) -> str:
    clip(folder, {"hf_tokenizer_name": str(folder / "own"), "tokenizer_kwargs": {"trust_remote_code": 1}})
    tokenizer_with_code(folder / "own", canary)
    return (
        f"open_clip:x config={folder / 'open_clip_config.json'} checkpoint={folder / 'open_clip_model.safetensors'}"
        " mean=0.5 std=0.5 interpolation=bicubic resize_mode=shortest"
    )


def mapped_by_the_tokenizer(folder: Path, canary: Path) -> str:
    clip(folder, {"hf_tokenizer_name": "own"})
    tokenizer_with_code(folder, canary)
    return f"open_clip:local-dir:{folder}"


def mapped_by_the_tokenizers_model(folder: Path, canary: Path) -> str:
    clip(folder, {"hf_tokenizer_name": "own"})
    tokenizer_with_code(folder, canary)
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}))
    return f"open_clip:local-dir:{folder}"


def text_tower(folder: Path, config: dict[str, Any]) -> str:
    clip(folder, {"hf_model_name": str(folder / "tower"), "hf_proj_type": "linear", "hf_pooler_type": "mean_pooler"})
    (folder / "tower").mkdir()
    (folder / "tower" / "config.json").write_text(json.dumps(config))
    return f"open_clip:local-dir:{folder}"


def mapped_by_the_text_tower(folder: Path, canary: Path) -> str:
    line = text_tower(folder, {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}})
    (folder / "tower" / "own.py").write_text(CODE.format(canary=str(canary)))
    return line


def image_tower_from_elsewhere(folder: Path, canary: Path) -> str:
    (folder.parent / "tower").mkdir()
    clip(folder, vision={"timm_model_name": f"local-dir:{folder.parent / 'tower'}"})
    return f"open_clip:local-dir:{folder}"


def a_class_by_name(folder: Path, canary: Path) -> str:
    clip(folder, {"act_kwargs": {"_target_": "os.system", "command": f"touch {canary}"}})
    return f"open_clip:local-dir:{folder}"


def a_whole_config_by_name(folder: Path, canary: Path) -> str:
    clip(folder, _target_="os.system", command=f"touch {canary}")
    return f"open_clip:local-dir:{folder}"


def timm_folder(folder: Path, canary: Path, arguments: dict[str, Any] | None = None, **config: Any) -> str:
    folder.mkdir()
    saved = {"architecture": "test_vit", "num_classes": 2, "pretrained_cfg": config, "model_args": arguments or {}}
    (folder / "config.json").write_text(json.dumps(saved))
    torch.save(Bomb(canary), folder.parent / "bomb.pth")
    with torch.random.fork_rng():
        import timm

        state = timm.create_model("test_vit", num_classes=2).state_dict()
    save_file(dict(state), folder / "model.safetensors")
    return f"timm:local-dir:{folder} classes=pets"


def weights_of(name: str, write: Callable[[Path, Path], object]) -> Callable[[Path, Path], str]:
    def build(folder: Path, canary: Path) -> str:
        folder.mkdir()
        write(folder / name, canary)
        return f"timm:test_vit checkpoint={folder / name} num_classes=2 classes=pets"

    return build


def torchscript(path: Path, canary: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(str(path))


def objects_in_npz(path: Path, canary: Path) -> None:
    np.savez(path, a=np.array([Bomb(canary)], dtype=object))


WAYS_IN: dict[str, tuple[Callable[[Path, Path], str], str]] = {
    "a folder trusts its tokenizer": (asked_for_by_a_folder, "add trust_remote_code=yes to the model's line"),
    "a config trusts its tokenizer": (asked_for_by_a_config, "add trust_remote_code=yes to the model's line"),
    "auto_map of a tokenizer": (mapped_by_the_tokenizer, "add trust_remote_code=yes to the model's line"),
    "auto_map of a tokenizer's config": (mapped_by_the_tokenizers_model, "add trust_remote_code=yes"),
    "auto_map of a text tower": (mapped_by_the_text_tower, "comes with Python code of its own, which is not run"),
    "an image tower from a folder": (image_tower_from_elsewhere, "which is not an architecture of timm"),
    "_target_ in a layer": (a_class_by_name, "unexpected keyword argument '_target_'"),
    "_target_ in a config": (a_whole_config_by_name, "unexpected keyword argument '_target_'"),
    **{
        f"model_args.{key}": (
            lambda folder, canary, key=key: timm_folder(folder, canary, {key: str(folder.parent / "bomb.pth")}),
            f"model_args may not set {key}",
        )
        for key in ("checkpoint_path", "pretrained_cfg_overlay", "pretrained", "features_only", "model_cls")
    },
    "a pickle": (
        weights_of("w.pth", lambda path, canary: torch.save({"model": Bomb(canary)}, path)),
        "it holds more than tensors (builtins.exec)",
    ),
    "a pickle of before 1.6": (
        weights_of("w.bin", lambda p, c: torch.save(Bomb(c), p, _use_new_zipfile_serialization=False)),
        "it holds more than tensors (builtins.exec)",
    ),
    "a pickle of anything": (
        weights_of("w.pt", lambda path, canary: path.write_bytes(pickle.dumps(Bomb(canary), 2))),
        "it holds more than tensors (builtins.exec)",
    ),
    "a pickle of protocol 5": (
        weights_of("w.pt", lambda path, canary: path.write_bytes(pickle.dumps(Bomb(canary), 5))),
        "pickle_protocol 4 or later",
    ),
    "a pickle called safetensors": (
        weights_of("w.safetensors", lambda path, canary: torch.save(Bomb(canary), path)),
        "cannot be read safely",
    ),
    "the model itself": (
        weights_of("w.pth", lambda path, canary: torch.save(torch.nn.Linear(2, 2), path)),
        "it holds the model itself, which only its code could read",
    ),
    "TorchScript": (weights_of("w.pt", torchscript), "it is a TorchScript archive, which holds code"),
    "objects in an .npz": (weights_of("w.npz", objects_in_npz), "of object and (1,)"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS_IN)
def test_nothing_is_run_and_one_line_says_why(way: str, tmp_path: Path, canary: Path) -> None:
    build, says = WAYS_IN[way]
    line = build(tmp_path / "given", canary)
    with pytest.raises(UserError) as caught:
        load(prepare(parse_line(line, "models.txt:1")[0])).head(PETS)
    assert not canary.exists()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "key", ["bpe_path", "cache_dir", "config", "gguf_file", "subfolder", "tokenizer_type", "token"]
)
def test_a_tokenizer_is_given_no_files_and_classes(key: str, tmp_path: Path) -> None:
    folder = clip(tmp_path / "given", {"tokenizer_kwargs": {key: "x"}})
    with pytest.raises(UserError, match=f"tokenizer_kwargs holds '{key}'; a configuration may set only"):
        prepare(parse_line(f"open_clip:local-dir:{folder}", "models.txt:1")[0])


@pytest.mark.parametrize("key", ["file", "state_dict", "url", "hf_hub_id", "custom_load", "source"])
def test_timm_reads_weights_from_the_folder_alone(key: str, tmp_path: Path, canary: Path) -> None:
    line = timm_folder(tmp_path / "given", canary, **{key: str(tmp_path / "bomb.pth")})
    assert load(prepare(parse_line(line, "models.txt:1")[0])).head(PETS).weight.shape == (2, 64)
    assert not canary.exists()


def test_a_kernel_named_in_a_text_tower_is_not_loaded(tmp_path: Path, canary: Path, monkeypatch) -> None:
    from transformers.integrations import hub_kernels

    from extract.models.remote_code import RemoteCodeError, remote_code

    monkeypatch.setattr(hub_kernels, "is_kernels_available", lambda *_, **__: True)
    monkeypatch.setattr(hub_kernels, "get_kernel_hub", lambda *_, **__: canary.write_text("run"), raising=False)
    with pytest.raises(RemoteCodeError), remote_code(False, "models.txt:1", "the text tower x"):
        hub_kernels.get_kernel("somebody/kernel")
    line = text_tower(tmp_path / "given", {"model_type": "roberta", "attn_implementation": "somebody/kernel"})
    with pytest.raises(UserError):
        load(prepare(parse_line(line, "models.txt:1")[0]))
    assert not canary.exists()


@pytest.mark.parametrize("build", [asked_for_by_a_folder, asked_for_by_a_config, mapped_by_the_tokenizer])
def test_the_users_own_line_allows_it(build: Callable[[Path, Path], str], tmp_path: Path, canary: Path) -> None:
    line = build(tmp_path / "given", canary)
    with pytest.raises(UserError):
        load(prepare(parse_line(f"{line} trust_remote_code=no", "models.txt:1")[0])).head(PETS)
    assert not canary.exists()
    head = load(prepare(parse_line(f"{line} trust_remote_code=yes", "models.txt:1")[0])).head(PETS)
    assert canary.read_text() == "run"
    assert head.weight.shape == (2, 24)


def test_a_script_in_a_folder_of_images_is_not_run(tmp_path: Path, pets: Path, canary: Path, run_extract) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).symlink_to(pets / name)
    (tmp_path / "photos" / "photos.py").write_text(CODE.format(canary=str(canary)))
    (tmp_path / "models.txt").write_text(
        "timm:test_vit allow_random=yes num_classes=2 classes=photos\n" + asked_for_by_a_folder(tmp_path / "x", canary)
    )
    done = run_extract("--model-list", "models.txt", "--dataset", "photos=photos", "--workers", 0, cwd=tmp_path, code=1)
    assert not canary.exists()
    assert "1 done" in done.stderr
    assert "add trust_remote_code=yes to the model's line" in done.stderr
