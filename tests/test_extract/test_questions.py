"""Tables of questions with options: which tables are read and how, and one line for what is wrong in one."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from closerlook_common.errors import UserError
from extract.classes.choices import Choice, choices_space, is_choices
from extract.classes.spaces import ClassSpace
from extract.datasets.questions import read_questions
from extract.datasets.resolving import resolve
from extract.datasets.specs import DatasetSpec, read_datasets_toml, write_datasets_toml


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name in ("a.png", "b.png", "sub/c.png"):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "images" / name)
    return tmp_path / "images"


def read(root: Path, text: str, name: str = "q.csv", **more: Any) -> Any:
    (root.parent / name).write_text(text)
    return read_questions(root.parent / name, root, **more)


def test_options_in_columns_of_letters(root: Path) -> None:
    found = read(
        root, "path,question,A,B,C,answer,n\nb.png,Which?,01,2,,2\nsub/c.png,Which?,x,y,z,C,8\na.png,Where?,y,x,,A,9\n"
    )
    assert found.rows.paths == found.keys == ("a.png", "b.png", "sub/c.png")
    assert found.asked == (
        Choice("Where?", ("y", "x")),
        Choice("Which?", ("01", "2")),
        Choice("Which?", ("x", "y", "z")),
    )
    assert found.rows.labels.tolist() == [0, 1, 2]
    assert sorted(found.metadata) == ["n", "options", "question"]


@pytest.mark.parametrize("column", ["options", "choices"])
def test_options_as_a_list(root: Path, column: str) -> None:
    rows = [{"image": "a.png", column: ["cat", "dog"], "gt": "dog"}, {"image": "b.png", column: [1, 2, 3], "gt": "3"}]
    found = read(root, "\n".join(map(json.dumps, rows)), "q.jsonl")
    want = [("cat", "dog"), ("1", "2", "3")]
    assert [one.options for one in found.asked] == want
    assert found.rows.labels.tolist() == [1, 2]
    table = f'image\t{column}\tgt\na.png\t["cat", "dog"]\tB\nb.png\t[1, 2, 3]\tC\n'
    again = read(root, table.replace('"', '""').replace('[""', '"[""').replace('""]', '""]"'), "q.tsv")
    assert [one.options for one in again.asked] == want


def test_an_answer_is_a_text_or_a_letter(root: Path) -> None:
    found = read(root, "path,A,B,answer\na.png,A,B,B\nb.png,x,y,b\nb.png,y,x,x\n")
    assert found.rows.labels.tolist() == [1, 1, 1]


def test_imagenet_d_is_read_as_it_is(root: Path) -> None:
    """The columns and the choice of the wrong option are those of the authors' eval_imagenet_d.py."""
    text = (
        "image_dir\tgt_category\ttop1_pred_cate\ttop2_pred_cate\na.png\tplate\ttray\tbowl\nb.png\ttray\ttray\tplate\n"
    )
    found = read(root, text)
    assert [one.options for one in found.asked] == [("plate", "tray")] * 2
    assert found.rows.labels.tolist() == [0, 1]
    assert list(found.metadata["top1_pred_cate"]) == ["tray", "tray"]


def test_several_questions_about_an_image_are_rows_of_their_own(root: Path) -> None:
    found = read(root, "path,question,A,B,answer\nb.png,2?,x,y,A\na.png,1?,x,y,A\nb.png,1?,x,y,B\nb.png,2?,y,x,A\n")
    assert found.keys == ("a.png", "b.png", "b.png#2", "b.png#3")
    assert [one.question for one in found.asked] == ["1?", "2?", "1?", "2?"]


def test_a_missing_image_is_said_and_the_others_are_asked(root: Path) -> None:
    found = read(root, "path,A,B,answer\na.png,x,y,A\ngone.png,x,y,B\n")
    assert found.rows.sizes.tolist()[1] == -1
    assert len(found.problems) == 1
    assert found.problems[0].startswith("1 image named by q.csv missing (first: 'gone.png')")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,A,B,answer\na.png,cat,dog,cow\n", "row 1: the answer 'cow' is none of its options: A 'cat', B 'dog'"),
        ("path,A,B,answer\na.png,cat,dog,C\n", "row 1: the answer 'C' is none of its options"),
        ("path,A,B,answer\na.png,cat,dog,\n", "row 1: the answer '' is none of its options"),
        ("path,A,B,answer\na.png,B,A,A\n", "row 1: the answer 'A' may be option A or option B"),
        (
            "path,A,B,answer\na.png,x,y,A\nb.png,x,y,B\na.png,x,y,B\n",
            "row 3: the same question about 'a.png' as in row 1",
        ),
        ("path,A,B,answer\na.png,x,x,A\n", "row 1: the option 'x' is given twice"),
        ("path,A,B,C,answer\na.png,x,,y,A\n", "row 1: option B is blank, and one after it is not"),
        ("path,A,B,answer\na.png,x,,A\n", "row 1: 1 option; a question has 2 to 10"),
        ("path,A,answer\na.png,x,A\n", "no column of options among path, A, answer"),
        ("path,B,C,answer\na.png,x,y,A\n", "no column of options among"),
        ("path,A,B\na.png,x,y\n", "no column 'answer' among path, A, B"),
        ("A,B,answer\nx,y,A\n", "no column 'path' among A, B, answer"),
        ("path,options,answer\na.png,cat or dog,cat\n", "row 1: its options are no list of texts"),
        ("path,A,B,answer\n", "has no rows"),
        ("path,A,B,answer\n../x.png,x,y,A\n", "row 1"),
        ("path,A,B,answer\ngone.png,x,y,A\n", "none of its 1 images is below"),
    ],
)
def test_what_is_wrong_is_one_line(root: Path, text: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        read(root, text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_dataset_is_of_letters_and_its_digest_of_what_is_asked(root: Path) -> None:
    def dataset(text: str) -> Any:
        (root.parent / "q.csv").write_text(text)
        return resolve(DatasetSpec(name="quiz", path=root, questions=root.parent / "q.csv"))

    head = "path,question,A,B,C,answer\n"
    plain = dataset(head + "a.png,Which?,x,y,,A\nb.png,Which?,x,y,z,B\n")
    assert plain.class_space == choices_space(3)
    assert (plain.card.role, plain.card.n_classes, plain.card.n_images) == ("id", 3, 2)
    assert plain.captions is None
    texts = ["a.png,What?,x,y,,A\nb.png,Which?,x,y,z,B\n", "a.png,Which?,x,w,,A\nb.png,Which?,x,y,z,B\n"]
    texts += [
        "a.png,Which?,x,y,,B\nb.png,Which?,x,y,z,B\n",
        "a.png,Which?,x,y,,A\nb.png,Which?,x,y,z,B\na.png,2?,x,y,,A\n",
    ]
    assert len({plain.digest, *(dataset(head + text).digest for text in texts)}) == 5
    assert dataset(head + "b.png,Which?,x,y,z,y\na.png,Which?,x,y,,x\n").digest == plain.digest


def test_datasets_toml_names_the_table(root: Path) -> None:
    (root.parent / "q.csv").write_text("path,A,B,answer\na.png,x,y,A\n")
    file = root.parent / "datasets.toml"
    file.write_text('[quiz]\npath = "images"\nquestions = "q.csv"\nlabel_column = "answer"\n')
    (spec,) = read_datasets_toml(file)
    assert spec.questions == root.parent / "q.csv"
    write_datasets_toml(root.parent / "again.toml", [spec])
    assert read_datasets_toml(root.parent / "again.toml")[0].questions == spec.questions
    for key in ('classes = "folders"', 'manifest = "q.csv"', "per_class = 3", 'role = "ood"', "class_mask = [0]"):
        file.write_text(f'[quiz]\npath = "images"\nquestions = "q.csv"\n{key}\n')
        with pytest.raises(UserError, match="does not go with questions, whose options are the classes"):
            read_datasets_toml(file)


def test_only_a_space_of_letters_is_one_of_choices() -> None:
    assert is_choices(choices_space(2))
    assert not is_choices(ClassSpace("choices-2", ("A", "C")))
    assert not is_choices(ClassSpace("pets", ("A", "B")))


@settings(max_examples=200)
@given(st.data())
def test_every_answer_finds_its_option(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    root = tmp_path_factory.mktemp("any")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(root / "a.png")
    word = st.text(string.ascii_letters + string.digits + " é,;\"'", min_size=1, max_size=8).map(str.strip).filter(bool)
    options = data.draw(st.lists(word, min_size=2, max_size=10, unique=True))
    right = data.draw(st.integers(0, len(options) - 1))
    by_letter = data.draw(st.booleans())
    letter = string.ascii_uppercase[right]
    answer = letter if by_letter else options[right]
    letters = string.ascii_uppercase[: len(options)]
    readings = {place for place in range(len(options)) if answer == options[place] or answer.upper() == letters[place]}
    (root / "q.jsonl").write_text(json.dumps({"path": "a.png", "options": options, "answer": answer}))
    if len(readings) > 1:
        with pytest.raises(UserError, match="may be option"):
            read_questions(root / "q.jsonl", root)
        return
    found = read_questions(root / "q.jsonl", root)
    assert found.rows.labels.tolist() == [right]
    assert found.asked[0].options == tuple(options)
