"""Mahalanobis++ from a sealed reference: of the sums of unit rows that it holds, with the formula row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyze.detectors import get
from cache_schema import DatasetCard, ModelCard, ReferenceStore, UserError, write_reference
from cache_schema.writing.kinds.reference_accumulator import ReferenceAccumulator

C, D, N = 4, 6, 200
RNG = np.random.default_rng(5)
LABELS = RNG.integers(0, C, N)
FEATURES = (RNG.normal(size=(N, D)) + 1.5 * RNG.normal(size=(C, D))[LABELS]).astype(np.float32)
LOGITS = RNG.normal(size=(N, C)).astype(np.float32)
QUERY = (2 * RNG.normal(size=(20, D))).astype(np.float32)


def store(folder: Path, name: str, **options: Any) -> ReferenceStore:
    """Seal the statistics of all rows with a bank too small to stand for them."""
    sums = ReferenceAccumulator(C, D, per_class=3, **options)
    sums.update(FEATURES, LOGITS, LABELS)
    return write_reference(
        folder,
        model=ModelCard(id="m"),
        dataset=DatasetCard(id=name, role="reference"),
        arrays=sums.arrays(),
        record={"reference": dict(sums.options())},
    )


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows.astype(float) / np.linalg.norm(rows.astype(float), axis=1, keepdims=True))


def formulas() -> dict[str, np.ndarray]:
    u, q = unit(FEATURES), unit(QUERY)
    means = np.stack([u[c == LABELS].mean(axis=0) for c in range(C)])
    within = np.linalg.inv(sum(np.outer(r - means[c], r - means[c]) for r, c in zip(u, LABELS, strict=True)) / N)
    total = np.linalg.inv(np.cov(u.T, bias=True))
    near = np.array([min((row - m) @ within @ (row - m) for m in means) for row in q])
    far = np.array([(row - u.mean(axis=0)) @ total @ (row - u.mean(axis=0)) for row in q])
    return {"mds++": -near, "rmds++": far - near}


@pytest.mark.parametrize("name", ["mds++", "rmds++"])
def test_equals_the_formula(name: str, tmp_path: Path) -> None:
    want = formulas()[name]
    for options in ({"unit": True}, {"normalize": True}):
        fitted = get(name).fit(reference=store(tmp_path, "-".join(options), **options))
        np.testing.assert_allclose(fitted.score(features=QUERY), want, rtol=1e-3, atol=1e-3)
    with pytest.raises(UserError, match=r"no sums of features at unit length: 'extract --arrays unit' stores them"):
        get(name).fit(reference=store(tmp_path, "plain"))


@given(lengths=st.lists(st.floats(0.01, 100), min_size=len(QUERY), max_size=len(QUERY)))
def test_the_length_of_a_row_does_not_matter(lengths: list[float]) -> None:
    fitted = get("mds++").fit(reference=(FEATURES, LOGITS, LABELS))
    scaled = QUERY * np.array(lengths, np.float32)[:, None]
    np.testing.assert_allclose(fitted.score(features=scaled), fitted.score(features=QUERY), rtol=1e-3, atol=1e-3)
