"""NegLabel's choice of negative labels among words: by its definition, and in the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cache_schema
from analyze.cli import main
from analyze.detectors import clip_scores, get
from analyze.detectors.clip_scores import far_words
from cache_schema.format.records import DatasetCard, ModelCard
from closerlook_common.errors import UserError

C, D, M = 5, 8, 40


def unit(values: Any) -> Any:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def by_definition(words: Any, classes: Any, share: float) -> list[int]:
    """Choose word by word: the 0.95 quantile of its cosines with the classes, between the two nearest of these."""
    near = []
    for word in unit(words.astype(float)):
        cosines = sorted(float(word @ known) for known in unit(classes.astype(float)))
        place = 0.95 * (len(cosines) - 1)
        low = int(place)
        high = min(low + 1, len(cosines) - 1)
        near.append(cosines[low] + (place - low) * (cosines[high] - cosines[low]))
    order = sorted(range(len(near)), key=near.__getitem__)
    return sorted(order[: max(1, int(len(words) * share))])


@pytest.mark.parametrize("share", [0.01, 0.15, 0.5, 1.0])
def test_the_furthest_are_those_of_the_definition(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    words, classes = rng.normal(size=(M, D)), rng.normal(size=(C, D))
    want = by_definition(words, classes, share)
    assert far_words(words, classes, share).tolist() == want
    monkeypatch.setattr(clip_scores, "_WORDS_AT_ONCE", 7)
    assert far_words(words, classes, share).tolist() == want


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30), st.integers(1, 6), st.floats(0.05, 1))
def test_a_larger_share_holds_the_smaller_and_lengths_do_not_count(
    seed: int, words: int, classes: int, share: float
) -> None:
    rng = np.random.default_rng(seed)
    given_words, known = rng.normal(size=(words, D)), rng.normal(size=(classes, D))
    few = set(far_words(given_words, known, share / 2).tolist())
    many = far_words(given_words, known, share).tolist()
    assert few <= set(many)
    assert len(many) == max(1, int(words * share))
    longer = given_words * 2.0 ** rng.integers(-2, 3, (words, 1))
    assert far_words(longer, known, share).tolist() == many


def test_other_widths_are_refused() -> None:
    with pytest.raises(UserError, match="words of width 3, classes of width 4"):
        far_words(np.ones((2, 3)), np.ones((2, 4)), 0.5)


def test_the_command_takes_the_share(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    classes, words = unit(rng.normal(size=(C, D))).astype("f4"), unit(rng.normal(size=(M, D))).astype("f4")
    model = ModelCard(id="clip", head_kind="zero-shot", logit_scale=100.0)
    names = [f"c{i}" for i in range(C)]
    for space, weight in (("five", classes), ("words-nouns", words)):
        cache_schema.write_head(
            tmp_path / "c", model=model, class_space=space, class_names=[f"{space} {i}" for i in range(len(weight))],
            weight=weight, prompt_set="photo-1", templates=["{}"], logit_scale=100.0, normalize_features=True,
        )  # fmt: skip
    features = {"id": classes[rng.integers(0, C, 90)] + 0.5 * rng.normal(size=(90, D)), "far": rng.normal(size=(70, D))}
    for name, rows in features.items():
        role = "id" if name == "id" else "ood"
        cache_schema.write_store(
            tmp_path / "c", model=model, features=rows.astype("f4"), labels=np.zeros(len(rows), int) - (role == "ood"),
            logits=100 * unit(rows).astype("f4") @ classes.T, features_dtype="float32",
            dataset=DatasetCard(id=name, role=role, class_space="five", n_classes=C, class_names=tuple(names)),
        )  # fmt: skip
    out, found = str(tmp_path / "r.parquet"), {}
    for negatives, kept in (("words-nouns", range(M)), ("words-nouns:0.2", by_definition(words, classes, 0.2))):
        arguments = ["ood", str(tmp_path / "c"), "-o", out, "--id", "id", "--detectors", "neglabel"]
        assert main([*arguments, "--negatives", negatives]) == 0
        table = pl.read_parquet(out).filter(pl.col("metric") == "auroc", pl.col("dataset") == "far")
        fitted = get("neglabel").fit(head=(classes, np.zeros(C, "f4")), negatives=words[list(kept)])
        scores = {name: fitted.score(features=rows) for name, rows in features.items()}
        more, equal = np.greater.outer(scores["id"], scores["far"]), np.equal.outer(scores["id"], scores["far"])
        rows = table.filter(pl.col("options").str.contains('"mined":0.2') == (":" in negatives))
        assert rows["value"].item() == pytest.approx((more + 0.5 * equal).mean(), abs=1e-3)
        found[negatives] = rows["value"].item()
    assert len(set(found.values())) == 2
