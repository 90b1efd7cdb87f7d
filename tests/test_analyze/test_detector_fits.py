"""Detectors as fits: what changes a number changes the key of its cell, and nothing is read that is not declared."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cache_schema
from analyze.detectors import DETECTORS
from analyze.fits.base import Reason
from analyze.fits.detector_inputs import held_back
from analyze.fits.detectors import DetectorFit, FittedDetector
from analyze.ood.inputs import OodOptions, find_inputs
from analyze.ood.rows import score_model
from analyze.ood.work import OodPlan
from analyze.settings import Settings
from analyze.settings.options import UndeclaredSectionError
from cache_schema.format.records import DatasetCard, ModelCard
from cache_schema.writing.kinds.reference_accumulator import ReferenceAccumulator
from closerlook_common.errors import UserError

C, D, N = 4, 6, 60
SETS = {
    "val": {"role": "id"},
    "val-v2": {"role": "shift", "shift_of": "val"},
    "near": {"role": "ood", "distance": "near"},
    "far": {"role": "ood", "distance": "far"},
}
BASE = OodOptions("val", reference="train", validation=("val", 0.5), negatives="words", mined=0.5, full_spectrum=())
VARIANTS = {
    "base": BASE,
    "another share": replace(BASE, validation=("val", 0.4)),
    "other validation rows": replace(BASE, validation=("val-v2", 1.0)),
    "no validation": replace(BASE, validation=None),
    "a sweep": replace(BASE, sweep="near"),
    "another sweep": replace(BASE, sweep="far"),
    "a sweep on other rows": replace(BASE, sweep="near", validation=("val-v2", 1.0)),
    "defaults of the papers": replace(BASE, defaults="paper"),
    "another reference": replace(BASE, reference="train-2"),
    "no reference": replace(BASE, reference=None),
    "other negatives": replace(BASE, negatives="words-2"),
    "all negatives": replace(BASE, mined=1.0),
    "other prompts": replace(BASE, prompt_set="b"),
    "another threshold": replace(BASE, threshold="nearest"),
    "another area": replace(BASE, aupr="trapezoid"),
    "another level": replace(BASE, confidence_level=0.9),
    "other sets": replace(BASE, near=("far",)),
    "with shifted sets": replace(BASE, full_spectrum=None),
}
SECTIONS = tuple(BASE.settings.sections)
ZERO_SHOT = {name for name, kind in DETECTORS.items() if kind.zero_shot_only or kind.needs.patches}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> cache_schema.Cache:
    """A linear model and a zero-shot one, each with two references, two heads, and all that detectors need."""
    path = tmp_path_factory.mktemp("cache")
    rng = np.random.default_rng(0)
    texts = rng.normal(size=(C, D)).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    for name in ("linear", "clip"):
        clip = name == "clip"
        scale = 20.0 if clip else None
        model = ModelCard(
            id=name, class_space="four", head_kind="zero-shot" if clip else "linear", logit_scale=scale
        )  # fmt: skip
        heads: dict[str, tuple[str, np.ndarray]]
        heads = {"a": ("four", texts), "b": ("four", texts[::-1]), "c": ("words", rng.normal(size=(9, D)))}
        heads["d"] = ("words-2", rng.normal(size=(9, D)))
        for prompts, (space, weight) in heads.items() if clip else ():
            cache_schema.write_head(
                path, model=model, class_space=space, class_names=[f"{space} {i}" for i in range(len(weight))],
                weight=weight.astype(np.float32), prompt_set=prompts, templates=["{}"], logit_scale=scale,
                normalize_features=True, identity=prompts * 64,
            )  # fmt: skip
        if not clip:
            cache_schema.write_head(
                path, model=model, class_space="four", class_names=list("wxyz"), weight=texts, bias=np.ones(C, "f4"),
                affine=True, residual=1e-7,
            )  # fmt: skip

        def forward(rows: np.ndarray, clip: bool = clip) -> np.ndarray:
            if not clip:
                return np.asarray(rows @ texts.T + 1)
            return np.asarray(20 * (rows / np.linalg.norm(rows, axis=1, keepdims=True)) @ texts.T)

        for dataset, card in SETS.items():
            labels = rng.integers(0, C, N)
            rows = (2.0 * texts[labels] * (card["role"] != "ood") + rng.normal(size=(N, D))).astype(np.float32)
            more: dict[str, Any] = {}
            if clip:
                best = {"patch_features": rows, "patch_score": rng.random(N), "patch_index": np.zeros(N, int)}
                parts = {"patches": {"tokens": "values of the last block", "temperature": 1.0}}
                more = {"parts": parts, "arrays": best, "record": {"prompt_set": "a", "head_identity": "a" * 64}}
            cache_schema.write_store(
                path, model=model, features=rows, logits=forward(rows), image_ids=[f"{dataset}/{i}" for i in range(N)],
                dataset=DatasetCard(id=dataset, class_space="four", n_classes=C, **card),  # type: ignore[arg-type]
                labels=labels if card["role"] != "ood" else np.full(N, -1), **more,
            )  # fmt: skip
        for dataset in ("train", "train-2"):
            labels = rng.integers(0, C, 240)
            rows = np.asarray(2.0 * texts[labels] + rng.normal(size=(240, D)), np.float32)
            sums = ReferenceAccumulator(C, D, per_class=40, unit=True, normalize=clip)
            sums.update(rows, forward(rows), labels)
            cache_schema.write_reference(
                path, model=model, dataset=DatasetCard(id=dataset, role="reference", class_space="four"),
                arrays=sums.arrays(), record={"reference": dict(sums.options())},
            )  # fmt: skip
    return cache_schema.open_cache(path)


def model_of(detector: str) -> str:
    return "clip" if detector in ZERO_SHOT or DETECTORS[detector].needs.negatives else "linear"


@pytest.fixture(scope="module")
def found(cache: cache_schema.Cache) -> dict[str, dict[str, tuple[str, tuple[Any, ...]]]]:
    """Variant -> detector -> key of its cell, and its rows."""
    result: dict[str, dict[str, tuple[str, tuple[Any, ...]]]] = {}
    for variant, options in VARIANTS.items():
        result[variant] = {}
        for model in ("linear", "clip"):
            names = tuple(name for name in DETECTORS if model_of(name) == model)
            chosen = replace(options, detectors=names, models=(model,))
            (work,) = OodPlan(chosen).works(cache)
            keys = {cell.of: cell.key for cell in work.cells()}
            rows = score_model(cache, model, chosen)
            for name in names:
                result[variant][name] = (keys[name], tuple(row for row in rows if row.score == name))
    return result


@pytest.mark.parametrize("detector", DETECTORS)
def test_what_changes_a_row_changes_the_key(detector: str, found: Any) -> None:
    numbers = set()
    for first, second in itertools.combinations(VARIANTS, 2):
        (key, rows), (other_key, other_rows) = found[first][detector], found[second][detector]
        if rows != other_rows:
            assert key != other_key, (first, second)
        numbers |= {tuple(row.value for row in rows), tuple(row.value for row in other_rows)}
    assert any(value is not None for values in numbers for value in values)
    assert len(numbers) > 2  # the variants are not all one


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_section_changes_the_key_where_it_is_read(detector: str, found: Any) -> None:
    """Options that change no store and no set change the keys of those detectors that declare their section."""
    fit = DetectorFit(detector)
    for variant, section in {"all negatives": "negatives", "defaults of the papers": "detectors"}.items():
        same = found[variant][detector][0] == found["base"][detector][0]
        assert same == (section not in fit.sections)


class Watched(Mapping[str, Any]):
    """Sections that remember which were read."""

    def __init__(self, sections: Mapping[str, Any]) -> None:
        self.sections, self.read = sections, set[str]()

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return self.sections[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.sections)

    def __len__(self) -> int:
        return len(self.sections)


@pytest.mark.parametrize("detector", DETECTORS)
def test_a_fit_reads_what_it_declares(detector: str, cache: cache_schema.Cache) -> None:
    fit, options = DetectorFit(detector), replace(BASE, sweep="near")
    inputs = find_inputs(cache, model_of(detector), options)
    assert inputs.validation is not None
    read: set[str] = set()
    for chosen in (options, replace(options, sweep="", reference=None), replace(options, sweep="", validation=None)):
        watched = Watched(chosen.settings.sections)
        rows = held_back(inputs.validation, 0.5)
        source = find_inputs(cache, model_of(detector), chosen)
        with suppress(UserError):  # no value of the sweep is possible in so few dimensions
            fit.fit(source, rows if source.validation is not None else rows[:0], Settings(watched))
        fit.options(Settings(watched), "val")
        assert watched.read <= set(fit.sections)
        read |= watched.read
    assert read == set(fit.sections)


@given(st.sampled_from(list(DETECTORS)), st.sampled_from(SECTIONS))
def test_reading_a_section_that_is_not_declared_is_an_error(detector: str, section: str) -> None:
    fit = DetectorFit(detector)
    own = BASE.settings.only(*fit.sections)
    if section in fit.sections:
        assert own[section] == BASE.settings[section]
    else:
        with pytest.raises(UndeclaredSectionError, match=rf"\[{section}\] is read but not declared"):
            own[section]


@pytest.mark.parametrize("detector", [name for name, kind in DETECTORS.items() if kind.sweep or kind.paper])
def test_a_fit_that_declares_too_little_fails(detector: str, cache: cache_schema.Cache) -> None:
    fit = DetectorFit(detector)
    fit.sections = tuple(name for name in fit.sections if name not in ("sweep", "detectors"))
    options = replace(BASE, sweep="near")
    inputs = find_inputs(cache, model_of(detector), options)
    assert inputs.validation is not None
    with pytest.raises(UndeclaredSectionError):
        fit.fit(inputs, held_back(inputs.validation, 0.5), options.settings.only(*fit.sections))


def test_a_detector_that_cannot_run_is_a_reason(cache: cache_schema.Cache) -> None:
    options = replace(BASE, reference=None, validation=None)
    made = DetectorFit("knn").fit(find_inputs(cache, "linear", options), np.zeros(0, bool), options.settings)
    assert isinstance(made, Reason)
    assert made.text.startswith("knn needs a reference store of the training set with its bank: ")
    options = replace(options, reference="train")
    made = DetectorFit("knn").fit(find_inputs(cache, "linear", options), np.zeros(0, bool), options.settings)
    assert isinstance(made, FittedDetector)
    assert made.source == "bank:train"
