"""A cache in, the result table out: equal to scikit-learn, incremental, honest about what is missing."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from scipy.special import softmax
from sklearn import metrics as sk

import cache_schema
from analyze.calibrators import fit_rows, fit_temperature
from analyze.evaluate import evaluate
from analyze.evaluate.cells import Cells
from analyze.evaluate.engine import Running
from analyze.evaluate.summarize_cache import summarize_cache
from analyze.settings import override, read_settings, study_defaults
from closerlook_common.errors import UserError

MASK = (1, 4, 6, 8)
MAP = ((0, 1), (4, 6), (9,))


@pytest.fixture(scope="module")
def small_cache(tmp_path_factory):
    """Two models (one zero-shot), an ID set, two shifts with class subsets, three OOD sets."""
    from cache_schema import DatasetCard, ModelCard, write_store

    root = tmp_path_factory.mktemp("evaluate") / "cache"
    rng = np.random.default_rng(0)
    n_classes = 10
    sets = {
        "val": ("id", 600, {}),
        "hard": ("shift", 150, {"class_mask": MASK, "shift_of": "val"}),
        "kinds": ("shift", 120, {"class_map": MAP, "shift_of": "val"}),
        "near-one": ("ood", 100, {"distance": "near"}),
        "near-two": ("ood", 140, {"distance": "near"}),
        "far-one": ("ood", 90, {"distance": "far"}),
    }
    labels = {
        "val": rng.integers(0, n_classes, 600),
        "hard": rng.choice(MASK, 150),
        "kinds": rng.integers(0, 3, 120),
    }
    for model, scale in (("linear", None), ("clip", 40.0)):
        for name, (role, n, card) in sets.items():
            logits = rng.normal(0, 1, (n, n_classes))
            if role != "ood":
                own = labels[name] if name != "kinds" else np.array([0, 4, 9])[labels[name]]
                logits[np.arange(n), own] += 3 * rng.random(n)
            if scale:
                logits = (0.2 + 0.03 * logits) * scale
            write_store(
                root,
                model=ModelCard(
                    id=model,
                    head_kind="zero-shot" if scale else "linear",
                    logit_scale=scale,
                    group="clip-zero-shot" if scale else "supervised-in1k",
                    parameters=7,
                ),
                dataset=DatasetCard(id=name, role=role, n_classes=n_classes, **card),
                logits=logits.astype(np.float32),
                labels=labels.get(name),
                image_ids=[f"{name}/{i}.jpg" for i in range(n)],
                metadata={"odd": np.arange(n) % 2 == 1} if name == "val" else None,
            )
    return cache_schema.open_cache(root)


@pytest.fixture(scope="module")
def table(small_cache):
    result = evaluate(small_cache)
    assert result.failures == {}
    return result.table


def one(table, model, dataset, metric, **variant):
    given = {"score": "", "calibrator": "", "subset": "", "factor": "", **variant}
    found = table.filter(
        pl.col("model") == model,
        pl.col("dataset") == dataset,
        pl.col("metric") == metric,
        *[pl.col(k) == v for k, v in given.items()],
    )
    assert len(found) == 1, (metric, variant, found)
    return found.row(0, named=True)


@pytest.mark.parametrize("model", ["linear", "clip"])
def test_labelled_numbers_equal_scikit_learn(small_cache, table, model):
    store = small_cache.store(model, "val")
    p = softmax(store.logits().astype(np.float64), axis=1)
    y = store.labels
    row = one(table, model, "val", "top1")
    assert row["value"] == sk.accuracy_score(y, p.argmax(axis=1))
    assert row["low"] < row["value"] < row["high"]
    assert (row["n"], row["role"], row["parameters"]) == (600, "id", 7)
    # Where float16 makes two logits equal, scikit-learn puts the higher class first, and we the lower.
    top5 = sk.top_k_accuracy_score(y, p, k=5)
    assert one(table, model, "val", "top5")["value"] == pytest.approx(top5, abs=1.5 / 600)
    balanced = sk.balanced_accuracy_score(y, p.argmax(axis=1))
    assert one(table, model, "val", "mean_class_accuracy")["value"] == pytest.approx(balanced)
    assert one(table, model, "val", "nll")["value"] == pytest.approx(sk.log_loss(y, p), rel=1e-6)
    brier = ((p - np.eye(10)[y]) ** 2).sum(axis=1).mean()
    assert one(table, model, "val", "brier")["value"] == pytest.approx(brier, rel=1e-5)
    right = p.argmax(axis=1) == y
    auroc = sk.roc_auc_score(right, p.max(axis=1).astype(np.float32))
    assert one(table, model, "val", "correctness_auroc")["value"] == pytest.approx(auroc, rel=1e-6)


@pytest.mark.parametrize("model", ["linear", "clip"])
def test_class_subsets_are_restricted_before_the_softmax(small_cache, table, model):
    store = small_cache.store(model, "hard")
    p = softmax(store.logits().astype(np.float64)[:, list(MASK)], axis=1)
    local = np.searchsorted(MASK, store.labels)
    assert one(table, model, "hard", "top1")["value"] == sk.accuracy_score(local, p.argmax(axis=1))
    assert one(table, model, "hard", "nll")["value"] == pytest.approx(sk.log_loss(local, p), rel=1e-6)
    assert "5 classes" not in one(table, model, "hard", "top5")["reason"]
    assert "4 classes" in one(table, model, "hard", "top5")["reason"]
    val = small_cache.store(model, "val")
    rows = np.isin(val.labels, MASK)
    inside = val.logits()[rows][:, list(MASK)].argmax(axis=1)
    found = one(table, model, "val", "top1", subset="classes:hard")
    assert found["value"] == sk.accuracy_score(np.searchsorted(MASK, val.labels[rows]), inside)
    assert found["n"] == rows.sum()
    mapped = np.full(10, -1)
    for place, group in enumerate(MAP):
        mapped[list(group)] = place
    rows = mapped[val.labels] >= 0
    best = np.stack([val.logits()[rows][:, list(g)].max(axis=1) for g in MAP], axis=1).argmax(axis=1)
    found = one(table, model, "val", "top1", subset="classes:kinds")
    assert found["value"] == sk.accuracy_score(mapped[val.labels[rows]], best)


def test_temperature_is_fitted_on_half_and_carried_to_the_shift(small_cache, table):
    val, kinds = small_cache.store("linear", "val"), small_cache.store("linear", "kinds")
    rows = fit_rows(val.labels, fraction=0.5, seed=0, stratified=True)
    fit = fit_temperature(val.logits().astype(np.float64)[rows], val.labels[rows])
    found = one(table, "linear", "val", "temperature", calibrator="temperature")
    assert found["value"] == pytest.approx(fit.temperature, rel=1e-4)
    assert found["low"] < found["value"] < found["high"]
    assert found["n"] == rows.sum()
    assert json.loads(found["options"]) == {"fraction": 0.5, "seed": 0, "stratified": True}
    held_out = softmax(val.logits().astype(np.float64)[~rows] / fit.temperature, axis=1)
    after = one(table, "linear", "val", "nll", calibrator="temperature")
    assert after["value"] == pytest.approx(sk.log_loss(val.labels[~rows], held_out), rel=1e-5)
    assert after["n"] == (~rows).sum()
    assert after["id_dataset"] == "val"
    before = softmax(val.logits().astype(np.float64)[~rows], axis=1)
    same_rows = one(table, "linear", "val", "nll", subset="held-out")
    assert same_rows["value"] == pytest.approx(sk.log_loss(val.labels[~rows], before), rel=1e-6)
    z = np.stack([kinds.logits()[:, list(g)].max(axis=1) for g in MAP], axis=1).astype(np.float64)
    want = sk.log_loss(kinds.labels, softmax(z / fit.temperature, axis=1))
    assert one(table, "linear", "kinds", "nll", calibrator="temperature")["value"] == pytest.approx(want, rel=1e-5)


SCORES = {
    "msp": lambda z, p: p.max(axis=1),
    "mls": lambda z, p: z.max(axis=1),
    "energy": lambda z, p: np.log(np.exp(z).sum(axis=1)),
    "entropy": lambda z, p: (p * np.log(p)).sum(axis=1),
    "variance": lambda z, p: p.var(axis=1),
    "margin": lambda z, p: np.diff(np.sort(p, axis=1)[:, -2:], axis=1)[:, 0],
    "gen": lambda z, p: -((p * (1 - p)) ** 0.1).sum(axis=1),
}


@pytest.mark.parametrize("score", list(SCORES))
def test_detection_equals_scikit_learn(small_cache, table, score):
    for dataset in ("near-one", "far-one"):
        both = [small_cache.store("linear", name).logits().astype(np.float64) for name in ("val", dataset)]
        values = [SCORES[score](z, softmax(z, axis=1)).astype(np.float32) for z in both]
        inside = np.concatenate([np.ones(len(values[0])), np.zeros(len(values[1]))])
        scores = np.concatenate(values)
        given = {"score": score}
        auroc = sk.roc_auc_score(inside, scores)
        assert one(table, "linear", dataset, "auroc", **given)["value"] == pytest.approx(auroc, abs=2e-5)
        precision = sk.average_precision_score(1 - inside, -scores)
        assert one(table, "linear", dataset, "aupr_out", **given)["value"] == pytest.approx(precision, abs=1e-4)
        fpr, tpr, _ = sk.roc_curve(inside, scores, drop_intermediate=False)
        want = fpr[np.argmax(tpr >= 0.95)]
        assert one(table, "linear", dataset, "fpr95_id", **given)["value"] == pytest.approx(want, abs=0.011)


def test_mcm_is_for_zero_shot_models_and_equals_the_softmax_of_cosines(small_cache, table):
    assert table.filter(pl.col("model") == "linear", pl.col("score") == "mcm").is_empty()
    both = [small_cache.store("clip", name).logits().astype(np.float64) / 40.0 for name in ("val", "near-two")]
    values = [softmax(cosine, axis=1).max(axis=1) for cosine in both]
    inside = np.concatenate([np.ones(600), np.zeros(140)])
    want = sk.roc_auc_score(inside, np.concatenate(values))
    assert one(table, "clip", "near-two", "auroc", score="mcm")["value"] == pytest.approx(want, abs=1e-5)


def test_means_over_ood_sets_are_unweighted(table):
    names = ("near-one", "near-two")
    near = [one(table, "linear", d, "auroc", score="msp")["value"] for d in names]
    assert one(table, "linear", "", "auroc", score="msp", subset="near")["value"] == pytest.approx(np.mean(near))
    everything = [*near, one(table, "linear", "far-one", "auroc", score="msp")["value"]]
    found = one(table, "linear", "", "auroc", score="msp", subset="all")
    assert found["value"] == pytest.approx(np.mean(everything))
    assert found["id_dataset"] == "val"


def test_tempscale_scores_leave_out_the_rows_that_were_fitted_on(small_cache, table):
    rows = fit_rows(small_cache.store("linear", "val").labels)
    found = one(table, "linear", "near-one", "auroc", score="tempscale")
    assert found["n"] == (~rows).sum() + 100


def test_conformal_sets_cover_the_held_out_half(table):
    found = one(table, "linear", "val", "conformal_coverage", calibrator="conformal", score="lac")
    assert abs(found["value"] - 0.9) < 0.06
    assert one(table, "linear", "hard", "conformal_size", calibrator="conformal", score="aps")["value"] >= 0


def test_directions_and_reasons(table):
    directions = dict(table.select("metric", "direction").unique().iter_rows())
    assert directions["top1"] == directions["auroc"] == directions["sac99"] == "higher"
    assert directions["ece"] == directions["fpr95_id"] == directions["ece_mass100"] == "lower"
    assert directions["temperature"] == directions["calibration_gap"] == "none"
    assert (table["value"].is_not_null() ^ (table["reason"] != "")).all()
    keys = ["model", "dataset", "metric", "id_dataset", "score", "calibrator", "subset", "factor", "options"]
    assert not table.select(keys).is_duplicated().any()


def test_summaries_give_the_same_numbers(small_cache, table, tmp_path):
    done = summarize_cache(small_cache, tmp_path, settings=study_defaults())
    assert done.failures == {}
    light = evaluate(cache_schema.open_cache(tmp_path)).table
    keys = [c for c in table.columns if c not in ("value", "low", "high")]
    heavy, light = table.sort(keys), light.sort(keys)
    assert light.select(keys).equals(heavy.select(keys))
    for column in ("value", "low", "high"):
        np.testing.assert_array_equal(light[column].to_numpy(), heavy[column].to_numpy(), err_msg=column)


def test_a_summary_of_another_split_says_so(small_cache, tmp_path):
    summarize_cache(small_cache, tmp_path, settings=study_defaults().updated("split", seed=5))
    light = evaluate(cache_schema.open_cache(tmp_path), only=["calibration", "conformal"]).table
    found = light.filter(pl.col("calibrator") != "", pl.col("value").is_not_null())
    assert found.is_empty()
    assert light.filter(pl.col("reason").str.contains("another split")).height > 0


def test_nothing_is_computed_twice_and_only_what_changed_is_computed_again(toy_store, tmp_path):
    root = tmp_path / "cache"
    toy_store(cache=root)
    toy_store(cache=root, dataset="far", role="ood", n=50)
    toy_store(cache=root, dataset="v2", role="shift", n=60)
    path = tmp_path / "cells.parquet"
    cells = Cells(path)
    first = evaluate(cache_schema.open_cache(root), cells=cells)
    cells.save()
    assert first.reused == 0
    again = evaluate(cache_schema.open_cache(root), cells=Cells(path))
    assert (again.computed, again.reused) == (0, first.computed)
    assert again.table.equals(first.table)
    # Another number of bins concerns the calibration of the two labelled sets and the factors' alone.
    changed = study_defaults().updated("calibration", bins=10)
    third = evaluate(cache_schema.open_cache(root), cells=Cells(path), settings=changed)
    assert third.computed == 4
    options = set(third.table.filter(pl.col("metric") == "ece", pl.col("calibrator") == "")["options"])
    assert options == {'{"bins":10}'}
    toy_store(cache=root, dataset="more", role="shift", n=40)
    fourth = evaluate(cache_schema.open_cache(root), cells=Cells(path))
    # The new set's own cells, and the one over all shifted sets.
    assert fourth.computed < 10
    assert fourth.reused >= first.computed - 1


def test_every_number_has_an_interval_or_the_reason_why_not(toy_store, tmp_path):
    root = tmp_path / "cache"
    toy_store(cache=root, n=400)
    toy_store(cache=root, dataset="few", role="shift", n=35)
    toy_store(cache=root, dataset="far", role="ood", n=120)
    for replicates in (0, 50):
        settings = study_defaults().updated("bootstrap", replicates=replicates)
        found = evaluate(cache_schema.open_cache(root), settings=settings).table
        numbers = found.filter(
            pl.col("value").is_not_null(), ~pl.col("metric").is_in(["invalid_images", "worst_class"])
        )
        has = numbers["low"].is_not_null()
        assert (has == numbers["high"].is_not_null()).all()
        described = numbers["interval"]
        assert described.filter(has).str.contains(r"^[a-z].* 95 %").all()
        assert described.filter(~has).str.starts_with("none: ").all(), described.filter(~has).unique()
        means = numbers.filter(pl.col("metric") == "auroc", pl.col("dataset") == "")
        assert not means.is_empty()
        assert means["interval"].str.contains("shared-id-mover 95 %").all()  # with and without replicates


def test_intervals_hold_the_number(toy_store, tmp_path):
    root = tmp_path / "cache"
    toy_store(cache=root, n=400)
    toy_store(cache=root, dataset="far", role="ood", n=120)
    settings = study_defaults().updated("bootstrap", replicates=200)
    only = ["nll", "ece", "auroc", "aurc", "calibration_gap", "ks_error", "risk_at_coverage80"]
    found = evaluate(cache_schema.open_cache(root), settings=settings, only=only).table
    bounded = found.filter(pl.col("low").is_not_null())
    assert set(bounded["metric"]) == set(only) - {"ks_error"}
    assert ((bounded["low"] <= bounded["value"]) & (bounded["value"] <= bounded["high"])).all()
    assert (bounded["high"] > bounded["low"]).all()
    again = evaluate(cache_schema.open_cache(root), settings=settings, only=only, running=Running(jobs=1)).table
    assert again.equals(found)
    store = cache_schema.open_cache(root).store("m", "val")
    z = store.logits().astype(np.float64)
    losses = -np.log(softmax(z, axis=1)[np.arange(400), store.labels])
    row = one(found, "m", "val", "nll")
    assert (row["high"] - row["low"]) == pytest.approx(2 * 1.96 * losses.std() / 20, rel=0.25)


def test_a_broken_dataset_does_not_stop_the_others(toy_store, tmp_path):
    root = tmp_path / "cache"
    toy_store(cache=root)
    broken = toy_store(cache=root, dataset="wrong", role="shift", n=30)
    for chunk in (broken.path / "logits").rglob("c/*/*"):
        chunk.write_bytes(chunk.read_bytes()[:-9])
    result = evaluate(cache_schema.open_cache(root))
    wrong = result.table.filter(pl.col("dataset") == "wrong")
    assert not wrong.is_empty()
    assert wrong["value"].is_null().all()
    assert wrong["reason"].str.contains("wrong").all()
    assert one(result.table, "m", "val", "top1")["value"] is not None


def test_without_an_id_set_calibrated_numbers_have_a_reason(toy_store, tmp_path):
    toy_store(cache=tmp_path / "c", dataset="v2", role="shift")
    found = evaluate(cache_schema.open_cache(tmp_path / "c")).table
    reasons = found.filter(pl.col("calibrator") == "temperature")["reason"]
    assert len(reasons) > 0
    assert reasons.str.contains("no in-distribution set").all()


def test_a_part_of_the_datasets_gives_the_same_numbers(small_cache, table):
    """What is fitted on the ID set does not depend on whether its own numbers are asked for."""
    keys = ["model", "dataset", "metric", "id_dataset", "score", "calibrator", "subset", "factor", "options"]
    whole = table.filter(pl.col("dataset").is_in(["hard", "near-one"])).sort(keys)
    part = evaluate(small_cache, datasets=["hard", "near-*"]).table
    assert set(part["dataset"]) == {"hard", "near-one", "near-two", ""}
    part = part.filter(pl.col("dataset").is_in(["hard", "near-one"])).sort(keys)
    assert part.equals(whole)


def test_unknown_names_get_the_nearest(small_cache):
    with pytest.raises(UserError, match="did you mean auroc"):
        evaluate(small_cache, only=["aurocc"])
    with pytest.raises(UserError, match="did you mean linear"):
        evaluate(small_cache, models=["linaer"])
    with pytest.raises(UserError, match="no dataset 'hrd'"):
        evaluate(small_cache, datasets=["hrd"])


def test_settings_are_checked(tmp_path):
    path = tmp_path / "analysis.toml"
    path.write_text("[split]\nfraction = 0.2\n[ood]\nmcm_tau = 2\n")
    settings = read_settings(path)
    assert settings["split"]["fraction"] == 0.2
    assert settings["ood"]["mcm_tau"] == 2.0
    assert settings.changed("split") == {"fraction": 0.2}
    for text, words in (
        ("[splitt]\n", "did you mean split"),
        ("[split]\nfractoin = 1\n", "did you mean fraction"),
        ("[split]\nfraction = 'x'\n", "float expected"),
        ("[split]\nstratified = 1\n", "bool expected"),
        ("[split\n", "cannot be read as TOML"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            read_settings(path)
    with pytest.raises(UserError, match="no such file"):
        read_settings(tmp_path / "none.toml")
    with pytest.raises(UserError, match="must be a section"):
        override(study_defaults(), {"split": 3}, "here")


def test_the_worst_class_is_a_number_of_its_own(tmp_path) -> None:
    """A name among the options would make another column of every model."""
    labels = np.repeat(np.arange(3, dtype=np.int32), 10)
    logits = np.eye(3, dtype=np.float32)[labels]
    logits[10:17] = np.eye(3, dtype=np.float32)[0]  # class 1: three of ten right
    cache_schema.write_store(
        tmp_path, model=cache_schema.ModelCard(id="m"),
        dataset=cache_schema.DatasetCard(id="d", role="id", n_classes=3),
        logits=logits, labels=labels, image_ids=[str(i) for i in range(30)],
    )  # fmt: skip
    table = evaluate(cache_schema.open_cache(tmp_path), only=["accuracy"]).table
    found = {row["metric"]: row for row in table.iter_rows(named=True)}
    assert found["worst_class_accuracy"]["value"] == pytest.approx(0.3)
    assert (found["worst_class"]["value"], found["worst_class"]["n"]) == (1.0, 10)
    assert found["worst_class"]["direction"] == "none"
    assert found["worst_class_accuracy"]["options"] == ""
