"""The marks of the leaderboard of detectors: a paired test on the same images, intervals where none is possible."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import norm

import cache_schema
from analyze.cli import main
from analyze.intervals import PairedDifference
from analyze.intervals.detection_pairs import SortedScores
from analyze.intervals.influences import auroc_influence, variance_of
from analyze.ood import contests_on, leaderboard, leaders
from analyze.ood.choices import options_of
from analyze.ood.effects import KeptEffects, effect_of, effects_path
from analyze.ood.inputs import OodOptions
from analyze.ood.paired import Contest
from analyze.ood.whole_cache import OodRun, score_cache
from analyze.results.joining import all_rows
from analyze.settings import study_defaults
from analyze.tables.contests import leaders_of
from closerlook_common.errors import UserError

N, M = 400, 300


def two_columns(top: np.ndarray, margin: np.ndarray) -> np.ndarray:
    """Logits of two classes: ``mls`` is the top, ``msp`` rises with the margin, ``energy`` falls with it."""
    return np.stack([top, top - margin], axis=1)


def write(toy_store: Any, root: Path, model: str, **sets: np.ndarray) -> None:
    """Write one model's stores; ``val`` is the in-distribution set."""
    for name, logits in sets.items():
        role = "id" if name == "val" else "ood"
        toy_store(cache=root, model=model, dataset=name, role=role, n=len(logits), n_classes=2, logits=logits)


def run_of(root: Path, output: Path, *detectors: str, **how: Any) -> tuple[OodRun, pl.DataFrame, OodOptions]:
    cache = cache_schema.open_cache(root)
    given = {name: how.pop(name) for name in ("models",) if name in how}
    options = options_of(cache, study_defaults(), detectors=detectors, **given)
    run = score_cache(cache, options, output=output, **how)
    return run, leaderboard(all_rows(output), run.models, options), options


def marks(root: Path, output: Path, *detectors: str, **how: Any) -> tuple[set[str], set[str]]:
    """Return what is marked on the set ``far`` by intervals, and by pairs."""
    run, board, options = run_of(root, output, *detectors, **how)
    by_intervals = leaders(all_rows(output), run.models, options)
    assert run.effects is not None
    found, whole = leaders_of(contests_on(board, run.effects, options), by_intervals)
    assert whole
    return by_intervals["far"], found["far"]


def scores_of(root: Path, model: str, dataset: str) -> dict[str, np.ndarray]:
    """Return the three scores of the stored logits in float64."""
    store = cache_schema.open_cache(root).store(model, dataset)
    z = store.logits().astype(np.float64)[store.valid]
    top, low = z.max(axis=1), z.min(axis=1)
    return {"mls": top, "msp": 1 / (1 + np.exp(low - top)), "energy": top + np.log1p(np.exp(low - top))}


def places(inside: np.ndarray, outside: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Return an AUROC with DeLong's placements, from all pairs."""
    wins = (inside[:, None] > outside) + 0.5 * (inside[:, None] == outside)
    return float(wins.mean()), wins.mean(axis=1), wins.mean(axis=0)


def delong(first: Any, second: Any) -> float:
    """Return the p-value of DeLong's test of two sets of placements."""
    gaps = [first[k] - second[k] for k in (1, 2)]
    return float(2 * norm.sf(abs(first[0] - second[0]) / math.sqrt(sum(gap.var(ddof=1) / gap.size for gap in gaps))))


def test_close_and_surely_better_is_not_marked_together(toy_store: Any, tmp_path: Path) -> None:
    """Energy adds a little to the same scores on every image: the intervals overlap, the difference is sure."""
    rng = np.random.default_rng(0)
    sets = {
        "val": two_columns(rng.normal(1.0, 1, N), 1.0 + 0.1 * rng.random(N)),
        "far": two_columns(rng.normal(0.0, 1, M), 1.6 + 0.1 * rng.random(M)),
    }
    write(toy_store, tmp_path / "cache", "m", **sets)
    inside, outside = (scores_of(tmp_path / "cache", "m", name) for name in ("val", "far"))
    p_value = delong(*(places(inside[name], outside[name]) for name in ("energy", "mls")))
    assert p_value < 1e-6
    by_intervals, by_pairs = marks(tmp_path / "cache", tmp_path / "r.parquet", "energy", "mls")
    assert by_intervals == {"energy", "mls"}
    assert by_pairs == {"energy"}
    rows = all_rows(tmp_path / "r.parquet").filter(pl.col("metric") == "auroc", pl.col("dataset") == "far")
    ends = {row["score"]: (row["low"], row["high"]) for row in rows.iter_rows(named=True)}
    assert ends["mls"][1] > ends["energy"][0]


def test_far_and_unsure_is_marked_together(toy_store: Any, tmp_path: Path) -> None:
    """Two scores that err on opposite images: their difference scatters more than that of independent ones."""
    rng = np.random.default_rng(7)
    errors = rng.normal(0, 1, N), rng.normal(0, 1, M)
    sets = {
        "val": two_columns(3 + 0.85 + errors[0], 6 + 0.66 - errors[0]),
        "far": two_columns(3 + errors[1], 6 - errors[1]),
    }
    write(toy_store, tmp_path / "cache", "m", **sets)
    inside, outside = (scores_of(tmp_path / "cache", "m", name) for name in ("val", "far"))
    found = {name: places(inside[name], outside[name]) for name in ("mls", "msp")}
    alone = math.sqrt(sum(part.var(ddof=1) / part.size for place in found.values() for part in place[1:]))
    gap = found["mls"][0] - found["msp"][0]
    assert 2 * norm.sf(gap / alone) < 0.04
    assert delong(found["mls"], found["msp"]) > 0.06
    by_intervals, by_pairs = marks(tmp_path / "cache", tmp_path / "r.parquet", "mls", "msp")
    assert by_intervals == {"mls"}
    assert by_pairs == {"mls", "msp"}


@pytest.fixture
def several(toy_store: Any, tmp_path: Path) -> Path:
    """Three models on the same images, one with an image that could not be read."""
    rng = np.random.default_rng(3)
    shared = {"val": rng.normal(0, 1, (N, 2)), "far": rng.normal(0, 1, (M, 2)), "near": rng.normal(0, 1, (M, 2))}
    for number, name in enumerate(("a", "b", "c")):
        own = np.random.default_rng(number)
        for dataset, errors in shared.items():
            mixed = errors + own.normal(0, 0.4, errors.shape)
            lift = {"val": 1.0, "far": 0.0, "near": 0.5}[dataset]
            valid = np.ones(len(mixed), bool)
            valid[:number] = False
            toy_store(
                cache=tmp_path / "cache",
                model=name,
                dataset=dataset,
                role="id" if dataset == "val" else "ood",
                n=len(mixed),
                n_classes=2,
                logits=two_columns(lift + mixed[:, 0], 2 + lift + mixed[:, 1]),
                valid=valid,
            )
    return tmp_path / "cache"


DETECTORS = ("energy", "mls", "msp")


def test_means_over_models_are_tested_by_sums_of_placements(several: Path, tmp_path: Path) -> None:
    run, board, options = run_of(several, tmp_path / "r.parquet", *DETECTORS)
    assert run.effects is not None
    contests = {c.dataset: c for c in contests_on(board, run.effects, options)}
    assert set(contests) == {"far", "near"}
    for dataset, contest in contests.items():
        sums = {name: [0.0, np.zeros(N), np.zeros(M)] for name in DETECTORS}
        for number, model in enumerate("abc"):
            inside, outside = scores_of(several, model, "val"), scores_of(several, model, dataset)
            for name, total in sums.items():
                value, of_in, of_out = places(inside[name], outside[name])
                total[0] += value / 3
                for whole, own in ((total[1], of_in), (total[2], of_out)):
                    whole[number:] += (own - own.mean()) / own.size / 3  # rows before are not scored
        assert contest.n == N + M
        for (i, j), difference in contest.differences.items():
            first, second = (sums[contest.entries[place][1]] for place in (i, j))
            assert difference.difference == pytest.approx(first[0] - second[0], abs=2e-5)
            error = math.sqrt(sum(((first[k] - second[k]) ** 2).sum() for k in (1, 2)))
            half = (difference.high - difference.low) / 2
            assert half == pytest.approx(1.96 * error, rel=0.02)
            assert difference.p_value == pytest.approx(2 * norm.sf(abs(first[0] - second[0]) / error), abs=0.01)


def test_marks_of_a_later_run_are_those_of_one_run(several: Path, tmp_path: Path) -> None:
    whole = marks(several, tmp_path / "whole.parquet", *DETECTORS)
    output = tmp_path / "r.parquet"
    run_of(several, output, "msp", "mls", models=("a",))
    run_of(several, output, "msp", "mls", models=("b", "c"))
    assert marks(several, output, *DETECTORS) == whole
    assert marks(several, output, *DETECTORS) == whole  # nothing was computed
    run, board, options = run_of(several, output, *DETECTORS, models=("a",))  # sums are of all three models
    assert run.effects is not None
    with pytest.raises(UserError, match="was not kept"):
        contests_on(board, run.effects, options)


def test_without_what_was_kept_intervals_decide_and_the_note_says_so(
    several: Path, tmp_path: Path, capsys: Any
) -> None:
    output = tmp_path / "r.parquet"
    words = ["ood", str(several), "-o", str(output), "--detectors", ",".join(DETECTORS), "--full-spectrum", "none"]
    assert main(words) == 0
    first = capsys.readouterr().out
    assert "not distinguished from the best on the same images (DeLong's test, Holm, 5 %)" in first
    assert main(words) == 0
    assert capsys.readouterr().out == first
    path = effects_path(output)
    for damaged in (b"", path.read_bytes()[:-200], b"PK\x03\x04 no such file"):
        path.write_bytes(damaged)
        assert main(words) == 0
        shown = capsys.readouterr().out
        assert "by their intervals (5 %, Tukey); what each image adds to" in shown
        assert "--fresh" in shown
    assert main([*words, "--fresh"]) == 0
    assert capsys.readouterr().out == first


def test_a_changed_store_takes_the_sum_away_and_other_images_are_not_added() -> None:
    rng = np.random.default_rng(0)

    def effects(images: str) -> dict[str, Any]:
        sides = [rng.normal(middle, 1, 120) for middle in (1.0, 0.0)]
        every = (np.ones(120, bool), np.ones(120, bool))
        influence = auroc_influence(*map(SortedScores.of, sides))
        return {"far": effect_of(influence, every, (images, "out"), "")}

    kept = KeptEffects(None)
    first, second = effects("x"), effects("x")
    kept.add("d", "a", "key", first, ["far"])
    kept.add("d", "b", "key", second, ["far"])
    kept.add("d", "b", "key", second, ["far"])  # known already
    kept.add("d", "c", "key", {}, ["far"])  # no number
    assert kept.means("d")["far"][1].value == pytest.approx((first["far"].value + second["far"].value) / 2)
    kept.add("d", "e", "key", effects("y"), ["far"])
    assert kept.means("d") == {}
    kept.add("d", "a", "changed", first, ["far"])
    assert kept.means("d")["far"][1].value == first["far"].value
    assert kept.means("other") == {}


def test_rows_without_a_score_have_no_effect() -> None:
    rng = np.random.default_rng(1)
    inside, outside = rng.normal(1, 1, 150), rng.normal(0, 1, 130)
    influence = auroc_influence(SortedScores.of(inside), SortedScores.of(outside))
    chosen = np.ones(170, bool)
    chosen[::9] = False
    chosen[np.flatnonzero(chosen)[150:]] = False
    effect = effect_of(influence, (chosen, np.ones(130, bool)), ("", ""), "")
    assert not effect.inside[~chosen].any()
    assert variance_of(effect.inside.astype(float))[0] == pytest.approx(variance_of(influence.inside)[0], rel=0.01)
    np.testing.assert_allclose(effect.outside, influence.outside, rtol=1e-6)


def test_where_no_test_is_possible_intervals_decide() -> None:
    values, p_values = (0.999, 0.9, 0.998), {(0, 1): math.nan, (0, 2): math.nan, (1, 2): 0.001}
    contest = Contest(
        dataset="far",
        metric="auroc",
        higher=True,
        n=10,
        entries=tuple(("", name) for name in "xyz"),
        values=values,
        best=0,
        differences={k: PairedDifference(0.1, 0.0, 0.0, p, 0.95, 10, "x") for k, p in p_values.items()},
    )
    assert leaders_of([contest], {"far": {"x", "z"}}) == ({"far": {"x", "z"}}, False)
