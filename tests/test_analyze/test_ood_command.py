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
from analyze.results import read_results
from cache_schema.kinds.reference_accumulator import ReferenceAccumulator
from cache_schema.records import DatasetCard, ModelCard

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
            sums = ReferenceAccumulator(CLASSES, WIDTH, per_class=40)
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
                assert got["aupr_in"] == metrics.aupr(inside, scores[dataset], positive="id")
                assert got["aupr_out"] == metrics.aupr(inside, scores[dataset], positive="ood")
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
    told = json.loads(table.filter(pl.col("score") == "knn")["options"][0])
    assert told["k"] == 50
    assert told["fit"] == "bank:train"
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
    assert set(DETECTORS) - set(ran) == {"mcm", "neglabel"}
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
    told = json.loads(table["options"][0])
    assert told["sweep"] == "other-ood"
    assert "other-ood" not in set(table["dataset"])
    opened = cache_schema.open_cache(cache)
    from analyze.ood.inputs import held_back, read_validation

    val, other = opened.store("linear", "val"), opened.store("linear", "other-ood")
    inside = read_validation(val, held_back(val, 0.5)).logits
    outside = other.logits()[other.valid]

    def auroc(**options: Any) -> float:
        fitted = get("gen", **options).fit()
        return metrics.auroc(fitted.score(logits=inside), fitted.score(logits=outside))

    best = auroc(gamma=told["gamma"], m=told["m"])
    assert all(best >= auroc(gamma=g, m=m) for g in (0.01, 0.1, 1.0, 10.0) for m in (10, 100))


def test_list_says_what_can_run(cache: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["ood", str(cache), "--list", "--reference", "train", "--detectors", "msp,react,mds"]) == 0
    told = capsys.readouterr().out
    assert "not affine" in told
    assert "bare" in told
    assert main(["ood", "--list"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "energy logits Negative free energy" in told
    assert "knn features, a reference with its bank" in told
    assert main(["ood"]) == 2
    assert "name the cache: analyze ood CACHE" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--detectors", "kmn"], "did you mean knn"),
        (["--detectors", ""], "name at least one"),
        (["--id", "vall"], "did you mean val"),
        (["--id", "val-v2", "--near", "val-v2"], "val-v2 is the in-distribution set"),
        (["--reference", "tran"], "did you mean train"),
        (["--reference", "val"], "no reference stores of 'val' in this cache; there are some of train"),
        (["--reference", "none", "--detectors", "mds"], "mds needs a reference store of the training set: give --ref"),
        (["--reference", "none", "--detectors", "msp,klm"], "--reference NAME or --validation NAME:SHARE"),
        (["--detectors", "neglabel"], "give --negatives CLASS_SPACE"),
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
    cache: Path, tmp_path: Path, capsys: Any, words: list[str], told: str
) -> None:
    out = tmp_path / "r.parquet"
    assert main(["ood", str(cache), "--detectors", "msp", "--models", "linear", "-o", str(out), *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert told in lines[0]
    assert not out.exists()


def test_the_only_reference_is_the_default(cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.parquet"
    assert main(["ood", str(cache), "--detectors", "mds", "--models", "linear", "-o", str(out)]) == 0
    assert json.loads(read_results(out)["options"][0])["fit"] == "reference:train"
    assert main(["ood", str(cache), "--reference", "none", "--models", "linear", "-o", str(out), "--fresh"]) == 0
    table = read_results(out).filter(pl.col("metric") == "auroc")
    reasons = dict(table.filter(pl.col("reason") != "").select("score", "reason").iter_rows())
    assert "give --reference train" in reasons["knn"]


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
    told = {score: (value, reason) for score, value, reason in table.select("score", "value", "reason").iter_rows()}
    assert told["mcm"][0] is None
    assert "no cosines" in told["mcm"][1]
    assert told["msp"][0] is not None
    assert told["ash_s"][0] is not None
