"""Lists of words embedded once: heads of words as the model's own text tower makes them, read by NegLabel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import test_prompt_experiment
from PIL import Image
from test_prompt_experiment import run

import cache_schema
from analyze.cli import main as analyze
from analyze.prompted import prompt_sets
from closerlook_common.errors import UserError
from extract.classes.prompts import prompt_set
from extract.classes.spaces import ClassSpace
from extract.classes.words import is_words, word_list, word_lists
from extract.libraries import load, prepare
from extract.planning.jobs import head_identity
from extract.zoo.model_list import parse_line

study = test_prompt_experiment.study
WORDS = ["teapot", "snow plough", "Dog", "dog", "ladder", "éclair", "red"]


def write(folder: Path, words: list[str] = WORDS, name: str = "nouns.txt") -> None:
    (folder / name).write_text("\n".join(words) + "\n\n")


def test_words_are_a_head_that_neglabel_reads(study: Path, run_extract: Any) -> None:
    write(study)
    (study / "tpl.txt").write_text("the nice {}.\n")
    rng = np.random.default_rng(0)
    (study / "noise").mkdir()
    for index in range(6):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(study / "noise" / f"{index}.png")
    with (study / "datasets.toml").open("a") as file:
        file.write('[noise]\npath = "noise"\nrole = "ood"\ndistance = "far"\n')
    before = len(run(study, run_extract, "c", "openai-7").stores("head"))
    cache = run(study, run_extract, "c", "openai-7", "--words", "nouns.txt", "--words", "nouns.txt:tpl.txt")
    assert len(cache.stores("head")) == before + 2
    model: Any = load(prepare(parse_line((study / "models.txt").read_text(), "models.txt:1", study)[0]))
    for name, template in (("photo-1", "a photo of a {}."), ("tpl", "the nice {}.")):
        head = cache.head("clip", "words-nouns", name)
        assert list(head.class_names) == WORDS
        assert not head.has("text_sum")
        rows = model.encode_texts([template.replace("{}", word) for word in WORDS])
        np.testing.assert_allclose(head.weight, rows, atol=1e-6)
        assert head.record["class_names_digest"] == word_list(str(study / "nouns.txt"))[0].digest
    # The same words again are the same head; other words are another one.
    run(study, run_extract, "c", "openai-7", "--words", "nouns.txt", "--arrays", "texts")
    heads = cache_schema.open_cache(study / "c").stores("head")
    assert len([head for head in heads if head.details["class_space"] == "words-nouns"]) == 2
    # They are no prompts of images.
    assert prompt_sets(cache) == ["openai-7"]
    gone = [head for head in cache.stores("head") if head.details["prompt_set"] == "tpl"]
    gone[0].path.rename(study / "gone.zarr")
    out = study / "ood.parquet"
    words = ["ood", str(study / "c"), "-o", str(out), "--id", "pets", "--detectors", "neglabel"]
    assert analyze([*words, "--negatives", "words-nouns"]) == 0
    cache = cache_schema.open_cache(study / "c")
    known, others = cache.head("clip", "pets", "openai-7").weight, cache.head("clip", "words-nouns").weight

    def score(name: str) -> Any:
        """Return the mean over words of the share of the classes beside the word: as many groups as words."""
        f = cache.store("clip", name).features().astype(float)
        f /= np.linalg.norm(f, axis=1, keepdims=True)
        ours = np.exp(100 * f @ known.T).sum(1, keepdims=True)
        return (ours / (ours + np.exp(100 * f @ others.T))).mean(1)

    scores = [score(name) for name in ("pets", "noise")]
    wins = (scores[0][:, None] > scores[1][None]).mean() + 0.5 * (scores[0][:, None] == scores[1][None]).mean()
    table = pl.read_parquet(out).filter(pl.col("metric") == "auroc", pl.col("dataset") == "noise")
    assert table["value"].item() == pytest.approx(wins)


def test_the_identity_is_of_the_words(study: Path) -> None:
    write(study)
    prepared: Any = prepare(parse_line((study / "models.txt").read_text(), "models.txt:1", study)[0])
    space, prompts = word_list(str(study / "nouns.txt"))
    assert (space.id, is_words(space), prompts) == ("words-nouns", True, prompt_set("photo-1"))
    plain = head_identity(prepared, "w", space, prompts)
    assert plain == head_identity(prepared, "w", space, prompts, ("texts",))
    write(study, [*WORDS, "one more"])
    others = {
        head_identity(prepared, "w", word_list(str(study / "nouns.txt"))[0], prompts),
        head_identity(prepared, "w", space, prompt_set("openai-7")),
        head_identity(prepared, "w", ClassSpace("pets", space.names), prompts),
    }
    assert len(others | {plain}) == 4


def test_the_study_file_says_the_same_as_the_flag(study: Path, run_extract: Any) -> None:
    write(study)
    (study / "study.toml").write_text(
        '[extract]\nmodels = ["models.txt"]\ndatasets = "datasets.toml"\nprompts = ["photo-1"]\nwords = "nouns.txt"\n'
    )
    run_extract("--study", "study.toml", "--cache", "c", "--workers", 0, cwd=study)
    assert cache_schema.open_cache(study / "c").head("clip", "words-nouns").n_classes == len(WORDS)


@pytest.mark.parametrize(
    ("text", "option", "says"),
    [
        ("cat\ndog\ncat\n", "w.txt", "line 3: 'cat' is there already, in line 1"),
        ("\n\n", "w.txt", "holds no words"),
        ("cat\n", "nowhere.txt", "nowhere.txt"),
        ("cat\n", "w.txt:openai-8", "openai-8"),
        ("cat\n", "w.txt:described.json", "has texts of its own for each class, no templates for words"),
    ],
)
def test_mistakes_are_one_line(study: Path, text: str, option: str, says: str, run_extract: Any) -> None:
    (study / "w.txt").write_text(text)
    words = ["--model-list", "models.txt", "--datasets", "datasets.toml", "--cache", "c", "--words", option]
    failed = run_extract(*words, cwd=study, code=2)
    assert says in failed.stderr.strip().splitlines()[-1]
    assert len(failed.stderr.strip().splitlines()) == 1
    assert not (study / "c").exists()


def test_only_zero_shot_models_embed_words(study: Path, run_extract: Any) -> None:
    write(study)
    (study / "models.txt").write_text(
        "timm:test_resnet allow_random=yes seed=2 num_classes=3 classes=pets input_size=64 crop_pct=1.0\n"
    )
    words = ["--model-list", "models.txt", "--datasets", "datasets.toml", "--cache", "c", "--words", "nouns.txt"]
    failed = run_extract(*words, cwd=study, code=2)
    assert "--words are embedded by zero-shot models, and none of these models is one" in failed.stderr


def test_two_lists_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write(tmp_path)
    write(tmp_path / "a", ["other"])
    assert len(word_lists((str(tmp_path / "nouns.txt"), str(tmp_path / "nouns.txt")))) == 1
    with pytest.raises(UserError, match="two lists of words are called 'nouns'"):
        word_lists((str(tmp_path / "nouns.txt"), str(tmp_path / "a" / "nouns.txt")))
