"""Vision-language models: log-likelihoods equal those of whole texts without a cache, token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as tf
from PIL import Image
from tiny_vlms import MODELS, NAMES, opened, prepared_of, save_all

import cache_schema
from extract.libraries import load, prepare
from extract.libraries.vlm import scoring
from extract.libraries.vlm.prompts import prompt_of
from extract.libraries.vlm.questions import Question
from extract.zoo.model_list import parse_line

QUESTION = "What is the main object in this image? Answer with its name only."
PROMPTS = {
    "llava": f"USER: <image>\n{QUESTION} ASSISTANT:",
    "idefics3": f"<|im_start|>User:<image>{QUESTION}<end_of_utterance>\nAssistant:",
    "qwen2_vl": f"<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{QUESTION}<|im_end|>\n"
    "<|im_start|>assistant\n",
    "internvl": f"<|im_start|>user\n<IMG_CONTEXT>\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n",
}
PROMPTS["smolvlm"] = PROMPTS["idefics3"]
BETWEEN = {"llava": " ", "idefics3": " ", "smolvlm": " ", "qwen2_vl": "", "internvl": ""}
ENDS = {"llava": "</s>", "idefics3": "<end_of_utterance>", "qwen2_vl": "<|im_end|>"}
ENDS |= {"smolvlm": ENDS["idefics3"], "internvl": ENDS["qwen2_vl"]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with every model, and the class names in ``names.txt``."""
    return save_all(tmp_path_factory.mktemp("vlms"))


def pictures(n: int = 3) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (61 + 8 * i, 90 - 9 * i, 3), dtype=np.uint8)) for i in range(n)]


def shaped(model: Any, images: list[Image.Image]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(model.preprocessing.geometry(image).copy()) for image in images])


def run(model: Any, images: list[Image.Image]) -> torch.Tensor:
    out = model.forward(shaped(model, images))
    assert out.features is None
    return out.logits


def whole_texts(folder: Path, pixels: torch.Tensor, prompt: str, texts: list[str]) -> torch.Tensor:
    """Return the log-likelihood of what follows a prompt in each whole text: one forward pass a text, in float64.

    Every text is processed as one: the processor writes the image's tokens and tokenizes prompt and answer together.
    """
    module = tf.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float64).eval()
    processor = tf.AutoProcessor.from_pretrained(folder)
    rows = []
    for image in pixels:
        before = processor(text=[prompt], images=[[image.permute(2, 0, 1)]], return_tensors="pt")["input_ids"][0]
        row = []
        for text in texts:
            inputs = processor(text=[prompt + text], images=[[image.permute(2, 0, 1)]], return_tensors="pt")
            ids = inputs["input_ids"][0]
            assert torch.equal(ids[: len(before)], before)
            inputs = {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}
            with torch.inference_mode():
                logits = module(**inputs, use_cache=False).logits[0]
            found = torch.log_softmax(logits, dim=-1)
            row.append(sum(float(found[i - 1, ids[i]]) for i in range(len(before), len(ids))))
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def lengths_of(folder: Path, texts: list[str]) -> list[int]:
    words = tf.AutoTokenizer.from_pretrained(folder)
    return [len(words(text, add_special_tokens=False)["input_ids"]) for text in texts]


# ---- numbers


@pytest.mark.parametrize("name", sorted(MODELS))
def test_logits_are_the_log_likelihoods_of_whole_texts(name: str, folders: Path) -> None:
    model = opened(folders, name)
    images = pictures()
    found = run(model, images)
    texts = [BETWEEN[name] + text for text in NAMES]
    assert len(set(lengths_of(folders / name, texts))) >= 3
    expected = whole_texts(folders / name, shaped(model, images), PROMPTS[name], texts)
    assert expected.dtype == torch.float64
    assert float((found - expected).abs().max()) < 1e-4
    assert float(expected.std(0).min()) > 1e-2  # the image matters to every answer
    assert model.card.extra["prompt"] == PROMPTS[name]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_end_of_an_answer_is_one_more_token(name: str, folders: Path) -> None:
    model = opened(folders, name, "end=yes")
    images = pictures(1)
    texts = [BETWEEN[name] + text + ENDS[name] for text in NAMES]
    expected = whole_texts(folders / name, shaped(model, images), PROMPTS[name], texts)
    assert torch.allclose(run(model, images).double(), expected, atol=1e-4)


def test_log_likelihoods_are_divided_by_tokens_or_characters(folders: Path) -> None:
    plain, images = run(opened(folders, "llava"), pictures()), pictures()
    by_tokens = run(opened(folders, "llava", "normalize=tokens"), images)
    tokens = lengths_of(folders / "llava", [f" {name}" for name in NAMES])
    assert torch.allclose(by_tokens * torch.tensor(tokens), plain, atol=1e-4)
    by_characters = run(opened(folders, "llava", "normalize=characters"), images)
    assert torch.allclose(by_characters * torch.tensor([len(name) for name in NAMES]), plain, atol=1e-4)
    ended = run(opened(folders, "llava", "normalize=tokens end=yes"), images)
    counts = torch.tensor([count + 1 for count in tokens])
    assert torch.allclose(ended * counts, run(opened(folders, "llava", "end=yes"), images), atol=1e-4)


def test_letters_of_listed_classes_are_scored(folders: Path) -> None:
    model = opened(folders, "llava", "answers=letters")
    options = "\n".join(f"{letter}. {name}" for letter, name in zip("ABCDEFG", NAMES, strict=True))
    asked = (
        f"Which of these is the main object in this image?\n{options}\n"
        "Answer with the option's letter from the given choices directly."
    )
    prompt, images = f"USER: <image>\n{asked} ASSISTANT:", pictures(2)
    assert model.card.extra["prompt"] == prompt
    texts = [f" {letter}" for letter in "ABCDEFG"]
    expected = whole_texts(folders / "llava", shaped(model, images), prompt, texts)
    assert torch.allclose(run(model, images).double(), expected, atol=1e-4)
    own = prepared_of(folders, "llava", 'answers=letters question="Pick:\\n{options}\\nOne letter."')
    assert own.card.extra["prompt"] == f"USER: <image>\nPick:\n{options}\nOne letter. ASSISTANT:"


def test_class_names_are_put_into_the_answer(folders: Path) -> None:
    model, images = opened(folders, "llava", 'question="What is it?" answer="a {}"'), pictures(2)
    prompt = "USER: <image>\nWhat is it? ASSISTANT:"
    expected = whole_texts(folders / "llava", shaped(model, images), prompt, [f" a {name}" for name in NAMES])
    assert torch.allclose(run(model, images).double(), expected, atol=1e-4)


def test_a_space_at_the_end_of_the_prompt_belongs_to_the_answers_token(folders: Path) -> None:
    """In running text the space and the word after it are one token, so the prompt is cut before the space."""
    with_space = opened(folders, "llava", 'template="USER: {image} {question} ASSISTANT: " question="What is it?"')
    without = opened(folders, "llava", 'template="USER: {image} {question} ASSISTANT:" question="What is it?"')
    words = tf.AutoTokenizer.from_pretrained(folders / "llava")
    assert (
        words("ASSISTANT: cat")["input_ids"][: len(words("ASSISTANT: ")["input_ids"])]
        != (words("ASSISTANT: ")["input_ids"])
    )
    images = pictures(2)
    expected = whole_texts(
        folders / "llava", shaped(without, images), "USER: <image> What is it? ASSISTANT:", [f" {n}" for n in NAMES]
    )
    assert torch.allclose(run(without, images).double(), expected, atol=1e-4)
    assert torch.allclose(run(with_space, images).double(), expected, atol=1e-4)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_batch_gives_what_single_images_give(name: str, folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = opened(folders, name), pictures(5)
    together = run(model, images)
    single = torch.cat([run(model, [image]) for image in images])
    assert torch.allclose(together, single, atol=1e-4)
    monkeypatch.setattr(scoring, "CACHE_BYTES", 1)  # an answer at a time
    narrow = opened(folders, name)
    assert torch.allclose(together, run(narrow, images), atol=1e-4)
    assert (narrow._scorer._rows, model._scorer._rows > 100) == (1, True)


def test_the_prompt_is_read_once_an_image(folders: Path) -> None:
    model, images = opened(folders, "llava"), pictures(4)
    read: list[tuple[int, int]] = []

    def note(_: Any, args: Any, kwargs: dict[str, Any]) -> None:
        read.append((len(kwargs["input_ids"]), kwargs["input_ids"].shape[1]))

    model.module.register_forward_pre_hook(note, with_kwargs=True)
    run(model, images)
    tokens = lengths_of(folders / "llava", [f" {name}" for name in NAMES])
    assert read[0][0] == 4
    assert read[0][1] > 16  # the image's tokens
    assert sum(rows * length for rows, length in read[1:]) == 4 * sum(count - 1 for count in tokens)


def test_fewer_answers_go_together_when_memory_runs_out(folders: Path) -> None:
    model, images = opened(folders, "llava"), pictures(2)
    expected = run(model, images)
    forward, failed = model.module.forward, []

    def small(*args: Any, **inputs: Any) -> Any:
        if len(inputs["input_ids"]) > 2:
            failed.append(len(inputs["input_ids"]))
            raise torch.OutOfMemoryError("out of memory")
        return forward(*args, **inputs)

    model.module.forward = small
    assert torch.allclose(run(model, images), expected, atol=1e-4)
    assert 1 <= len(failed) <= 4


def test_half_precision_stays_close(folders: Path) -> None:
    model, images = opened(folders, "llava"), pictures()
    half = load(prepared_of(folders, "llava", "precision=bf16"))
    expected, found = run(model, images), run(half, images)
    assert found.dtype == torch.float32
    assert 0 < float((found - expected).abs().max()) < 0.05 * float(expected.abs().max())


# ---- images


def test_images_are_those_of_the_processor(folders: Path) -> None:
    model = opened(folders, "llava")
    images = pictures()
    theirs = tf.AutoImageProcessor.from_pretrained(folders / "llava", backend="pil")(images=images, return_tensors="pt")
    inputs, _ = model._scorer._inputs(
        shaped(model, images).permute(0, 3, 1, 2), [model._scorer._prompt.text] * len(images)
    )
    assert float((inputs["pixel_values"] - theirs["pixel_values"]).abs().max()) < 1e-6
    record = model.card.preprocessing
    assert (record["resize_mode"], record["crop"], record["crop_rounding"]) == ("shortest", [32, 32], "down")


# ---- classes and identity


def asked(root: Path, more: str = "", name: str = "llava") -> str:
    found: str = prepared_of(root, name, more).files_digest
    return found


def test_question_answers_and_names_are_part_of_the_identity(folders: Path) -> None:
    plain = asked(folders)
    assert plain == asked(folders, f'question="{QUESTION}" answers=names normalize=none end=no answer={{}}')
    others = ['question="What?"', "answers=letters", "normalize=tokens", "end=yes", 'answer="a {}"']
    found = {asked(folders, more) for more in others}
    assert len(found | {plain}) == 1 + len(others)
    (folders / "fewer.txt").write_text("cat\ndog\n")
    assert prepare(parse_line("vlm:llava classes=fewer.txt", "", folders)[0]).files_digest not in {plain, *found}


def test_stores_of_two_questions_lie_side_by_side(folders: Path, tmp_path: Path, run_extract: Any) -> None:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "snow fox"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(2):
            image = Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8))
            image.save(tmp_path / "pets" / name / f"{index}.png")
    folder = folders / "llava"
    (tmp_path / "order.txt").write_text("dog\nsnow fox\ncat\n")
    (tmp_path / "models.txt").write_text(
        f"vlm:{folder} id=named\nvlm:{folder} id=lettered answers=letters\nvlm:{folder} id=filed classes=order.txt\n"
    )
    words = ["--model-list", "models.txt", "--dataset", "pets=pets", "--workers", 0, "--device", "cpu"]
    run_extract(*words, "--cache", "cache", cwd=tmp_path)
    stores = {store.model.id: store for store in cache_schema.open_cache(tmp_path / "cache").stores("predictions")}
    assert sorted(stores) == ["filed", "lettered", "named"]
    images = [Image.open(tmp_path / "pets" / name).convert("RGB") for name in stores["named"].image_ids]
    (tmp_path / "names.txt").write_text("cat\ndog\nsnow fox\n")
    own = load(prepare(parse_line(f"vlm:{folder} classes=names.txt", "", tmp_path)[0]))
    expected = run(own, images).numpy()
    for name in ("named", "filed"):
        np.testing.assert_allclose(stores[name].logits(), expected, atol=0.05)
        assert not stores[name].has("features")
    card = stores["lettered"].model
    assert "A. cat\nB. dog\nC. snow fox" in card.extra["prompt"]
    assert (card.head_kind, card.feature_width, card.extra["question"]["answers"]) == ("non-affine", None, "letters")
    again = run_extract(*words, "--cache", "cache", cwd=tmp_path)
    assert len(list(cache_schema.open_cache(tmp_path / "cache").stores("predictions"))) == 3, again.stdout


# ---- prompts


class Templated:
    """A processor that only renders conversations."""

    chat_template = "yes"

    class tokenizer:
        bos_token = "<s>"
        chat_template = None

    def __init__(self, opening: str, between: str, after: str, *, takes_answers: bool = True) -> None:
        self.opening, self.between, self.after, self.takes_answers = opening, between, after, takes_answers

    def apply_chat_template(self, turns: Any, *, add_generation_prompt: bool, tokenize: bool) -> str:
        text = f"<s>Q: {turns[0]['content'][1]['text']}\n"
        if add_generation_prompt:
            return text + self.opening
        if not self.takes_answers:
            raise ValueError("no answers")
        return text + self.opening + self.between + turns[1]["content"][0]["text"] + self.after


@pytest.mark.parametrize(
    ("opening", "between", "takes", "expected"),
    [
        ("A:", " ", True, " "),
        ("A:\n", "", True, ""),
        ("<a>", "<think></think>", True, "<think></think>"),
        ("A:", " ", False, " "),
        ("A:\n", "", False, ""),
    ],
)
def test_what_separates_prompt_and_answer_is_the_templates(
    opening: str, between: str, takes: bool, expected: str
) -> None:
    processor = Templated(opening, between, "</s>", takes_answers=takes)
    prompt = prompt_of(processor, Question("What?"), ("cat",))
    assert (prompt.text, prompt.separator) == (f"<s>Q: What?\n{opening}", expected)
    assert prompt.after == ("</s>" if takes else "")
    assert not prompt.adds_specials  # the template writes the first token itself
