"""A study file through plan, extraction and analysis: the same code for two toy models as for the whole study."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import cache_schema
from analyze.cli import main as analyze
from examples.miniature.build import build
from examples.miniature.models import QUICK
from extract.studies.study import read_study

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
    assert "0 stores done, 2 missing; heads 0 done, 1 missing" in before.stdout
    assert f"{2 * 15 + 30:,} images x models" in before.stdout
    assert "each model's arithmetic at 70 TFLOP/s" in before.stdout
    assert "datasets.toml does not name them: lions." in before.stderr
    run_extract("--study", "study.toml", "--workers", 0, cwd=study)
    cache = cache_schema.open_cache(study / "stores")
    assert {(s.model.id, s.dataset.id) for s in cache.stores("predictions")} == {
        ("test_vit", "pets"),
        ("test_vit", "cats"),
    }
    assert all(store.path.suffix == ".h5" for store in cache.stores())
    after = run_extract("plan", "study.toml", cwd=study)
    assert "2 stores done, 0 missing; heads 1 done, 0 missing" in after.stdout
    assert "basis" not in after.stdout
    results = study / "results.parquet"
    assert analyze(["metrics", "--study", str(study / "study.toml"), "-o", str(results)]) == 0
    options = pl.read_parquet(results).filter(pl.col("metric") == "temperature")["options"]
    assert all("0.4" in printed for printed in options)


def test_the_study_says_which_metrics(study: Path, run_extract, capsys: pytest.CaptureFixture[str]) -> None:
    run_extract("--study", "study.toml", "--workers", 0, cwd=study)
    results = study / "results.parquet"
    for line, wanted in (('metrics = ["top1"]', {"top1"}), ('metrics = "nll"', {"nll"})):
        (study / "study.toml").write_text(STUDY.replace("[extract]", f"{line}\n\n[extract]"))
        results.unlink(missing_ok=True)
        assert analyze(["metrics", "--study", str(study / "study.toml"), "-o", str(results)]) == 0
        assert wanted <= set(pl.read_parquet(results)["metric"])
        assert "auroc" not in set(pl.read_parquet(results)["metric"])
        assert "0 stores" not in run_extract("plan", "study.toml", cwd=study).stdout
    capsys.readouterr()
    for line, says in (("metrics = 3", "list of names"), ('metrics = ["top11"]', "did you mean top1")):
        (study / "study.toml").write_text(STUDY.replace("[extract]", f"{line}\n\n[extract]"))
        assert analyze(["metrics", "--study", str(study / "study.toml"), "-o", str(results)]) == 2
        printed = capsys.readouterr().err.strip()
        assert says in printed
        assert len(printed.splitlines()) == 1


@pytest.fixture(scope="module")
def miniature_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the miniature, of its quick size, built and run by its study file alone."""
    from extract.cli import main

    folder = tmp_path_factory.mktemp("miniature-study")
    build(folder, quick=True, jobs=1)
    assert main(["--study", str(folder / "study.toml"), "--workers", "0"]) == 0
    return folder


@pytest.mark.slow
def test_the_miniature_runs_by_the_same_code(
    miniature_run: Path, run_extract, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Plan, extraction, metrics, prompts and retrieval of the study that is built, on the quick build."""
    monkeypatch.chdir(miniature_run)
    study = read_study("study.toml")
    specs, missing = study.datasets()
    names = [spec.name for spec in specs]
    assert not missing
    assert len(names) == 13
    cache = cache_schema.open_cache(study.cache)
    clips = {name for recipe in QUICK if recipe.method == "clip" for name in recipe.models()}
    assert {card.id for card in cache.models()} == {*clips, "resnet"}
    done = {(store.model.id, store.dataset.id) for store in (*cache.stores("predictions"), *cache.stores("reference"))}
    assert done == {(m, d) for m in (*clips, "resnet") for d in names if (m, d) != ("resnet", "mini-captions")}
    assert {(h.model.id, h.prompt_set) for h in cache.stores("head") if h.prompt_set} == {
        (model, prompts) for model in clips for prompts in ("openai-80", "photo-1")
    }
    plan = run_extract("plan", "study.toml", cwd=miniature_run).stdout
    assert "38 stores done, 0 missing; heads 5 done, 0 missing" in plan
    assert "nothing" not in plan
    again = run_extract("--study", "study.toml", cwd=miniature_run).stderr
    assert "0 done, 38 sealed before, 1 skipped, 0 failed" in again

    assert analyze(["metrics", "--study", "study.toml"]) == 0
    table = pl.read_parquet("results.parquet")
    assert set(table["model"]) == {*clips, "resnet"}
    assert {"top1", "ece", "nll", "auroc", "fpr95_id", "temperature"} <= set(table["metric"])
    top1 = table.filter(pl.col("metric") == "top1", pl.col("subset") == "", pl.col("factor") == "")
    assert set(top1["dataset"]) >= {"mini-val", "mini-v2", "mini-sketch", "mini-rendition", "mini-hard", "mini-kinds"}
    ood = {spec.name for spec in specs if spec.role == "ood"}
    assert ood <= set(table.filter(pl.col("metric") == "auroc")["dataset"])
    for words in (["prompts", "cache", "--only", "top1"], ["retrieval", "cache"]):
        assert analyze([*words, "-o", "more.parquet"]) == 0
    more = pl.read_parquet("more.parquet")
    assert set(more.filter(pl.col("metric") == "top1")["head"]) == {"openai-80", "photo-1"}
    recall = more.filter(pl.col("metric") == "text_to_image_recall@10")
    assert set(recall["model"]) == clips
    assert "wit-cnn-2k" in capsys.readouterr().out


def test_a_plan_needs_no_study_file_and_builds_nothing(study: Path, run_extract) -> None:
    words = ["plan", "--model-list", "models.txt", "--cache", "stores"]
    assert "the command line: 2 models x 3 datasets" in run_extract(*words, cwd=study).stdout  # of datasets.toml here
    one = run_extract(*words, "--dataset", f"pets={study}:imagenet-1k", cwd=study, code=None)
    assert "holds no images" in one.stderr
    empty = study / "empty"
    empty.mkdir()
    assert "no dataset is named" in run_extract(*words[:2], study / "models.txt", cwd=empty, code=2).stderr
    assert "no dataset is named" in run_extract("--model-list", study / "models.txt", cwd=empty, code=2).stderr
    assert list(empty.iterdir()) == []
    both = run_extract("plan", "@closer-look", "--study", "study.toml", cwd=study, code=2)
    assert "takes one study, not both" in both.stderr


def test_a_dataset_of_the_command_line_says_its_classes(study: Path, pets: Path, run_extract) -> None:
    for number in (1, 10, 2):
        (study / "numbered" / str(number)).mkdir(parents=True)
        (study / "numbered" / str(number) / "x.jpg").write_bytes((pets / "cat" / "0.jpg").read_bytes())
    words = ["--model-list", "models.txt", "--dry-run", "--dataset"]
    plain = run_extract(*words, "photos=numbered", cwd=study, code=2)
    assert "--dataset photos=numbered:imagenet-1k for ImageNet's indices" in plain.stderr
    printed = run_extract(*words, "photos=numbered:imagenet-1k", cwd=study).stderr
    assert "imagenet-net" in printed
    (study / "numbered").rename(study / "num:bered")
    assert "imagenet-net" in run_extract(*words, "photos=num:bered:imagenet-1k", cwd=study).stderr
    (study / "num").mkdir()
    assert "classes are numbers" in run_extract(*words, "photos=num:bered", cwd=study, code=2).stderr
    (study / "num:bered:imagenet-1k").mkdir()
    both = run_extract(*words, "photos=num:bered:imagenet-1k", cwd=study, code=2)
    assert "there are a folder num:bered:imagenet-1k and a folder num:bered;" in both.stderr


def test_the_grammar_of_datasets_is_printed_with_every_key(study: Path, run_extract) -> None:
    from dataclasses import fields

    from extract.datasets.specs import DatasetSpec

    printed = run_extract("help", "datasets").stdout
    keys = {word for line in printed.partition("Keys:")[2].splitlines() for word in line.strip().split(", ")}
    assert {f.name for f in fields(DatasetSpec)} - {"name", "where"} <= keys
    assert max(map(len, printed.splitlines())) <= 112
    # The example is what the reader takes.
    from extract.datasets import read_datasets_toml

    example = printed.partition("paths are relative to the file's folder.")[2].partition("Links below")[0]
    (study / "example.toml").write_text(example)
    assert [spec.name for spec in read_datasets_toml(study / "example.toml")][-1] == "packed"


def test_rate_and_size_follow_from_the_options(study: Path, run_extract) -> None:
    printed = run_extract("plan", "study.toml", "--rate", 60, cwd=study).stdout
    assert "as given by --rate" in printed
    (study / "study.toml").write_text(STUDY.replace('only = ["pets", "cats", "lions"]\n', ""))
    assert "3 missing" in run_extract("plan", "study.toml", cwd=study).stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["plan", "nowhere.toml"], "nowhere.toml"),
        (["plan", "@closer-lok"], "did you mean closer-look?"),
        (["--study", "study.toml", "--model-list", "models.txt"], "--study"),
        (["--study", "typo.toml"], "unknown key 'promts'; did you mean prompts"),
        (["plan", "typo.toml"], "unknown key 'promts'; did you mean prompts"),
        (["--study", "no-models.toml"], "no-such-models.txt cannot be read"),
        (["--study", "no-data.toml"], "no file"),
        (["--study", "study.toml", "--dry-run", "--prompts", "openai80"], "did you mean openai-80"),
    ],
)
def test_bad_input(study: Path, run_extract, words: list[str], says: str) -> None:
    (study / "typo.toml").write_text(STUDY.replace("store =", "promts ="))
    (study / "no-models.toml").write_text(STUDY.replace("models.txt", "no-such-models.txt"))
    (study / "no-data.toml").write_text(STUDY.replace("datasets.toml", "no-such-datasets.toml"))
    done = run_extract(*words, cwd=study, code=2)
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_analysis_of_an_unknown_study_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert analyze(["metrics", "--study", "@closer-lok"]) == 2
    assert "did you mean @closer-look?" in capsys.readouterr().err
    assert analyze(["metrics"]) == 2
    assert "name the cache" in capsys.readouterr().err
