"""Any number of models together: the ensemble and every pair against numpy and scikit-learn, as tables and files."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import polars as pl
import pytest
from scipy.special import softmax
from sklearn import metrics as sk

import cache_schema
from analyze import metrics
from analyze.cli import main
from analyze.evaluate.compare import compare_models
from analyze.settings import study_defaults
from cache_schema.errors import UserError

NAMES = ("one", "two", "three", "four")
MASK = (1, 4, 6, 8)


@pytest.fixture
def cache(toy_store, tmp_path):
    root = tmp_path / "many"
    for seed, model in enumerate(NAMES):
        valid = np.arange(200) != seed
        toy_store(cache=root, model=model, seed=seed, valid=valid, skill=1 + seed)
        labels = np.array(MASK)[np.arange(120) % 4]
        card = {"class_mask": MASK}
        toy_store(cache=root, model=model, seed=seed, dataset="few", role="shift", n=120, labels=labels, card=card)
    return root


def members(root, models, dataset):
    stores = [cache_schema.open_cache(root).store(m, dataset) for m in models]
    use = np.logical_and.reduce([s.valid for s in stores])
    z = [s.logits().astype(np.float64)[use] for s in stores]
    labels = stores[0].labels[use]
    if dataset == "few":
        z, labels = [v[:, list(MASK)] for v in z], np.searchsorted(MASK, labels)
    return [softmax(v, axis=1) for v in z], labels


@pytest.mark.parametrize("models", [NAMES[:2], NAMES[:3], NAMES])
@pytest.mark.parametrize("dataset", ["val", "few"])
def test_ensemble_and_pairs_equal_numpy(cache, models, dataset):
    found, problems = compare_models(
        cache_schema.open_cache(cache), models, settings=study_defaults(), datasets=[dataset], replicates=20,
        permutations=20,
    )  # fmt: skip
    assert problems == {}
    (comparison,) = found
    p, labels = members(cache, models, dataset)
    assert comparison.n == len(labels)
    mean = np.mean(p, axis=0)
    right = mean.argmax(axis=1) == labels
    assert comparison.ensemble["top1"] == right.mean()
    assert comparison.ensemble["nll"] == pytest.approx(sk.log_loss(labels, mean), rel=1e-6)
    assert comparison.ensemble["brier"] == pytest.approx(
        ((mean - np.eye(mean.shape[1])[labels]) ** 2).sum(axis=1).mean(), rel=1e-6
    )
    ece = metrics.expected_calibration_error(mean.max(axis=1), right)
    assert comparison.ensemble["ece"] == pytest.approx(ece, abs=1e-6)
    for i, j in combinations(range(len(models)), 2):
        predicted = [q.argmax(axis=1) for q in (p[i], p[j])]
        kappa = sk.cohen_kappa_score(predicted[0] == labels, predicted[1] == labels)
        assert comparison.agreement[i, j] == comparison.agreement[j, i] == (predicted[0] == predicted[1]).mean()
        assert comparison.consistency[i, j] == pytest.approx(kappa, abs=1e-12)
    assert bool(comparison.differences) == (len(models) == 2)


def test_patterns_choose_models_and_every_number_goes_into_a_file(cache, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    out = tmp_path / "new" / "pairs.csv"
    words = ["compare", str(cache), "t*", "one", "--datasets", "val", "-o", str(out)]
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "mean probability" in printed
    assert "agreement / error consistency" in printed
    frame = pl.read_csv(out)
    p, labels = members(cache, ("three", "two", "one"), "val")
    together = frame.filter(pl.col("model") == "mean probability", pl.col("metric") == "top1")["value"]
    assert together.to_list() == [(np.mean(p, axis=0).argmax(axis=1) == labels).mean()]
    assert frame.filter(pl.col("metric") == "error_consistency").height == 3
    assert set(frame["model"]) == {"one", "two", "three", "mean probability"}
    assert main(["compare", str(cache), "one", "two", "-o", str(tmp_path / "pairs.parquet"), "--bootstrap", "20"]) == 0
    pair = pl.read_parquet(tmp_path / "pairs.parquet").filter(pl.col("metric") == "difference of top1")
    assert pair["p_value"].is_not_null().all()
    assert (pair["low"] <= pair["value"]).all()


def test_what_cannot_be_compared_is_told_in_one_line(cache, tmp_path, capsys):
    for words, told in (
        (["one"], "two different models"),
        (["o*"], "two different models"),
        (["one", "fife"], "no model 'fife'"),
        (["one", "two", "-o", "pairs.txt"], "written as .csv or .parquet"),
        (["one", "two", "--datasets", "vall"], "did you mean val"),
    ):
        assert main(["compare", str(cache), *words]) == 2
        err = capsys.readouterr().err.strip()
        assert told in err
        assert len(err.splitlines()) == 1


def test_label_sets_have_no_ensemble(toy_store, tmp_path):
    root = tmp_path / "sets"
    texts = np.array(["1 2"] * 200, dtype=object)
    for model in ("a", "b"):
        toy_store(cache=root, model=model, metadata={"label_set": texts})
    found, _ = compare_models(
        cache_schema.open_cache(root), ["a", "b"], settings=study_defaults(), replicates=10, permutations=10
    )
    assert found[0].ensemble == {}
    assert "several acceptable labels" in found[0].no_ensemble
    assert "nll" not in found[0].values
    with pytest.raises(UserError, match="no model"):
        compare_models(cache_schema.open_cache(root), ["c"], settings=study_defaults())
