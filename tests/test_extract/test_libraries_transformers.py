"""Models of transformers: numbers and pixels are those of its own classes and processors, from saved folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from closerlook_common.errors import UserError
from extract.classes.imagenet_labels import are_imagenet_1k
from extract.classes.prompts import prompt_set
from extract.classes.spaces import ClassSpace, class_space
from extract.libraries import load, prepare
from extract.libraries.transformers.model import cleaned
from extract.models.base import WeightsUnavailable
from extract.zoo.model_list import parse_line

PETS = ClassSpace("pets", ("cat", "dog", "snow_fox"))


def opened(folder: Path, options: str = "") -> Any:
    return load(prepare(parse_line(f"transformers:{folder} {options}", "models.txt:1")[0]))


def pictures(n: int = 4) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (61 + 8 * i, 90 - 9 * i, 3), dtype=np.uint8)) for i in range(n)]


def run(model: Any, images: list[Image.Image]) -> Any:
    shaped = [torch.from_numpy(model.preprocessing.geometry(image).copy()) for image in images]
    return model.forward(torch.stack(shaped))


# ---- classifiers

SIZE = {"height": 32, "width": 32}
VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
LABELS = {0: "cat", 1: "dog", 2: "snow_fox"}
NAMES = {"id2label": LABELS, "label2id": {name: index for index, name in LABELS.items()}}


def vit(folder: Path, **more: Any) -> None:
    config = tf.ViTConfig(**VIT, image_size=32, patch_size=8, **{**NAMES, **more})
    tf.ViTForImageClassification(config).save_pretrained(folder)
    tf.ViTImageProcessor(size=SIZE).save_pretrained(folder)


def resnet(folder: Path) -> None:
    config = tf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **NAMES)
    tf.ResNetForImageClassification(config).save_pretrained(folder)
    tf.ConvNextImageProcessor(size={"shortest_edge": 40}, crop_pct=0.875).save_pretrained(folder)


def convnext(folder: Path) -> None:
    config = tf.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, **NAMES)
    tf.ConvNextForImageClassification(config).save_pretrained(folder)
    tf.ConvNextImageProcessor(size={"shortest_edge": 384}).save_pretrained(folder)


def mobilenet(folder: Path) -> None:
    config = tf.MobileNetV2Config(depth_multiplier=0.35, **NAMES)
    tf.MobileNetV2ForImageClassification(config).save_pretrained(folder)
    processor = tf.MobileNetV2ImageProcessor(size={"shortest_edge": 48}, crop_size={"height": 41, "width": 41})
    processor.save_pretrained(folder)


def siglip_classifier(folder: Path) -> None:
    vision = {**VIT, "image_size": 32, "patch_size": 8}
    config = tf.SiglipConfig(vision_config=vision, text_config={**VIT, "vocab_size": 300}, **NAMES)
    tf.SiglipForImageClassification(config).save_pretrained(folder)
    tf.SiglipImageProcessor(size=SIZE).save_pretrained(folder)


CLASSIFIERS: dict[str, Callable[[Path], None]] = {
    "vit": vit, "resnet": resnet, "convnext": convnext, "mobilenet": mobilenet, "siglip": siglip_classifier,
}  # fmt: skip


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_is_run_as_transformers_runs_it(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    CLASSIFIERS[name](tmp_path)
    model = opened(tmp_path, "id=mine")
    theirs = tf.AutoModelForImageClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    processor = tf.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    images = pictures()
    values = processor(images=images, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        expected = theirs(pixel_values=values).logits
    out = run(model, images)
    assert torch.equal(out.logits, expected)
    assert (model.card.library, model.card.head_kind, model.card.extra["n_classes"]) == ("transformers", "linear", 3)
    assert model.card.name == tmp_path.name
    head = model._affine
    rebuilt = out.features @ torch.from_numpy(head.weight).T + torch.from_numpy(head.bias)
    assert torch.allclose(rebuilt, expected, atol=1e-5)


def test_labels_are_the_classes(tmp_path: Path) -> None:
    vit(tmp_path / "named")
    named = prepare(parse_line(f"transformers:{tmp_path / 'named'}")[0])
    assert named.class_names == ("cat", "dog", "snow_fox")
    assert named.card.class_space.startswith("3-classes-")
    stated = prepare(parse_line(f"transformers:{tmp_path / 'named'} classes=pets")[0])
    assert (stated.card.class_space, stated.class_names) == ("pets", ())
    vit(tmp_path / "unnamed", id2label={i: f"LABEL_{i}" for i in range(5)}, label2id=None)
    unnamed = prepare(parse_line(f"transformers:{tmp_path / 'unnamed'}")[0])
    assert (unnamed.card.class_space, unnamed.card.extra["n_classes"]) == ("", 5)


def test_imagenets_labels_are_recognised_in_their_order() -> None:
    space = class_space("imagenet-1k")
    assert are_imagenet_1k(space.names)
    assert space.wnids is not None
    assert are_imagenet_1k(space.wnids)
    assert not are_imagenet_1k(space.names[::-1])
    assert not are_imagenet_1k([*space.names[1:], space.names[0]])
    assert not are_imagenet_1k(space.names[:999])


def test_outputs_are_put_in_the_datasets_order(tmp_path: Path, run_extract: Any) -> None:
    torch.manual_seed(0)
    vit(tmp_path / "model", id2label={0: "fox", 1: "cat", 2: "dog"}, label2id=None)
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "fox"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(tmp_path / "pets" / name / "0.png")
    (tmp_path / "models.txt").write_text("transformers:model id=mine\n")
    words = ["--model-list", "models.txt", "--dataset", "pets=pets", "--workers", 0, "--device", "cpu"]
    run_extract(*words, "--cache", "cache", cwd=tmp_path)
    import cache_schema

    (store,) = cache_schema.open_cache(tmp_path / "cache").stores("predictions")
    images = [Image.open(tmp_path / "pets" / name).convert("RGB") for name in store.image_ids]
    own = run(opened(tmp_path / "model"), images).logits.numpy()
    np.testing.assert_allclose(store.logits(), own[:, [1, 2, 0]], atol=2e-3)


# ---- zero-shot models


def tokenizer(folder: Path, **more: Any) -> None:
    """Save a tokenizer of bytes that puts a token before and one after a text, as all of these do."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *alphabet])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    saved = tf.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>", **more
    )
    saved.save_pretrained(folder)


TEXT = {
    **VIT,
    "vocab_size": 300,
    "max_position_embeddings": 48,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
VISION = {**VIT, "image_size": 32, "patch_size": 8}
CLIP_PROCESSOR = {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}
BERT = {**TEXT, "type_vocab_size": 2}
EFFICIENT = {"image_size": 32, "width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 16,
             "num_hidden_layers": 1, "in_channels": [32], "out_channels": [16], "kernel_sizes": [3], "strides": [2],
             "num_block_repeats": [1], "expand_ratios": [1], "depthwise_padding": []}  # fmt: skip

ZERO_SHOT: dict[str, Callable[[], Any]] = {
    "clip": lambda: tf.CLIPModel(tf.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=12)),
    "metaclip_2": lambda: tf.MetaClip2Model(
        tf.MetaClip2Config(text_config=TEXT, vision_config=VISION, projection_dim=12)
    ),
    "siglip": lambda: tf.SiglipModel(tf.SiglipConfig(text_config=TEXT, vision_config=VISION)),
    "altclip": lambda: tf.AltCLIPModel(
        tf.AltCLIPConfig(
            text_config={**TEXT, "project_dim": 16}, vision_config={**VISION, "projection_dim": 12}, projection_dim=12
        )
    ),
    "align": lambda: tf.AlignModel(tf.AlignConfig(text_config=BERT, vision_config=EFFICIENT, projection_dim=16)),
    "chinese_clip": lambda: tf.ChineseCLIPModel(
        tf.ChineseCLIPConfig(text_config=BERT, vision_config=VISION, projection_dim=12)
    ),
}


PROCESSORS: dict[str, Callable[[], Any]] = {
    "siglip": lambda: tf.SiglipImageProcessor(size=SIZE),
    "align": lambda: tf.EfficientNetImageProcessor(
        size={"height": 40, "width": 40}, crop_size=SIZE, do_center_crop=True, rescale_factor=1 / 127.5,
        rescale_offset=True, do_normalize=False, include_top=False,
    ),
}  # fmt: skip


def zero_shot(name: str, folder: Path, **more: Any) -> None:
    torch.manual_seed(0)
    model = ZERO_SHOT[name]()
    with torch.no_grad():  # as trained ones are: nothing at its initial value
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    processor = PROCESSORS.get(name, lambda: tf.CLIPImageProcessor(**CLIP_PROCESSOR))()
    processor.save_pretrained(folder)
    tokenizer(folder, **more)


@pytest.mark.parametrize("name", ZERO_SHOT)
def test_a_zero_shot_model_gives_the_logits_of_transformers(name: str, tmp_path: Path) -> None:
    zero_shot(name, tmp_path)
    model = opened(tmp_path)
    theirs = tf.AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    images, prompts = pictures(), prompt_set("photo-1")
    texts = [prompts.templates[0].replace("{}", text) for text in prompts.names(PETS)]
    values = tf.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")(images=images, return_tensors="pt")
    own = tf.AutoTokenizer.from_pretrained(tmp_path)
    length = model._tokenizer.context_length
    if name == "siglip":  # as its authors run it: canonical texts, padded to the end, no mask
        texts = ["a photo of a cat", "a photo of a dog", "a photo of a snow fox"]
    words = own(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    if name == "siglip":
        words = {"input_ids": words["input_ids"]}
    with torch.inference_mode():
        expected = theirs(**values, **words).logits_per_image
        features = theirs.get_image_features(**values)
        features = getattr(features, "pooler_output", features)
    out = run(model, images)
    assert out.logits is None
    assert torch.equal(out.features, features)
    head = model.head(PETS, prompts)
    np.testing.assert_allclose(head.logits(out.features.numpy()), expected.numpy(), rtol=1e-4, atol=1e-4)
    assert (model.card.head_kind, head.kind, model.feature_width) == ("zero-shot", "zero-shot", features.shape[1])
    assert (head.logit_bias is None) == (name != "siglip")


@pytest.mark.parametrize("name", ["clip", "metaclip_2", "altclip", "chinese_clip", "align"])
def test_padding_does_not_matter_where_a_mask_is_given(name: str, tmp_path: Path) -> None:
    """transformers' own pipeline pads to the longest text; the numbers are the same."""
    zero_shot(name, tmp_path)
    model = opened(tmp_path)
    own = tf.AutoTokenizer.from_pretrained(tmp_path)
    texts = ["a cat", "a photo of a dog"]
    with torch.inference_mode():
        found = model.module.get_text_features(**own(texts, padding=True, return_tensors="pt"))
        rows = torch.nn.functional.normalize(getattr(found, "pooler_output", found), dim=-1)
    np.testing.assert_allclose(model.encode_texts(texts), rows.numpy(), atol=1e-5)


def test_texts_are_cleaned_as_open_clip_cleans_them() -> None:
    from open_clip.tokenizer import get_clean_fn

    for text in ("A photo of a Cat.", "snow_fox,  arctic", "it&amp;amp;s", "naïve  café!", " x "):
        for how in ("canonicalize", "lower"):
            assert cleaned(text, how) == get_clean_fn(how)(text)
        assert cleaned(text, "none") == text


def test_cleaning_is_part_of_a_line_and_of_the_head(tmp_path: Path) -> None:
    zero_shot("siglip", tmp_path)
    canonical, plain = opened(tmp_path), opened(tmp_path, "clean=none")
    assert canonical.card.extra["clean"] == "canonicalize"
    prompts = prompt_set("photo-1")
    assert not np.allclose(canonical.head(PETS, prompts).weight, plain.head(PETS, prompts).weight, atol=1e-4)
    with pytest.raises(UserError, match="clean=no is not canonicalize"):
        opened(tmp_path, "clean=no")


def test_class_names_that_the_context_cuts_are_refused(tmp_path: Path) -> None:
    zero_shot("clip", tmp_path)
    long = ClassSpace("long", ("cat", "x" * 80))
    with pytest.raises(UserError, match="which cuts the class name"):
        opened(tmp_path).head(long, prompt_set("photo-1"))


# ---- files


def test_weights_in_several_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = tf.ViTConfig(**VIT, image_size=32, patch_size=8, **NAMES)
    whole = tf.ViTForImageClassification(config)
    whole.save_pretrained(tmp_path, max_shard_size="8KB")
    tf.ViTImageProcessor(size=SIZE).save_pretrained(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    model = opened(tmp_path)
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in model.module.state_dict().items())
    assert len(model.card.weights_digest) == 64
    again = prepare(parse_line(f"transformers:{tmp_path}")[0])
    assert again.card.weights_digest == model.card.weights_digest
    next(tmp_path.glob("model-00002*")).unlink()
    with pytest.raises(WeightsUnavailable, match="is missing, which"):
        prepare(parse_line(f"transformers:{tmp_path}")[0])


def test_files_beside_the_weights_are_part_of_the_identity(tmp_path: Path) -> None:
    vit(tmp_path)
    first = prepare(parse_line(f"transformers:{tmp_path}")[0]).files_digest
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    assert prepare(parse_line(f"transformers:{tmp_path}")[0]).files_digest != first


def broken(folder: Path, change: Callable[[Path], None]) -> Path:
    vit(folder)
    change(folder)
    return folder


def _edit(**more: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **more}))

    return change


def _as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _headless(folder: Path) -> None:
    tf.ViTModel(tf.ViTConfig(**VIT, image_size=32, patch_size=8)).save_pretrained(folder)
    _edit(architectures=["ViTForImageClassification"])(folder)


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no configuration": (lambda f: (f / "config.json").unlink(), "no config.json"),
    "not a configuration": (lambda f: (f / "config.json").write_text("[]"), "has no model_type"),
    "another kind of model": (_edit(architectures=["ViTForMaskedImageModeling"]), "MaskedImageModeling, not an image"),
    "an architecture of tomorrow": (_edit(model_type="vit9"), "vit9|has no usable image processor"),
    "a pickle": (_as_pickle, "pytorch_model.bin is not read: save it once more"),
    "no head": (_headless, "not all weights of ViTForImageClassification: 2 tensors are missing"),
    "other shapes": (_edit(num_hidden_layers=3), "tensors are missing"),
    "a giant": (_edit(hidden_size=65536, intermediate_size=262144, num_hidden_layers=40), "the model takes .* GB"),
    "no processor": (lambda f: (f / "preprocessor_config.json").unlink(), "no usable image processor"),
    "labels of another number": (_edit(id2label={"a": "b"}), "is not a name for each number"),
    "foreign code": (
        _edit(auto_map={"AutoModelForImageClassification": "evil.Evil", "AutoConfig": "evil.C"}, model_type="evil"),
        "trust_remote_code=yes|vit|evil",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_costs_a_line(case: str, tmp_path: Path) -> None:
    change, message = BROKEN[case]
    (tmp_path / "m").mkdir()
    folder = broken(tmp_path / "m", change)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Evil: ...\nclass C: ...\n")
    with pytest.raises(UserError, match=message) as caught:
        opened(folder)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("./nothing", "no config.json in"),
        ("vit base", "is not key=value"),
        ("a/b/c", "neither a folder nor OWNER/REPOSITORY"),
        ("owner/name checkpoint=w.pth", "checkpoint= does not go with"),
        ("owner/name quick_gelu=yes", "an option of open_clip"),
    ],
)
def test_lines_that_name_no_model(line: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        parse_line(f"transformers:{line}", "models.txt:1", tmp_path)
