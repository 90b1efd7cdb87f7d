"""Any stored prompt set without the model: logits from embeddings and heads, numbers under each set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import cache_schema
from analyze.cli import main
from analyze.prompted import prompt_sets, prompted_sources, union
from analyze.results import KEY_COLUMNS
from cache_schema.format.records import DatasetCard, ModelCard
from closerlook_common.errors import UserError

N, C, D, SCALE, BIAS = 300, 5, 16, 30.0, -4.0


@pytest.fixture
def cache(tmp_path: Path):
    """A zero-shot model with two prompt sets of three and two templates, and a classifier beside it."""
    rng = np.random.default_rng(0)
    texts = {"a": rng.normal(size=(C, 3, D)), "b": rng.normal(size=(C, 2, D))}
    centre = rng.normal(size=(C, 1, D))
    texts = {name: value * 0.5 + centre for name, value in texts.items()}
    texts = {name: value / np.linalg.norm(value, axis=-1, keepdims=True) for name, value in texts.items()}
    labels = rng.integers(0, C, N)
    features = ((centre[labels, 0] + rng.normal(size=(N, D))) * 3).astype(np.float32)
    names = tuple(f"class {c}" for c in range(C))
    model = ModelCard(id="clip", head_kind="zero-shot", logit_scale=SCALE, logit_bias=BIAS)
    dataset = DatasetCard(id="test", class_space="five", n_classes=C, class_names=names)
    for name, value in texts.items():
        total = value.sum(1)
        cache_schema.write_head(
            tmp_path, model=model, class_space="five", class_names=names, prompt_set=name,
            weight=(total / np.linalg.norm(total, axis=1, keepdims=True)).astype(np.float32),
            bias=np.full(C, BIAS, np.float32), logit_scale=SCALE, logit_bias=BIAS, normalize_features=True,
            text_sum=total.astype(np.float32),
        )  # fmt: skip
    opened = cache_schema.open_cache(tmp_path)
    logits = opened.head("clip", "five", "a").logits(features)
    cache_schema.write_store(
        tmp_path, model=model, dataset=dataset, logits=logits, features=features, labels=labels,
        record={"prompt_set": "a"},
    )  # fmt: skip
    own = ModelCard(id="net", head_kind="linear")
    cache_schema.write_store(tmp_path, model=own, dataset=dataset, logits=logits, features=features, labels=labels)
    return cache_schema.open_cache(tmp_path), texts, labels


def test_logits_equal_the_heads(cache) -> None:
    opened, texts, _ = cache
    assert prompt_sets(opened) == ["a", "b"]
    stored = opened.store("clip", "test")
    (source,), missing = prompted_sources(opened, "a")
    assert not missing
    assert source.model == "clip"
    # The stored logits came from float32 embeddings, these from their float16.
    np.testing.assert_allclose(source.store.logits(), stored.logits(), atol=2**-10 * 2 * SCALE)
    assert (source.store.logits().argmax(1) == stored.logits().argmax(1)).mean() > 0.98
    unit = stored.features().astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    for name, parts in (("b", ("b",)), ("a+b", ("a", "b"))):
        mean = np.concatenate([texts[part] for part in parts], axis=1).mean(1)
        want = SCALE * unit @ (mean / np.linalg.norm(mean, axis=1, keepdims=True)).T + BIAS
        (source,), _ = prompted_sources(opened, name)
        np.testing.assert_allclose(source.store.logits(), want, atol=2**-11 * np.ptp(want) + 1e-4)
        whole = source.store.logits()
        np.testing.assert_array_equal(source.store.logits(40, 90), whole[40:90])
        source.store.release()
        np.testing.assert_array_equal(source.store.logits(), whole)


def test_command_gives_a_row_per_prompt_set(cache, tmp_path: Path) -> None:
    opened, _, labels = cache
    out = tmp_path / "results.parquet"
    words = ["--only", "top1", "--prompts", "a,b,a+b"]
    assert main(["prompts", str(opened.path), "-o", str(out), *words]) == 0
    prompted = pl.read_parquet(out).filter(pl.col("subset") == "", pl.col("calibrator") == "")
    assert sorted(prompted["head"]) == ["a", "a+b", "b"]
    for row in prompted.iter_rows(named=True):
        (source,), _ = prompted_sources(opened, row["head"])
        assert row["value"] == pytest.approx((source.store.logits().argmax(1) == labels).mean())
    out = tmp_path / "both.parquet"
    assert main(["metrics", str(opened.path), "-o", str(out), "--only", "top1"]) == 0
    for _ in range(2):
        assert main(["prompts", str(opened.path), "-o", str(out), *words]) == 0
        table = pl.read_parquet(out)
        assert set(table.filter(pl.col("command") == "metrics")["model"]) == {"clip", "net"}
        # The stored logits are of set a, whose numbers stand there already.
        assert set(table.filter(pl.col("command") == "prompts")["head"]) == {"b", "a+b"}
        assert not table.select(KEY_COLUMNS).is_duplicated().any()


def test_unknown_sets_and_classifiers_are_named(cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened, _, _ = cache
    with pytest.raises(UserError, match="no head of the prompt set 'c'"):
        prompted_sources(opened, "a+c")
    assert main(["prompts", str(opened.path), "--prompts", "aa", "-o", str(tmp_path / "r.parquet")]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    head = opened.head("clip", "five", "a")
    assert union([head]).weight.shape == (C, D)
