"""Columns of tables as people have them: the number is the class, names are text, nothing is guessed."""

from __future__ import annotations

import gzip
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
from cache_schema.importing.column_names import wide_columns
from cache_schema.importing.tables import read_table
from closerlook_common.errors import UserError

P = np.random.default_rng(0).dirichlet(np.ones(5), 12)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., int]:
    words = ["--cache", str(tmp_path / "cache"), "--model", "mine", "--dataset", "photos", "--overwrite"]
    return lambda file, *more: main(["import", str(tmp_path / file), *words, *map(str, more)])


def only_store(tmp_path: Path) -> Any:
    (store,) = cache_schema.open_cache(tmp_path / "cache").stores()
    return store


def write(frame: pl.DataFrame, path: Path) -> None:
    getattr(frame, f"write_{path.suffix[1:]}")(path)


@given(numbers=st.lists(st.integers(0, 12), min_size=1, max_size=10, unique=True), stem=st.sampled_from(
    ["prob_", "logit", "log_prob.", "feature-", ""]
))  # fmt: skip
def test_the_number_is_the_class_or_the_table_is_refused(numbers: list[int], stem: str) -> None:
    names = [f"{stem}{number}" for number in numbers]
    if sorted(numbers) == list(range(len(numbers))):
        (columns,) = wide_columns(names).values()
        assert columns == [f"{stem}{number}" for number in range(len(numbers))]
    else:
        with pytest.raises(UserError, match=f"columns '{stem}{min(numbers)}' to"):
            wide_columns(names)


@given(
    names=st.lists(st.text('ab,;|\t "é/\\\\', min_size=1, max_size=6), min_size=2, max_size=6, unique=True),
    separator=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    bom=st.booleans(),
    index=st.booleans(),
)
def test_a_csv_is_read_as_it_was_written(names: list[str], separator: str, end: str, bom: bool, index: bool) -> None:
    frame = pl.DataFrame({"image_id": names, "label": range(len(names)), "odd;name|of,a\tcolumn": [0.5] * len(names)})
    if index:
        frame = frame.insert_column(0, pl.Series("", range(len(names))))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "x.csv"
        frame.write_csv(path, separator=separator, line_terminator=end, include_bom=bom, quote_style="non_numeric")
        assert read_table(path, text_columns=("image_id",)).equals(frame)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (gzip.compress(b"image_id,label\n", mtime=0), "is compressed; unpack it first"),
        ("image_id,label\n".encode("utf-16"), "is not UTF-8 text; save it as CSV in UTF-8"),
        (b"image_id,label\ra,0\rb,1\r", "its lines end in a carriage return alone"),
        ("image_id,label,né\n".encode("latin-1"), "is not UTF-8 text; save it as CSV in UTF-8"),
    ],
)
def test_what_is_no_utf8_csv_says_so(content: bytes, says: str, tmp_path: Path, run: Any, capsys: Any) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    assert run("x.csv") == 2
    assert says in capsys.readouterr().err
    (tmp_path / "x.csv.gz").write_bytes(content)
    assert run("x.csv.gz") == 2
    assert "x.csv.gz is compressed; unpack it first" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("classes", "says"),
    [
        ([1, 2, 3, 4, 5], "5 columns 'prob_1' to 'prob_5', and none for class 0. If they are ranks (the top 5)"),
        ([0, 1, 3, 4, 5], "5 columns 'prob_0' to 'prob_5', but none for class 2"),
    ],
)
def test_ranks_and_gaps(
    suffix: str, classes: list[int], says: str, tmp_path: Path, run: Callable[..., int], capsys: Any
) -> None:
    frame = pl.DataFrame({f"prob_{k}": P[:, i] for i, k in enumerate(classes)})
    write(frame.with_columns(label=pl.lit(0)), tmp_path / f"t{suffix}")
    assert run(f"t{suffix}") == 2
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_the_same_number_twice(tmp_path: Path, run: Callable[..., int], capsys: Any) -> None:
    (tmp_path / "t.csv").write_text("prob_0,prob_1,prob_01,label\n.5,.5,.5,0\n")
    assert run("t.csv") == 2
    assert "'prob_01' and 'prob_1' have the same number" in capsys.readouterr().err
    (tmp_path / "t.csv").write_text("prob_0,prob_1,prob_1,label\n.5,.5,.5,0\n")
    assert run("t.csv") == 2
    assert "two columns are called 'prob_1'" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_names_stay_as_they_are_written(suffix: str, tmp_path: Path, run: Callable[..., int]) -> None:
    names = [f"{i:06d}" for i in range(12)]
    wide = pl.DataFrame({f"prob_{k}": P[:, k] for k in range(5)}).with_columns(label=pl.lit(1))
    for column in ("image_id", "Image", "file_name"):
        write(wide.with_columns(pl.Series(column, names)), tmp_path / f"t{suffix}")
        assert run(f"t{suffix}") == 0
        assert only_store(tmp_path).image_ids == names


def test_bytes_are_text(tmp_path: Path, run: Callable[..., int], capsys: Any) -> None:
    names = np.array([f"{i}.jpg".encode() for i in range(12)])
    np.savez(tmp_path / "t.npz", probabilities=P, labels=np.zeros(12, int), image_ids=names, **{"metadata.x": names})
    assert run("t.npz") == 0
    assert only_store(tmp_path).image_ids == [f"{i}.jpg" for i in range(12)]
    assert only_store(tmp_path).metadata["x"][0] == "0.jpg"
    answers = pl.DataFrame({"image_id": names, "label": [0] * 12, "predicted": [0] * 12, "note": names})
    assert answers["image_id"].dtype == pl.Binary
    answers.with_columns(confidence=pl.lit(0.5)).write_parquet(tmp_path / "a.parquet")
    assert run("a.parquet", "--model", "other") == 0
    (summary,) = cache_schema.open_cache(tmp_path / "cache").stores("summary")
    assert list(summary.column("image_id"))[:2] == ["0.jpg", "1.jpg"]
    assert list(summary.column("metadata.note"))[:2] == ["0.jpg", "1.jpg"]
    np.savez(tmp_path / "t.npz", probabilities=P, labels=np.zeros(12, int), image_ids=np.array([b"\xff\xfe"] * 12))
    assert run("t.npz") == 2
    assert "row 0 is b'\\xff\\xfe', which is not UTF-8" in capsys.readouterr().err


def test_fractions_far_below_whole_numbers(tmp_path: Path, run: Callable[..., int]) -> None:
    rows = ["1,0,0"] * 2000 + ["0.25,0.75,1"]
    (tmp_path / "t.csv").write_text("\n".join(["prob_0,prob_1,label", *rows]))
    assert run("t.csv") == 0
    assert only_store(tmp_path).logits()[-1] == pytest.approx(np.log([0.25, 0.75]), abs=1e-3)


def test_numbers_alone_need_the_kind(tmp_path: Path, run: Callable[..., int], capsys: Any) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(P)
    frame["label"] = 0
    frame.to_csv(tmp_path / "t.csv")  # with the nameless index
    assert run("t.csv") == 2
    assert "do not say what they hold; give --kind: logits" in capsys.readouterr().err
    assert run("t.csv", "--kind", "probabilities") == 0
    assert "the column without a name" in capsys.readouterr().err
    store = only_store(tmp_path)
    assert np.exp(store.logits()) == pytest.approx(P, abs=2e-3)
    assert list(store.metadata) == []


def test_numbers_beside_answers_are_notes(tmp_path: Path, run: Callable[..., int]) -> None:
    (tmp_path / "a.csv").write_text("image_id,label,predicted,confidence,2024\na,0,0,0.5,7\n")
    assert run("a.csv") == 0
    assert only_store(tmp_path).column("metadata.2024").tolist() == [7]


def test_names_for_the_same_thing(tmp_path: Path, run: Callable[..., int], capsys: Any) -> None:
    (tmp_path / "a.csv").write_text("path,id,label,pred,conf\na,b,0,0,0.5\n")
    assert run("a.csv") == 2
    assert "'path' and 'id', which could each be 'image_id'" in capsys.readouterr().err
    np.savez(tmp_path / "t.npz", probs=P, targets=np.zeros(12, int), y_true=np.ones(12, int))
    assert run("t.npz") == 2
    assert "'targets' and 'y_true', which could each be 'labels'" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["weight", "b", "w"])
def test_a_column_of_weights_is_no_last_layer(name: str, tmp_path: Path, run: Callable[..., int]) -> None:
    frame = pl.DataFrame({f"prob_{k}": P[:, k] for k in range(5)}).with_columns(pl.lit(1.5).alias(name))
    frame.with_columns(label=pl.lit(0)).write_csv(tmp_path / "t.csv")
    assert run("t.csv") == 0
    assert only_store(tmp_path).metadata[name].tolist() == [1.5] * 12


def test_softmax_under_the_name_of_logits_gets_a_hint(tmp_path: Path, run: Callable[..., int], capsys: Any) -> None:
    np.savez(tmp_path / "t.npz", logits=P.astype(np.float32), labels=np.zeros(12, int))
    assert run("t.npz") == 0
    assert "If these are probabilities" in capsys.readouterr().err
    np.savez(tmp_path / "t.npz", logits=np.log(P), labels=np.zeros(12, int))
    assert run("t.npz") == 0
    assert capsys.readouterr().err == ""


def test_one_missing_score_costs_one_image(tmp_path: Path, run: Callable[..., int], capsys: Any) -> None:
    (tmp_path / "a.csv").write_text(
        "image_id,label,predicted,confidence\na,0,0,1.0000001\nb,1.0,1,NaN\nc,1,0,\nd,1,1,0.5\n"
    )
    assert run("a.csv") == 0
    assert "2 of 4 images have no confidence and are not used: row 1 (b), row 2 (c)" in capsys.readouterr().err
    store = only_store(tmp_path)
    assert store.column("confidence")[0] == 1
    assert store.column("valid").tolist() == [True, False, False, True]
    holed = P.copy()
    holed[3, 2] = np.nan
    np.savez(tmp_path / "t.npz", probabilities=holed, labels=np.zeros(12, int))
    assert run("t.npz") == 0
    assert "1 of 12 images have no output and are not used: row 3 (3)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ("a,,0,0.5", "column 'label' is empty in row 0 (-1 means no label)"),
        ("a,0.5,0,0.5", "column 'label' holds 0.5 in row 0"),
        ("a,0,0,87.5", "row 0 has confidence 87.5; it must be a probability, 0 to 1 (divide percentages by 100"),
        ("a,0,0,1.001", "row 0 has confidence 1.001"),
        ("a,0,cat,0.5", "column 'predicted' is String"),
        (",0,0,0.5", "the image id of row 0 is empty"),
        ("a,0,4294967296,0.5", "row 0 is predicted as 4294967296"),
    ],
)
def test_bad_answers_name_file_and_row(
    row: str, says: str, tmp_path: Path, run: Callable[..., int], capsys: Any
) -> None:
    (tmp_path / "a.csv").write_text(f"image_id,label,predicted,confidence\n{row}\n")
    assert run("a.csv") == 2
    err = capsys.readouterr().err
    assert says in err
    assert "a.csv" in err
    assert err.count("\n") == 1
