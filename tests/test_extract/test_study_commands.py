"""A study file through plan, extraction and analysis: the same code for two toy models as for the whole study."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import cache_schema
from analyze.cli import main as analyze

STUDY = """
[study]
title = "pets"
cache = "stores"

[extract]
models = ["models.txt"]
datasets = "datasets.toml"
only = ["pets", "cats", "lions"]
store = "hdf5"

[analyze.split]
fraction = 0.4
"""


@pytest.fixture
def study(tmp_path: Path, pets: Path) -> Path:
    (tmp_path / "models.txt").write_text(
        "timm:test_vit allow_random=yes num_classes=3 classes=pets input_size=64\n"
        "timm:test_resnet allow_random=yes input_size=64 id=imagenet-net\n"
    )
    (tmp_path / "datasets.toml").write_text(
        f'[pets]\npath = "{pets}"\nclass_space = "pets"\n[cats]\npath = "{pets}/cat"\nlabels = "none"\n'
        f'[more]\npath = "{pets}/dog"\nlabels = "none"\n'
    )
    (tmp_path / "study.toml").write_text(STUDY)
    return tmp_path


def test_plan_run_and_analyse(study: Path, run_extract) -> None:
    before = run_extract("plan", "study.toml", cwd=study)
    assert "2 stores to make" in before.stdout
    assert f"{2 * 15 + 30:,} images x models" in before.stdout
    assert "published table" in before.stdout
    assert "left out, for" in before.stderr
    assert "lions" in before.stderr
    run_extract("--study", "study.toml", "--workers", 0, cwd=study)
    cache = cache_schema.open_cache(study / "stores")
    assert {(s.model.id, s.dataset.id) for s in cache.stores("predictions")} == {
        ("test_vit", "pets"),
        ("test_vit", "cats"),
    }
    assert all(store.path.suffix == ".h5" for store in cache.stores())
    after = run_extract("plan", "study.toml", cwd=study)
    assert "0 stores to make" in after.stdout
    assert "2 skipped" not in after.stdout
    results = study / "results.parquet"
    assert analyze(["metrics", "--study", str(study / "study.toml"), "-o", str(results)]) == 0
    options = pl.read_parquet(results).filter(pl.col("metric") == "temperature")["options"]
    assert all("0.4" in told for told in options)


def test_rate_and_size_follow_from_what_is_said(study: Path, run_extract) -> None:
    told = run_extract("plan", "study.toml", "--rate", 60, cwd=study).stdout
    assert "as told by --rate" in told
    (study / "study.toml").write_text(STUDY.replace('only = ["pets", "cats", "lions"]\n', ""))
    assert "3 stores to make" in run_extract("plan", "study.toml", cwd=study).stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["plan", "nowhere.toml"], "nowhere.toml"),
        (["plan", "@closer-lok"], "did you mean closer-look?"),
        (["--study", "study.toml", "--model-list", "models.txt"], "--study"),
    ],
)
def test_bad_input(study: Path, run_extract, words: list[str], says: str) -> None:
    done = run_extract(*words, cwd=study, code=2)
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_analysis_of_an_unknown_study_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert analyze(["metrics", "--study", "@miniatur"]) == 2
    assert "did you mean @miniature?" in capsys.readouterr().err
    assert analyze(["metrics"]) == 2
    assert "name the cache" in capsys.readouterr().err
