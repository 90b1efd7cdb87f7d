"""Calibration errors against loops written from their definitions, on easy and on awkward columns."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve

from analyze.metrics import (
    adaptive_calibration_error,
    classwise_calibration_error,
    expected_calibration_error,
    ks_calibration_error,
    maximum_calibration_error,
    reliability_diagram,
    signed_calibration_gap,
    smooth_calibration_error,
)
from closerlook_common.errors import UserError

Column = tuple[NDArray[np.floating], NDArray[np.bool_]]


def _random(n: int = 2500) -> Column:
    rng = np.random.default_rng(n)
    confidence = rng.beta(5, 1.5, n)
    return confidence, rng.random(n) < confidence**1.3


def _saturated() -> Column:
    confidence, right = _random(2500)
    confidence[:1200] = 1.0
    confidence[1200:1900] = 1 - 1e-5
    confidence[1900:1910] = 0.0
    return confidence.astype(np.float32), right


def _tied() -> Column:
    confidence, right = _random(2001)
    return np.round(confidence, 1), right


COLUMNS: dict[str, Callable[[], Column]] = {
    "random": _random,
    "float32": lambda: (_random()[0].astype(np.float32), _random()[1]),
    "saturated": _saturated,
    "tied": _tied,
    "one row": lambda: (np.array([0.7]), np.array([False])),
    "two rows": lambda: (np.array([1.0, 0.4]), np.array([True, False])),
    "all right": lambda: (_random(500)[0], np.ones(500, bool)),
    "all wrong": lambda: (_random(500)[0], np.zeros(500, bool)),
    "all sure": lambda: (np.ones(500), np.ones(500, bool)),
}


@pytest.fixture(params=COLUMNS)
def column(request: pytest.FixtureRequest) -> Column:
    return COLUMNS[request.param]()


def _groups_by_width(confidence: NDArray[np.floating], n_bins: int) -> list[list[int]]:
    """Rows by bin (lo, hi], looked for from the first bin on; the edge k / n is the double nearest to it."""
    groups: list[list[int]] = [[] for _ in range(n_bins)]
    for i, value in enumerate(confidence.tolist()):
        groups[next(k for k in range(n_bins) if value <= float(Fraction(k + 1, n_bins)))].append(i)
    return groups


def _groups_by_mass(confidence: NDArray[np.floating], n_bins: int) -> list[list[int]]:
    """Cut the sorted rows as np.array_split does; a value that a cut would part stays in the lower group."""
    parts = np.array_split(np.sort(confidence.astype(np.float64)), min(n_bins, len(confidence)))
    edges = sorted({(a[-1] + b[0]) / 2 for a, b in itertools.pairwise(parts)} | {1.0})
    groups: list[list[int]] = [[] for _ in edges]
    for i, value in enumerate(confidence.astype(np.float64).tolist()):
        groups[next(k for k, edge in enumerate(edges) if value <= edge)].append(i)
    return groups


def _by_hand(column: Column, groups: list[list[int]], norm: str, debias: bool = False) -> float:
    confidence, right = column[0].astype(np.float64), column[1].astype(np.float64)
    gaps, squares, shares = [], [], []
    for rows in groups:
        if not rows:
            continue
        accuracy = right[rows].mean()
        gap = abs(confidence[rows].mean() - accuracy)
        square = gap**2
        if debias:
            square = square - accuracy * (1 - accuracy) / (len(rows) - 1) if len(rows) > 1 else 0.0
        gaps.append(gap)
        squares.append(square)
        shares.append(len(rows) / len(confidence))
    if norm == "max":
        return max(gaps)
    if norm == "l1":
        return float(np.dot(gaps, shares))
    return float(max(np.dot(squares, shares), 0.0)) ** 0.5


@pytest.mark.parametrize("n_bins", [1, 10, 15, 100])
@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
@pytest.mark.parametrize("binning", ["width", "mass"])
def test_binned_errors_equal_the_loop(column: Column, binning: str, norm: str, n_bins: int) -> None:
    groups = (_groups_by_width if binning == "width" else _groups_by_mass)(column[0], n_bins)
    got = expected_calibration_error(*column, n_bins=n_bins, binning=binning, norm=norm)  # type: ignore[arg-type]
    assert got == pytest.approx(_by_hand(column, groups, norm), abs=1e-12)
    assert type(got) is float


@pytest.mark.parametrize("binning", ["width", "mass"])
def test_debiased_error_equals_the_loop(column: Column, binning: str) -> None:
    groups = (_groups_by_width if binning == "width" else _groups_by_mass)(column[0], 15)
    got = expected_calibration_error(*column, binning=binning, norm="l2", debias=True)  # type: ignore[arg-type]
    assert got == pytest.approx(_by_hand(column, groups, "l2", debias=True), abs=1e-9)


def test_reliability_diagram_equals_scikit_learn() -> None:
    confidence, right = _saturated()
    diagram = reliability_diagram(confidence, right, n_bins=15)
    accuracy, mean = calibration_curve(right, confidence.astype(np.float64), n_bins=15)
    held = diagram.counts > 0
    np.testing.assert_allclose(diagram.accuracy[held], accuracy, atol=1e-12)
    np.testing.assert_allclose(diagram.mean_confidence[held], mean, atol=1e-12)
    assert diagram.counts.sum() == len(right)
    assert np.isnan(diagram.accuracy[~held]).all()
    assert np.all(diagram.low[held] <= diagram.accuracy[held])
    assert np.all(diagram.accuracy[held] <= diagram.high[held])
    weighted = np.abs(diagram.accuracy - diagram.mean_confidence)[held] @ diagram.counts[held] / len(right)
    assert weighted == pytest.approx(expected_calibration_error(confidence, right))


def test_an_edge_belongs_to_the_bin_below() -> None:
    # 0.2 ends bin 3 of 15: with [lo, hi) it would join the wrong row above and the gaps would add up
    # otherwise.
    confidence, right = np.array([0.2, 0.25, 0.15]), np.array([1, 0, 0])
    assert expected_calibration_error(confidence, right) == pytest.approx((abs(0.35 - 1) + 0.25) / 3)


@pytest.mark.parametrize("right", [0, 1])
def test_confidence_one_lies_in_the_last_bin(right: int) -> None:
    # 0.95 (right) and 1.0 share a bin; a bin of its own, or dropping the row, gives another number.
    assert expected_calibration_error([0.95, 1.0], [1, right]) == pytest.approx(abs(1.95 - 1 - right) / 2)


def test_equal_gaps_give_the_plain_difference_for_any_bins(column: Column) -> None:
    confidence = column[0]
    for n_bins in (1, 7, 15):
        error = expected_calibration_error(confidence, np.zeros(confidence.size), n_bins=n_bins)
        assert error == pytest.approx(confidence.mean(dtype=np.float64), abs=1e-12)


def test_ks_error_equals_the_loop(column: Column) -> None:
    confidence, right = column[0].astype(np.float64), column[1]
    totals = [abs(float((confidence - right)[confidence <= cut].sum())) for cut in np.unique(confidence)]
    assert ks_calibration_error(*column) == pytest.approx(max(totals) / len(right), abs=1e-12)


def test_errors_are_ordered(column: Column) -> None:
    gap = abs(signed_calibration_gap(*column))
    ece = expected_calibration_error(*column)
    assert gap <= ece + 1e-12
    assert ece <= expected_calibration_error(*column, norm="l2") + 1e-12
    assert expected_calibration_error(*column, norm="l2") <= maximum_calibration_error(*column) + 1e-12
    assert gap <= ks_calibration_error(*column) + 1e-12
    assert gap <= smooth_calibration_error(*column) + 1e-9


# --- smooth
# ----------------------------------------------------------------------------------------------------


def _direct(column: Column, sigma: float, nodes: int = 2001) -> float:
    """Integrate the reflected kernel, image by image, by the trapezoid rule."""
    confidence, right = column[0].astype(np.float64), column[1]
    points = np.linspace(0, 1, nodes)
    surplus = (confidence - right) / len(right)
    smoothed = np.zeros(nodes)
    reach = int(np.ceil(4 * sigma)) + 1
    for shift in range(-reach, reach + 1):
        for image in (confidence, -confidence):
            distance = points[:, None] - image[None, :] - 2 * shift
            smoothed += np.exp(-0.5 * (distance / sigma) ** 2) @ surplus / (sigma * np.sqrt(2 * np.pi))
    return float(np.trapezoid(np.abs(smoothed), points))


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("make", [lambda: _random(400), lambda: tuple(c[900:1400] for c in _saturated())])
def test_smoothing_equals_the_direct_integral(make: Callable[[], Column], sigma: float) -> None:
    column = make()
    assert smooth_calibration_error(*column, sigma=sigma) == pytest.approx(_direct(column, sigma), abs=2e-5)


def test_smooth_error_is_the_fixed_point(column: Column) -> None:
    for kernel in ("reflected", "logit"):
        error = smooth_calibration_error(*column, kernel=kernel)  # type: ignore[arg-type]
        if error > 1e-6:
            again = smooth_calibration_error(*column, kernel=kernel, sigma=min(error, 1.0))  # type: ignore[arg-type]
            assert again == pytest.approx(error, abs=1e-7)


def test_rows_at_one_count_in_full() -> None:
    # All sure, half wrong: whatever the width, the residual is 1/2. A boundary that halves its end gives 1/4.
    assert smooth_calibration_error(np.ones(100), np.arange(100) % 2) == pytest.approx(0.5, abs=1e-9)
    # Moving rows a hair inward moves the number a hair.
    confidence, right = _saturated()
    inward = np.minimum(confidence.astype(np.float64), 1 - 1e-5)
    assert smooth_calibration_error(confidence, right) == pytest.approx(
        smooth_calibration_error(inward, right), abs=2e-5
    )


def test_logit_kernel_equals_the_direct_integral() -> None:
    confidence, right = _random(300)
    sigma, axis = 0.07, np.linspace(-14, 14, 20001)
    clipped = np.clip(confidence, 1e-3, 1 - 1e-3)
    distance = axis[:, None] - np.log(clipped / (1 - clipped))[None, :]
    kernel = np.exp(-0.5 * (distance / (4 * sigma)) ** 2) / (4 * sigma * np.sqrt(2 * np.pi))
    wanted = np.trapezoid(np.abs(kernel @ (confidence - right) / len(right)), axis)
    assert smooth_calibration_error(confidence, right, kernel="logit", sigma=sigma) == pytest.approx(wanted, abs=1e-6)


# --- every class
# -------------------------------------------------------------------------------------------------


def _rows(n: int, n_classes: int, sharpness: float = 2.0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(n_classes)
    scores = rng.normal(size=(n, n_classes)) * sharpness
    probability = np.exp(scores - scores.max(axis=1, keepdims=True))
    probability /= probability.sum(axis=1, keepdims=True)
    return probability.astype(np.float32), rng.integers(0, n_classes, n)


@pytest.mark.parametrize(("n", "n_classes"), [(300, 5), (60, 1000), (1, 3), (2, 2), (400, 1)])
@pytest.mark.parametrize("threshold", [0.0, 0.01, 0.3])
def test_classwise_error_equals_the_loop(n: int, n_classes: int, threshold: float) -> None:
    probability, labels = _rows(n, n_classes, sharpness=4.0)
    errors, adaptive = [], []
    for c in range(n_classes):
        kept = probability[:, c] > threshold if threshold else np.ones(n, bool)
        if kept.any():
            pair = (probability[kept, c], labels[kept] == c)
            errors.append(_by_hand(pair, _groups_by_width(pair[0], 15), "l1"))
            groups = [g for g in _groups_by_mass(pair[0], 15) if g]
            adaptive += [_by_hand((pair[0][g], pair[1][g]), [list(range(len(g)))], "l1") for g in groups]
    got = classwise_calibration_error(probability, labels, threshold=threshold)
    assert got == pytest.approx(np.mean(errors), abs=1e-10)
    total = classwise_calibration_error(probability, labels, threshold=threshold, reduce="sum")
    assert total == pytest.approx(np.sum(errors), abs=1e-8)
    assert adaptive_calibration_error(probability, labels, threshold=threshold) == pytest.approx(
        np.mean(adaptive), abs=1e-10
    )


def test_classwise_does_not_ask_which_labels_occur() -> None:
    probability, labels = _rows(50, 1000)
    labels[:] = 3
    padded = classwise_calibration_error(probability, labels)
    loop = np.mean(
        [_by_hand((probability[:, c], labels == c), _groups_by_width(probability[:, c], 15), "l1") for c in range(1000)]
    )
    assert padded == pytest.approx(loop, abs=1e-12)


# --- options and properties
# ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [
    {"norm": "l1", "debias": True},
    {"norm": "l3"},
    {"binning": "widht"},
    {"n_bins": 0},
    {"n_bins": 2.5},
    {"compat": "torchmetric"},
    {"compat": "torchmetrics", "binning": "mass"},
    {"compat": "netcal", "norm": "l2"},
    {"compat": "guo", "norm": "max"},
    {"compat": "guo", "norm": "l2", "debias": True},
])  # fmt: skip
def test_options_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(UserError):
        expected_calibration_error([0.5, 0.6], [0, 1], **options)  # type: ignore[arg-type]


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60),
    st.integers(1, 30),
    st.sampled_from(["width", "mass"]),
    st.randoms(use_true_random=False),
)
def test_order_of_rows_never_matters(rows: list[tuple[float, bool]], n_bins: int, binning: str, random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    def numbers(pairs: list[tuple[float, bool]]) -> list[float]:
        confidence, right = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
        options = {"n_bins": n_bins, "binning": binning}
        return [
            expected_calibration_error(confidence, right, **options),  # type: ignore[arg-type]
            expected_calibration_error(confidence, right, norm="l2", debias=True, **options),  # type: ignore[arg-type]
            maximum_calibration_error(confidence, right, **options),  # type: ignore[arg-type]
            ks_calibration_error(confidence, right),
            smooth_calibration_error(confidence, right),
        ]

    before, after = numbers(rows), numbers(shuffled)
    assert all(0 <= value <= 1 + 1e-9 for value in before)
    np.testing.assert_allclose(after, before, atol=1e-9)
