"""open_clip models: embeddings, scale, bias and zero-shot heads against open_clip's own; refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from huggingface_hub import constants
from numpy.typing import NDArray
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import save_file

from closerlook_common.errors import UserError
from extract.classes.prompts import PromptSet, prompt_set
from extract.classes.spaces import ClassSpace
from extract.libraries import load, prepare
from extract.libraries.open_clip.model import OpenClipModel
from extract.libraries.open_clip.projection import float32_projection
from extract.models import weights
from extract.models.base import HeadUnavailable, LoadedModel, WeightsUnavailable
from extract.models.spec import ModelSpec
from extract.zoo.model_list import parse_line

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
VISION = {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
CONFIGS: dict[str, dict[str, Any]] = {
    "clip": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT},
    "sigmoid": {
        "embed_dim": 24, "vision_cfg": VISION, "text_cfg": {**TEXT, "no_causal_mask": True},
        "custom_text": True, "init_logit_bias": -10, "init_logit_scale": 2.3,
    },
    "tower": {
        "embed_dim": 24, "text_cfg": TEXT, "custom_text": True,
        "vision_cfg": {
            "image_size": 160, "timm_model_name": "test_vit", "timm_pool": "token", "timm_proj": "linear"
        },
    },
    "old": {"embed_dim": 24, "vision_cfg": VISION, "text_cfg": TEXT, "nonscalar_logit_scale": True},
}  # fmt: skip
SIGLIP_LOOK = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
PETS = ClassSpace("pets", ("cat", "dog", "missile", "missile"))


@pytest.fixture(autouse=True)
def _own_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(weights, "_unreachable_until", 0.0)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config and a weight file of each kind; scales and biases are not the initial ones."""
    root = tmp_path_factory.mktemp("clips")
    for name, config in CONFIGS.items():
        model = library_model(config, seed=len(name))
        with torch.no_grad():
            model.logit_scale.add_(0.731)
            if model.logit_bias is not None:
                model.logit_bias.add_(1.25)
        save_file({k: v.clone() for k, v in model.state_dict().items()}, root / f"{name}.safetensors")
        look = {"preprocess_cfg": SIGLIP_LOOK} if name == "sigmoid" else {}
        (root / f"{name}.json").write_text(json.dumps({"model_cfg": config, **look}))
    return root


def library_model(config: dict[str, Any], seed: int = 0) -> Any:
    """Return open_clip's own model of a config, with random weights."""
    custom = "custom_text" in config
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(**{k: v for k, v in config.items() if k != "custom_text"}).eval()


def line_of(saved: Path, name: str, rest: str = "") -> str:
    return f"open_clip:{name} config={saved / name}.json checkpoint={saved / name}.safetensors {rest}"


def spec(line: str) -> ModelSpec:
    return parse_line(line, "models.txt:1")[0]


def opened(line: str, precision: str = "fp32") -> OpenClipModel:
    model = load(prepare(spec(line)), precision=precision)
    assert isinstance(model, OpenClipModel)
    return model


def library_loaded(saved: Path, name: str) -> Any:
    model = library_model(CONFIGS[name])
    open_clip.load_checkpoint(model, str(saved / f"{name}.safetensors"))
    return model


def pixels_of(model: LoadedModel, images: list[Image.Image]) -> torch.Tensor:
    return torch.from_numpy(np.stack([model.preprocessing.geometry(image) for image in images]))


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(4)
    return [Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in ((50, 40), (20, 60), (32, 32))]


@pytest.mark.parametrize("name", CONFIGS)
def test_embeddings_and_logits_equal_open_clip(name: str, saved: Path) -> None:
    ours, theirs = opened(line_of(saved, name)), library_loaded(saved, name)
    look = SIGLIP_LOOK if name == "sigmoid" else {}
    config = PreprocessCfg(size=CONFIGS[name]["vision_cfg"]["image_size"], **look)
    transform = image_transform_v2(config, is_train=False)
    with torch.inference_mode():
        images = torch.stack([transform(image) for image in pictures()])
        embedding = theirs.encode_image(images)
    out = ours.forward(pixels_of(ours, pictures()))
    assert out.logits is None
    assert torch.equal(out.features, embedding)

    templates = prompt_set("openai-7").templates
    tokenizer = open_clip.SimpleTokenizer(context_length=16)
    classifier = open_clip.build_zero_shot_classifier(theirs, tokenizer, PETS.names, templates)
    head = ours.head(PETS, prompt_set("openai-7"))
    np.testing.assert_allclose(head.weight, classifier.T.numpy(), atol=2e-7)
    with torch.inference_mode():
        logits = theirs.logit_scale.exp() * torch.nn.functional.normalize(embedding, dim=-1) @ classifier
        if theirs.logit_bias is not None:
            logits += theirs.logit_bias
    np.testing.assert_allclose(head.logits(out.features.numpy()), logits.numpy(), atol=1e-4)
    assert head.logit_scale == pytest.approx(theirs.logit_scale.exp().item(), rel=1e-7)
    assert head.logit_bias == (None if theirs.logit_bias is None else pytest.approx(-8.75))
    assert (ours.card.logit_scale, ours.card.logit_bias) == (head.logit_scale, head.logit_bias)
    assert ours.card.feature_width == ours.feature_width == 24
    assert ours.card.parameters == sum(p.numel() for p in theirs.visual.parameters())
    assert (ours.card.head_kind, ours.card.class_space) == ("zero-shot", "")


def test_classes_of_one_name_have_the_very_same_column(saved: Path) -> None:
    head = opened(line_of(saved, "clip")).head(PETS)
    np.testing.assert_array_equal(head.weight[2], head.weight[3])
    assert not np.allclose(head.weight[0], head.weight[1])
    assert (head.prompt_set, head.n_templates, len(head.templates)) == ("openai-80", 80, 80)
    assert head.class_names == PETS.names


def test_text_sums_of_prompt_sets_add_up_to_their_union(saved: Path) -> None:
    model = opened(line_of(saved, "clip"))
    a, b = PromptSet("a", ("a {}", "the {}")), PromptSet("b", ("{} in snow",))
    sums = [model.head(PETS, prompts).text_sum for prompts in (a, b)]
    assert sums[0] is not None
    assert sums[1] is not None
    union = model.head(PETS, PromptSet("ab", a.templates + b.templates))
    total: NDArray[np.float32] = sums[0] + sums[1]
    np.testing.assert_allclose(total / np.linalg.norm(total, axis=1, keepdims=True), union.weight, atol=1e-6)


def test_descriptions_may_differ_in_number(saved: Path) -> None:
    model = opened(line_of(saved, "clip"))
    texts = {"0": ("purrs", "has whiskers"), "1": ("barks",), "missile": ("flies",)}
    head = model.head(PETS, PromptSet("mine", descriptions=texts))
    for index, own in enumerate((texts["0"], texts["1"], texts["missile"], texts["missile"])):
        mean = model.encode_texts(list(own)).mean(axis=0)
        np.testing.assert_allclose(head.weight[index], mean / np.linalg.norm(mean), atol=1e-6)
    assert (head.n_templates, head.templates) == (2, ())


def test_captions_have_unit_embeddings_of_open_clip(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = opened(line_of(saved, "clip")), library_loaded(saved, "clip")
    captions = [f"picture number {i}" for i in range(7)]
    monkeypatch.setattr("extract.models.zero_shot.TEXTS_PER_BATCH", 3)
    with torch.inference_mode():
        expected = theirs.encode_text(open_clip.SimpleTokenizer(context_length=16)(captions), normalize=True)
    found = ours.encode_texts(captions)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_a_text_is_encoded_once_for_all_prompt_sets_and_runs(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    original = OpenClipModel.encode_texts

    def counting(self: OpenClipModel, texts: list[str]) -> NDArray[np.float32]:
        encoded.extend(texts)
        return original(self, texts)

    monkeypatch.setattr(OpenClipModel, "encode_texts", counting)
    model = opened(line_of(saved, "clip"))
    whole = model.head(PETS, prompt_set("openai-80"))
    assert len(encoded) == 80 * 3  # two classes share a name
    for name in ("photo-1", "study-5", "study-30", "openai-7"):
        model.head(PETS, prompt_set(name))
    again = opened(line_of(saved, "clip")).head(PETS, prompt_set("openai-80"))
    assert len(encoded) == 80 * 3
    np.testing.assert_array_equal(again.weight, whole.weight)
    # Other weights share nothing, and neither does the same file read by another config.
    opened(line_of(saved, "old")).head(PETS, prompt_set("photo-1"))
    assert len(encoded) == 81 * 3


def test_the_text_cache_keeps_its_limit_and_survives_damage(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = opened(line_of(saved, "clip"))
    whole = model.head(PETS, prompt_set("study-5"))
    folder = tmp_path / "cache" / "closerlook" / "texts"
    files = sorted(folder.glob("*.npy"))
    assert len(files) == 5
    files[0].write_bytes(files[0].read_bytes()[:40])
    files[1].write_bytes(b"")
    np.testing.assert_array_equal(model.head(PETS, prompt_set("study-5")).weight, whole.weight)
    monkeypatch.setenv("CLOSERLOOK_TEXT_CACHE_GB", str(2.5 * files[2].stat().st_size / 1e9))
    model.head(PETS, prompt_set("photo-1"))
    assert len(list(folder.glob("*.npy"))) == 2
    monkeypatch.setenv("CLOSERLOOK_TEXT_CACHE_GB", "much")
    with pytest.raises(UserError, match="CLOSERLOOK_TEXT_CACHE_GB=much"):
        model.head(PETS, prompt_set("photo-1"))


def test_precision_moves_the_image_tower_only(saved: Path) -> None:
    exact, half = opened(line_of(saved, "clip")), opened(line_of(saved, "clip"), "bf16")
    a, b = (model.forward(pixels_of(model, pictures())).features for model in (exact, half))
    assert b.dtype == torch.float32
    assert not torch.equal(a, b)
    torch.testing.assert_close(a, b, atol=0.1, rtol=0.1)
    np.testing.assert_array_equal(exact.head(PETS).weight, half.head(PETS).weight)


RESNET = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}
TOWERS: dict[str, dict[str, Any]] = {
    "own transformer": CONFIGS["clip"],
    "timm's": CONFIGS["tower"],
    "resnet": {"embed_dim": 24, "vision_cfg": RESNET, "text_cfg": TEXT},
}


@pytest.mark.parametrize("config", TOWERS.values(), ids=TOWERS)
def test_the_projection_is_in_float32_whatever_the_tower_runs_in(config: dict[str, Any]) -> None:
    tower = library_model(config).visual
    size = config["vision_cfg"]["image_size"]
    images = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        exact = tower(images)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = tower(images).float()
        project = float32_projection(tower)
        torch.testing.assert_close(project(tower(images)), exact, rtol=1e-5, atol=1e-6)
        with torch.autocast("cpu", torch.bfloat16):
            pooled = tower(images)
        found = project(pooled)
    assert torch.equal(rounded, rounded.bfloat16().float())
    assert not torch.equal(found, found.bfloat16().float())
    assert (found - exact).norm() < (rounded - exact).norm()


def test_coca_embeddings_are_not_normalized_either() -> None:
    (line,) = parse_line("open_clip:coca_ViT-B-32 allow_random=yes id=coca")
    model = load(prepare(line))
    pixels = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    features = model.forward(pixels).features
    assert not torch.allclose(features.norm(dim=1), torch.ones(2), atol=1e-3)


def test_a_config_says_how_images_are_seen(saved: Path, tmp_path: Path) -> None:
    text = prepare(spec(line_of(saved, "sigmoid"))).card
    assert text.preprocessing["resize_mode"] == "squash"
    assert text.extra["preprocessing_said_by"] == "preprocess_cfg of sigmoid.json"
    default = prepare(spec(line_of(saved, "clip"))).card
    assert default.preprocessing["mean"] == pytest.approx(open_clip.OPENAI_DATASET_MEAN)
    assert default.extra["preprocessing_said_by"] == "open_clip's default (CLIP)"

    bare = tmp_path / "bare.json"
    bare.write_text(json.dumps(CONFIGS["sigmoid"]))
    line = f"open_clip:mine config={bare} checkpoint={saved / 'sigmoid'}.safetensors"
    with pytest.raises(UserError, match=r"nothing says how mine is to see images.*mean= std= interpolation="):
        prepare(spec(line))
    stated = prepare(spec(f"{line} mean=0.5 std=0.5 interpolation=bilinear resize_mode=squash")).card
    assert stated.preprocessing["mean"] == [0.5] * 3
    assert stated.preprocessing["interpolation"] == "bilinear"
    assert "the list" in stated.extra["preprocessing_said_by"]


def test_quick_gelu_is_what_the_line_says(saved: Path) -> None:
    plain, quick = opened(line_of(saved, "clip")), opened(line_of(saved, "clip", "quick_gelu=yes"))
    a, b = (model.forward(pixels_of(model, pictures())).features for model in (plain, quick))
    assert not torch.allclose(a, b)


def test_offline_the_model_and_the_remedy_are_named() -> None:
    prepared = prepare(spec("open_clip:ViT-B-32-quickgelu/openai"))
    assert (prepared.weights, prepared.card.weights_digest) == (None, "")
    assert (prepared.card.feature_width, prepared.card.input_size, prepared.card.head_kind) == (
        512,
        224,
        "zero-shot",
    )
    with pytest.raises(WeightsUnavailable, match=r"^ViT-B-32-quickgelu/openai: .*checkpoint=FILE"):
        load(prepared)
    with pytest.raises(WeightsUnavailable, match="neither in the hub cache nor to be had"):
        prepare(spec("open_clip:hf-hub:someone/something"))


def test_weights_that_do_not_fit_are_refused(saved: Path, tmp_path: Path) -> None:
    config = f"config={saved / 'clip'}.json"
    with pytest.raises(UserError, match=r"does not hold the weights of clip: "):
        opened(f"open_clip:clip {config} checkpoint={saved / 'tower'}.safetensors")
    with pytest.raises(UserError, match="no such file"):
        opened(f"open_clip:clip {config} checkpoint=none.pt")
    with pytest.raises(WeightsUnavailable, match="no published weights: give checkpoint="):
        opened(f"open_clip:clip {config}")
    # open_clip would take a bias of zero for a file that has none.
    half = {k: v for k, v in library_model(CONFIGS["sigmoid"]).state_dict().items() if k != "logit_bias"}
    save_file({k: v.clone() for k, v in half.items()}, tmp_path / "half.safetensors")
    with pytest.raises(UserError, match="has a logit bias"):
        opened(f"open_clip:s config={saved / 'sigmoid'}.json checkpoint={tmp_path / 'half.safetensors'}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        ("{", "is not JSON"),
        ('{"embed_dim": 3}', "lacks text_cfg, vision_cfg"),
        ("[]", "lacks embed_dim"),
        (json.dumps({**CONFIGS["clip"], "surprise": 1}), "cannot build bad.*surprise"),
    ],
)
def test_bad_configs_are_answered_in_one_line(content: str | None, message: str, tmp_path: Path, saved: Path) -> None:
    if content is not None:
        (tmp_path / "bad.json").write_text(content)
    with pytest.raises(UserError, match=message) as caught:
        opened(f"open_clip:bad config={tmp_path / 'bad.json'} checkpoint={saved / 'clip'}.safetensors")
    assert "\n" not in str(caught.value)


def test_a_local_folder_and_random_weights(saved: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "open_clip_config.json").write_text((saved / "sigmoid.json").read_text())
    with pytest.raises(UserError, match="no weights in"):
        prepare(spec(f"open_clip:local-dir:{folder}"))
    (folder / "open_clip_model.safetensors").write_bytes((saved / "sigmoid.safetensors").read_bytes())
    ours, plain = opened(f"open_clip:local-dir:{folder}"), opened(line_of(saved, "sigmoid"))
    pixels = pixels_of(ours, pictures())
    assert ours.card.id == "mine"
    assert torch.equal(ours.forward(pixels).features, plain.forward(pixels).features)

    drawn = opened(f"open_clip:r config={saved / 'clip'}.json allow_random=yes seed=2")
    assert drawn.card.weights_digest == "random-2"
    assert drawn.card.extra["random_weights"] is True
    drawn.head(PETS, prompt_set("photo-1"))
    assert not list((tmp_path / "cache" / "closerlook").glob("texts/*"))
    assert not [record for record in caplog.records if "initialized randomly" in record.getMessage()]


def test_a_tokenizer_that_is_not_here_is_a_head_that_is_not_there(saved: Path, tmp_path: Path) -> None:
    config = {**CONFIGS["clip"], "text_cfg": {**TEXT, "hf_tokenizer_name": "nobody/nothing"}}
    (tmp_path / "hf.json").write_text(json.dumps(config))
    model = opened(f"open_clip:hf config={tmp_path / 'hf.json'} checkpoint={saved / 'clip'}.safetensors")
    assert model.forward(pixels_of(model, pictures())).features.shape == (3, 24)
    with pytest.raises(HeadUnavailable, match=r"hf: its tokenizer .*hub cache"):
        model.head(PETS)
