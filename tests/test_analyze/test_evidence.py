"""Each metric, detector and calibrator states its formula, its source and its oracle, and the test named exists."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from analyze.calibrators.by_name import CALIBRATORS, CONFIDENCE_MAPS
from analyze.detectors import get
from analyze.detectors.registry import DETECTORS
from analyze.fits.registry import calibrators
from analyze.metrics.registry import METRICS
from analyze.metrics.spec import Evidence

HERE = Path(__file__).parent
TORCH = HERE.parent / "test_extract"
ROWS: dict[str, Evidence | None] = {
    **{f"metric {name}": row.evidence for name, row in METRICS.items()},
    **{f"detector {name}": vars(kind).get("evidence") for name, kind in DETECTORS.items()},
    **{f"calibrator {name}": row.evidence for name, row in CALIBRATORS.items()},
}


@pytest.mark.parametrize("name", ROWS)
def test_formula_source_and_oracle_are_stated_and_the_test_exists(name: str) -> None:
    evidence = ROWS[name]
    assert evidence is not None
    assert evidence.formula
    assert evidence.source
    assert evidence.oracle
    file, _, function = evidence.test.partition("::")
    assert re.search(rf"^def {function}\(", (HERE / file).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("peer", ["scikit-learn", "scipy", "torchmetrics", "netcal", "relplot", "pytorch-ood"])
def test_a_program_that_is_named_is_imported_by_the_tests(peer: str) -> None:
    module = {"scikit-learn": "sklearn", "pytorch-ood": "pytorch_ood"}.get(peer, peer)
    named = [evidence for evidence in ROWS.values() if evidence is not None and peer in evidence.oracle]
    assert named
    files = [*HERE.glob("test_*.py"), *TORCH.glob("test_*oracles*.py"), HERE.parent / "metric_oracles.py"]
    assert any(re.search(rf"^\s*(?:from|import) {module}\b", file.read_text(encoding="utf-8"), re.M) for file in files)


def test_detectors_said_to_equal_pytorch_ood_are_compared_with_it() -> None:
    text = (TORCH / "test_detector_oracles_torch.py").read_text(encoding="utf-8")
    for name, kind in DETECTORS.items():
        if kind.evidence is not None and "pytorch-ood" in kind.evidence.oracle:
            assert f'"{name}"' in text, name


def test_every_calibrator_of_the_result_table_has_a_row() -> None:
    assert set(CALIBRATORS) == set(calibrators())
    assert set(CONFIDENCE_MAPS) < set(calibrators())


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("spread", [0.1, 3.0, 200.0])
def test_scores_lie_in_their_range(name: str, spread: float) -> None:
    rng = np.random.default_rng(5)
    labels = np.arange(120) % 4
    weight = rng.normal(size=(4, 9)).astype(np.float32)
    features = (np.abs(rng.normal(size=(120, 9))) * spread + weight[labels]).astype(np.float32)
    logits = features @ weight.T
    kind = DETECTORS[name]
    options = {"knn": {"k": 5}, "nnguide": {"k": 5}, "openmax": {"tail": 5}, "tempscale": {"temperature": 2.0}}.get(
        name, {}
    )
    fitted = get(name, **options).fit(
        reference=(features, logits, labels), head=(weight, np.zeros(4, np.float32)),
        validation=(features, logits, labels), negatives=rng.normal(size=(30, 9)).astype(np.float32),
    )  # fmt: skip
    low, high = kind.limits
    scores = fitted.score(
        features=features[::-1] * 0.7 - 0.1, logits=logits[::-1] * 0.7, patch_scores=rng.uniform(size=120)
    )
    room = 1e-4 * max(abs(end) if np.isfinite(end) else 1.0 for end in (*kind.limits, 1.0))
    assert np.isfinite(scores).any()
    assert (scores[np.isfinite(scores)] >= low - room).all()
    assert (scores[np.isfinite(scores)] <= high + room).all()
