"""``analyze ood`` from stores to the result table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import cache_schema
from analyze import metrics
from analyze.cli import main
from analyze.detectors import DETECTORS, Reference, get
from analyze.fits.detectors import FittedDetector
from analyze.results import read_results
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.writing.kinds.reference_accumulator import ReferenceAccumulator

CLASSES, WIDTH = 6, 12
SETS = {
    "val": {"role": "id"},
    "val-v2": {"role": "shift", "shift_of": "val"},
    "near-ood": {"role": "ood", "distance": "near"},
    "far-ood": {"role": "ood", "distance": "far"},
    "other-ood": {"role": "ood"},
}


def card_of(name: str) -> DatasetCard:
    return DatasetCard(id=name, class_space="six", n_classes=CLASSES, **SETS[name])  # type: ignore[arg-type]


def rows_of(name: str, weight: np.ndarray, n: int = 90) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(sorted((*SETS, "train")).index(name))
    labels = rng.integers(0, CLASSES, n)
    spread = {"val": 0.9, "train": 0.9, "val-v2": 1.2}.get(name, 1.5)
    pull = {"near-ood": 0.5, "far-ood": 0.0, "other-ood": 0.2}.get(name, 1.0)
    features = np.maximum(pull * weight[labels] + spread * rng.normal(size=(n, WIDTH)) + 0.5, 0)
    return features.astype(np.float32), labels


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models: a linear head with a reference, one without, and a head that is not affine."""
    path = tmp_path_factory.mktemp("cache")
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(CLASSES, WIDTH)).astype(np.float32), rng.normal(size=CLASSES).astype(np.float32)
    for name in ("linear", "bare", "bent"):
        model = ModelCard(id=name, class_space="six", head_kind="non-affine" if name == "bent" else "linear")
        cache_schema.write_head(
            path, model=model, class_space="six", class_names=[f"c{i}" for i in range(CLASSES)],
            weight=weight, bias=bias, affine=name != "bent", residual=0.5 if name == "bent" else 1e-7,
        )  # fmt: skip
        for dataset in SETS:
            features, labels = rows_of(dataset, weight)
            valid = np.ones(len(labels), bool)
            valid[3] = False
            cache_schema.write_store(
                path, model=model, dataset=card_of(dataset), features=features, logits=features @ weight.T + bias,
                labels=labels if SETS[dataset]["role"] != "ood" else np.full(len(labels), -1),
                image_ids=[f"{dataset}/{i}.png" for i in range(len(labels))], valid=valid,
            )  # fmt: skip
        if name != "bare":
            features, labels = rows_of("train", weight, 300)
            sums = ReferenceAccumulator(CLASSES, WIDTH, per_class=40, unit=True)
            sums.update(features, features @ weight.T + bias, labels)
            cache_schema.write_reference(
                path, model=model, dataset=DatasetCard(id="train", role="reference", class_space="six"),
                arrays=sums.arrays(), record={"reference": dict(sums.options())},
            )  # fmt: skip
    return path


def run(cache: Path, output: Path, *words: str) -> int:
    return main(["ood", str(cache), "--reference", "train", "-o", str(output), *words])


NAMES = "msp,energy,knn,vim,mds,rmds,react,klm,gradnorm,dice"


def test_numbers_are_those_of_the_detectors_on_the_stores(cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.parquet"
    assert run(cache, out, "--detectors", NAMES, "--models", "linear") == 0
    table = read_results(out)
    opened = cache_schema.open_cache(cache)
    reference = Reference.from_store(opened.reference("linear", "train"))
    head = opened.head("linear", "six")
    for name in NAMES.split(","):
        fitted = get(name).fit(reference=reference, head=head)
        scores = {}
        for dataset in SETS:
            store = opened.store("linear", dataset)
            rows = store.valid
            scores[dataset] = fitted.score(features=store.features()[rows], logits=store.logits()[rows])
        plain = table.filter((pl.col("score") == name) & ~pl.col("options").str.contains("full_spectrum"))
        wide = table.filter((pl.col("score") == name) & pl.col("options").str.contains("full_spectrum"))
        for rows, inside in ((plain, scores["val"]), (wide, np.concatenate([scores["val"], scores["val-v2"]]))):
            for dataset in ("near-ood", "far-ood", "other-ood"):
                got = dict(rows.filter(pl.col("dataset") == dataset).select("metric", "value").iter_rows())
                assert got["auroc"] == metrics.auroc(inside, scores[dataset])
                assert got["fpr95_id"] == metrics.fpr_at_tpr(inside, scores[dataset], positive="id")
                assert got["fpr95_ood"] == metrics.fpr_at_tpr(inside, scores[dataset], positive="ood")
                assert got["aupr_in"] == pytest.approx(metrics.aupr(inside, scores[dataset], positive="id"), rel=1e-12)
                assert got["aupr_out"] == pytest.approx(
                    metrics.aupr(inside, scores[dataset], positive="ood"), rel=1e-12
                )
            aurocs = dict(
                rows.filter(pl.col("metric") == "auroc")
                .select("dataset", "value")
                .filter(pl.col("dataset") != "")
                .iter_rows()
            )
            means = dict(
                rows.filter((pl.col("metric") == "auroc") & (pl.col("dataset") == ""))
                .select("subset", "value")
                .iter_rows()
            )
            assert means["near"] == aurocs["near-ood"]
            assert means["far"] == aurocs["far-ood"]
            assert means["all"] == pytest.approx(np.mean(list(aurocs.values())))
    printed = json.loads(table.filter(pl.col("score") == "knn")["options"][0])
    assert printed["k"] == 50
    assert printed["fit"] == "bank:train"
    assert table["n"].drop_nulls().min() > 0


def test_every_detector_runs_or_says_why(cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.parquet"
    assert run(cache, out, "--validation", "val:0.5") == 0
    table = read_results(out).filter(pl.col("metric") == "auroc")
    for model in ("linear", "bare", "bent"):
        rows = table.filter(pl.col("model") == model)
        assert set(rows["score"]) == set(DETECTORS)
        assert rows.filter(pl.col("value").is_null() & (pl.col("reason") == "")).is_empty()
    ran = table.filter((pl.col("model") == "linear") & pl.col("value").is_not_null())["score"].unique()
    # NNGuide asks for 100 neighbours and has them; only the scores of image-text models are left
    assert set(DETECTORS) - set(ran) == {"mcm", "l-mcm", "gl-mcm", "neglabel"}
    bent = dict(table.filter(pl.col("model") == "bent").select("score", "reason").iter_rows())
    assert "affine" in bent["react"]
    assert bent["msp"] == ""
    bare = dict(table.filter(pl.col("model") == "bare").select("score", "reason").iter_rows())
    assert "reference" in bare["mds"]
    fit = {
        s: json.loads(o).get("fit")
        for s, o in table.filter(pl.col("model") == "linear").select("score", "options").iter_rows()
        if o
    }
    assert fit["react"] == "validation:val:0.5"
    held = json.loads(table.filter(pl.col("score") == "msp")["options"][0])
    assert held["held_out"] == 0.5


def test_a_second_run_changes_nothing_and_another_variant_is_added(cache: Path, tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "r.parquet"
    assert run(cache, out, "--detectors", "msp,mds,mcm") == 0
    first = read_results(out)
    assert run(cache, out, "--detectors", "msp,mds,mcm") == 0
    assert "3 of 3 models unchanged" in capsys.readouterr().err
    assert read_results(out).equals(first)
    assert run(cache, out, "--detectors", "energy", "--models", "linear") == 0
    assert len(read_results(out)) > len(first)
    assert run(cache, out, "--detectors", "msp,mds,mcm", "--fresh") == 0
    assert len(read_results(out).filter(pl.col("score") != "energy")) == len(first)


def test_sweep_names_its_set_and_finds_the_best(cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.parquet"
    words = ("--detectors", "gen", "--models", "linear", "--validation", "val:0.5", "--sweep", "other-ood")
    assert run(cache, out, *words) == 0
    table = read_results(out)
    printed = json.loads(table["options"][0])
    assert printed["sweep"] == "other-ood"
    assert "other-ood" not in set(table["dataset"])
    opened = cache_schema.open_cache(cache)
    from analyze.fits.detector_inputs import held_back, read_validation

    val, other = opened.store("linear", "val"), opened.store("linear", "other-ood")
    inside = read_validation(val, held_back(val, 0.5)).logits
    outside = other.logits()[other.valid]

    def auroc(**options: Any) -> float:
        fitted = get("gen", **options).fit()
        return metrics.auroc(fitted.score(logits=inside), fitted.score(logits=outside))

    best = auroc(gamma=printed["gamma"], m=printed["m"])
    assert all(best >= auroc(gamma=g, m=m) for g in (0.01, 0.1, 1.0, 10.0) for m in (10, 100))


def test_list_says_what_can_run(cache: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["ood", str(cache), "--list", "--reference", "train", "--detectors", "msp,react,mds"]) == 0
    printed = capsys.readouterr().out
    assert "not affine" in printed
    assert "bare" in printed
    assert main(["ood", "--list"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "energy logits Negative free energy" in printed
    assert "knn features, a reference with its bank" in printed
    assert main(["ood"]) == 2
    assert "name the cache: analyze ood CACHE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["--detectors", "kmn"], "did you mean knn"),
        (["--detectors", ""], "name at least one"),
        (["--id", "vall"], "did you mean val"),
        (["--id", "val-v2", "--near", "val-v2"], "val-v2 is the in-distribution set"),
        (["--reference", "tran"], "did you mean train"),
        (["--reference", "val"], "no reference stores of 'val' in this cache; there are some of train"),
        (["--reference", "none", "--detectors", "mds"], "mds needs a reference store of the training set: give --ref"),
        (
            ["--reference", "none", "--detectors", "msp,klm"],
            "give --reference (a training set) or --validation (NAME:SHARE)",
        ),
        (["--detectors", "neglabel"], "give --negatives (a class space)"),
        (["--negatives", "six:2"], "--negatives six:2: the share 2 must lie in (0, 1]"),
        (["--negatives", "sevn:0.5"], "no head of class space 'sevn' in this cache; there are six"),
        (["--negatives", "sevn"], "no head of class space 'sevn' in this cache; there are six"),
        (["--prompts", "photo"], "no head with prompt set 'photo'"),
        (["--near", "near-odd"], "did you mean near-ood"),
        (["--near", "far-ood", "--far", "far-ood"], "far-ood is in both"),
        (["--full-spectrum", "val-v3"], "did you mean val-v2"),
        (["--validation", "val:many"], "number"),
        (["--validation", "val:2"], "the share must lie in (0, 1]"),
        (["--validation", "val"], "leaves none"),
        (["--sweep", "other-ood"], "--sweep needs in-distribution rows"),
        (["--sweep", "val", "--validation", "val-v2"], "val is the in-distribution set"),
        (["--models", "lineer"], "did you mean linear"),
    ],
)
def test_bad_words_are_one_line_and_exit_code_2(
    cache: Path, tmp_path: Path, capsys: Any, words: list[str], printed: str
) -> None:
    out = tmp_path / "r.parquet"
    assert main(["ood", str(cache), "--detectors", "msp", "--models", "linear", "-o", str(out), *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert printed in lines[0]
    assert not out.exists()


def test_the_only_reference_is_the_default(cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.parquet"
    assert main(["ood", str(cache), "--detectors", "mds", "--models", "linear", "-o", str(out)]) == 0
    assert json.loads(read_results(out)["options"][0])["fit"] == "reference:train"
    assert main(["ood", str(cache), "--reference", "none", "--models", "linear", "-o", str(out), "--fresh"]) == 0
    table = read_results(out).filter(pl.col("metric") == "auroc")
    reasons = dict(table.filter(pl.col("reason") != "").select("score", "reason").iter_rows())
    assert "'analyze ood --reference train'" in reasons["knn"]


def test_without_features_only_scores_of_logits_run(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model = ModelCard(id="logits-only", class_space="six")
    for name in ("val", "near-ood"):
        labels = rng.integers(0, CLASSES, 40) if name == "val" else np.full(40, -1)
        cache_schema.write_store(
            tmp_path / "cache", model=model, dataset=card_of(name), logits=rng.normal(size=(40, CLASSES)),
            labels=labels, image_ids=[f"{name}/{i}" for i in range(40)],
        )  # fmt: skip
    out = tmp_path / "r.parquet"
    assert main(["ood", str(tmp_path / "cache"), "-o", str(out)]) == 0
    table = read_results(out).filter(pl.col("metric") == "auroc")
    reasons = dict(table.filter(pl.col("reason") != "").select("score", "reason").iter_rows())
    assert reasons["mds"] == "mds: the store holds no features"
    assert set(table.filter(pl.col("value").is_not_null())["score"]) >= {"msp", "mls", "energy", "gen", "entropy"}


def test_a_detector_that_cannot_read_the_logits_does_not_take_the_others_down(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(CLASSES, WIDTH))
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    model = ModelCard(id="clip", class_space="six", head_kind="zero-shot", logit_scale=1.0)
    path = tmp_path / "cache"
    cache_schema.write_head(
        path, model=model, class_space="six", class_names=[f"c{i}" for i in range(CLASSES)], weight=texts,
        bias=np.zeros(CLASSES), logit_scale=1.0, normalize_features=True, prompt_set="photo-1", affine=True,
    )  # fmt: skip
    for name in ("val", "near-ood"):
        features = rng.normal(size=(40, WIDTH))
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        cache_schema.write_store(  # logits of scale 100 where the head says 1
            path, model=model, dataset=card_of(name), features=features, logits=100 * unit @ texts.T,
            labels=rng.integers(0, CLASSES, 40) if name == "val" else np.full(40, -1),
            image_ids=[f"{name}/{i}" for i in range(40)],
        )  # fmt: skip
    out = tmp_path / "r.parquet"
    assert main(["ood", str(path), "--detectors", "msp,mcm,ash_s", "-o", str(out)]) == 0
    table = read_results(out).filter((pl.col("metric") == "auroc") & (pl.col("dataset") == "near-ood"))
    given = {score: (value, reason) for score, value, reason in table.select("score", "value", "reason").iter_rows()}
    assert given["mcm"][0] is None
    assert "not cosines" in given["mcm"][1]
    assert given["msp"][0] is not None
    assert given["ash_s"][0] is not None


def test_a_nan_score_costs_one_image_and_names_it(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, spoilt = tmp_path / "a.parquet", tmp_path / "b.parquet"
    words = ["--models", "linear", "--detectors", "msp,energy"]
    assert run(cache, plain, *words) == 0
    rows = []

    def with_nan(fitted: FittedDetector, tile: Any) -> dict[str, np.ndarray]:
        found = columns(fitted, tile)
        rows.append(fitted.name)
        if rows == ["msp"]:  # the ID set, without its unreadable row 3
            found["msp"][5] = np.nan
        return found

    columns = FittedDetector.columns
    monkeypatch.setattr(FittedDetector, "columns", with_nan)
    capsys.readouterr()
    assert run(cache, spoilt, *words) == 0
    printed = capsys.readouterr().err
    assert "note linear: msp gives NaN for 1 image of val, left out: val/6.png." in printed
    assert printed.count("gives NaN") == 1
    key = ["dataset", "subset", "metric", "score", "options"]
    both = read_results(plain).join(read_results(spoilt), on=key, suffix="_spoilt").filter(pl.col("dataset") != "")
    assert both["value_spoilt"].is_not_null().all()
    fewer = pl.col("n") - pl.col("n_spoilt")
    assert set(both.filter(pl.col("score") == "msp").select(fewer).to_series()) == {1}
    same = both.filter(pl.col("score") == "energy")
    assert same["value"].equals(same["value_spoilt"].alias("value"))
    assert same["n"].equals(same["n_spoilt"].alias("n"))


def test_a_settings_file_says_how_the_numbers_are_taken(cache: Path, tmp_path: Path, capsys: Any) -> None:
    config, output = tmp_path / "s.toml", tmp_path / "r.parquet"
    config.write_text('[ood]\nthreshold = "nearest"\naupr = "trapezoid"\n')
    words = ["--detectors", "msp", "--models", "linear"]
    assert run(cache, output, *words) == 0
    assert run(cache, output, *words, "--config", str(config)) == 0
    table = read_results(output).filter(pl.col("dataset") == "far-ood", ~pl.col("options").str.contains("spectrum"))
    plain, other = (table.filter(pl.col("options").str.contains("nearest") == named) for named in (False, True))
    pairs = plain.join(other, on="metric", suffix="_other")
    assert set(pairs["metric"]) == {"auroc", "fpr95_id", "fpr95_ood", "aupr_in", "aupr_out"}
    moved = pairs.filter((pl.col("value") - pl.col("value_other")).abs() > 1e-9)["metric"]
    assert set(moved) & {"fpr95_id", "fpr95_ood"}
    assert set(moved) & {"aupr_in", "aupr_out"}
    assert "auroc" not in set(moved)
    config.write_text("[ood]\nclass_masks = true\n")
    assert run(cache, output, *words, "--config", str(config)) == 2
    assert "class_masks" in capsys.readouterr().err


def test_a_run_ends_with_a_leaderboard(cache: Path, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "r.parquet"
    assert run(cache, output, "--detectors", "msp,mds,energy,knn") == 0
    shown = capsys.readouterr().out
    table = read_results(output).filter(
        pl.col("metric") == "auroc", pl.col("dataset") != "", ~pl.col("options").str.contains("spectrum")
    )
    lines = [line.split() for line in shown.splitlines()]
    assert ["detector", "models", *table["dataset"].unique(maintain_order=True)] in lines
    board = {line[0]: line[1:] for line in lines if line and line[0] in ("msp", "mds", "energy", "knn")}
    # Of the models that have a number on every set: the bare one has no reference.
    assert {name: line[0] for name, line in board.items()} == {"msp": "3", "mds": "2", "energy": "3", "knn": "2"}
    for name, line in board.items():
        means = table.filter(pl.col("score") == name, pl.col("value").is_not_null())
        means = means.group_by("dataset", maintain_order=True).agg(pl.col("value").mean())
        assert line[1:] == [f"{value:.3f}" for value in means["value"]]
    order = [np.mean([float(cell) for cell in line[1:]]) for line in board.values()]
    assert order == sorted(order, reverse=True)
    # An unchanged run shows it too.
    assert run(cache, output, "--detectors", "msp,mds,energy,knn") == 0
    assert capsys.readouterr().out == shown


def test_a_table_of_detectors_has_a_row_each_and_no_default_options(cache: Path, tmp_path: Path, capsys: Any) -> None:
    output, csv = tmp_path / "r.parquet", tmp_path / "t.csv"
    assert run(cache, output, "--models", "linear", "--detectors", "msp,mds,energy,gen,knn,vim") == 0
    assert main(["metrics", str(cache), "-o", str(output), "--only", "auroc", "--models", "linear"]) == 0
    capsys.readouterr()
    words = ["table", str(output), "--rows", "score", "--columns", "dataset", "--where", "metric=auroc", "--plain"]
    assert main([*words, "--where", "dataset=far-ood,near-ood", "--csv", str(csv)]) == 0
    text = capsys.readouterr().out
    assert "temperature" not in text
    assert "note:" not in text
    names = [line.split()[0] for line in text.splitlines() if line.strip()]
    assert {"msp", "mds", "energy", "gen", "knn", "vim"} <= set(names)
    assert len(names) == len(set(names))
    assert run(cache, output, "--models", "linear", "--detectors", "energy,knn", "--defaults", "paper") == 0
    capsys.readouterr()
    assert main([*words, "--where", "dataset=far-ood", "--where", "score=knn"]) == 0
