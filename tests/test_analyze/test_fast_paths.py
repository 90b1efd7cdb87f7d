"""The table's shared orders and fused pass against the public function of every row: the same numbers."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax

import cache_schema
from analyze.evaluate.cases import ModelCases, build_cases
from analyze.metrics.registry import METRICS, find_metric
from analyze.metrics.spec import SCORE_PAIR, TOP_LABEL, Metric
from analyze.reading.sources import sources_of
from analyze.settings import study_defaults
from analyze.suites.base import Number, Wanted
from analyze.suites.detection import scored_rows
from analyze.suites.registry import SUITES
from analyze.suites.scores import score_of, spec_of

ELSEWHERE = {"anchor_accuracy", "shape_bias"}
"""Rows of video and of shape-texture sets: test_clips.py and test_metrics_other.py hold them against oracles."""

ASKED = {
    "calibration": {"ece_l2", "smece_logit", "ace", "tace"},
    "detection": {"partial_auroc10", "eer"},
}
"""Rows that no suite yields by default."""

OPTIONS = study_defaults().updated("ood", further=["partial_auroc10", "eer"]).updated("factors", columns=["pose"])


def in_a_suite(row: Metric) -> bool:
    return any(row.name in suite.metrics for suite in SUITES.values()) or row.name in ASKED["detection"]


EXPECTED = {row.name for row in METRICS.values() if row.function and in_a_suite(row)} - ELSEWHERE


def columns_of(built: ModelCases, store: Any) -> dict[str, NDArray[Any]]:
    """Return the columns of the ID set that the rows' functions take, from the stored logits in float64."""
    case = built.cases["val"]
    use = case.summary.labelled
    rows = case.labelled()
    logits = store.logits()[use].astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return {
        "confidences": np.minimum(rows["confidence"], np.float32(1)),
        "correct": rows["label_rank"] == 0,
        "predictions": rows.prediction,
        "logits": logits,
        "probabilities": np.exp(log_softmax(logits, axis=1)),
        "labels": store.labels[use],
        "member": rows.metadata["pose"] == 1,
    }


def numbers_of(built: ModelCases) -> list[Number]:
    case = built.cases["val"]
    return [n for s in SUITES.values() for n in s.numbers(built if s.level == "model" else case)]


def is_plain(number: Number, row: Metric) -> bool:
    """Whether a number is what the function gives on all rows of the ID set."""
    if number.dataset not in (None, "val") or number.subset or number.calibrator or number.options:
        return False
    return number.factor == ("pose=1" if "member" in row.columns else "")


def check(built: ModelCases, store: Any) -> set[str]:
    """Compare every number with the function of its row; return the names of those that were compared."""
    columns = columns_of(built, store)
    inside, outside = built.cases["val"], built.cases["noise"]
    compared = set()
    for number in numbers_of(built):
        row = find_metric(number.metric)
        if row is None or row.function is None or row.name in ELSEWHERE:
            continue
        if row.columns == SCORE_PAIR:
            fit = spec_of(number.score).fit
            if number.dataset != "noise" or (fit and inside.summary.reason(fit)):
                continue
            used = scored_rows(inside, number.score)
            given_columns: list[Any] = [
                score_of(number.score, inside.summary)[used],
                score_of(number.score, outside.summary)[outside.summary["valid"]],
            ]
        elif is_plain(number, row):
            given_columns = [columns[name] for name in row.columns]
        else:
            continue
        expect(number, row, given_columns)
        compared.add(row.name)
    return compared


def expect(number: Number, row: Metric, columns: list[Any]) -> None:
    assert row.function is not None
    value = None
    with contextlib.suppress(ValueError):
        value = row.function(*columns)
    if value is None:
        assert number.value is None, number
        return
    # The fused pass sums probabilities in float32; from given columns the order of summation alone may differ.
    exact = row.columns in (TOP_LABEL, SCORE_PAIR) or "labels" not in row.columns
    tolerance = {"rel": 1e-12, "abs": 1e-14} if exact else {"rel": 2e-5, "abs": 2e-6}
    assert number.value == pytest.approx(value, **tolerance, nan_ok=True), (number.metric, number, value)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(250, 400),
    n_classes=st.integers(6, 9),
    digits=st.integers(0, 6),
    skill=st.floats(-1.0, 6.0),
    readable=st.floats(0.5, 1.0),
)
def test_every_row_equals_its_function(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    n: int,
    n_classes: int,
    digits: int,
    skill: float,
    readable: float,
) -> None:
    rng = np.random.default_rng(seed)
    root = tmp_path_factory.mktemp("cache")
    labels = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, n - n_classes)])
    model = cache_schema.ModelCard(id="m", logit_scale=2.0, head_kind="zero-shot")

    def write(dataset: str, role: str, shift: float, labels: NDArray[Any], **more: Any) -> Any:
        # Few digits make many ties, among confidences and between the two sets.
        logits = np.round(rng.normal(0, 1.5, (n, n_classes)), digits)
        logits[np.arange(n), np.maximum(labels, 0)] += np.round(shift, digits)
        return cache_schema.write_store(
            root, model=model, dataset=cache_schema.DatasetCard(id=dataset, role=role),
            logits=logits.astype(np.float32), labels=labels, valid=rng.random(n) < readable, **more,
        )  # fmt: skip

    metadata = {"pose": rng.integers(0, 2, n)}
    write("val", "id", skill, labels, metadata=metadata)
    write("noise", "ood", 0.0, np.full(n, -1))
    cache = cache_schema.open_cache(root)
    built = build_cases(sources_of(cache), OPTIONS, Wanted.of(list(SUITES.values())))
    compared = check(built, cache.store("m", "val"))
    assert compared == EXPECTED, EXPECTED ^ compared


def test_the_rows_that_no_suite_yields_are_named() -> None:
    assert {row.name for row in METRICS.values() if row.function and row.columns in (TOP_LABEL, SCORE_PAIR)} <= (
        EXPECTED | ASKED["calibration"] | ASKED["detection"]
    )
