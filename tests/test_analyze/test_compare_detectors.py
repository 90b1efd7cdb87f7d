"""``analyze compare --detectors``: every pair of detectors, of one model or of several, on the same images."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy.special import logsumexp, softmax
from scipy.stats import norm

import cache_schema
from analyze import metrics
from analyze.cli import main
from analyze.intervals import PairedDifference
from analyze.ood.choices import options_of
from analyze.ood.paired import Contest, compare_detectors
from analyze.settings import study_defaults
from analyze.tables.contests import contest_frame, judged
from closerlook_common.errors import UserError

N, M = 400, 300


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models on the same images, stored in another order by the second."""
    from cache_schema.format.records import DatasetCard, ModelCard

    path = tmp_path_factory.mktemp("cache")
    rng = np.random.default_rng(0)
    shared = {"val": rng.normal(0, 1, (N, 6)), "far": rng.normal(0, 1, (M, 6)), "near": rng.normal(0, 1, (M, 6))}
    labels = rng.integers(0, 6, N)
    shared["val"][np.arange(N), labels] += 2.5
    for number, name in enumerate(("one", "two")):
        own = np.random.default_rng(number)
        for dataset, logits in shared.items():
            size = len(logits)
            order = own.permutation(size) if number else np.arange(size)
            valid = np.ones(size, bool)
            valid[7 * (number + 1)] = False
            cache_schema.write_store(
                path,
                model=ModelCard(id=name, class_space="six"),
                dataset=DatasetCard(
                    id=dataset,
                    class_space="six",
                    n_classes=6,
                    role="id" if dataset == "val" else "ood",
                    distance="" if dataset == "val" else dataset,
                ),
                logits=((1 + 0.2 * number) * logits + own.normal(0, 0.3, logits.shape))[order],
                labels=labels[order] if dataset == "val" else np.full(size, -1),
                image_ids=[f"{dataset}/{i}.png" for i in order],
                valid=valid,
            )
    return path


def columns(cache: Path, model: str, dataset: str) -> dict[str, dict[str, float]]:
    """Two scores by image name, in float64."""
    store = cache_schema.open_cache(cache).store(model, dataset)
    z = store.logits().astype(np.float64)
    found = {"msp": softmax(z, axis=1).max(axis=1), "energy": logsumexp(z, axis=1)}
    names = np.array(store.image_ids)
    return {k: dict(zip(names[store.valid], v[store.valid], strict=True)) for k, v in found.items()}


def test_every_pair_over_two_models_is_delongs_on_the_images_that_both_have(cache: Path) -> None:
    opened = cache_schema.open_cache(cache)
    options = options_of(opened, study_defaults(), detectors=("msp", "energy"))
    found, problems = compare_detectors(opened, options)
    assert problems == {}
    assert {(c.dataset, c.metric) for c in found} == {(d, m) for d in ("near", "far") for m in ("auroc", "fpr95_id")}
    sides: dict[str, dict[tuple[str, str], np.ndarray]] = {}
    for dataset in ("val", "far"):
        both = {name: columns(cache, name, dataset) for name in ("one", "two")}
        images = sorted(set(both["one"]["msp"]) & set(both["two"]["msp"]))
        sides[dataset] = {
            (model, score): np.array([own[score][image] for image in images])
            for model, scored in both.items()
            for score, own in [(s, scored) for s in scored]
        }
    contest = next(c for c in found if (c.dataset, c.metric) == ("far", "auroc"))
    assert contest.n == (N - 2) + (M - 2)
    assert contest.paired_by == "name"
    assert set(contest.entries) == {(m, d) for m in ("one", "two") for d in ("msp", "energy")}
    parts = {}
    for entry in contest.entries:
        inside, outside = sides["val"][entry], sides["far"][entry]
        wins = (inside[:, None] > outside) + 0.5 * (inside[:, None] == outside)
        parts[entry] = wins.mean(), wins.mean(axis=1), wins.mean(axis=0)
    for (i, j), difference in contest.differences.items():
        (a, a_in, a_out), (b, b_in, b_out) = (parts[contest.entries[place]] for place in (i, j))
        assert difference.difference == pytest.approx(a - b, abs=2e-5)  # scores are float32
        error = math.sqrt(np.var(a_in - b_in, ddof=1) / a_in.size + np.var(a_out - b_out, ddof=1) / a_out.size)
        assert difference.p_value == pytest.approx(2 * norm.sf(abs(a - b) / error), abs=0.02)
    rates = next(c for c in found if (c.dataset, c.metric) == ("far", "fpr95_id"))
    for entry, value in zip(rates.entries, rates.values, strict=True):
        assert value == pytest.approx(metrics.fpr_at_tpr(sides["val"][entry], sides["far"][entry]), abs=1e-3)


def contest_of(values: list[float], p_values: dict[tuple[int, int], float]) -> Contest:
    return Contest(
        dataset="far",
        metric="auroc",
        higher=True,
        n=10,
        entries=tuple(("m", name) for name in "abcdef"[: len(values)]),
        values=tuple(values),
        best=int(np.argmax(values)),
        differences={
            (i, j): PairedDifference(values[i] - values[j], 0.0, 0.0, p_values[i, j], 0.95, 10, "x")
            for i, j in combinations(range(len(values)), 2)
        },
    )


def test_marks_follow_holm_over_every_pair() -> None:
    p_values = {(0, 1): 0.02, (0, 2): 0.001, (1, 2): 0.5}
    found = judged(contest_of([0.9, 0.85, 0.7], p_values))
    assert found.tests == 3
    assert found.holm == pytest.approx({(0, 1): 0.04, (0, 2): 0.003, (1, 2): 0.5})
    assert found.as_good == [True, False, False]
    found = judged(contest_of([0.9, 0.85, 0.7], {**p_values, (0, 1): 0.03}))
    assert found.as_good == [True, True, False]
    untested = judged(contest_of([0.9, 0.85, 0.7], {**p_values, (0, 2): float("nan")}))
    assert untested.tests == 2
    assert untested.as_good == [True, False, True]  # what is not tested is not set apart
    lower = judged(contest_of([0.7, 0.85, 0.9], {(0, 1): 0.5, (0, 2): 0.001, (1, 2): 0.02}))
    assert lower.as_good == [False, False, True]


def test_equally_good_detectors_are_rarely_set_apart() -> None:
    """The probability that any of six equal scores is set apart from the best of them is 5 % at most."""
    from analyze.intervals.detection_pairs import SortedScores
    from analyze.intervals.influences import auroc_influence, paired_detection

    rng = np.random.default_rng(0)
    lost = 0
    for _ in range(300):
        inside = rng.normal(1, 0.7, 250) + rng.normal(0, 0.7, (6, 250))
        outside = rng.normal(0, 0.7, 200) + rng.normal(0, 0.7, (6, 200))
        found = [auroc_influence(SortedScores.of(a), SortedScores.of(b)) for a, b in zip(inside, outside, strict=True)]
        pairs = {(i, j): paired_detection(found[i], found[j]).p_value for i, j in combinations(range(6), 2)}
        lost += not all(judged(contest_of([f.value for f in found], pairs)).as_good)
    assert 0.005 < lost / 300 < 0.08


def test_the_command_prints_marks_and_writes_every_pair(cache: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    out = tmp_path / "pairs.csv"
    words = ["compare", str(cache), "one", "--detectors", "msp,energy,mls,knn"]
    assert main([*words[:-1], "msp,energy,mls", "-o", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "far, AUROC, 698 images" in printed
    assert "p (Holm, 3 tests)" in printed
    assert "not distinguished from the best (Holm, 5 %)" in printed
    table = pl.read_csv(out)
    assert table.filter(pl.col("other_detector").is_not_null()).height == 2 * 2 * 3
    own = table.filter(pl.col("other_detector").is_null())
    assert own.height == 2 * 2 * 3
    assert own["as_good"].any()
    assert main(words) == 2  # knn needs a reference
    assert "knn needs" in capsys.readouterr().err
    assert main([*words[:-1], "msp"]) == 2
    assert "two detectors or more" in capsys.readouterr().err
    assert main([*words[:-1], "msp,energy", "--metrics", "ece"]) == 2
    assert "no paired test of ece" in capsys.readouterr().err
    assert main([*words[:-1], "msp,energy", "--datasets", "far", "--metrics", "aupr_in"]) == 0
    assert "near" not in capsys.readouterr().out


def test_what_cannot_be_compared_has_its_reason(cache: Path, toy_store, tmp_path: Path) -> None:
    root = tmp_path / "small"
    for name in ("a", "b"):
        toy_store(cache=root, model=name, n=300)
        toy_store(cache=root, model=name, dataset="few", role="ood", n=40)
    toy_store(cache=root, model="a", dataset="only-a", role="ood", n=150)
    opened = cache_schema.open_cache(root)
    options = options_of(opened, study_defaults(), detectors=("msp", "energy"))
    found, problems = compare_detectors(opened, options, metrics=["auroc"])
    assert problems == {"only-a": "no store of b"}
    (contest,) = found
    assert all(math.isnan(d.p_value) for d in contest.differences.values() if d.method != "equal")
    assert all("40 rows on one side" in reason for reason in contest.reasons.values())
    frame = contest_frame(found)
    assert frame.filter(pl.col("as_good"))["detector"].len() == 4
    changed = options_of(opened, study_defaults().updated("ood", threshold="nearest"), detectors=("msp", "energy"))
    with pytest.raises(UserError, match="threshold = 'first'"):
        compare_detectors(opened, changed)
