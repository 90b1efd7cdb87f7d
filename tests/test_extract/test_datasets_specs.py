"""datasets.toml: every key there and back, and one line for every mistake."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from closerlook_common.errors import UserError
from extract.datasets import DatasetSpec, read_datasets_toml, write_datasets_toml


def read(folder: Path, text: str) -> list[DatasetSpec]:
    path = folder / "datasets.toml"
    path.write_text(text, encoding="utf-8")
    return read_datasets_toml(path)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (spec,) = read(tmp_path, '[mine]\npath = "images"\nmanifest = "m.csv"\nclasses = "names.txt"\n')
    assert spec.path == tmp_path / "images"
    assert spec.manifest == tmp_path / "m.csv"
    assert spec.classes == str(tmp_path / "names.txt")
    assert "datasets.toml" in spec.where
    assert "[mine]" in spec.where


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[a]\npth = "x"\n', "'pth'; did you mean path"),
        ('[a]\nrole = "id"\n', "path is missing"),
        ('[a]\npath = 3\n', "path = 3 should be text"),
        ('[a]\npath = "x"\nper_class = "many"\n', "should be a whole number"),
        ('[a]\npath = "x"\nper_class = true\n', "should be a whole number"),
        ('[a]\npath = "x"\nper_class = 0\n', "leaves no image"),
        ('[a]\npath = "x"\nfollow_links = 1\n', "should be true or false"),
        ('[a]\npath = "x"\nclass_mask = "dog"\n', "should be a list"),
        ('[a]\npath = "x"\nrole = "shfit"\n', "did you mean shift"),
        ('[a]\npath = "x"\nlabels = "rank"\n', "not one of auto, wnid, index, name, none"),
        ('[a]\npath = "x"\ncaptions = "text"\n', "set manifest ="),
        ('path = "x"\n', "is outside every table"),
        ("", "names no dataset"),
        ("[a\n", "cannot be read"),
    ],
)  # fmt: skip
def test_mistakes_are_answered(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        read(tmp_path, text)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="extract datasets --root"):
        read_datasets_toml(tmp_path / "datasets.toml")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
WORDS = st.lists(TEXT, min_size=1, max_size=3).map(tuple)
MEMBERS = st.lists(st.one_of(TEXT, st.integers(0, 999)), max_size=4).map(tuple)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=TEXT.filter(lambda text: bool(text.strip())),
    classes=st.one_of(st.just(""), st.just("folders"), WORDS),
    class_mask=st.none() | MEMBERS,
    class_map=st.none() | st.lists(MEMBERS, max_size=3).map(tuple),
    licence=st.just("") | TEXT,
    per_class=st.none() | st.integers(1, 99),
    follow_links=st.booleans(),
    role=st.sampled_from(["", "id", "shift", "ood", "reference", "pairs"]),
)
def test_written_and_read_again(tmp_path: Path, name: str, **keys: object) -> None:
    spec = DatasetSpec(name=name, path=tmp_path / "sub" / "images", manifest=tmp_path / "m.csv", **keys)  # type: ignore[arg-type]
    path = tmp_path / "datasets.toml"
    write_datasets_toml(path, [spec], header="what it is\nand why")
    (back,) = read_datasets_toml(path)
    assert replace(back, where="") == spec
    assert '\npath = "sub/images"' in path.read_text(encoding="utf-8")


def test_paths_elsewhere_stay_absolute(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    spec = DatasetSpec(name="a", path=tmp_path / "there")
    write_datasets_toml(tmp_path / "here" / "d.toml", [spec])
    assert read_datasets_toml(tmp_path / "here" / "d.toml")[0].path == tmp_path / "there"
