"""``closerlook.evaluate``, ``ood`` and ``trends``: the numbers of the commands, as objects."""

from __future__ import annotations

import warnings
from pathlib import Path

import polars as pl
import pytest

import closerlook
from analyze.cli import main
from analyze.results import read_results
from closerlook_common.errors import IncompleteWarning, UserError

KEY = ["model", "dataset", "metric", "id_dataset", "score", "calibrator", "subset", "factor", "head", "options"]


@pytest.fixture
def cache(toy_store, tmp_path: Path) -> Path:
    root = tmp_path / "cache"
    for model, skill in (("a", 2.0), ("b", 1.0)):
        toy_store(cache=root, model=model, skill=skill)
        toy_store(cache=root, model=model, dataset="far", role="ood", n=60)
    return root


def same(first: pl.DataFrame, second: pl.DataFrame) -> None:
    assert len(first)
    assert first.sort(KEY).equals(second.select(first.columns).sort(KEY), null_equal=True)


def test_evaluate_gives_the_rows_of_the_command(cache: Path, tmp_path: Path) -> None:
    assert main(["metrics", str(cache), "--bootstrap", "50", "--seed", "3", "-o", str(tmp_path / "r.parquet")]) == 0
    found = closerlook.evaluate(cache, bootstrap=50, seed=3)
    same(found.frame, read_results(tmp_path / "r.parquet"))
    assert isinstance(found, closerlook.Results)
    assert found.best("ece")["model"].to_list()


def test_evaluate_goes_on_from_a_table(cache: Path, tmp_path: Path) -> None:
    seen = []
    out = tmp_path / "r.parquet"
    first = closerlook.evaluate(closerlook.open_cache(cache), output=out, progress=lambda *step: seen.append(step))
    assert sorted(seen)[-1][2] == 2
    begun = (tmp_path / ".r.cells.parquet").stat().st_mtime_ns
    same(closerlook.evaluate(cache, output=out).frame, first.frame)
    same(read_results(out), first.frame)
    assert begun  # the cells are there for the command too
    assert main(["metrics", str(cache), "-o", str(out)]) == 0


def test_options_choose(cache: Path) -> None:
    found = closerlook.evaluate(cache, only="ece", models="a*", settings={"calibration": {"bins": 10}})
    assert found.models == ["a"]
    assert found.metrics == ["ece"]
    assert set(found.frame["options"]) == {'{"bins":10}'}


def test_ood_gives_the_rows_of_the_command(cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    assert main(["ood", str(cache), "--detectors", "msp,energy", "-o", str(out)]) == 0
    found = closerlook.ood(cache, detectors=["msp", "energy"])
    same(found.frame, read_results(out))
    again = closerlook.ood(cache, detectors="msp,energy", output=out)
    same(again.frame, found.frame)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c: closerlook.evaluate(c, only="ecee"), "did you mean ece"),
        (lambda c: closerlook.evaluate(c, models="z"), "no model 'z' in this cache"),
        (lambda c: closerlook.evaluate(c, bootstrap=-1), "`bootstrap` -1: a whole number from 0 on"),
        (lambda c: closerlook.evaluate(c, engine="slurm"), "`engine` 'slurm': choose 'local' or 'ray'"),
        (lambda c: closerlook.evaluate(c, settings={"calibration": {"bin": 3}}), "did you mean bins"),
        (lambda c: closerlook.ood(c, near="val"), "`near`: val is the in-distribution set"),
        (lambda c: closerlook.ood(c, full_spectrum="gone"), "`full_spectrum`: no predictions on 'gone'"),
        (lambda c: closerlook.ood(c, near="far", far="far"), "`near` and `far`: far is in both"),
        (lambda c: closerlook.ood(c, sweep="far"), "give `validation` NAME or NAME:SHARE"),
        (lambda c: closerlook.ood(c, validation="val:x"), "`validation` val:x: the share"),
        (lambda c: closerlook.ood(c, detectors="knnn"), "did you mean knn"),
        (lambda c: closerlook.ood(c, detectors="vim"), "give `reference` (a training set)"),
    ],
)
def test_errors_name_arguments(cache: Path, call, words: str) -> None:
    with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
        call(cache)
    assert words in str(caught.value)
    assert "--" not in str(caught.value)


def test_the_command_names_flags(cache: Path, tmp_path: Path, capsys) -> None:
    assert main(["ood", str(cache), "--full-spectrum", "gone", "-o", str(tmp_path / "o.parquet")]) == 2
    assert "--full-spectrum: no predictions on 'gone'" in capsys.readouterr().err


def test_what_is_left_out_is_a_warning(cache: Path) -> None:
    broken = next(path for path in (cache / "b").iterdir() if path.name.startswith("far"))
    (broken / "zarr.json").write_text("{}")
    with pytest.warns(IncompleteWarning, match=broken.name):
        found = closerlook.evaluate(cache, only="top1")
    assert found.models == ["a", "b"]


def test_trends_give_the_tables_of_the_command(results: pl.DataFrame, tmp_path: Path) -> None:
    results.write_parquet(tmp_path / "r.parquet")
    y = ["top1@imagenet-a", "ece@imagenet-r"]
    words = [word for quantity in y for word in ("--y", quantity)]
    assert main(["trends", str(tmp_path / "r.parquet"), *words, "--bootstrap", "40", "-o", str(tmp_path / "t")]) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IncompleteWarning)
        found = closerlook.trends(closerlook.Results(results), y=y, bootstrap=40)
    paths = found.write(tmp_path / "own")
    assert {path.name for path in paths} == {path.name for path in (tmp_path / "t").iterdir()}
    for path in paths:
        assert path.read_text() == (tmp_path / "t" / path.name).read_text()
    assert set(found["correlations"]["y"]) == set(y)
    with pytest.raises(UserError, match="there are correlations"):
        found["nothing"]
    with pytest.raises(UserError, match="`scale` 'log'"):
        closerlook.trends(results, scale="log")
