"""Every option of the settings against every suite: a kept number never outlives an option that it depends on, and no
option does nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

import cache_schema
from analyze.annotations import FACTORS
from analyze.evaluate import Evaluation, evaluate
from analyze.evaluate.cells import Cells
from analyze.evaluate.engine import Running
from analyze.results import KEY_COLUMNS
from analyze.settings import Settings, UndeclaredSectionError, study_defaults
from analyze.suites.base import Wanted, restricted
from analyze.suites.registry import SUITES

BASE: dict[str, dict[str, Any]] = {
    "calibrators": {"methods": ["temperature", "vector", "matrix", "histogram"]},
    "conformal": {"methods": ["lac", "aps", "raps", "saps"], "quantiles": ["all", "class", "clustered"]},
    "ood": {"scores": ["msp", "energy", "gen", "tempscale", "klm", "mcm"]},
    "bootstrap": {"replicates": 20},
    "factors": {"columns": ["scene", "size"]},
}
"""Options under which all others count."""

CHANGED: dict[tuple[str, str], Any] = {
    ("split", "fraction"): 0.3,
    ("split", "seed"): 1,
    ("split", "stratified"): False,
    ("accuracy", "interval"): "clopper-pearson",
    ("accuracy", "confidence_level"): 0.8,
    ("accuracy", "worst_class_least"): 30,
    ("accuracy", "label_sets"): ["other_labels"],
    ("accuracy", "on_subsets"): False,
    ("classes", "masks"): False,
    ("classes", "map_rule"): "max",
    ("calibration", "bins"): 10,
    ("calibration", "mass_bins"): [12],
    ("calibration", "classwise_bins"): 7,
    ("calibration", "smece_kernel"): "logit",
    ("calibrators", "methods"): ["isotonic"],
    ("calibrators", "bounds"): [1.5, 3.0],
    ("calibrators", "histogram_bins"): 4,
    ("calibrators", "matrix_off_diagonal"): 0.1,
    ("calibrators", "matrix_bias"): 0.1,
    ("ood", "scores"): ["msp", "margin"],
    ("ood", "mcm_tau"): 2.0,
    ("ood", "energy_temperature"): 3.0,
    ("ood", "gen_m"): 4,
    ("ood", "gen_gamma"): 0.4,
    ("ood", "class_masks"): True,
    ("ood", "further"): ["eer"],
    ("ood", "threshold"): "nearest",
    ("ood", "aupr"): "trapezoid",
    ("selective", "risks"): [0.2],
    ("selective", "coverages"): [0.5],
    ("selective", "accuracies"): [0.7],
    ("selective", "skip"): 3,
    ("conformal", "alpha"): 0.3,
    ("conformal", "methods"): ["aps"],
    ("conformal", "raps_penalty"): 0.3,
    ("conformal", "raps_k"): 0,
    ("conformal", "saps_weight"): 0.3,
    ("conformal", "quantiles"): ["class"],
    ("conformal", "groups"): True,
    ("shape_bias", "shape_column"): "second_shape",
    ("shape_bias", "texture_column"): "second_texture",
    ("factors", "labels"): "multi",
    ("factors", "keep_prototypes"): True,
    ("factors", "factors"): ["pose"],
    ("factors", "columns"): ["light"],
    ("factors", "most_values"): 500,
    ("factors", "quantiles"): 3,
    ("bootstrap", "replicates"): 30,
    ("bootstrap", "seed"): 1,
    ("bootstrap", "confidence_level"): 0.7,
}
INTERVALS = {
    ("accuracy", "confidence_level"),
    ("accuracy", "interval"),
    *(("bootstrap", name) for name in study_defaults()["bootstrap"]),
}
"""Options that move ends of intervals, never a value."""


def changed(section: str, name: str) -> Settings:
    return base().updated(section, **{name: CHANGED[section, name]})


def base() -> Settings:
    settings = study_defaults()
    for section, options in BASE.items():
        settings = settings.updated(section, **options)
    return settings


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A zero-shot model whose sets have masks, maps, factors, label sets, shapes: something for every option."""
    root = tmp_path_factory.mktemp("options") / "cache"
    n, n_classes = 240, 12
    model = cache_schema.ModelCard(id="m", head_kind="zero-shot", logit_scale=20.0, group="clip-zero-shot")
    rng = np.random.default_rng(0)

    def write(name: str, role: str, n: int, labels: Any = None, metadata: Any = None, **card: Any) -> None:
        logits = rng.normal(0, 1, (n, n_classes)) - 2 * (role == "ood")
        mapped = "class_map" in card
        labels = rng.integers(0, n_classes, n) if labels is None else labels
        if role != "ood":
            columns = np.array([card["class_map"][label][0] for label in labels]) if mapped else labels
            logits[np.arange(n), columns] += 1.5
        card = {"id": name, "role": role, "class_space": "toy", "n_classes": n_classes, **card}
        cache_schema.write_store(
            root,
            model=model,
            dataset=cache_schema.DatasetCard(**card),
            logits=(2 * logits).astype(np.float32),
            labels=None if role == "ood" else labels,
            image_ids=[f"{name}/{i:04d}.jpg" for i in range(n)],
            metadata=metadata,
        )

    top = np.array(["pose", "background", "color", ""], dtype=object)[np.arange(n) % 4]
    both = {factor: (top == factor).astype(np.int64) for factor in FACTORS[:4]}
    both["pattern"][::2] = 1
    inside = rng.integers(0, n_classes, n)
    sets = {
        name: np.array([str([int(v), int(w)]) for v, w in zip(inside, rng.permutation(inside), strict=True)], object)
        for name in ("real_labels", "other_labels")
    }
    scenes = {name: np.array(["a", "b", "c"], object)[rng.integers(0, 3, n)] for name in ("scene", "light")}
    prototype = (np.arange(n) < 30).astype(np.int64)
    write(
        "val",
        "id",
        n,
        inside,
        {**both, "top_factor": top, "prototype": prototype, **sets, **scenes, "size": rng.random(n)},
    )
    write("kept", "shift", 120, rng.integers(0, 4, 120), class_mask=(0, 1, 2, 3))
    names = ("cat", "dog", "car", "cup")
    shapes = rng.integers(0, 4, (2, 80))
    words = {
        "shape": shapes[0],
        "texture": rng.integers(0, 4, 80),
        "second_shape": shapes[1],
        "second_texture": rng.integers(0, 4, 80),
    }
    write(
        "cue", "shift", 80, shapes[0], {k: [names[v] for v in values] for k, values in words.items()},
        class_map=((0, 1, 2), (3, 4, 5), (6, 7, 8), (9, 10, 11)), class_map_rule="mean", class_names=names,
    )  # fmt: skip
    frames = np.array([f"val/{i // 6}/000.jpg" for i in range(90)], object)
    write("frames", "shift", 90, metadata={"anchor": frames, "is_anchor": np.arange(90) % 6 == 0})
    write("far", "ood", 90, distance="far", class_mask=(0, 1, 2, 3, 4, 5))
    return cache_schema.open_cache(root)


def run(cache: Any, settings: Settings) -> tuple[Evaluation, Cells]:
    cells = Cells(None)
    found = evaluate(cache, settings=settings, cells=cells, running=Running(jobs=1))
    assert not found.failures
    return found, cells


@pytest.fixture(scope="module")
def before(cache):
    return run(cache, base())


def test_every_option_is_changed_here():
    options = {(section, name) for section, values in study_defaults().sections.items() for name in values}
    assert set(CHANGED) == options


@pytest.mark.parametrize(("section", "name"), list(CHANGED))
def test_an_option_changes_the_key_or_nothing_and_something_somewhere(cache, before, section, name):
    then, then_cells = before
    now, now_cells = run(cache, changed(section, name))
    for key in set(then.keys) & set(now.keys):
        old, new = then_cells.table([key]), now_cells.table([key])
        assert old.equals(new), f"numbers changed under one key: {old['metric'].unique().to_list()}"
    numbers = ["value", "low", "high", "reason"]
    wide = then.table.select(*KEY_COLUMNS, *numbers).sort(KEY_COLUMNS)
    assert not wide.equals(now.table.select(*KEY_COLUMNS, *numbers).sort(KEY_COLUMNS)), "the option does nothing"
    if (section, name) in INTERVALS:
        return
    # A number of another value is another row: two tables can stand side by side.
    both = then.table.join(now.table, on=list(KEY_COLUMNS), how="inner")
    moved = both.filter((pl.col("value") - pl.col("value_right")).abs() > 1e-9)
    assert moved.is_empty(), moved.select("metric", "subset", "factor", "calibrator", "score", "options").rows()


@pytest.mark.parametrize("name", list(SUITES))
def test_no_suite_reads_an_undeclared_section(cache, name):
    suite = SUITES[name]
    from analyze.evaluate.cases import build_cases
    from analyze.reading.sources import sources_of

    model = build_cases(sources_of(cache), base(), Wanted.of(SUITES.values(), "image_keys"))
    given = restricted(model, frozenset())
    with pytest.raises(UndeclaredSectionError):
        given.settings["split"]
    with pytest.raises(UndeclaredSectionError):
        given.cases["val"].summary["scaled_confidence"]
    with pytest.raises(UndeclaredSectionError):
        given.cases["val"].summary["valid"] & given.cases["val"].held_out
    for given in [model] if suite.level == "model" else model.of_role(*suite.roles):
        assert list(suite.numbers(given)) or name in ("corruption", "shape-bias", "factors")
