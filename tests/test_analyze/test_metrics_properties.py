"""One table of properties: a metric joins by its row in the registry, and where its columns are new by those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

import analyze.metrics
from analyze.metrics import COLUMN_METRICS, Metric
from closerlook_common.errors import UserError

N, CLASSES = 60, 7

# Columns that do not hold one row an image beside the others, so that rows are not shuffled together.
SEPARATE = {"id_scores", "ood_scores"}
FLOATS = {"confidences", "logits", "probabilities", "targets", "id_scores", "ood_scores"}
UNIT = {"confidences", "probabilities", "targets"}
# Where there is no number the metric says so.
UNDEFINED: dict[str, Callable[[dict[str, Any]], bool]] = {
    "correctness_auroc": lambda given: given["correct"].all() or not given["correct"].any(),
    "error_ratio": lambda given: given["correct"].all(),
    "d2_log_loss": lambda given: len(set(given["labels"].tolist())) == 1,
    "d2_brier": lambda given: len(set(given["labels"].tolist())) == 1,
}
BY_ORDER_ALONE = {"aurc", "e_aurc", "augrc", "correctness_auroc", "coverage_at_risk5", "risk_at_coverage80", "sac99",
                  "achievable_aurc", "e_augrc"}  # fmt: skip


def columns(spec: Metric, n: int = N, seed: int = 0) -> dict[str, Any]:
    """Return valid columns for a metric."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, CLASSES)) * 3
    labels = rng.integers(0, CLASSES, n)
    probabilities = softmax(logits, axis=1)
    correct = logits.argmax(axis=1) == labels
    all_columns: dict[str, Any] = {
        "confidences": probabilities.max(axis=1),
        "correct": correct,
        "logits": logits,
        "probabilities": probabilities,
        "labels": labels,
        "predictions": logits.argmax(axis=1),
        "targets": np.eye(CLASSES)[labels] * 0.75 + 0.25 / CLASSES,
        "id_scores": rng.normal(1, 1, n),
        "ood_scores": rng.normal(0, 1, n),
        "member": np.arange(n) % 3 == 0,
        "predicted_category": np.where(np.arange(n) % 2, "cat", "dog"),
        "shape": np.full(n, "dog"),
        "texture": np.full(n, "cat"),
        "anchors": np.array([f"clip/{i // 3}" for i in range(n)]),
        "correct_a": correct,
        "correct_b": rng.random(n) < 0.5,
    }
    return {name: all_columns[name] for name in spec.columns}


def value(spec: Metric, given: dict[str, Any]) -> float:
    return spec.function(*given.values())


every_metric = pytest.mark.parametrize("name", COLUMN_METRICS)


def having(names: set[str], *, all_of: bool = False) -> Any:
    test: Callable[[set[str]], bool] = names.issubset if all_of else lambda needs: bool(names & needs)
    chosen = [name for name, spec in COLUMN_METRICS.items() if test(set(spec.columns))]
    assert chosen
    return pytest.mark.parametrize("name", chosen)


@every_metric
def test_is_a_plain_float_in_its_range(name: str) -> None:
    spec = COLUMN_METRICS[name]
    for seed in range(3):
        got = value(spec, columns(spec, seed=seed))
        assert type(got) is float
        assert spec.low <= got <= spec.high
    assert spec.direction in ("higher", "lower", "none")
    assert spec.version >= 1


@every_metric
@pytest.mark.parametrize("n", [1, 2])
def test_takes_one_and_two_rows(name: str, n: int) -> None:
    spec = COLUMN_METRICS[name]
    given = columns(spec, n=n)
    if name in UNDEFINED and UNDEFINED[name](given):
        with pytest.raises(UserError):
            value(spec, given)
    else:
        assert np.isfinite(value(spec, given))


@every_metric
def test_refuses_no_rows(name: str) -> None:
    spec = COLUMN_METRICS[name]
    with pytest.raises(UserError, match=r"no rows|no columns"):
        value(spec, {key: column[:0] for key, column in columns(spec).items()})


@every_metric
def test_refuses_lengths_that_differ(name: str) -> None:
    spec = COLUMN_METRICS[name]
    if len(spec.columns) == 1 or SEPARATE & set(spec.columns):
        pytest.skip("its columns may have any lengths")
    given = columns(spec)
    given[spec.columns[-1]] = given[spec.columns[-1]][:-1]
    with pytest.raises(UserError, match=rf"{N} rows and \w+ has {N - 1}:"):
        value(spec, given)


@having(FLOATS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_nan_and_inf_by_row(name: str, bad: float) -> None:
    spec = COLUMN_METRICS[name]
    for key in FLOATS & set(spec.columns):
        given = columns(spec)
        given[key].reshape(N, -1)[17, 0] = bad
        if key == "logits" and bad == -np.inf:  # a class of probability 0
            assert not np.isnan(value(spec, given))
            continue
        with pytest.raises(UserError, match=rf"{key}: row 17\b.*(nan|inf)"):
            value(spec, given)


@having(UNIT)
@pytest.mark.parametrize("bad", [-0.01, 1.01])
def test_refuses_what_is_no_probability(name: str, bad: float) -> None:
    spec = COLUMN_METRICS[name]
    for key in UNIT & set(spec.columns):
        given = columns(spec)
        given[key].reshape(N, -1)[17, 0] = bad
        if name in BY_ORDER_ALONE:
            assert np.isfinite(value(spec, given))
        else:
            with pytest.raises(UserError, match=rf"{key}: row 17\b.*outside \[0, 1\]"):
                value(spec, given)


@having({"labels"})
@pytest.mark.parametrize("bad", [-1, CLASSES])
def test_refuses_labels_that_are_no_class(name: str, bad: int) -> None:
    spec = COLUMN_METRICS[name]
    given = columns(spec)
    given["labels"][17] = bad
    with pytest.raises(UserError, match=r"labels: row 17\b"):
        value(spec, given)


@having({"correct", "member", "correct_a", "correct_b"})
def test_refuses_what_is_neither_right_nor_wrong(name: str) -> None:
    spec = COLUMN_METRICS[name]
    for key in {"correct", "member", "correct_a", "correct_b"} & set(spec.columns):
        given = columns(spec)
        as_numbers = given[key].astype(int)
        assert value(spec, given | {key: as_numbers}) == value(spec, given)
        as_numbers[17] = 2
        with pytest.raises(UserError, match=rf"{key}: row 17\b"):
            value(spec, given | {key: as_numbers})


@every_metric
def test_order_of_rows_never_matters(name: str) -> None:
    spec = COLUMN_METRICS[name]
    given = columns(spec)
    for key in spec.columns:  # ties, so that order could matter
        if key in FLOATS and key not in ("logits", "probabilities", "targets"):
            given[key] = np.round(given[key], 1)
    order = np.random.default_rng(9).permutation(N)
    shuffled = {key: column[order] for key, column in given.items()}
    assert value(spec, shuffled) == pytest.approx(value(spec, given), abs=1e-9)


@having({"labels"})
def test_order_of_classes_never_matters(name: str) -> None:
    spec = COLUMN_METRICS[name]
    given = columns(spec)
    order = np.random.default_rng(9).permutation(CLASSES)
    moved = {k: np.argsort(order)[v] if k == "labels" else v[:, order] for k, v in given.items()}
    assert value(spec, moved) == pytest.approx(value(spec, given), abs=1e-12)


@having({"id_scores"})
def test_scores_count_by_order_alone(name: str) -> None:
    spec = COLUMN_METRICS[name]
    given = columns(spec)
    assert value(spec, {k: np.arctan(v) for k, v in given.items()}) == value(spec, given)


@every_metric
def test_inputs_are_left_alone_and_types_do_not_matter(name: str) -> None:
    spec = COLUMN_METRICS[name]
    given = columns(spec)
    rounded = {k: v.astype(np.float32).astype(np.float64) if k in FLOATS else v for k, v in given.items()}
    kept = {k: v.copy() for k, v in rounded.items()}
    wide = value(spec, rounded)
    for key, column in kept.items():
        np.testing.assert_array_equal(rounded[key], column)
    narrow = value(spec, {k: v.astype(np.float32) if k in FLOATS else v for k, v in rounded.items()})
    assert narrow == pytest.approx(wide, rel=1e-12, abs=1e-14)
    listed = value(spec, {k: v.tolist() for k, v in rounded.items()})
    assert listed == pytest.approx(wide, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize(
    "name", [n for n, s in COLUMN_METRICS.items() if s.direction != "none" and "confidences" in s.columns]
)
def test_direction_on_a_good_and_a_bad_model(name: str) -> None:
    spec = COLUMN_METRICS[name]
    rng = np.random.default_rng(0)
    confidence = rng.random(4000)
    good = rng.random(4000) < confidence
    bad = rng.random(4000) < 0.6 - 0.5 * confidence
    rest = [np.arange(4000) % CLASSES] * (len(spec.columns) - 2)  # predictions
    better, worse = spec.function(confidence, good, *rest), spec.function(confidence, bad, *rest)
    if name == "sac99":
        assert better >= worse  # neither may be that accurate anywhere
    else:
        assert better > worse if spec.direction == "higher" else better < worse


def test_everything_public_is_listed() -> None:
    for name in analyze.metrics.__all__:
        assert getattr(analyze.metrics, name).__doc__
    assert analyze.metrics.__all__ == sorted(
        analyze.metrics.__all__, key=lambda n: (not n.isupper(), not n[0].isupper(), n)
    )
