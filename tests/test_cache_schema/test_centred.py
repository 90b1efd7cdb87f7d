"""The centred encoding: what SPEC.md promises of it, over any shape and values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cache_schema.format.centred import decode, encode, kept_classes
from closerlook_common.errors import UserError

FLOATS = st.one_of(
    st.floats(-50, 50, width=32),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, 1.0 + 2**-23, 1e-45, -1e-45, 3.4e38, -3.4e38, 65504.0, -65520.0, 2.0**-25]),
    st.just(-np.inf),
)
ROWS = hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 7)), elements=FLOATS).filter(
    lambda rows: bool(np.isfinite(rows).any(axis=1).all())
)


@given(ROWS)
@settings(max_examples=400)
def test_top_ties_order_and_infinities(rows: np.ndarray) -> None:
    coded, centers = encode(rows)
    assert coded.dtype == np.float16
    assert centers.dtype == np.float32
    np.testing.assert_array_equal(centers, rows.max(axis=1))
    assert (coded.max(axis=1) == 0).all()
    assert not np.signbit(coded[coded == 0]).any()
    # The arg-max never changes, and exactly the classes that tied for the top still do.
    np.testing.assert_array_equal(coded.argmax(axis=1), rows.argmax(axis=1))
    np.testing.assert_array_equal(coded == 0, rows == rows.max(axis=1, keepdims=True))
    # Equal stays equal, order is kept.
    for before, after in zip(rows, coded, strict=True):
        order = np.argsort(before, kind="stable")
        assert (np.diff(after[order].astype(np.float64)[np.isfinite(after[order])]) >= 0).all()
        for value in np.unique(before):
            assert len(np.unique(after[before == value])) == 1
    # Minus infinity stays, and nothing finite becomes infinite.
    np.testing.assert_array_equal(np.isneginf(coded), np.isneginf(rows))
    # Decoded in float32 the top keeps its place, as long as float32 distinguishes a centre from itself - 65504.
    usual = np.abs(centers) < 2.0**39
    np.testing.assert_array_equal(decode(coded, centers).argmax(axis=1)[usual], rows.argmax(axis=1)[usual])


@given(hnp.arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=st.floats(-1e4, 1e4, width=32)))
def test_error_is_half_an_ulp_of_the_distance_from_the_top(rows: np.ndarray) -> None:
    """Against an oracle in float64; also for probabilities, which is what the metrics see."""
    coded, centers = encode(rows)
    distance = rows.max(axis=1, keepdims=True).astype(np.float64) - rows
    error = np.abs(-coded.astype(np.float64) - distance)
    # float16 has 11 significant bits; below 2**-14 it is subnormal, in steps of 2**-24. The subtraction
    # is in float32.
    assert (error <= distance * (2.0**-11 + 2.0**-23) + 2.0**-24).all()
    decoded = decode(coded, centers).astype(np.float64)
    # The sum rounds at its own size, which is above the logit's where that is tiny.
    size = np.maximum(np.abs(rows), np.abs(decoded).astype(np.float32))
    rounding = np.spacing(size).astype(np.float64) + distance * 2.0**-23
    assert (np.abs(decoded - rows) <= error + rounding).all()
    exact = np.exp(-distance)
    exact /= exact.sum(axis=1, keepdims=True)
    stored = np.exp(coded.astype(np.float64))
    stored /= stored.sum(axis=1, keepdims=True)
    assert np.abs(stored - exact).max() <= 4e-4


@given(ROWS, st.data())
def test_the_top_of_a_subset_is_exact(rows: np.ndarray, data: st.DataObject) -> None:
    members = np.array(sorted(data.draw(st.sets(st.integers(0, rows.shape[1] - 1), min_size=1))))
    if not np.isfinite(rows[:, members]).any(axis=1).all():
        with pytest.raises(UserError, match="no finite logit among the classes that count"):
            encode(rows, members)
        return
    coded, centers = encode(rows, members)
    np.testing.assert_array_equal(centers, rows[:, members].max(axis=1))
    np.testing.assert_array_equal(coded[:, members].argmax(axis=1), rows[:, members].argmax(axis=1))
    assert np.isfinite(coded[np.isfinite(rows)]).all()


def test_plain_float16_would_flip_predictions_where_the_centred_form_does_not() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.normal(size=(20_000, 50)) * 1.5 + 20).astype(np.float32)
    assert (rows.astype(np.float16).argmax(axis=1) != rows.argmax(axis=1)).any()
    assert (encode(rows).logits.argmax(axis=1) == rows.argmax(axis=1)).all()


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ([0.0, np.inf, 1.0], r"row 12 holds a logit of \+inf"),
        ([0.0, np.nan, 1.0], "row 12 holds NaN among numbers"),
        ([-np.inf, -np.inf, -np.inf], "row 12 has no finite logit"),
    ],
)
def test_what_cannot_be_encoded_is_named(row: list[float], what: str) -> None:
    rows = np.array([[1.0, 2.0, 3.0], row], np.float32)
    with pytest.raises(UserError, match=what):
        encode(rows, first_row=11)


def test_rows_of_nan_stay_nan() -> None:
    coded, centers = encode(np.array([[np.nan, np.nan], [1, 2]], np.float32))
    assert np.isnan(coded[0]).all()
    assert np.isnan(centers[0])
    np.testing.assert_array_equal(coded[1], [-1, 0])


def test_double_logits_are_rounded_to_float32_first() -> None:
    rows = np.array([[1.0, 1.0 + 1e-12]])
    assert (encode(rows).logits == 0).all()
    with pytest.raises(UserError, match=r"\+inf"):
        encode(np.array([[1e300, 0.0]]))


def test_kept_classes() -> None:
    assert kept_classes(None, None) is None
    np.testing.assert_array_equal(kept_classes((5, 1), None), [1, 5])
    np.testing.assert_array_equal(kept_classes(None, ((3, 1), (2,))), [1, 2, 3])
    np.testing.assert_array_equal(kept_classes((1, 3), ((3, 1), (2,))), [1, 3])
