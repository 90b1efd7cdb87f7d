"""`Results` takes what somebody may hand it by mistake: a right answer or one line, never a foreign traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyze import api
from analyze.interactive import Results
from analyze.results import ResultRow, to_frame
from closerlook_common.errors import UserError

ROWS = [
    ResultRow(model=model, dataset=dataset, role=role, metric=metric, value=0.2 + place / 30)
    for place, model in enumerate("abcdef")
    for dataset, role in (("val", "id"), ("v2", "shift"))
    for metric in ("top1", "ece")
]
CALLS: dict[str, Callable[[Results, Any], Any]] = {
    "best metric": lambda results, value: results.best(value),
    "values": lambda results, value: results.values(value),
    "trend": lambda results, value: results.trend(value),
    "trend scale": lambda results, value: results.trend("top1@v2", scale=value),
    "model": lambda results, value: results.model(value),
    "figure": lambda results, value: results.figure(value),
    "rows": lambda results, value: results.table(rows=value),
    "columns": lambda results, value: results.table(columns=value),
    "where": lambda results, value: results.where(metric=value),
}


@pytest.mark.parametrize("bad", [3, None, [], "nope", np.nan], ids=repr)
@pytest.mark.parametrize("call", CALLS)
def test_one_line_for_a_bad_argument(call: str, bad: Any) -> None:
    with pytest.raises((UserError, TypeError)) as caught:
        CALLS[call](Results(to_frame(ROWS)), bad)
    assert "\n" not in str(caught.value)
    assert "has no attribute" not in str(caught.value)


def test_a_column_that_is_missing_is_named() -> None:
    results = Results(to_frame(ROWS))
    with pytest.raises(UserError, match="no column 'modle'; did you mean model"):
        results.table(rows="modle")
    with pytest.raises(UserError, match=r"a quantity is a text METRIC@DATASET.*; got 3"):
        results.values(3)  # type: ignore[arg-type]


def test_switches_of_commands_are_true_or_false(toy_store: Callable[..., Any], tmp_path: Path) -> None:
    toy_store(cache=tmp_path / "cache")
    for call in (
        lambda: api.evaluate(tmp_path / "cache", fresh="no", output=tmp_path / "r.parquet"),
        lambda: api.trends(to_frame(ROWS), cache=tmp_path / "cache", pair_by_row="no"),
    ):
        with pytest.raises(UserError, match=r"(fresh|pair_by_row) must be True or False; got 'no'"):
            call()
