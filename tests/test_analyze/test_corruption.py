"""Corruption errors against a loop over severities, and the rows of a cache of ImageNet-C."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cache_schema
from analyze.cli import main
from analyze.metrics.corruption import ALEXNET_ERRORS, corruption_error, mean_corruption_error
from cache_schema.format.records import DatasetCard, ModelCard
from closerlook_common.errors import UserError

FRACTIONS = st.lists(st.floats(0, 1), min_size=5, max_size=5)


@given(st.fixed_dictionaries(dict.fromkeys(ALEXNET_ERRORS, FRACTIONS)), st.permutations(sorted(ALEXNET_ERRORS)))
def test_mean_equals_a_loop_and_order_does_not_count(errors: dict[str, list[float]], order: list[str]) -> None:
    total = 0.0
    for name, printed in ALEXNET_ERRORS.items():
        ours = theirs = 0.0
        for severity in range(5):
            ours += errors[name][severity]
            theirs += printed
        total += ours / theirs
    shuffled = {name: errors[name][::-1] for name in order} | {"speckle_noise": [1.0] * 5}
    assert mean_corruption_error(shuffled) == pytest.approx(total / 15, abs=1e-12)


def test_the_baseline_is_one_and_no_error_is_zero() -> None:
    assert mean_corruption_error({name: [printed] * 5 for name, printed in ALEXNET_ERRORS.items()}) == pytest.approx(1)
    assert corruption_error([0] * 5, 0.5) == 0
    assert len(ALEXNET_ERRORS) == 15


@pytest.mark.parametrize(
    ("errors", "baseline", "says"),
    [
        ([0.1] * 4, 0.5, "5 severities"),
        ([0.1] * 4 + [1.1], 0.5, "from 0 to 1"),
        ([0.1] * 4 + [np.nan], 0.5, "row 4 is nan"),
        ([0.1] * 5, 0.0, "above 0"),
    ],
)
def test_bad_input_is_named(errors: list[float], baseline: float, says: str) -> None:
    with pytest.raises(UserError, match=says):
        corruption_error(errors, baseline)
    with pytest.raises(UserError, match="missing: shot_noise"):
        mean_corruption_error({name: [0.1] * 5 for name in ALEXNET_ERRORS if name != "shot_noise"})


def _cache(path: Path, *, leave_out: tuple[str, ...] = ()) -> dict[str, list[float]]:
    """Write a model on every corruption and severity, and return its errors."""
    rng = np.random.default_rng(3)
    errors: dict[str, list[float]] = {}
    for corruption in (*ALEXNET_ERRORS, "spatter"):
        for severity in range(1, 6):
            name = f"imagenet-c-{corruption}-{severity}"
            if name in leave_out:
                continue
            labels = rng.integers(0, 4, 40)
            logits = rng.normal(size=(40, 4)).astype(np.float32)
            logits[np.arange(40), labels] += 2.5 / severity
            errors.setdefault(corruption, []).append(float((logits.argmax(1) != labels).mean()))
            card = DatasetCard(id=name, role="shift", class_space="four", n_classes=4, shift_of="imagenet-val")
            model = ModelCard(id="net", head_kind="linear")
            cache_schema.write_store(path, model=model, dataset=card, logits=logits, labels=labels)
    return errors


def rows_of(path: Path, out: Path) -> pl.DataFrame:
    assert main(["metrics", str(path), "-o", str(out), "--only", "corruption"]) == 0
    return pl.read_parquet(out).filter(pl.col("metric").str.contains("corruption_error"))


def test_rows_of_a_cache(tmp_path: Path) -> None:
    errors = _cache(tmp_path / "cache")
    rows = rows_of(tmp_path / "cache", tmp_path / "r.parquet")
    (mean,) = rows.filter(pl.col("metric") == "mean_corruption_error").iter_rows(named=True)
    assert mean["dataset"] == "imagenet-c"
    assert mean["direction"] == "lower"
    assert mean["n"] == 15 * 5 * 40
    assert mean["value"] == pytest.approx(
        np.mean([np.mean(errors[c]) / printed for c, printed in ALEXNET_ERRORS.items()])
    )
    each = {row["subset"]: row["value"] for row in rows.iter_rows(named=True) if row["metric"] == "corruption_error"}
    assert set(each) == set(ALEXNET_ERRORS)  # 'spatter' is for validation
    assert each["fog"] == pytest.approx(np.mean(errors["fog"]) / ALEXNET_ERRORS["fog"])


def test_a_missing_severity_takes_the_mean_away_and_says_so(tmp_path: Path) -> None:
    _cache(tmp_path / "cache", leave_out=("imagenet-c-fog-3",))
    rows = rows_of(tmp_path / "cache", tmp_path / "r.parquet")
    (mean,) = rows.filter(pl.col("metric") == "mean_corruption_error").iter_rows(named=True)
    assert mean["value"] is None
    assert "missing: fog" in mean["reason"]
    (fog,) = rows.filter(pl.col("subset") == "fog").iter_rows(named=True)
    assert fog["reason"] == "no store of severity 3 of fog"
