"""Prompt sets: built-in, from files, by class; their digests; the columns that text towers are given."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
from hypothesis import given
from hypothesis import strategies as st

from closerlook_common.errors import UserError
from extract.classes.prompts import PROMPT_SETS, PromptSet, prompt_set
from extract.classes.spaces import ClassSpace, class_space

PETS = ClassSpace("pets", ("cat", "hot dog", "cat"), ("n01", "n02", "n03"))


def test_built_in_sets_are_those_of_open_clip() -> None:
    names = ("tench", "a {strange} name", "x.y")
    space = ClassSpace("three", names)
    for name, templates in (
        ("openai-80", open_clip.OPENAI_IMAGENET_TEMPLATES),
        ("openai-7", open_clip.SIMPLE_IMAGENET_TEMPLATES),
    ):
        assert prompt_set(name).texts(space) == [tuple(t(c) for t in templates) for c in names]
    assert prompt_set("photo-1").texts(PETS)[1] == ("a photo of a hot dog.",)


def test_study_sets_have_their_sizes_and_are_nested() -> None:
    sets = {name: set(prompt_set(name).templates) for name in PROMPT_SETS}
    assert {name: len(s) for name, s in sets.items()} == {
        "openai-80": 80, "openai-7": 7, "photo-1": 1, "study-5": 5, "study-30": 30
    }  # fmt: skip
    assert sets["photo-1"] < sets["study-5"] < sets["study-30"] < sets["openai-80"]
    assert sets["openai-7"] < sets["openai-80"]
    assert len({prompt_set(name).digest for name in PROMPT_SETS}) == len(PROMPT_SETS)


def test_imagenet_names_are_stated_apart_by_index() -> None:
    space = class_space("imagenet-1k")
    texts = prompt_set("photo-1").texts(space)
    assert len(texts) == 1000
    assert texts[657] == texts[744]
    assert space.wnids is not None
    assert space.wnids[657] != space.wnids[744]


@pytest.mark.parametrize("suffix", [".txt", ".json"])
def test_both_slots_are_the_same_set(tmp_path: Path, suffix: str) -> None:
    def write(name: str, templates: list[str]) -> PromptSet:
        text = json.dumps(templates) if suffix == ".json" else "\n".join(["# mine", "", *templates])
        (tmp_path / f"{name}{suffix}").write_text(text, encoding="utf-8")
        return prompt_set(tmp_path / f"{name}{suffix}")

    a, b = write("a", ["art of {}", "{} – {}"]), write("b", ["art of {c}", "{c} – {c}"])
    assert a.templates == ("art of {}", "{} – {}")
    assert a.digest == b.digest
    assert a.name == "a"
    assert a.texts(PETS)[1] == ("art of hot dog", "hot dog – hot dog")
    assert a.digest != write("c", ["{} – {}", "art of {}"]).digest  # float sums depend on the order


def test_texts_by_class_are_found_by_index_wnid_or_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"cat": ["purrs", "has whiskers"], "n02": "a sausage", "2": ["a whip"]}))
    prompts = prompt_set(file)
    assert prompts.texts(PETS) == [("purrs", "has whiskers"), ("a sausage",), ("a whip",)]
    assert list(prompts.columns(PETS)) == [
        ((0, 1, 2), ("purrs", "a sausage", "a whip")),
        ((0,), ("has whiskers",)),
    ]
    with pytest.raises(UserError, match=r"class 1 \('dgo'\).*did you mean dog"):
        PromptSet("x", descriptions={"cat": ("a",), "dog": ("b",)}).texts(ClassSpace("y", ("cat", "dgo")))


CLASS_NAMES = st.text(min_size=1, max_size=5).filter(lambda name: name.strip() and "\0" not in name)


@given(st.lists(CLASS_NAMES, min_size=1, max_size=5), st.integers(1, 4))
def test_columns_hold_every_text_once(names: list[str], n: int) -> None:
    prompts = PromptSet("x", tuple(f"{i} {{}}" for i in range(n)))
    space = ClassSpace("s", tuple(names))
    rebuilt: list[list[str]] = [[] for _ in names]
    for members, texts in prompts.columns(space):
        for member, text in zip(members, texts, strict=True):
            rebuilt[member].append(text)
    assert [tuple(texts) for texts in rebuilt] == prompts.texts(space)


def test_digest_for_a_space_depends_on_the_texts_alone() -> None:
    one = PromptSet("one", ("a {}",))
    assert one.digest_for(PETS) == PromptSet("two", ("a {}",)).digest_for(ClassSpace("other", PETS.names))
    assert one.digest_for(PETS) != one.digest_for(ClassSpace("pets", ("cat", "cat", "hot dog")))
    # Pinned: a change would let no old head be found again.
    assert one.digest == "5a4fe6885d7f7e28a9158dd14b592180f4f00733e4cad74727f61bb45c6dd3e0"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("openai80", None, "did you mean openai-80"),
        ("missing.txt", None, "cannot be read"),
        ("a.json", "{", "is not JSON"),
        ("a.json", "[]", "no list of templates"),
        ("a.json", '{"cat": []}', "each class needs a list of texts"),
        ("a.json", '{"cat": [1]}', "each class needs a list of texts"),
        ("a.txt", "", "no list of templates"),
        ("a.txt", "a photo of it", "no {} for the class name"),
        ("a.txt", b"\xff\xfe", "not UTF-8"),
    ],
)
def test_bad_sets_are_answered_in_one_line(
    tmp_path: Path, name: str, content: str | bytes | None, message: str
) -> None:
    path = tmp_path / name if "." in name else Path(name)
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        prompt_set(path)
    assert "\n" not in str(caught.value)
