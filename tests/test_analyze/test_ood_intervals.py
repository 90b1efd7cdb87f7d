"""Every number of ``analyze ood``, of all detectors, has an interval around it, or the row says why there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import cache_schema
from analyze.cli import main
from analyze.results import read_results
from cache_schema.writing.kinds.reference_accumulator import ReferenceAccumulator

CLASSES, WIDTH = 6, 12
SETS = {
    "val": ("id", "", 1.0, 400),
    "near": ("ood", "near", 0.5, 150),
    "far": ("ood", "far", 0.0, 150),
    "few": ("ood", "far", 0.0, 40),
}


def write_cache(root: Path) -> None:
    rng = np.random.default_rng(0)
    model = cache_schema.ModelCard(id="m", class_space="six", head_kind="linear")
    weight, bias = rng.normal(size=(CLASSES, WIDTH)).astype(np.float32), rng.normal(size=CLASSES).astype(np.float32)

    def rows(n: int, pull: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        labels = rng.integers(0, CLASSES, n)
        features = np.maximum(pull * weight[labels] + rng.normal(size=(n, WIDTH)) + 0.5, 0).astype(np.float32)
        return features, features @ weight.T + bias, labels

    names = [f"c{i}" for i in range(CLASSES)]
    cache_schema.write_head(root, model=model, class_space="six", class_names=names, weight=weight, bias=bias)
    for name, (role, distance, pull, n) in SETS.items():
        features, logits, labels = rows(n, pull)
        card = cache_schema.DatasetCard(id=name, role=role, distance=distance, class_space="six", n_classes=CLASSES)
        cache_schema.write_store(
            root, model=model, dataset=card, features=features, logits=logits,
            labels=labels if role == "id" else None, image_ids=[f"{name}/{i}.png" for i in range(n)],
        )  # fmt: skip
    sums = ReferenceAccumulator(CLASSES, WIDTH, per_class=60)
    sums.update(*rows(600, 1.0))
    card = cache_schema.DatasetCard(id="train", role="reference", class_space="six")
    record = {"reference": dict(sums.options())}
    cache_schema.write_reference(root, model=model, dataset=card, arrays=sums.arrays(), record=record)


@pytest.mark.parametrize("level", [0.95, 0.8])
def test_every_number_has_an_interval_or_the_reason(tmp_path: Path, level: float) -> None:
    write_cache(tmp_path / "cache")
    (tmp_path / "s.toml").write_text(f"[bootstrap]\nconfidence_level = {level}\n")
    words = ["--validation", "val:0.5", "-o", str(tmp_path / "r.parquet"), "--config", str(tmp_path / "s.toml")]
    assert main(["ood", str(tmp_path / "cache"), *words]) == 0
    numbers = read_results(tmp_path / "r.parquet").filter(pl.col("value").is_not_null())
    assert numbers["score"].n_unique() >= 20
    without = numbers.filter(pl.col("low").is_null())
    assert without["interval"].str.starts_with("none: ").all()
    assert (without["interval"].str.len_chars() > len("none: ") + 5).all()
    bounded = numbers.filter(pl.col("low").is_not_null())
    assert bounded.filter(~pl.col("value").is_between(pl.col("low"), pl.col("high"))).is_empty()
    assert bounded.filter(pl.col("low") == pl.col("high")).is_empty()
    assert bounded["interval"].str.contains(f"{100 * level:g} %").all()
    # Sets of enough rows that lie among each other have an interval for every detector; a set of 40 rows has none.
    plain = pl.col("metric").is_in(["auroc", "fpr95_id"]), pl.col("dataset") == "near"
    assert bounded.filter(*plain)["score"].n_unique() >= 0.8 * numbers.filter(*plain)["score"].n_unique()
    assert bounded.filter(pl.col("dataset") == "few").is_empty()
