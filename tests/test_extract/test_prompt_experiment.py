"""Several prompt sets in one extraction, and the analysis of each without the model: equal to running the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import polars as pl
import pytest
import torch
from safetensors.torch import save_file

import cache_schema
from analyze.cli import main as analyze
from analyze.prompted import TemplateChoice, prompt_sets, prompted_sources
from closerlook_common.errors import UserError
from extract.classes.names import CLASS_NAME_SETS, ClassNames, class_names
from extract.classes.prompts import prompt_set
from extract.classes.spaces import ClassSpace, class_space

CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
    "custom_text": True,
    "init_logit_bias": -3,
    "init_logit_scale": 2.9,
}
LOOK = "mean=0.5 std=0.5 interpolation=bicubic resize_mode=squash\n"
EIGHT = "eight.txt"
DESCRIBED = {"cat": ["it purrs", "whiskers"], "dog": "it barks", "2": ["red fur", "a bushy tail", "a den"]}


@pytest.fixture
def study(tmp_path: Path, pets: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = open_clip.CustomTextCLIP(**{k: v for k, v in CONFIG.items() if k != "custom_text"})
    save_file({k: v.clone() for k, v in model.state_dict().items()}, tmp_path / "clip.safetensors")
    (tmp_path / "clip.json").write_text(json.dumps({"model_cfg": CONFIG}))
    (tmp_path / "models.txt").write_text("open_clip:clip config=clip.json checkpoint=clip.safetensors id=clip " + LOOK)
    (tmp_path / "datasets.toml").write_text(f'[pets]\npath = "{pets}"\nclass_space = "pets"\n')
    templates = (*prompt_set("openai-7").templates, *prompt_set("photo-1").templates)
    (tmp_path / EIGHT).write_text("\n".join(templates))
    (tmp_path / "described.json").write_text(json.dumps(DESCRIBED))
    (tmp_path / "latin.json").write_text(json.dumps({"cat": "felis catus", "2": "vulpes"}))
    return tmp_path


def run(study: Path, run_extract, cache: str, prompts: str, *more: str) -> cache_schema.Cache:
    words = ["--model-list", "models.txt", "--datasets", "datasets.toml", "--features-dtype", "float32", "--workers", 0]
    run_extract(*words, "--cache", cache, "--prompts", prompts, *more, cwd=study)
    return cache_schema.open_cache(study / cache)


def test_every_stored_set_equals_running_the_model_under_it(study: Path, run_extract) -> None:
    sets = ["photo-1", "openai-7", "study-5", "described.json", "photo-1@latin.json"]
    names = [word.replace(".json", "") for word in sets]
    together = run(study, run_extract, "together", ",".join(sets))
    assert prompt_sets(together) == sorted(names)
    assert together.store("clip", "pets").record["prompt_set"] == "photo-1"
    for word, name in zip(sets, names, strict=True):
        alone = run(study, run_extract, f"alone-{name}", word)
        want = alone.store("clip", "pets").logits()
        (source,), missing = prompted_sources(together, name)
        assert not missing
        span = np.ptp(want)
        np.testing.assert_allclose(source.store.logits(), want, atol=2**-11 * span + 1e-5, err_msg=name)
        heads = [cache.head("clip", "pets", name).weight for cache in (together, alone)]
        np.testing.assert_array_equal(heads[0], heads[1])
    eight = run(study, run_extract, "eight", EIGHT).store("clip", "pets").logits()
    (union,), _ = prompted_sources(together, "openai-7+photo-1")
    np.testing.assert_allclose(union.store.logits(), eight, atol=2**-11 * np.ptp(eight) + 1e-4)


def test_texts_extend_a_cache_and_any_subset_equals_running_the_model(study: Path, run_extract) -> None:
    plain = run(study, run_extract, "c", "openai-7,described.json").head("clip", "pets", "openai-7")
    assert plain.header["schema_version"] == 1
    cache = run(study, run_extract, "c", "openai-7,described.json", "--arrays", "texts")
    assert len(cache.stores("head")) == 4
    head = cache.head("clip", "pets", "openai-7")  # in place of the one that it extends
    assert head.record["extends"] == [plain.identity] == [cache.store("clip", "pets").record["head_identity"]]
    for name, entry in plain.header["seal"]["arrays"].items():
        assert head.header["seal"]["arrays"][name] == entry
    assert cache.head("clip", "pets").prompt_set == "openai-7"  # that of the stored logits
    np.testing.assert_allclose(head.text_embeddings().sum(0, dtype=float), head.text_sum, atol=7 * 2**-11)
    described = cache.head("clip", "pets", "described").text_embeddings()
    lengths = np.linalg.norm(described.astype(float), axis=2)
    np.testing.assert_allclose(lengths, [[1, 1, 1], [1, 0, 1], [0, 0, 1]], atol=1e-3)
    assert "arrays texts: in 2 of 2 text heads" in run_extract("status", "c", cwd=study).stdout
    (study / "three.txt").write_text("\n".join(prompt_set("openai-7").templates[i] for i in (1, 2, 5)))
    want = run(study, run_extract, "three", "three.txt").store("clip", "pets").logits()
    (source,), _ = prompted_sources(cache, "openai-7", TemplateChoice(only=("1-2,5",)))
    span = np.ptp(want)
    np.testing.assert_allclose(source.store.logits(), want, atol=2**-11 * span + np.exp(2.9) * 2**-11)
    plain.path.rename(study / "gone.zarr")  # what was not asked for does no harm
    run(study, run_extract, "c", "openai-7,described.json")
    assert len(cache_schema.open_cache(study / "c").stores("head")) == 3


def test_command_gives_the_numbers_of_each_run(study: Path, run_extract) -> None:
    run(study, run_extract, "together", "photo-1,openai-7")
    out = study / "prompts.parquet"
    assert analyze(["prompts", str(study / "together"), "-o", str(out), "--only", "top1,nll"]) == 0
    prompted = pl.read_parquet(out).filter(pl.col("calibrator") == "", pl.col("subset") == "")
    for name in ("photo-1", "openai-7"):
        run(study, run_extract, name, name)
        alone = study / f"{name}.parquet"
        assert analyze(["metrics", str(study / name), "-o", str(alone), "--only", "top1,nll"]) == 0
        stored = pl.read_parquet(alone).filter(pl.col("calibrator") == "", pl.col("subset") == "")
        for metric in ("top1", "nll"):
            (want,) = stored.filter(pl.col("metric") == metric)["value"]
            (got,) = prompted.filter(pl.col("metric") == metric, pl.col("head") == name)["value"]
            assert got == pytest.approx(want, rel=2e-3)


def test_heads_record_the_digests_of_what_they_were_made_from(study: Path, run_extract) -> None:
    cache = run(study, run_extract, "c", "photo-1,photo-1@latin.json")
    plain, latin = (cache.head("clip", "pets", name).record for name in ("photo-1", "photo-1@latin"))
    assert plain["class_names"] == ""
    assert latin["class_names"] == "latin"
    names = class_names(str(study / "latin.json"))
    assert latin["class_names_digest"] == names.digest
    space = ClassSpace("pets", ("cat", "dog", "fox"))
    assert plain["texts_digest"] == prompt_set("photo-1").digest_for(space)
    assert latin["texts_digest"] == prompt_set("photo-1").digest_for(ClassSpace("x", ("felis catus", "dog", "vulpes")))
    assert plain["prompt_set_digest"] == prompt_set("photo-1").digest != latin["prompt_set_digest"]


@pytest.mark.parametrize(
    ("prompts", "says"),
    [
        ("photo-1@nowhere.txt", "cannot be read"),
        ("photo-1@latn", "no class names 'latn'"),
        ("photo-1@wordnt", "did you mean wordnet"),
        ("photo-1@four.txt", "4 names, but pets has 3 classes"),
        ("photo-1@strange.json", "'dgo' is not a class of pets; did you mean dog"),
        ("described.json@latin.json", "class names have no place in them"),
        ("partly.json", "has no texts for class 1 ('dog')"),
        ("photo-1@empty.json", "neither a list of names nor an object"),
        ("sub/mine.txt,mine.txt", "two prompt sets are called 'mine'"),
        ("photo-1.txt", "called like a built-in set"),
    ],
)
def test_mistakes_are_one_line_before_anything_runs(study: Path, run_extract, prompts: str, says: str) -> None:
    (study / "sub").mkdir()
    for name, text in {
        "four.txt": "a\nb\nc\nd\n", "strange.json": '{"dgo": "x"}', "partly.json": '{"cat": "x"}', "empty.json": "{}",
        "mine.txt": "a {}", "sub/mine.txt": "the {}", "photo-1.txt": "a {}",
    }.items():  # fmt: skip
        (study / name).write_text(text)
    words = ["--model-list", "models.txt", "--datasets", "datasets.toml", "--cache", "c", "--prompts", prompts]
    done = run_extract(*words, cwd=study, code=2)
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (study / "c").exists()


def test_built_in_class_names_are_those_of_their_libraries() -> None:
    from timm.data.imagenet_info import ImageNetInfo

    space = class_space("imagenet-1k")
    assert class_names("open_clip").of(space) == space.names == tuple(open_clip.IMAGENET_CLASSNAMES)
    wordnet = class_names("wordnet").of(space)
    assert [ImageNetInfo().index_to_description(i).split(",")[0] for i in (0, 134, 999)] == [
        wordnet[i] for i in (0, 134, 999)
    ]
    assert len({class_names(name).digest for name in CLASS_NAME_SETS}) == 2
    renamed = prompt_set("photo-1@wordnet")
    assert renamed.name == "photo-1@wordnet"
    assert renamed.texts(space)[134] == (f"a photo of a {wordnet[134]}.",)
    # The names that differ are what the digest distinguishes; the same names are the same texts.
    assert renamed.digest_for(space) != prompt_set("photo-1").digest_for(space)
    assert prompt_set("photo-1@open_clip").digest_for(space) == prompt_set("photo-1").digest_for(space)


def test_names_by_index_wnid_or_name(tmp_path: Path) -> None:
    space = ClassSpace("pets", ("cat", "hot dog", "cat"), ("n01", "n02", "n03"))
    assert ClassNames("x", by_class={"0": "a", "n02": "b", "cat": "c"}).of(space) == ("a", "b", "c")
    with pytest.raises(UserError, match="3 names, but two has 2 classes"):
        ClassNames("x", ("a", "b", "c")).of(ClassSpace("two", ("a", "b")))
