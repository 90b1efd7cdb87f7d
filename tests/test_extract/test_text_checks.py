"""Prompts longer than the text context: a class name is never cut, and two classes never share a row, in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from closerlook_common.errors import UserError
from extract.classes.prompts import PromptSet
from extract.classes.spaces import ClassSpace
from extract.libraries import load, prepare
from extract.models.text_checks import check_lengths, is_cut
from extract.zoo.model_list import parse_line

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "photo", "of", "cat", "dog", "the"]


def folder_of_words(folder: Path, **extra: Any) -> Path:
    """Write a tokenizer of whole words, [CLS] before and [SEP] after them."""
    folder.mkdir(exist_ok=True)
    ids = {word: index for index, word in enumerate(WORDS)}
    pieces = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
              {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]  # fmt: skip
    special = {name: {"id": name, "ids": [ids[name]], "tokens": [name]} for name in ("[CLS]", "[SEP]")}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "added_tokens": [], "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"}, "decoder": None, "truncation": None, "padding": None,
        "post_processor": {"type": "TemplateProcessing", "single": pieces, "pair": pieces, "special_tokens": special},
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": "[UNK]"},
    }))  # fmt: skip
    saved = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]",
             "sep_token": "[SEP]", "cls_token": "[CLS]", **extra}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(saved))
    return folder


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One of each kind, all of 12 tokens."""
    root = tmp_path_factory.mktemp("tokenizers")
    hf = open_clip.tokenizer.HFTokenizer
    right = str(folder_of_words(root / "right"))
    return {
        "open_clip": open_clip.SimpleTokenizer(context_length=12),
        "hf": hf(right, context_length=12),
        "hf left": hf(str(folder_of_words(root / "left", padding_side="left")), context_length=12),
        "hf without end": hf(right, context_length=12, strip_sep_token=True),
        "hf padded with its end": hf(right, context_length=12, pad_token="[SEP]"),
        "hf clips": hf(right, context_length=12, tokenizer_mode="clips", bos_token="[CLS]", eos_token="[SEP]"),
    }


KINDS = ["open_clip", "hf", "hf left", "hf without end", "hf padded with its end", "hf clips"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25)
@given(n=st.integers(1, 30))
def test_a_text_is_cut_where_it_has_more_words_than_there_is_room(
    tokenizers: dict[str, Any], kind: str, n: int
) -> None:
    room = 9 if kind == "hf clips" else 10  # one end and one beginning; clips has a third
    assert is_cut(tokenizers[kind], ["cat " * n, "the cat"]) == [n > room, False]


@pytest.mark.parametrize("kind", KINDS)
def test_a_name_that_would_be_cut_is_refused(tokenizers: dict[str, Any], kind: str) -> None:
    space = ClassSpace("pets", ("cat", "dog", "the cat of the dog"))
    check_lengths(tokenizers[kind], PromptSet("fine", ("a photo of a {}",)), space)
    check_lengths(tokenizers[kind], PromptSet("tail", ("a {}" + " of the dog" * 20,)), space)  # only the tail is cut
    with pytest.raises(UserError, match=r"cuts the class name 'the cat of the dog' off the prompt 'a photo of a a a a"):
        check_lengths(tokenizers[kind], PromptSet("long", ("a photo of a a a a {}",)), space)
    with pytest.raises(UserError, match="'cat' and 2 more off"):
        check_lengths(tokenizers[kind], PromptSet("longer", ("a photo of " * 5 + "{}",)), space)


def clip(folder: Path, **text: Any) -> Any:
    """Return a small model of random weights whose tokenizer is one of words."""
    folder.mkdir()
    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
        "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1, **text},
    }
    (folder / "clip.json").write_text(json.dumps(config))
    look = "mean=0.5 std=0.5 interpolation=bicubic resize_mode=squash"
    line = f"open_clip:clip config={folder / 'clip.json'} allow_random=yes {look}"
    return load(prepare(parse_line(line, "models.txt:1")[0]))


@pytest.mark.parametrize("kind", ["open_clip", "hf"])
def test_a_head_names_what_it_cannot_tell_apart(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder_of_words(tmp_path / "words")
    model = clip(tmp_path / "clip", **({"hf_tokenizer_name": str(tmp_path / "words")} if kind == "hf" else {}))
    fine = model.head(ClassSpace("pets", ("cat", "dog", "cat")), PromptSet("one", ("a photo of a {}",)))
    np.testing.assert_array_equal(fine.weight[0], fine.weight[2])  # one name twice is one text
    with pytest.raises(
        UserError, match=r"class 0 \('a Cat'\) and class 2 \('a cat'\) are the same .* has cleaned them"
    ):
        model.head(ClassSpace("pets", ("Cat", "dog", "cat")), PromptSet("two", ("a {}",)))
    with pytest.raises(UserError, match=r"cuts the class name 'cat' and 1 more off the prompt"):
        model.head(ClassSpace("pets", ("cat", "dog")), PromptSet("three", ("a photo of " * 5 + "{}",)))
    texts = {"cat": ("the " * 20 + "cat",), "dog": ("the " * 20 + "dog",)}
    with pytest.raises(UserError, match="are the same to the text tower, cut at its context length"):
        model.head(ClassSpace("pets", ("cat", "dog")), PromptSet("four", descriptions=texts))
