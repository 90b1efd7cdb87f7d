"""Questions with options: letters equal a forward pass for each option, and stores are of a class space of letters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import transformers as tf
from PIL import Image
from tiny_vlms import LINES, MODELS, save_all

import cache_schema
from analyze.cli import main as analyze
from extract.classes.choices import Choice, choices_space
from extract.libraries import load, prepare, registry
from extract.libraries.vlm import scoring
from extract.zoo.model_list import parse_line

ASK = "Answer with the option's letter from the given choices directly."
PROMPTS = {
    "llava": "USER: <image>\n{} ASSISTANT:",
    "idefics3": "<|im_start|>User:<image>{}<end_of_utterance>\nAssistant:",
    "qwen2_vl": "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{}<|im_end|>\n<|im_start|>assistant\n",
    "internvl": "<|im_start|>user\n<IMG_CONTEXT>\n{}<|im_end|>\n<|im_start|>assistant\n",
}
PROMPTS["smolvlm"] = PROMPTS["idefics3"]
BETWEEN = {"llava": " ", "idefics3": " ", "smolvlm": " ", "qwen2_vl": "", "internvl": ""}
ASKED = [
    Choice("Which animal is this?", ("cat", "great white shark")),
    Choice("Which animal is this?", ("dog", "fox")),
    Choice("What is in the picture, and where?", ("a cat", "a dog", "a snow fox", "nothing")),
    Choice("", ("cat", "dog")),
    Choice("Which animal is this?", ("dog", "cat")),
    Choice("Is it a {options}?", ("yes", "no", "maybe")),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with every model."""
    return save_all(tmp_path_factory.mktemp("vlms"))


def chooser(root: Path, name: str, more: str = "", options: int = 4) -> Any:
    prepared = prepare(parse_line(f"vlm:{name}{LINES[name]} {more}", "models.txt:1", root)[0])
    assert prepared.answers_questions
    return load(registry.get("vlm").with_classes_of(prepared, {"q": choices_space(options)}))


def pictures(n: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (61 + 8 * i, 90 - 9 * i, 3), dtype=np.uint8)) for i in range(n)]


def shaped(model: Any, images: list[Image.Image]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(model.preprocessing.geometry(image).copy()) for image in images])


def text_of(one: Choice, usual: str = "Which of these is the main object in this image?") -> str:
    """Write a question as LLaVA is evaluated."""
    listed = "\n".join(f"{'ABCD'[i]}. {option}" for i, option in enumerate(one.options))
    if "{options}" in one.question:
        return one.question.replace("{options}", listed)
    return f"{one.question or usual}\n{listed}\n{ASK}"


def naively(folder: Path, pixels: torch.Tensor, prompts: list[str], asked: list[Choice], between: str) -> np.ndarray:
    """Score every option by a forward pass of its own over the whole text, in float32."""
    module = tf.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    processor = tf.AutoProcessor.from_pretrained(folder)
    out = np.full((len(asked), 4), -np.inf)
    for row, (image, prompt, one) in enumerate(zip(pixels, prompts, asked, strict=True)):
        picture = [[image.permute(2, 0, 1)]]
        before = len(processor(text=[prompt], images=picture, return_tensors="pt")["input_ids"][0])
        for column in range(len(one.options)):
            inputs = processor(text=[prompt + between + "ABCD"[column]], images=picture, return_tensors="pt")
            ids = inputs["input_ids"][0]
            with torch.inference_mode():
                found = torch.log_softmax(module(**inputs, use_cache=False).logits[0], dim=-1)
            assert len(ids) > before
            out[row, column] = sum(float(found[i - 1, ids[i]]) for i in range(before, len(ids)))
    return out


@pytest.mark.parametrize("name", sorted(MODELS))
def test_letters_equal_a_forward_pass_for_each_option(name: str, folders: Path) -> None:
    model, images = chooser(folders, name), pictures(len(ASKED))
    pixels = shaped(model, images)
    found = model.answer(pixels, ASKED, 4)
    assert found.features is None
    assert found.logits.dtype == torch.float32
    prompts = [PROMPTS[name].format(text_of(one)) for one in ASKED]
    expected = naively(folders / name, pixels, prompts, ASKED, BETWEEN[name])
    np.testing.assert_allclose(found.logits.numpy(), expected, atol=1e-4)
    np.testing.assert_array_equal(
        np.isneginf(found.logits.numpy()), [[k >= len(o.options) for k in range(4)] for o in ASKED]
    )
    assert np.ptp(expected[:2, :2]) > 1e-2


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_batch_gives_what_single_images_give(name: str, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = chooser(folders, name)
    pixels = shaped(model, pictures(len(ASKED)))
    together = model.answer(pixels, ASKED, 4).logits
    single = torch.cat([model.answer(pixels[i : i + 1], ASKED[i : i + 1], 4).logits for i in range(len(ASKED))])
    assert torch.allclose(together, single, atol=1e-4)
    order = [3, 0, 5, 1, 4, 2]
    mixed = model.answer(pixels[order], [ASKED[i] for i in order], 4).logits
    assert torch.allclose(mixed, together[order], atol=1e-4)
    monkeypatch.setattr(scoring, "CACHE_BYTES", 1)
    assert torch.allclose(chooser(folders, name).answer(pixels, ASKED, 4).logits, together, atol=1e-4)


def test_prompts_of_one_length_are_read_together_and_once(folders: Path) -> None:
    model = chooser(folders, "llava")
    read: list[int] = []
    model.module.register_forward_pre_hook(
        lambda _, args, kwargs: read.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    same = [Choice("Which?", ("cat", "dog"))] * 5
    model.answer(shaped(model, pictures(5)), same, 4)
    assert read == [5]  # letters are one token, so nothing continues the prompts


def test_the_question_of_the_line_stands_where_the_table_has_none(folders: Path) -> None:
    model, one = (
        chooser(folders, "llava", 'question="Pick one."'),
        [Choice("", ("cat", "dog")), Choice("Which?", ("a", "b"))],
    )
    pixels = shaped(model, pictures(2))
    prompts = [PROMPTS["llava"].format(text_of(item, "Pick one.")) for item in one]
    expected = naively(folders / "llava", pixels, prompts, one, " ")
    np.testing.assert_allclose(model.answer(pixels, one, 4).logits.numpy(), expected, atol=1e-4)
    assert (
        model.card.extra["prompt"]
        == f"USER: <image>\nPick one.\nA. {{A}}\nB. {{B}}\nC. {{C}}\nD. {{D}}\n{ASK} ASSISTANT:"
    )


def test_what_is_asked_is_part_of_the_identity(folders: Path) -> None:
    plain, other = chooser(folders, "llava"), chooser(folders, "llava", 'question="Pick one."')
    assert plain.card.class_space == "choices-4"
    digests = {
        registry.get("vlm")
        .with_classes_of(
            prepare(parse_line(f"vlm:llava {more}", "models.txt:1", folders)[0]), {"q": choices_space(options)}
        )
        .files_digest
        for more in ("", 'question="Pick one."', "end=yes")
        for options in (2, 4)
    }
    assert len(digests) == 6
    assert other.card.extra["question"]["answers"] == "letters"


def study(root: Path, folders: Path) -> None:
    rng = np.random.default_rng(0)
    (root / "images").mkdir()
    for index in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(root / "images" / f"{index}.png")
    rows = [
        {"image": "1.png", "question": "Which?", "options": ["cat", "dog"], "answer": "dog", "split": "easy"},
        {"image": "0.png", "question": "Which?", "options": ["cat", "dog", "fox"], "answer": "A", "split": "hard"},
        {"image": "1.png", "question": "Where?", "options": ["here", "there"], "answer": "here", "split": "easy"},
        {"image": "5.png", "question": "", "options": ["cat", "snow fox"], "answer": "b", "split": "hard"},
    ]
    (root / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (root / "datasets.toml").write_text('[quiz]\npath = "images"\nquestions = "q.jsonl"\n')
    (root / "models.txt").write_text(
        f"vlm:{folders / 'llava'} id=v\n"
        "timm:test_resnet allow_random=yes seed=2 num_classes=3 input_size=64 crop_pct=1.0\n"
    )


RUN = ("--model-list", "models.txt", "--datasets", "datasets.toml", "--workers", 0, "--device", "cpu", "--cache", "c")


def test_a_run_makes_an_ordinary_store(folders: Path, tmp_path: Path, run_extract: Any) -> None:
    study(tmp_path, folders)
    done = run_extract(*RUN, cwd=tmp_path)
    assert "it answers no questions, and the dataset asks one about each image" in done.stderr + done.stdout
    (store,) = cache_schema.open_cache(tmp_path / "c").stores("predictions")
    assert store.dataset.class_space == "choices-3"
    assert list(store.dataset.class_names) == ["A", "B", "C"]
    assert store.image_ids == ["0.png", "1.png", "1.png#2", "5.png"]
    assert store.labels.tolist() == [0, 1, 0, 1]
    assert list(store.metadata["question"]) == ["Which?", "Which?", "Where?", ""]
    assert json.loads(store.metadata["options"][3]) == ["cat", "snow fox"]
    assert list(store.metadata["split"]) == ["hard", "easy", "easy", "hard"]
    model = chooser(folders, "llava", options=3)
    asked = [
        Choice(q, tuple(json.loads(o)))
        for q, o in zip(store.metadata["question"], store.metadata["options"], strict=True)
    ]
    images = [Image.open(tmp_path / "images" / name.partition("#")[0]).convert("RGB") for name in store.image_ids]
    expected = model.answer(shaped(model, images), asked, 3).logits.numpy()
    np.testing.assert_allclose(store.logits(), expected, atol=0.05)
    assert np.isneginf(store.logits()[1:, 2]).all()
    assert "0 done, 1 sealed before" in run_extract(*RUN, cwd=tmp_path).stderr
    # Another question is another dataset, so another store.
    text = (tmp_path / "q.jsonl").read_text()
    (tmp_path / "q.jsonl").write_text(text.replace("Where?", "Where is it?"))
    run_extract(*RUN, cwd=tmp_path)
    assert len(cache_schema.open_cache(tmp_path / "c").stores("predictions")) == 2


def test_accuracy_and_calibration_are_those_of_the_options(folders: Path, tmp_path: Path, run_extract: Any) -> None:
    study(tmp_path, folders)
    run_extract(*RUN, cwd=tmp_path)
    out = tmp_path / "r.parquet"
    assert analyze(["metrics", str(tmp_path / "c"), "-o", str(out), "--only", "top1,nll,brier"]) == 0
    (store,) = cache_schema.open_cache(tmp_path / "c").stores("predictions")
    logits, labels = store.logits().astype(float), store.labels
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    table = pl.read_parquet(out).filter(pl.col("subset") == "", pl.col("calibrator") == "", pl.col("factor") == "")
    found = dict(table.filter(pl.col("dataset") == "quiz").select("metric", "value").rows())
    assert found["top1"] == pytest.approx((logits.argmax(1) == labels).mean())
    assert found["nll"] == pytest.approx(-np.log(shares[np.arange(4), labels]).mean(), rel=1e-5)
    truth = np.eye(3)[labels]
    assert found["brier"] == pytest.approx(((shares - truth) ** 2).sum(1).mean(), rel=1e-5)


def test_a_question_that_a_model_answers_with_nan_fails_it(folders: Path, tmp_path: Path) -> None:
    from extract.passes.asking import Asked

    asked = Asked(ASKED, 4)
    logits = np.zeros((3, 4), np.float32)
    assert asked.wrong(logits, 0).tolist() == [[False, False, True, True]] * 2 + [[False] * 4]
    logits[:2, 2:] = -np.inf
    assert not asked.wrong(logits, 0).any()
    logits[2, 3] = -np.inf
    assert asked.wrong(logits, 0).any()
