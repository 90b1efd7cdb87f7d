"""CSV files with decimal commas are read as what they hold, or refused: never another number."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cache_schema
from cache_schema.cli import main
from cache_schema.importing.tables import read_table
from closerlook_common.errors import UserError

ANSWERS = "image_id;label;predicted;confidence\na.png;0;0;0,75\nb.png;1;0;1,5e-01\n"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., int]:
    words = ["--cache", str(tmp_path / "cache"), "--model", "mine", "--dataset", "photos", "--overwrite"]

    def imported(text: str, *more: str) -> int:
        (tmp_path / "x.csv").write_text(text)
        return main(["import", str(tmp_path / "x.csv"), *words, *more])

    return imported


def only_store(tmp_path: Path) -> Any:
    (store,) = cache_schema.open_cache(tmp_path / "cache").stores()
    return store


NUMBERS = st.floats(-1e6, 1e6, allow_nan=False) | st.integers(-5000, 5000).map(float)


@given(
    values=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=6),
    written=st.sampled_from([",", "."]),
    separator=st.sampled_from(";\t|,"),
    whole=st.booleans(),
)
def test_numbers_are_those_that_were_written_or_refused(
    values: list[tuple[float, float]], written: str, separator: str, whole: bool
) -> None:
    """As pandas' ``to_csv(decimal=",")`` and spreadsheets write them: ``2,0`` or ``2`` for whole numbers."""

    def cell(value: float) -> str:
        text = f"{value:.0f}" if whole and value.is_integer() else repr(value)
        text = text.replace(".", written)
        return f'"{text}"' if separator in text else text

    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        rows = [["image_id", "logit_0", "logit_1"]] + [[f"{k}.png", *map(cell, row)] for k, row in enumerate(values)]
        path.write_text("".join(separator.join(row) + "\n" for row in rows))
        commas = [cell(value) for row in values for value in row if written == "," and "," in cell(value)]
        if commas and all(re.fullmatch(r'"?[+-]?[1-9]\d?\d?,\d\d\d"?', text) for text in commas):
            with pytest.raises(UserError, match="whose comma could separate decimals or thousands"):
                read_table(path, text_columns=("image_id",))
            return
        frame = read_table(path, text_columns=("image_id",))
    assert np.array_equal(frame.select("logit_0", "logit_1").cast(pl.Float64).to_numpy(), np.array(values))


def test_answers_with_decimal_commas(tmp_path: Path, run: Callable[..., int]) -> None:
    assert run(ANSWERS) == 0
    assert only_store(tmp_path).column("confidence").tolist() == [0.75, np.float32(0.15)]


def test_notes_become_numbers_only_with_the_numbers_of_the_table(
    tmp_path: Path, run: Callable[..., int], capsys: Any
) -> None:
    lines = ANSWERS.splitlines()
    assert run("\n".join([f"{lines[0]};blur;kind", f"{lines[1]};1,25;1,2 m", f"{lines[2]};3;4"])) == 0
    assert "x.csv has decimal commas; 'blur' are read as such numbers too." in capsys.readouterr().err
    store = only_store(tmp_path)
    assert store.column("metadata.blur").tolist() == [1.25, 3.0]
    assert list(store.column("metadata.kind")) == ["1,2 m", "4"]


def test_notes_alone_say_nothing_of_decimals(tmp_path: Path, run: Callable[..., int]) -> None:
    assert run("image_id;label;predicted;confidence;parts\na.png;0;0;1;1,2\nb.png;1;0;1;2,3\n") == 0
    assert list(only_store(tmp_path).column("metadata.parts")) == ["1,2", "2,3"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "image_id;logit_0;logit_1\na.png;1,234;5,678\n",
            "column 'logit_0' has numbers such as '1,234', whose comma could separate decimals or thousands",
        ),
        (
            "image_id;logit_0;logit_1\na.png;0,5;1.250\n",
            "column 'logit_0' has decimal commas ('0,5') and column 'logit_1' has decimal points ('1.250')",
        ),
        (
            "image_id;label;predicted;confidence\na.png;0;0;0,5\nb.png;0;0;0.5\n",
            "column 'confidence' is String, not a number: row 0 is '0,5'",
        ),
        (
            "image_id;label;predicted;confidence\na.png;0;0;0,5\nb.png;0;0;much\n",
            "column 'confidence' is String, not a number: row 0 is '0,5'",
        ),
        ("image_id;label;predicted;confidence\na.png;5,7;0;1\n", "column 'label' holds 5.7 in row 0, which is not a"),
    ],
)
def test_what_is_unclear_is_refused(text: str, says: str, run: Callable[..., int], capsys: Any) -> None:
    assert run(text) == 2
    assert says in capsys.readouterr().err


def test_class_columns_and_float_labels(tmp_path: Path, run: Callable[..., int]) -> None:
    """A column may hold whole numbers or exponents alone, and pandas writes labels of an incomplete column as 1,0."""
    assert run("image_id\tlabel\t0\t1\na\t1,0\t-3\t1e-05\nb\t0,0\t12,345\t2\n", "--kind", "logits") == 0
    store = only_store(tmp_path)
    assert store.labels.tolist() == [1, 0]
    found = store.centred_logits(0, 2) + store.logit_centers(0, 2)[:, None]
    assert np.allclose(found, [[-3, 1e-5], [12.345, 2]], atol=0.01)  # float16
