"""What somebody passes by mistake is answered with what was meant."""

from __future__ import annotations

import numpy as np
import pytest

from analyze import detectors
from analyze.metrics import aurc, brier_score, expected_calibration_error
from cache_schema.errors import UserError

RNG = np.random.default_rng(0)
P = RNG.dirichlet(np.ones(4), 20)
Y = RNG.integers(0, 4, 20)
F = RNG.normal(size=(20, 3)).astype(np.float32)


@pytest.mark.parametrize("metric", [expected_calibration_error, aurc])
def test_probabilities_and_labels_in_place_of_confidences(metric) -> None:
    with pytest.raises(UserError, match=r"of probabilities p and labels y take p\.max\(axis=1\) and p\.argmax"):
        metric(P, Y)
    assert 0 <= metric(P.max(axis=1), P.argmax(axis=1) == Y) <= 1


def test_one_hot_labels() -> None:
    with pytest.raises(UserError, match=r"labels.*argmax"):
        brier_score(P, np.eye(4)[Y])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"reference": (F, Y)}, r"\(features, logits, labels\) of the training set; got 2 arrays"),
        ({"reference": F}, r"\(features, logits, labels\) of the training set; got one array"),
        ({"reference": (F, P, Y), "head": F}, r"a head is \(weight, bias\) or a store; got one array"),
    ],
)
def test_arrays_in_place_of_a_reference_or_a_head(given, says: str) -> None:
    with pytest.raises(UserError, match=says):
        detectors.get("vim").fit(**{"head": (RNG.normal(size=(4, 3)), np.zeros(4)), **given})


def test_an_array_in_place_of_validation_rows() -> None:
    with pytest.raises(UserError, match=r"validation is .* got one array"):
        detectors.get("react").fit(validation=F, head=(RNG.normal(size=(4, 3)), np.zeros(4)))
