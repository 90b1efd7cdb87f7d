"""Every metric of the result table against an independent implementation, on the same awkward inputs.

The oracles are scikit-learn, scipy, or float64 loops that follow the definition word by word; a metric joins the
registry only with its oracle here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from metric_oracles import ORACLES
from scipy.special import softmax

from analyze.metrics import COLUMN_METRICS
from closerlook_common.errors import UserError

Columns = dict[str, Any]


def _columns(n: int, n_classes: int, spread: float, digits: int | None = None, one_class: bool = False) -> Columns:
    """Everything that a metric may need, of one made-up model."""
    rng = np.random.default_rng(n + n_classes)
    logits = rng.normal(0, spread, (n, n_classes))
    if digits is not None:
        logits = np.round(logits, digits)
    labels = np.where(rng.random(n) < 0.6, logits.argmax(axis=1), rng.integers(0, n_classes, n))
    if one_class:
        labels[:] = 0
    probabilities = softmax(logits, axis=1)
    confidences = np.minimum(probabilities.max(axis=1), 1.0)
    if digits is not None:
        confidences = np.round(confidences, 1)
    scores = rng.normal(0, spread, (2, n))
    names = np.array(["cat", "dog", "car"])
    correct = logits.argmax(axis=1) == labels
    return {
        "logits": logits,
        "labels": labels,
        "probabilities": probabilities,
        "targets": rng.multinomial(9, np.full(n_classes, 1 / n_classes), n) / 9,
        "predictions": logits.argmax(axis=1),
        "confidences": confidences,
        "correct": correct,
        "id_scores": np.round(scores[0] + spread, digits) if digits is not None else scores[0] + spread,
        "ood_scores": np.round(scores[1], digits) if digits is not None else scores[1],
        "member": np.arange(n) % 3 == 0,
        "predicted_category": names[np.arange(n) % 3],
        "shape": names[rng.integers(0, 3, n)],
        "texture": names[(np.arange(n) + rng.integers(0, 2, n)) % 3],
        "anchors": np.array([f"clip/{i // 3}" for i in range(n)]),
        "correct_a": correct,
        "correct_b": rng.random(n) < 0.5,
    }


CASES: dict[str, Columns] = {
    "random": _columns(240, 8, 2.0),
    "saturated": _columns(240, 8, 60.0),
    "tied": _columns(240, 8, 2.0, digits=0),
    "one row": _columns(1, 4, 1.0),
    "two rows": _columns(2, 4, 1.0),
    "labels of one class": _columns(150, 6, 2.0, one_class=True),
    "a model of one class": _columns(40, 1, 1.0),
    "thousand classes": _columns(120, 1000, 4.0),
}

# A direct integral over a grid, against cosine series; the others differ by rounding.
LOOSE = {"achievable_aurc": 1e-5, "smece": 1e-4, "smece_logit": 1e-4, "ece_p": 0.015, "kuiper_p": 1e-4}


def test_every_metric_has_an_oracle() -> None:
    assert set(ORACLES) == set(COLUMN_METRICS)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", COLUMN_METRICS)
def test_equals_its_oracle(name: str, case: str) -> None:
    spec = COLUMN_METRICS[name]
    given = [CASES[case][column] for column in spec.columns]
    try:
        wanted = ORACLES[name](*given)
    except UserError:
        with pytest.raises(UserError):
            spec.function(*given)
        return
    got = spec.function(*given)
    assert type(got) is float
    assert got == pytest.approx(wanted, rel=1e-9, abs=LOOSE.get(name, 1e-9))


def test_the_cases_are_what_they_are_called() -> None:
    assert (CASES["saturated"]["confidences"] == 1).mean() > 0.3
    assert np.unique(CASES["tied"]["confidences"]).size < 12
    assert np.unique(CASES["tied"]["id_scores"]).size < 15
    assert [len(CASES[name]["labels"]) for name in ("one row", "two rows")] == [1, 2]
    assert CASES["thousand classes"]["logits"].shape[1] == 1000
    assert not CASES["labels of one class"]["labels"].any()
