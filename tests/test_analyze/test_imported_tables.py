"""Tables of predictions made elsewhere give the numbers that they can."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn import metrics as sk

import cache_schema
from analyze.evaluate import evaluate


def test_an_imported_table_of_predictions_gives_what_it_can(tmp_path):
    from cache_schema.cli import main as cache_command

    rng = np.random.default_rng(3)
    label, predicted, confidence = rng.integers(0, 4, 80), rng.integers(0, 4, 80), rng.uniform(0.2, 1.0, 80)
    frame = pl.DataFrame({"label": label, "predicted": predicted, "confidence": confidence})
    frame.with_columns(image_id=pl.int_range(80).cast(pl.String)).write_csv(tmp_path / "mine.csv")
    words = ["import", tmp_path / "mine.csv", "--model", "mine", "--dataset", "val", "--cache", tmp_path / "cache"]
    assert cache_command([str(word) for word in words]) == 0
    found = evaluate(cache_schema.open_cache(tmp_path / "cache"))
    assert not found.failures
    plain = found.table.filter(pl.col("subset") == "", pl.col("calibrator") == "")
    values = {row["metric"]: row for row in plain.iter_rows(named=True)}
    assert values["top1"]["value"] == pytest.approx(sk.accuracy_score(label, predicted))
    right = predicted == label
    assert values["correctness_auroc"]["value"] == pytest.approx(sk.roc_auc_score(right, confidence), abs=1e-6)
    bins = np.minimum(np.ceil(confidence * 15) - 1, 14)
    gaps = [abs((confidence - right)[bins == b].sum()) / 80 for b in range(15)]
    assert values["ece"]["value"] == pytest.approx(sum(gaps), abs=1e-6)
    for metric in ("top5", "nll", "brier"):
        assert values[metric]["value"] is None
        assert values[metric]["reason"]
