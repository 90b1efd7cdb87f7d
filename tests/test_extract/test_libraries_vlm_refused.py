"""Vision-language models that cannot be used: one line each, and no code of a model runs unasked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from tiny_vlms import llava, opened, prepared_of, save_all

from closerlook_common.errors import UserError
from extract.libraries import load, prepare
from extract.models.base import CompileError
from extract.zoo.model_list import parse_line


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with every model, and the class names in ``names.txt``."""
    return save_all(tmp_path_factory.mktemp("vlms"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("answers=numbers", "answers=numbers is not one of names, letters"),
        ("normalize=token", "normalize=token is not one of none, tokens, characters"),
        ("end=maybe", "end=maybe is neither yes nor no"),
        ("answer=it", "answer='it' has no {} for the class name"),
        ('answers=letters answer="a {}"', "answer= is for answers=names"),
        ('template="{image} What?"', "has no {question} for the question"),
        ("mean=0.5", "mean= does not go with vlm"),
        ("input_size=64", "makes images of 32 x 32; remove input_size=64"),
        ("checkpoint=w.safetensors", "checkpoint= does not go with vlm"),
    ],
)
def test_a_wrong_option_is_one_line(more: str, message: str, folders: Path) -> None:
    with pytest.raises(UserError) as caught:
        prepared_of(folders, "llava", more)
    text = str(caught.value)
    assert message in text
    assert text.startswith("models.txt:1: ")
    assert "\n" not in text


def test_models_that_take_any_size_need_one(folders: Path) -> None:
    for name, missing in (("qwen2_vl", "input_size= and resize_mode="), ("idefics3", "input_size= and resize_mode=")):
        with pytest.raises(UserError, match=f"gives images no fixed size.*add {missing}"):
            prepare(parse_line(f"vlm:{name} classes=names.txt", "models.txt:1", folders)[0])
    with pytest.raises(UserError, match="add resize_mode= to the line"):
        prepare(parse_line("vlm:qwen2_vl classes=names.txt input_size=32", "models.txt:1", folders)[0])


def test_a_folder_without_its_parts_is_one_line(folders: Path, tmp_path: Path) -> None:
    def refused(name: str, message: str, more: str = "classes=names.txt") -> None:
        with pytest.raises(UserError, match=message) as caught:
            load(prepare(parse_line(f"vlm:{name} {more}", "models.txt:1", tmp_path)[0]))
        assert "\n" not in str(caught.value)

    (tmp_path / "names.txt").write_text("cat\ndog\n")
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "many.txt").write_text("".join(f"class {index}\n" for index in range(27)))
    for name in ("bare", "silent", "textual"):
        (tmp_path / name).mkdir()
    module = tf.AutoModelForImageTextToText.from_pretrained(folders / "llava")
    module.save_pretrained(tmp_path / "bare")
    refused("bare", "has no (usable )?processor in .*save")
    module.save_pretrained(tmp_path / "textual")
    tf.AutoTokenizer.from_pretrained(folders / "llava").save_pretrained(tmp_path / "textual")
    refused("textual", "has no (usable )?processor in .*save")
    llava(tmp_path / "silent", template=None)
    refused("silent", "it has no chat template: say template=")
    classifier = tf.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    tf.ViTForImageClassification(classifier).save_pretrained(tmp_path / "vit")
    refused("vit", "is ViTForImageClassification, not a model that takes images and text to text")
    model = str(folders / "llava")
    refused(model, "nothing says which classes .* answers in: add classes=", "")
    refused(model, "holds no class name", "classes=empty.txt")
    refused(
        str(folders / "llava"),
        "there are 27 classes; answers=letters takes at most",
        "classes=many.txt answers=letters",
    )
    (folders / "llava" / "model.safetensors").rename(tmp_path / "w")
    try:
        refused(model, "there is no model.safetensors in")
    finally:
        (tmp_path / "w").rename(folders / "llava" / "model.safetensors")


def test_code_of_a_processor_is_not_run(folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    llava(tmp_path / "model")
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    file = tmp_path / "model" / "processor_config.json"
    config = json.loads(file.read_text())
    config["auto_map"] = {"AutoProcessor": "evil.Evil"}
    config["processor_class"] = "Evil"
    # Loading code of a folder marks its class for all later uses in this process.
    monkeypatch.setattr("transformers.LlavaProcessor._auto_class", None)
    file.write_text(json.dumps(config))
    (tmp_path / "model" / "evil.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "from transformers import LlavaProcessor as Evil\n"
    )
    with pytest.raises(UserError, match="comes with Python code of its own, which is not run"):
        prepare(parse_line("vlm:model classes=names.txt", "models.txt:1", tmp_path)[0])
    assert not (tmp_path / "ran").exists()
    prepare(parse_line("vlm:model classes=names.txt trust_remote_code=yes", "models.txt:1", tmp_path)[0])
    assert (tmp_path / "ran").exists()


def test_a_prompt_without_the_image_is_refused(folders: Path) -> None:
    message = r"llava: it cannot be asked about an image of 32 x 32 .*number of <image> tokens"
    with pytest.raises(UserError, match=message) as caught:
        opened(folders, "llava", 'template="USER: {question} ASSISTANT:"')
    assert "\n" not in str(caught.value)
    model = opened(folders, "llava")
    image = torch.zeros((1, 3, 32, 32), dtype=torch.uint8)
    with torch.inference_mode(), pytest.raises(UserError, match="its prompt has no place for the image"):
        model._scorer.check(torch.cat([image, image]))


def test_a_cache_that_gives_other_numbers_is_refused(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.cache_utils import DynamicCache

    repeat = DynamicCache.batch_repeat_interleave

    def wrong(self: Any, repeats: int) -> None:
        repeat(self, repeats)
        for layer in self.layers:
            layer.values = layer.values * 0.5

    monkeypatch.setattr(DynamicCache, "batch_repeat_interleave", wrong)
    with pytest.raises(UserError, match=r"when the prompt is read once and kept, .* cannot be run by this library"):
        opened(folders, "llava")


def test_models_are_not_compiled(folders: Path) -> None:
    with pytest.raises(CompileError, match="not compiled"):
        opened(folders, "llava").compile(4)
