"""Any number of models together: the ensemble and every pair against numpy and scikit-learn, as tables and files."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import polars as pl
import pytest
from scipy.special import softmax
from scipy.stats import false_discovery_control
from sklearn import metrics as sk

import cache_schema
from analyze import metrics
from analyze.cli import main
from analyze.evaluate import compare
from analyze.evaluate.compare import compare_models
from analyze.evaluate.comparisons import KeptComparisons
from analyze.evaluate.engine import Running
from analyze.settings import study_defaults
from analyze.tables.comparisons import comparison_frame
from closerlook_common.errors import UserError

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


@pytest.mark.parametrize("models", [NAMES[:2], NAMES[:3]])
def test_what_was_compared_is_kept_beside_the_file(cache, tmp_path, monkeypatch, models):
    out = tmp_path / "pairs.csv"
    words = ["compare", str(cache), *models, "--bootstrap", "20", "--diversity", "-o", str(out)]
    assert main(words) == 0
    first = out.read_bytes()
    with KeptComparisons(out) as kept:
        again, _ = compare_models(
            cache_schema.open_cache(cache), models, kept=kept,
            settings=study_defaults(), replicates=20, diversity=True,
        )  # fmt: skip
    computed, _ = compare_models(
        cache_schema.open_cache(cache), models, running=Running(jobs=1),
        settings=study_defaults(), replicates=20, diversity=True,
    )  # fmt: skip
    for one, other in zip(again, computed, strict=True):
        for name, value in vars(other).items():
            assert repr(getattr(one, name)) == repr(value), name
    calls = []
    monkeypatch.setattr(compare, "_compare", lambda sources, *_: calls.append(sources[0].dataset) or 1 / 0)
    assert main(words) == 0
    assert out.read_bytes() == first
    for changed in (["--fresh"], ["--seed", "1"], ["--pair-by-row"]):
        with pytest.raises(ZeroDivisionError):
            main([*words, *changed, "--datasets", "val"])
    assert calls == ["val"] * 3
    hidden = out.with_name(".pairs.csv.cells.json")
    for text in ("{", "[]", '{"key": {}}'):
        hidden.write_text(text)
        with pytest.raises(UserError, match="delete it"):
            KeptComparisons(out)


def test_what_cannot_be_compared_is_stated_in_one_line(cache, tmp_path, capsys):
    for words, printed in (
        (["one"], "two different models"),
        (["o*"], "two different models"),
        (["one", "fife"], "no model 'fife'"),
        (["one", "two", "-o", "pairs.txt"], "written as .csv or .parquet"),
        (["one", "two", "--datasets", "vall"], "did you mean val"),
    ):
        assert main(["compare", str(cache), *words]) == 2
        err = capsys.readouterr().err.strip()
        assert printed in err
        assert len(err.splitlines()) == 1


def test_label_sets_have_no_ensemble(toy_store, tmp_path):
    root = tmp_path / "sets"
    texts = np.array(["1 2"] * 200, dtype=object)
    for model in ("a", "b"):
        toy_store(cache=root, model=model, metadata={"label_set": texts})
    found, _ = compare_models(cache_schema.open_cache(root), ["a", "b"], settings=study_defaults(), replicates=10)
    assert found[0].ensemble == {}
    assert "several acceptable labels" in found[0].no_ensemble
    assert "nll" not in found[0].values
    with pytest.raises(UserError, match="no model"):
        compare_models(cache_schema.open_cache(root), ["c"], settings=study_defaults())


@pytest.mark.parametrize("dataset", ["val", "few"])
def test_diversity_of_the_ensemble_equals_the_function(cache, dataset):
    opened = cache_schema.open_cache(cache)
    asked = {"settings": study_defaults(), "datasets": [dataset], "replicates": 20}
    (found,), _ = compare_models(opened, NAMES, diversity=True, **asked)
    expected = metrics.ensemble_diversity(members(cache, NAMES, dataset)[0])
    for name in ("mutual_information", "ambiguity", "disagreement"):
        value, low, high = found.diversity[f"ensemble_{name}"]
        assert value == pytest.approx(getattr(expected, name).mean(), abs=1e-6)
        assert low < value < high
    (plain,), _ = compare_models(opened, NAMES, **asked)
    assert plain.diversity == {}
    assert plain.ensemble == found.ensemble
    row = comparison_frame([found]).filter(pl.col("metric") == "ensemble_ambiguity").row(0, named=True)
    assert row["model"] == "mean probability"
    assert row["low"] < row["value"] < row["high"]


def test_diversity_by_the_command(cache, capsys):
    assert main(["compare", str(cache), "one", "two", "--diversity", "--bootstrap", "20"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("mutual information ") for line in lines)
    assert all(line.count("[") == line.count("]") for line in lines)  # no interval is broken at 80 columns
    assert main(["compare", str(cache), "one", "two", "--diversity", "--no-ensemble"]) == 2
    assert "--diversity is of the members of the ensemble" in capsys.readouterr().err.replace("\n", " ")


def test_p_values_are_also_given_among_all_of_them(cache, capsys):
    found, _ = compare_models(cache_schema.open_cache(cache), NAMES[:2], settings=study_defaults(), replicates=200)
    frame = comparison_frame(found)
    own = frame.filter(pl.col("p_value").is_not_null())
    p = own["p_value"].to_list()
    assert len(p) >= 2
    order = np.argsort(p)
    stepped = np.maximum.accumulate(np.array(p)[order] * np.arange(len(p), 0, -1))
    assert own["p_holm"].to_numpy()[order] == pytest.approx(np.minimum(stepped, 1))
    assert own["p_bh"].to_list() == pytest.approx(list(false_discovery_control(p)))
    assert set(own["tests"]) == {len(p)}
    assert frame.filter(pl.col("p_value").is_null())["p_holm"].null_count() == len(frame) - len(own)
    assert main(["compare", str(cache), *NAMES[:2], "--no-ensemble"]) == 0
    assert f"p (Holm, {len(p)} tests)" in capsys.readouterr().out
