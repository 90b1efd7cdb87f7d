"""Study files: those of the package hold together, and mistakes are answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from analyze.settings import override, study_defaults
from closerlook_common.errors import UserError
from extract.classes.prompts import prompt_set
from extract.datasets.recipes import all_recipes
from extract.studies.study import STUDIES, read_study
from extract.zoo.model_list import read_model_list

GOOD = '[extract]\nmodels = "models.txt"\ndatasets = "datasets.toml"\n'


@pytest.mark.parametrize("name", STUDIES)
def test_studies_of_the_package_hold_together(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = read_study(f"@{name}")
    assert study.cache == tmp_path / "cache"
    assert set(study.only) <= set(all_recipes())
    assert [prompt_set(prompts).name for prompts in study.prompts] == list(study.prompts)
    override(study_defaults(), study.analysis, study.where)  # refuses options that the analysis does not have


def test_the_papers_studies_have_their_models_and_sets() -> None:
    closer, holistic = read_study("@closer-look"), read_study("@holistic")
    assert len(read_model_list(closer.model_lists[0])) == 51 + 32 + 127
    assert len(read_model_list(holistic.model_lists[0])) == 84 + 44 + 127
    roles = [all_recipes()[name].role for name in closer.only]
    assert (roles.count("id"), roles.count("shift"), roles.count("ood")) == (1, 9, 5)
    assert set(closer.only) < set(holistic.only)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(GOOD + 'prompts = ["photo-1", "mine.txt"]\n', encoding="utf-8")
    study = read_study(tmp_path / "study.toml")
    assert study.model_lists == (str(tmp_path / "models.txt"),)
    assert study.datasets_file == tmp_path / "datasets.toml"
    assert study.prompts == ("photo-1", str(tmp_path / "mine.txt"))
    assert study.title == "study"


def test_only_picks_and_names_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "datasets.toml").write_text('[b]\npath = "b"\n[a]\npath = "a"\n[c]\npath = "c"\n', encoding="utf-8")
    (tmp_path / "study.toml").write_text(GOOD + 'only = ["a", "x", "b"]\n', encoding="utf-8")
    specs, missing = read_study(tmp_path / "study.toml").datasets()
    assert [spec.name for spec in specs] == ["a", "b"]
    assert missing == ("x",)
    (tmp_path / "study.toml").write_text(GOOD, encoding="utf-8")
    specs, missing = read_study(tmp_path / "study.toml").datasets()
    assert [spec.name for spec in specs] == ["b", "a", "c"]
    assert missing == ()
    (tmp_path / "study.toml").write_text(GOOD + 'only = "x"\n', encoding="utf-8")
    with pytest.raises(UserError, match="none of the datasets of"):
        read_study(tmp_path / "study.toml").datasets()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[extract]\n", "models is missing"),
        ('[extract]\nmodels = "m.txt"\n', "datasets is missing"),
        (GOOD + 'promts = "x"\n', "'promts'; did you mean prompts"),
        (GOOD + "[analyse]\n", "did you mean analyze"),
        (GOOD + '[study]\nname = "x"\n', "unknown key 'name'"),
        (GOOD + '[study]\nprompts = ["x"]\n', r"unknown key 'prompts'; it belongs to .extract."),
        (GOOD + 'store = "hdf"\n', "did you mean hdf5"),
        (GOOD + "prompts = [1]\n", "list of names"),
        (GOOD + "only = 3\n", "list of names"),
        ('[extract]\nmodels = []\ndatasets = "d.toml"\n', "list of names"),
        ('study = 3\n' + GOOD, "must be a section"),
        ("[extract\n", "cannot be read as TOML"),
    ],
)  # fmt: skip
def test_mistakes_are_answered(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_study(tmp_path / "study.toml")


def test_unknown_studies_are_answered(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean closer-look"):
        read_study("@closerlook")
    with pytest.raises(UserError, match="the package has @closer-look"):
        read_study(tmp_path / "none.toml")
