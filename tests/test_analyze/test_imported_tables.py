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


@pytest.mark.parametrize("kind", ["parquet", "csv", "polars", "lazy", "pandas", "pandas-csv"])
def test_a_result_table_is_read_however_it_is_given(results, tmp_path, kind, capsys, monkeypatch):
    import sys

    from analyze.cli import main
    from analyze.interactive import Results
    from analyze.results import read_results, write_results

    monkeypatch.setitem(sys.modules, "pyarrow", None)  # the laptop's installation has none
    given = {
        "parquet": lambda: write_results(results, tmp_path / "r.parquet"),
        "csv": lambda: write_results(results, tmp_path / "r.csv"),
        "polars": lambda: results,
        "lazy": results.lazy,
        "pandas": Results(results).to_pandas,
        "pandas-csv": lambda: Results(results).to_pandas().to_csv(tmp_path / "p.csv") or tmp_path / "p.csv",
    }[kind]()
    assert Results(given).frame.equals(results)
    if kind in ("parquet", "csv", "pandas-csv"):
        assert read_results(given).equals(results)
        assert main(["table", str(given), "--where", "metric=top1", "--where", "head=", "--columns", "dataset"]) == 0


def test_what_is_no_result_table_is_said_in_one_line(tmp_path):
    import pandas as pd

    from analyze.interactive import Results
    from closerlook_common.errors import UserError

    (tmp_path / "a.csv").write_text("model,dataset\na,b\n")
    for source, printed in (
        (tmp_path / "a.csv", "no column metric, value"),
        (pd.DataFrame({"model": ["a"]}), "the frame is not a result table: it has no column dataset"),
        (7, "is a int: give a path"),
    ):
        with pytest.raises(UserError, match=printed):
            Results(source)
