"""What 'analyze audit' finds, one finding at a time: a clean table has none, each fault gives its line alone."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import false_discovery_control

import cache_schema
from analyze.audit import CHECKS, audit
from analyze.audit.statistics import benjamini_hochberg_rejections, holm_rejections
from analyze.cli import main
from analyze.evaluate import evaluate
from analyze.results import ResultRow, read_results, to_frame, write_results
from closerlook_common.errors import UserError

MODELS = ("a", "b", "c")


def row(model: str, dataset: str, metric: str, value: float, **cells: Any) -> dict[str, Any]:
    spread = 0.01 if metric != "ece" else 0.002
    known = {"low": value - spread, "high": value + spread, "interval": "wilson 95 %", "n": 10_000, "role": "id"}
    return {"model": model, "dataset": dataset, "metric": metric, "value": value, **known, **cells}


def clean() -> list[dict[str, Any]]:
    """Three models on an ID set, and on a shifted set of fewer classes with the ID accuracy on the same classes."""
    rows = []
    for place, model in enumerate(MODELS):
        shift = {"role": "shift", "classes": 200}
        rows += [
            row(model, "val", "top1", 0.7 + 0.02 * place, classes=1000),
            row(model, "val", "top1", 0.8 + 0.02 * place, subset="classes:r", classes=200),
            row(model, "r", "top1", 0.5 + 0.02 * place, **shift),
            row(model, "val", "ece", 0.05 + 0.01 * place),
            row(model, "val", "ece_debiased", 0.04 + 0.01 * place),
            row(model, "val", "ece", 0.02 + 0.01 * place, calibrator="temperature", id_dataset="val", n=5_000),
        ]
    return rows


def frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    extra = ("classes", "lineage")
    plain = to_frame([ResultRow(**{k: v for k, v in cells.items() if k not in extra}) for cells in rows])
    return plain.with_columns(
        pl.Series("classes", [cells.get("classes") for cells in rows], pl.Int64()),
        pl.Series("lineage", [cells.get("lineage", "") for cells in rows], pl.String()),
    )


def changed(rows: list[dict[str, Any]], change: dict[str, Any], **where: Any) -> list[dict[str, Any]]:
    return [{**r, **change} if all(r.get(k, "") == v for k, v in where.items()) else r for r in rows]


def more(*rows: dict[str, Any]) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    return lambda given: [*given, *rows]


P = [0.04, 0.03, 0.2, 0.001]

FAULTS: dict[str, tuple[str, Callable[[list[dict[str, Any]]], list[dict[str, Any]]], str]] = {
    "at chance": (
        "at-chance",
        lambda rows: changed(rows, {"value": 0.0011, "low": 0.0007, "high": 0.002}, model="b", dataset="val",
                             metric="top1", subset=""),
        "b: accuracy 0.0011 on val is not above 1/1000 (exact binomial test, level 0.01)",
    ),
    "one training run": (
        "near-copies",
        lambda rows: changed(changed(rows, {"lineage": "vit:x/run/e31"}, model="a"), {"lineage": "vit:x/run/e32"},
                             model="b"),
        "2 models of the training run vit:x/run: a, b",
    ),
    "one model twice": (
        "near-copies",
        lambda rows: [*rows, *({**r, "model": "z"} for r in rows if r["model"] == "a")],
        "a, z have the same number for every metric",
    ),
    "fewer images": (
        "unequal-n",
        lambda rows: changed(rows, {"n": 9_000}, model="c", dataset="r"),
        "r: 9,000 to 10,000 images, fewer for c",
    ),
    "a model without a set": (
        "missing-models",
        lambda rows: [r for r in rows if (r["model"], r["dataset"]) != ("c", "r")],
        "r has no accuracy of 1 model of 3: c",
    ),
    "other classes": (
        "unmatched-classes",
        lambda rows: [r for r in rows if not r.get("subset")],
        "r has 200 classes and val is measured on all 1,000",
    ),
    "robustness on other classes": (
        "unmatched-classes",
        more(row("a", "r", "effective_robustness", 0.1, options='{"against": "top1@val"}', command="trends")),
        "effective robustness on r (200 classes) is against top1@val (1,000)",
    ),
    "errors of unequal n": (
        "biased-by-n",
        more(*(row(m, "val", "mce", 0.1 + 0.1 * i) for i, m in enumerate(MODELS)),
             *(row(m, "few", "mce", 0.2 + 0.1 * i, n=400, role="shift") for i, m in enumerate(MODELS))),
        "mce of 2 datasets with 400 to 10,000 images is biased upward",
    ),
    "few images": (
        "few-images",
        more(*(row(m, "val", "factor_accuracy", 0.5, factor="pose", n=150) for m in MODELS)),
        "rest on fewer than 200 images: factor pose of val (150)",
    ),
    "other options": (
        "mixed-options",
        lambda rows: changed(rows, {"options": '{"bins":10}'}, model="b", metric="ece", calibrator=""),
        'ece on val is computed with {"bins": 10} and with {}, with {"bins": 10} for b',
    ),
    "other versions": (
        "mixed-versions",
        lambda rows: changed(rows, {"metric_version": 2}, model="b", metric="ece_debiased"),
        "rows of several versions of ece_debiased",
    ),
    "fitted where it is tested": (
        "tuned-on-test",
        lambda rows: changed(rows, {"n": 10_000}, calibrator="temperature"),
        "temperature of a, b, c is tested on all images of val",
    ),
    "swept where it is tested": (
        "tuned-on-test",
        more(row("a", "ood", "auroc", 0.9, role="ood", score="react", id_dataset="val",
                 options='{"percentile":90,"sweep":"ood"}', command="ood")),
        "hyper-parameters of react were chosen on ood",
    ),
    "several scores": (
        "selection-on-test",
        more(*(row("a", "ood", "auroc", 0.9, role="ood", score=s, id_dataset="val") for s in ("msp", "energy"))),
        "up to 2 OOD scores are compared on one test set",
    ),
    "several prompt sets": (
        "selection-on-test",
        more(*(row(m, "val", "top1", 0.71, head=h, classes=1000, subset="prompts") for m in MODELS for h in "pq")),
        "up to 2 prompt sets are compared",
    ),
    "no bootstrap": (
        "missing-intervals",
        more(row("a", "val", "smece", 0.1, low=None, high=None, interval="none: needs a bootstrap over images")),
        "1 number of smece have no interval, since no bootstrap was run",
    ),
    "no word about an interval": (
        "missing-intervals",
        lambda rows: changed(rows, {"low": None, "high": None, "interval": ""}, metric="ece_debiased"),
        "3 numbers of ece_debiased have no interval and no reason",
    ),
    "never an interval": (
        "missing-intervals",
        more(row("a", "val", "mce", 0.1, low=None, high=None, interval="none: biased upward near calibration")),
        "mce has no interval: biased upward near calibration",
    ),
    "many tests": (
        "many-tests",
        more(*(row(f"{i}", "x", "ece_p", p, low=None, high=None, interval="none: a test") for i, p in enumerate(P))),
        "3 of 4 p-values of ece_p are below 0.05, after Holm's correction 1, after Benjamini and Hochberg's 1",
    ),
}  # fmt: skip


def test_a_clean_table_has_no_finding() -> None:
    assert audit(frame(clean())) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_gives_its_own_line_alone(fault: str) -> None:
    kind, change, words = FAULTS[fault]
    found = audit(frame(change(clean())))
    assert [finding.kind for finding in found] == [kind]
    assert words in found[0].found
    line = str(found[0])
    assert line.startswith(f"{kind}: ")
    assert ". Fix: " in line
    assert line.endswith(".")
    assert "\n" not in line
    assert audit(frame(change(clean())), only=[kind]) == found
    other = next(name for name in CHECKS if name != kind)
    assert audit(frame(change(clean())), only=[other]) == []


def test_every_check_has_a_fault() -> None:
    assert {kind for kind, _, _ in FAULTS.values()} == set(CHECKS)


def test_a_table_of_an_older_version_is_audited_without_what_it_lacks() -> None:
    old = frame(FAULTS["at chance"][1](clean())).drop("classes", "lineage")
    assert audit(old) == []
    with pytest.raises(UserError, match="no check 'at-chanse'; did you mean at-chance"):
        audit(old, only=["at-chanse"])


def test_corrections_against_scipy() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = np.sort(rng.uniform(0, 1, 12) ** rng.choice([1, 3, 6]))
        assert benjamini_hochberg_rejections(p) == (false_discovery_control(p, method="bh") <= 0.05).sum()
        adjusted = np.maximum.accumulate(p * np.arange(12, 0, -1))
        assert holm_rejections(p) == (adjusted <= 0.05).sum()


def test_the_command(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_results(frame(clean()), tmp_path / "clean.parquet")
    assert main(["audit", str(path), "--strict"]) == 0
    text = capsys.readouterr()
    assert text.out == ""
    assert f"0 findings in {path}." in text.err.replace("\n", "")
    faulty = write_results(frame(FAULTS["fewer images"][1](clean())), tmp_path / "faulty.parquet")
    listed = tmp_path / "findings.csv"
    assert main(["audit", str(faulty), "-o", str(listed)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 1
    assert out[0].startswith("unequal-n: r: 9,000 to 10,000 images")
    kept = pl.read_csv(listed)
    assert kept.columns == ["kind", "found", "fix"]
    assert out[0] == f"{kept['kind'][0]}: {kept['found'][0]}. Fix: {kept['fix'][0]}."
    assert main(["audit", str(faulty), "--strict"]) == 1
    assert main(["audit", str(faulty), "--strict", "--only", "at-chance,many-tests"]) == 0
    capsys.readouterr()
    assert main(["audit", str(faulty), "--only", "nonsense"]) == 2
    assert main(["audit", str(tmp_path / "none.parquet")]) == 2
    assert main(["audit", str(faulty), "-o", str(tmp_path / "findings.txt")]) == 2
    assert "Traceback" not in capsys.readouterr().err


def kinds_and_words(table: pl.DataFrame, root: Any, kind: str) -> list[str]:
    found = audit(table, cache_schema.open_cache(root), only=[kind])
    return [finding.found for finding in found]


def test_what_only_the_stores_show(toy_store: Any, tmp_path: Any) -> None:
    table = frame(clean())
    root = tmp_path / "cache"
    for model in ("a", "b"):
        toy_store(cache=root, n=100, model=model)
    assert kinds_and_words(table, root, "unequal-n") == []
    toy_store(cache=root, n=120, model="c")
    assert kinds_and_words(table, root, "unequal-n") == ["val is 2 different lists of images, another one for c"]
    same = tmp_path / "same"
    toy_store(cache=same, n=100, model="a")
    toy_store(cache=same, n=60, model="a", dataset="fresh", role="shift")
    assert audit(table, cache_schema.open_cache(same), only=["unequal-n", "near-copies", "tuned-on-test"]) == []
    # The same numbered files with the same labels: copies of which nobody has recorded.
    toy_store(cache=same, n=100, model="a", dataset="copies", role="shift")
    (words,) = kinds_and_words(table, same, "tuned-on-test")
    assert words.startswith("copies has the file names and labels of val")
    declared = tmp_path / "declared"
    toy_store(cache=declared, n=100, model="a")
    names = [f"val/{i:06d}.jpg" for i in range(100)]
    toy_store(cache=declared, n=100, model="a", dataset="copies", role="shift", metadata={"original": names})
    assert kinds_and_words(table, declared, "tuned-on-test") == []


def test_the_demonstration_can_be_audited(results: pl.DataFrame, tmp_path: Any) -> None:
    path = write_results(results, tmp_path / "r.parquet")
    lines = [str(finding) for finding in audit(read_results(path))]
    assert lines
    assert all("\n" not in line and ". Fix: " in line for line in lines)


def test_a_table_of_a_cache_says_how_many_classes_compete(toy_store: Any, tmp_path: Any) -> None:
    root = tmp_path / "cache"
    random = np.random.default_rng(0).normal(size=(200, 10))
    toy_store(cache=root, n=200, model="trained")
    toy_store(cache=root, n=200, model="untrained", logits=random)
    for model in ("trained", "untrained"):
        toy_store(cache=root, n=50, model=model, dataset="few", role="shift", labels=np.arange(50) % 4,
                  card={"class_mask": (0, 1, 2, 3), "shift_of": "val"})  # fmt: skip
    table = evaluate(cache_schema.open_cache(root), only=["accuracy", "subsets"]).table
    classes = {
        (dataset, subset): n
        for dataset, subset, n in table.filter(pl.col("metric") == "top1").select("dataset", "subset", "classes").rows()
    }
    assert classes == {("val", ""): 10, ("val", "classes:few"): 4, ("few", ""): 4}
    found = audit(table, only=["at-chance", "unmatched-classes"])
    assert [finding.found.split(":")[0] for finding in found] == ["untrained"]
    without = table.filter(pl.col("subset") == "")
    assert [f.found for f in audit(without, only=["unmatched-classes"])] == [
        "few has 4 classes and val is measured on all 10"
    ]


def test_the_page_lists_every_check_and_takes_its_tables_from_the_benchmarks() -> None:
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "how-sure-is-a-number.md").read_text("utf-8")
    rows = re.findall(r"^\| `([a-z-]+)` \|", page, re.MULTILINE)
    assert rows == list(CHECKS)
    spec = importlib.util.spec_from_file_location("files_elsewhere", root / "docs" / "hooks" / "files_elsewhere.py")
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    built = hook.with_tables(page)
    benchmarks = (root / "benchmarks" / "README.md").read_text("utf-8")
    for mark, line in (
        ("[coverage of intervals]", "| accuracy (Wilson) |"),
        ("[coverage of detection]", "| mean AUROC over three sets |"),
        ("[size of tests]", "| Spiegelhalter |"),
        ("[size of paired tests]", "| two AUROCs (DeLong) |"),
        ("[size of tests over families]", "| 12, of 10 |"),
        ("[coverage over families]", "| median over models "),
        ("[coverage of effective robustness]", "| of a model, images of its own "),
    ):
        assert mark in page
        assert mark not in built
        (there,) = (row for row in benchmarks.splitlines() if row.startswith(line))
        assert there in built
        assert there not in page
