"""The metrics against the programs that publish such numbers: torchmetrics, netcal, relplot and others.

They need torch or are themselves no part of a laptop's installation, so they are compared here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import calibration as verified
import netcal.metrics
import numpy as np
import pytest
import relplot
import torch
import torchmetrics.functional.classification as torch_metrics
from numpy.typing import NDArray
from pytorch_ood.metrics import OODMetrics

from analyze.metrics import (
    augrc,
    aupr,
    aurc,
    auroc,
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    fpr_at_tpr,
    negative_log_likelihood,
    smooth_calibration_error,
    top_k_accuracy,
)
from analyze.metrics._calibration_compat import _single_edges

Rows = tuple[NDArray[np.float32], NDArray[np.int64]]


def _rows(n: int, n_classes: int, sharpness: float) -> Rows:
    """Logits that are often right, and sure of it as far as ``sharpness`` goes."""
    rng = np.random.default_rng(n + n_classes)
    logits = rng.normal(size=(n, n_classes)) * sharpness
    guess = logits.argmax(axis=1)
    labels = np.where(rng.random(n) < 0.7, guess, rng.integers(0, n_classes, n))
    return logits.astype(np.float32), labels


CASES: dict[str, Callable[[], Rows]] = {
    "random": lambda: _rows(3000, 10, 1.5),
    "saturated": lambda: _rows(3000, 10, 40.0),
    "thousand classes": lambda: _rows(500, 1000, 4.0),
    "tiny": lambda: _rows(2, 4, 1.0),
    "one row": lambda: _rows(1, 4, 1.0),
    "one class": lambda: (np.zeros((40, 3), np.float32), np.zeros(40, np.int64)),
}


@pytest.fixture(params=CASES)
def rows(request: pytest.FixtureRequest) -> Rows:
    return CASES[request.param]()


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(torch.from_numpy(logits).softmax(dim=1).numpy())


def _top(rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    probability = np.minimum(_softmax(rows[0]), np.float32(1))
    return probability, probability.max(axis=1), probability.argmax(axis=1) == rows[1]


def test_some_confidences_are_exactly_one() -> None:
    assert (_top(CASES["saturated"]())[1] == 1).mean() > 0.3


# --- calibration
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_bins", [1, 10, 15, 16, 37])
@pytest.mark.parametrize("norm", ["l1", "l2", "max"])
def test_compat_torchmetrics(rows: Rows, norm: str, n_bins: int) -> None:
    probability, confidence, right = _top(rows)
    wanted = torch_metrics.multiclass_calibration_error(
        torch.from_numpy(probability),
        torch.from_numpy(rows[1]),
        num_classes=probability.shape[1],
        n_bins=n_bins,
        norm=norm,  # type: ignore[arg-type]
    )
    got = expected_calibration_error(confidence, right, n_bins=n_bins, norm=norm, compat="torchmetrics")  # type: ignore[arg-type]
    # Both add in float32 row by row; the last bit of the sum over bins depends on the order of lanes.
    assert got == pytest.approx(float(wanted), abs=1.5e-7)


def test_compat_torchmetrics_keeps_the_bin_of_confidence_one() -> None:
    confidence, right = np.array([0.95, 1.0], np.float32), np.array([False, True])
    apart = expected_calibration_error(confidence, right, norm="max", compat="torchmetrics")
    assert apart == pytest.approx(0.95)
    assert expected_calibration_error(confidence, right, norm="max") == pytest.approx(0.475)


def test_float32_edges_are_those_of_torch() -> None:
    for n_bins in range(1, 101):
        theirs = torch.linspace(0, 1, n_bins + 1).numpy()
        # Equal where torch multiplies and adds in one instruction; else the last bit may differ.
        np.testing.assert_array_max_ulp(_single_edges(n_bins), theirs, maxulp=1)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("n_bins", [1, 10, 15])
def test_compat_netcal(rows: Rows, kind: type, n_bins: int) -> None:
    _, confidence, right = _top(rows)
    column = confidence.astype(kind)
    pairs = (("l1", netcal.metrics.ECE(n_bins)), ("max", netcal.metrics.MCE(n_bins)))
    for norm, peer in pairs:
        wanted = peer.measure(column.copy(), right.astype(int))
        got = expected_calibration_error(column, right, n_bins=n_bins, norm=norm, compat="netcal")  # type: ignore[arg-type]
        assert got == pytest.approx(wanted, abs=1e-12)


def test_compat_netcal_equal_mass() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(1003)
    right = rng.random(1003) < confidence**2
    wanted = netcal.metrics.ECE(15, equal_intervals=False).measure(confidence.copy(), right.astype(int))
    got = expected_calibration_error(confidence, right, binning="mass", compat="netcal")
    assert got == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_compat_guo(rows: Rows, kind: torch.dtype) -> None:
    _, column, right = _top(rows)
    confidence, correct = torch.from_numpy(column).to(kind), torch.from_numpy(right)
    edges = torch.linspace(0, 1, 16)
    wanted = torch.zeros(1, dtype=kind)
    for low, high in itertools.pairwise(edges):
        inside = confidence.gt(low.item()) & confidence.le(high.item())
        if inside.any():
            gap = (confidence[inside].mean() - correct[inside].to(kind).mean()).abs()
            wanted += gap * inside.to(kind).mean()
    got = expected_calibration_error(confidence.numpy(), right, compat="guo")
    assert got == pytest.approx(float(wanted), abs=5e-7 if kind is torch.float32 else 1e-12)


def test_verified_calibration(rows: Rows) -> None:
    probability, confidence, right = _top(rows)
    column = confidence.astype(np.float64)
    labels = right.astype(int)
    if len(labels) < 15:
        pytest.skip("its equal-mass bins need a row each")
    by_width = verified.get_ece(column, labels)
    assert expected_calibration_error(column, right) == pytest.approx(by_width, abs=1e-12)
    by_mass = verified.get_ece_em(column, labels)
    assert expected_calibration_error(column, right, binning="mass") == pytest.approx(by_mass, abs=1e-12)
    for scheme, binning in ((verified.utils.get_equal_bins, "mass"), (verified.utils.get_equal_prob_bins, "width")):
        wanted = verified.utils.lower_bound_scaling_ce(column, labels, p=2, debias=True, binning_scheme=scheme)
        got = expected_calibration_error(column, right, binning=binning, norm="l2", debias=True)  # type: ignore[arg-type]
        assert got == pytest.approx(wanted, abs=1e-7)
    if probability.shape[1] <= 10:
        wide = probability.astype(np.float64)
        marginal = verified.utils.lower_bound_scaling_ce(
            wide, rows[1], p=1, debias=False, binning_scheme=verified.utils.get_equal_prob_bins, mode="marginal"
        )
        assert classwise_calibration_error(wide, rows[1]) == pytest.approx(marginal, abs=1e-12)


@pytest.mark.parametrize("kernel", ["reflected", "logit"])
@pytest.mark.parametrize("sigma", [None, 0.05, 0.004])
def test_compat_relplot(rows: Rows, kernel: str, sigma: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relplot.config, "use_logit_scaling", kernel == "logit")
    _, confidence, right = _top(rows)
    pair = confidence.astype(np.float64), right.astype(np.float64)
    wanted = relplot.smECE(*pair) if sigma is None else relplot.smECE_sigma(*pair, sigma=sigma)
    got = smooth_calibration_error(*pair, kernel=kernel, sigma=sigma, compat="relplot")  # type: ignore[arg-type]
    assert got == pytest.approx(float(wanted), abs=1e-9)


def test_relplot_agrees_with_the_integral_away_from_the_ends() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.3, 0.7, 4000)
    right = rng.random(4000) < confidence - 0.2 * (confidence > 0.5) + 0.1
    exact = smooth_calibration_error(confidence, right)
    assert exact == pytest.approx(relplot.smECE(confidence, right.astype(float)), abs=2e-3)


def test_relplot_halves_what_lies_at_one() -> None:
    # Why the default is not its value: moving rows 0.0025 inward must not move the number by half.
    _, confidence, right = _top(CASES["saturated"]())
    column = confidence.astype(np.float64)
    inward = np.minimum(column, 0.9975)
    moved = relplot.smECE(inward, right.astype(float)) - relplot.smECE(column, right.astype(float))
    exact = smooth_calibration_error(inward, right) - smooth_calibration_error(column, right)
    assert abs(exact) < 0.004
    assert abs(moved) > 3 * abs(exact)


# --- the rest
# --------------------------------------------------------------------------------------------------------


def test_scores_equal_torch(rows: Rows) -> None:
    logits, labels = torch.from_numpy(rows[0]).double(), torch.from_numpy(rows[1])
    wanted = torch.nn.functional.cross_entropy(logits, labels)
    assert negative_log_likelihood(*rows) == pytest.approx(float(wanted), rel=1e-12, abs=1e-12)
    one_hot = torch.nn.functional.one_hot(labels, logits.shape[1])
    brier = ((logits.softmax(dim=1) - one_hot) ** 2).sum(dim=1).mean()
    assert brier_score(logits.softmax(dim=1).numpy(), rows[1]) == pytest.approx(float(brier), abs=1e-9)
    if len(labels) > 100:
        top5 = torch_metrics.multiclass_accuracy(logits, labels, num_classes=logits.shape[1], top_k=5, average="micro")
        assert top_k_accuracy(*rows, k=5) == pytest.approx(float(top5), abs=1e-6)


@pytest.mark.parametrize("digits", [0, 1, 9])
def test_detection_equals_pytorch_ood_and_torchmetrics(digits: int) -> None:
    rng = np.random.default_rng(2)
    inside, outside = np.round(rng.normal(1, 1, 900), digits), np.round(rng.normal(0, 1, 500), digits)
    scores = torch.from_numpy(np.concatenate([inside, outside]))
    labels = torch.from_numpy(np.where(np.arange(1400) < 900, 0, -1))
    theirs = OODMetrics().update(-scores, labels).compute()
    assert auroc(inside, outside) == pytest.approx(theirs["AUROC"], abs=1e-6)
    assert fpr_at_tpr(inside, outside, positive="ood") == pytest.approx(theirs["FPR95TPR"], abs=1e-6)
    for positive, name in (("id", "AUPR-IN"), ("ood", "AUPR-OUT")):
        got = aupr(inside, outside, positive=positive, method="trapezoid")  # type: ignore[arg-type]
        assert got == pytest.approx(theirs[name], abs=1e-6)
    # torchmetrics squeezes scores outside [0, 1] through a sigmoid in float32: give it ranks in between.
    _, ranks = np.unique(scores.numpy(), return_inverse=True)
    unit = torch.from_numpy(ranks / (ranks.max() + 1))
    average = torch_metrics.binary_average_precision(unit, labels + 1)
    assert aupr(inside, outside) == pytest.approx(float(average), abs=1e-5)
    assert auroc(inside, outside) == pytest.approx(float(torch_metrics.binary_auroc(unit, labels + 1)), abs=1e-5)


def test_torch_uncertainty_on_distinct_confidences() -> None:
    pytest.importorskip("torch_uncertainty")
    from torch_uncertainty.metrics.classification import AUGRC, AURC, FPRx

    rng = np.random.default_rng(3)
    confidence = rng.permutation(2000) / 2000 / 2 + 0.5
    right = rng.random(2000) < confidence
    pair = torch.from_numpy(confidence), torch.from_numpy(right.astype(np.int64))
    risk, joint = AURC(), AUGRC()
    risk.update(*pair)
    joint.update(*pair)
    # Theirs starts at coverage 1/n and is divided by 1 - 1/n.
    assert aurc(confidence, right) == pytest.approx(float(risk.compute()), abs=5e-4)
    assert augrc(confidence, right) == pytest.approx(float(joint.compute()), abs=5e-4)
    with pytest.warns(UserWarning, match="buffer"):
        flagged = FPRx(recall_level=0.95, pos_label=1)
    flagged.update(-pair[0], 1 - pair[1])
    wanted = fpr_at_tpr(confidence[right], confidence[~right], positive="ood")
    assert wanted == pytest.approx(float(flagged.compute()), abs=1e-6)
