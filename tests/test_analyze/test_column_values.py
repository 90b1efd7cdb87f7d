"""Metadata columns as factors: words and few numbers by value, the others by range."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyze.cli import main
from analyze.results import read_results
from analyze.suites.column_values import grouped
from closerlook_common.errors import UserError

NUMBERS = st.lists(st.one_of(st.integers(-5, 40), st.floats(-1e6, 1e6), st.just(float("nan"))), min_size=1, max_size=60)


@given(values=NUMBERS, most=st.integers(1, 30), quantiles=st.integers(1, 6))
def test_every_number_is_in_one_factor_and_the_name_says_which(values, most, quantiles):
    column = np.asarray(values, np.float64)
    found = grouped("c", column, most_values=most, quantiles=quantiles)
    present = np.isfinite(column)
    held = sum((rows.astype(int) for rows in found.members.values()), np.zeros(len(column), int))
    if np.unique(column[present]).size > 1 or not found.quantiles:
        assert (held == present).all()
    assert len(found.members) <= (quantiles if found.quantiles else most)
    for name, rows in found.members.items():
        low, _, high = name.removeprefix("c=").partition(" to ")
        assert ((column[rows] >= float(low)) & (column[rows] <= float(high or low))).all()


def test_ranges_hold_equally_many_images():
    values = np.random.default_rng(0).normal(size=1000)
    found = grouped("blur", values, most_values=20, quantiles=4)
    assert [int(rows.sum()) for rows in found.members.values()] == [250] * 4


def test_what_cannot_be_factors_is_refused():
    with pytest.raises(UserError, match="holds 30 different numbers"):
        grouped("blur", np.arange(30), most_values=20, quantiles=0)
    with pytest.raises(UserError, match="1001 distinct values"):
        grouped("name", np.array([f"{i}.jpg" for i in range(1001)], object), most_values=20, quantiles=4)


def test_factors_states_the_quantiles(toy_store, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for seed, model in enumerate(("a", "b")):
        toy_store(cache=tmp_path / "c", model=model, seed=seed, metadata={"blur": rng.permutation(200) / 200})
    out = tmp_path / "r.parquet"
    assert main(["factors", str(tmp_path / "c"), "--columns", "blur", "-o", str(out)]) == 0
    assert "the numbers of column 'blur' are cut into 4 ranges at their quantiles." in capsys.readouterr().err
    table = read_results(out).filter(pl.col("metric") == "factor_accuracy")
    assert table["factor"].unique(maintain_order=True).to_list() == [
        "blur=0 to 0.245", "blur=0.245 to 0.495", "blur=0.495 to 0.745", "blur=0.745 to 0.995",
    ]  # fmt: skip
    assert set(table["options"]) == {'{"quantiles":4}'}
    assert table["n"].to_list() == [50] * 8
