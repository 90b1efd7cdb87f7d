"""A prompt set that a text tower refuses stops only what needs it; texts that the context cuts are reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cache_schema

CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture
def tiny(tmp_path: Path, pets: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small CLIP of 12 tokens, a labelled set, one with captions, and prompt sets short and long."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    (tmp_path / "clip.json").write_text(json.dumps(CONFIG))
    look = "mean=0.5 std=0.5 interpolation=bicubic resize_mode=squash"
    (tmp_path / "models.txt").write_text(f"open_clip:clip config=clip.json allow_random=yes id=tiny {look}\n")
    (tmp_path / "short.txt").write_text("a photo of a {}\n")
    (tmp_path / "tail.txt").write_text("a {}, a type of animal that some people keep at home\n")
    (tmp_path / "long.txt").write_text("a photo of a photo of a photo of a photo of a {}\n")
    first = sorted(path.relative_to(pets) for path in pets.rglob("*.jpg"))[:2]
    rows = [f"{first[0]},a cat", f'{first[1]},"{"the cat sat on the mat and " * 4}"']
    (tmp_path / "captions.csv").write_text("path,caption\n" + "\n".join(rows) + "\n")
    (tmp_path / "datasets.toml").write_text(
        f'[pets]\npath = "{pets}"\n[pairs]\npath = "{pets}"\nrole = "pairs"\nlabels = "none"\n'
        f'manifest = "captions.csv"\ncaptions = "caption"\n'
    )
    return tmp_path


WORDS = ("--model-list", "models.txt", "--cache", "cache", "--workers", 0)


@pytest.mark.parametrize("first", [True, False])
def test_predictions_go_on_without_a_secondary_prompt_set(tiny: Path, run_extract, *, first: bool) -> None:
    sets = "short.txt,long.txt" if first else "long.txt,short.txt"
    done = run_extract(*WORDS, "--prompts", sets, cwd=tiny, code=1)
    assert done.stderr.count("which cuts the class name") == 1
    assert "prompt" in done.stderr
    cache = cache_schema.open_cache(tiny / "cache")
    stores = {store.dataset.id for store in cache.stores("predictions")}
    heads = {store.prompt_set for store in cache.stores("head")}
    # Where the set is the first one, its logits are what would be stored.
    assert stores == ({"pets", "pairs"} if first else {"pairs"})
    assert heads == {"short"}
    assert any("cuts the class name" in failure.reason for failure in cache.failures())
    again = run_extract(*WORDS, "--prompts", sets, cwd=tiny, code=1)
    assert again.stderr.count("which cuts the class name") == 1  # it is tried and reported again
    if first:
        run_extract(*WORDS, "--prompts", "short.txt", cwd=tiny)


def test_texts_that_are_cut_are_reported(tiny: Path, run_extract) -> None:
    done = run_extract(*WORDS, "--prompts", "tail.txt", cwd=tiny)
    assert "of the prompt set tail are longer than the text context and are cut, the first is 'a " in done.stderr
    assert "tiny: 1 of 2 captions of pairs are longer than the text context and are cut" in done.stderr
    (texts,) = cache_schema.open_cache(tiny / "cache").stores("texts")
    assert texts.header["record"]["texts_cut"] == 1
