"""The fused pass against float64 numpy, scipy and scikit-learn; and its promises: any block size, any threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, logsumexp, softmax
from scipy.stats import entropy
from sklearn.metrics import top_k_accuracy_score

from analyze.kernels import statistics as k
from analyze.kernels.statistics import RowStatistics, image_statistics
from closerlook_common.errors import UserError


def numpy_twin(logits, temperature=1.0, gen=(100, 0.1)):
    """The same statistics in float64, row by row as a textbook has them."""
    z = logits.astype(np.float64) / temperature
    p = softmax(z, axis=1)
    ordered = -np.sort(-p, axis=1)
    # 1 - p as the sum of the others: exact where p rounds to 1.
    order = np.argsort(-p, axis=1, kind="stable")[:, : gen[0]]
    rest = np.stack([np.delete(row, 0).sum() for row in -np.sort(-p, axis=1)])
    largest = np.take_along_axis(p, order, axis=1)
    others = 1.0 - largest
    others[:, 0] = rest
    return {
        k.CONFIDENCE: ordered[:, 0],
        k.LOG_SUM_EXP: logsumexp(z, axis=1),
        k.ENTROPY: entropy(p, axis=1),
        k.SUM_SQUARES: (p**2).sum(axis=1),
        k.MARGIN: ordered[:, 0] - (ordered[:, 1] if p.shape[1] > 1 else 0.0),
        "gen": ((largest * others) ** gen[1]).sum(axis=1),
    }


def centred(rng, n, n_classes, spread=2.5, peak=0.0):
    logits = rng.normal(0, spread, (n, n_classes))
    logits[np.arange(n), rng.integers(0, n_classes, n)] += peak
    logits = logits.astype(np.float32)
    centers = logits.max(axis=1)
    return (logits - centers[:, None]).astype(np.float16), centers


@pytest.mark.parametrize(
    ("n", "n_classes", "spread", "peak"),
    [
        (50, 1000, 2.5, 8.0),
        (50, 1000, 0.02, 0.0),
        (40, 1000, 6.0, 60.0),
        (30, 200, 3.0, 2.0),
        (3, 7, 1.0, 0.0),
        (2, 2, 1.0, 0.0),
        (1, 1, 1.0, 0.0),
        (5, 129, 1.0, 30.0),
    ],
)
@pytest.mark.parametrize("half", [True, False])
def test_statistics_equal_the_numpy_twin(n, n_classes, spread, peak, half):
    rng = np.random.default_rng(n_classes)
    logits, centers = centred(rng, n, n_classes, spread, peak)
    values = logits if half else logits.astype(np.float32)
    temperatures = (1.0, 0.37, 50.0)
    got = image_statistics(values, centers=centers, temperatures=temperatures)
    for i, temperature in enumerate(temperatures):
        want = numpy_twin(logits, temperature)
        for name in (k.CONFIDENCE, k.ENTROPY, k.SUM_SQUARES, k.MARGIN):
            np.testing.assert_allclose(got.scaled[i, name], want[name], rtol=2e-5, atol=2e-6)
        lse = want[k.LOG_SUM_EXP] + centers.astype(np.float64) / temperature
        np.testing.assert_allclose(got.scaled[i, k.LOG_SUM_EXP], lse, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(got.fixed[k.GEN], numpy_twin(logits)["gen"], rtol=2e-4, atol=1e-3)
    np.testing.assert_array_equal(got.fixed[k.MAX_LOGIT], centers)


def test_label_columns_equal_scipy_and_scikit_learn():
    rng = np.random.default_rng(3)
    logits, centers = centred(rng, 400, 50, 1.0, 2.0)
    labels = rng.integers(0, 50, 400)
    got = image_statistics(logits, centers=centers, labels=labels)
    want = log_softmax(logits.astype(np.float64), axis=1)[np.arange(400), labels]
    np.testing.assert_allclose(got.scaled[0, k.LABEL_LOG_PROBABILITY], want, rtol=1e-6, atol=1e-6)
    for top in (1, 5):
        expected = top_k_accuracy_score(labels, logits.astype(np.float64), k=top, labels=np.arange(50))
        assert (got.rank < top).mean() == expected


@given(
    arrays(np.float16, st.tuples(st.integers(1, 6), st.integers(1, 300)), elements=st.sampled_from([0, -1, -2, -3.5]))
)
@settings(max_examples=60)
def test_ties_are_ordered_by_place(logits):
    labels = np.arange(len(logits)) % logits.shape[1]
    got = image_statistics(logits, labels=labels, gen=None)
    order = np.argsort(-logits.astype(np.float64), axis=1, kind="stable")
    want = np.full((len(logits), k.TOP), -1)
    want[:, : min(k.TOP, logits.shape[1])] = order[:, : k.TOP]
    np.testing.assert_array_equal(got.top.T, want)
    np.testing.assert_array_equal(got.rank, (order == labels[:, None]).argmax(axis=1))


@given(
    arrays(np.float16, st.tuples(st.integers(1, 4), st.integers(2, 260)), elements=st.sampled_from([0, -1, -2, -7])),
    st.integers(1, 300),
)
@settings(max_examples=60)
def test_gen_with_many_ties_at_its_last_place(logits, largest):
    logits[:, 0] = 3  # one class leads: 1 - p is then exact in float64 as well
    got = image_statistics(logits, gen=(largest, 0.3))
    p = softmax(logits.astype(np.float64), axis=1)
    ordered = -np.sort(-p, axis=1)
    want = ((ordered * (1 - ordered)) ** 0.3)[:, :largest].sum(axis=1)
    np.testing.assert_allclose(got.fixed[k.GEN], want, rtol=2e-4)


@pytest.mark.parametrize("gamma", [0.01, 0.1, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("largest", [1, 3, 5, 6, 10, 100, 999, 1000, 5000])
@pytest.mark.parametrize("spread", [0.02, 2.5, 6.0])
def test_gen_of_any_size_and_exponent(gamma, largest, spread):
    rng = np.random.default_rng(largest)
    logits, _ = centred(rng, 20, 1000, spread, 2.0)
    got = image_statistics(logits, gen=(largest, gamma))
    want = numpy_twin(logits, gen=(largest, gamma))["gen"]
    np.testing.assert_allclose(got.fixed[k.GEN], want, rtol=2e-5, atol=1e-6)


def test_no_bit_depends_on_blocks_or_threads():
    rng = np.random.default_rng(5)
    logits, centers = centred(rng, 301, 130, 2.0, 5.0)
    labels = rng.integers(0, 130, 301)
    temperatures = (1.0, 0.5)
    whole = image_statistics(logits, centers=centers, labels=labels, temperatures=temperatures)
    for rows, threads in ((1, 1), (7, 1), (64, 3), (301, 4)):
        parts = RowStatistics.empty(301, 2)
        for start in range(0, 301, rows):
            here = slice(start, start + rows)
            image_statistics(
                logits[here],
                centers=centers[here],
                labels=labels[here],
                temperatures=temperatures,
                out=parts,
                offset=start,
                threads=threads,
            )
        for name in ("fixed", "scaled", "top", "rank"):
            assert np.array_equal(getattr(parts, name), getattr(whole, name), equal_nan=True), (rows, name)


def test_a_row_whose_top_is_not_zero_is_right_too():
    """Logits centred on a subset: other classes may lie above 0."""
    rng = np.random.default_rng(6)
    logits = rng.normal(0, 3, (20, 64)).astype(np.float16) + np.float16(9)
    got = image_statistics(logits)
    want = numpy_twin(logits)
    np.testing.assert_allclose(got.scaled[0, k.CONFIDENCE], want[k.CONFIDENCE], rtol=1e-5)
    np.testing.assert_allclose(got.scaled[0, k.LOG_SUM_EXP], want[k.LOG_SUM_EXP], rtol=1e-6)


def test_minus_infinity_is_a_class_that_cannot_win():
    logits = np.array([[0.0, -np.inf, -1.0]], np.float16)
    got = image_statistics(logits, labels=np.array([1]))
    assert got.scaled[0, k.LABEL_LOG_PROBABILITY, 0] == -np.inf
    assert got.rank[0] == 2
    np.testing.assert_allclose(got.scaled[0, k.CONFIDENCE, 0], 1 / (1 + np.exp(-1)), rtol=1e-6)
    np.testing.assert_allclose(got.scaled[0, k.ENTROPY, 0], entropy(softmax([0, -1.0])), rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_nan_and_infinity_are_refused_with_the_row_named(bad, dtype):
    logits = np.zeros((9, 4), dtype)
    logits[6, 2] = bad
    with pytest.raises(UserError, match="row 6"):
        image_statistics(logits, threads=2)
    valid = np.ones(9, bool)
    valid[6] = False
    got = image_statistics(logits, valid=valid)
    assert np.isnan(got.scaled[0, k.CONFIDENCE, 6])
    assert np.isfinite(np.delete(got.scaled[0, k.CONFIDENCE], 6)).all()


def test_a_label_that_is_no_class_and_a_bad_temperature_are_refused():
    with pytest.raises(UserError, match="row 1: label 4"):
        image_statistics(np.zeros((2, 4), np.float16), labels=np.array([0, 4]))
    with pytest.raises(UserError, match="temperatures"):
        image_statistics(np.zeros((2, 4), np.float16), temperatures=(1.0, 0.0))


def test_saturated_rows_keep_what_is_left_over():
    """Confidence rounds to 1, but GEN and the entropy still rank the rows."""
    logits = np.zeros((3, 1000), np.float16)
    logits[:, 1:] = np.array([[-30.0], [-40.0], [-50.0]])
    got = image_statistics(logits)
    assert (got.scaled[0, k.CONFIDENCE] == 1.0).all()
    assert (np.diff(got.fixed[k.GEN]) < 0).all()
    assert (np.diff(got.scaled[0, k.ENTROPY]) < 0).all()
    np.testing.assert_allclose(got.fixed[k.GEN], numpy_twin(logits)["gen"], rtol=1e-3)


@given(
    arrays(np.float16, st.tuples(st.integers(1, 5), st.integers(2, 140)), elements=st.integers(-30, 0)),
    st.randoms(use_true_random=False),
)
@settings(max_examples=40)
def test_statistics_do_not_depend_on_the_order_of_classes(logits, random):
    order = list(range(logits.shape[1]))
    random.shuffle(order)
    one, other = image_statistics(logits), image_statistics(np.ascontiguousarray(logits[:, order]))
    for name in (k.CONFIDENCE, k.ENTROPY, k.SUM_SQUARES, k.MARGIN):
        np.testing.assert_allclose(one.scaled[0, name], other.scaled[0, name], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one.fixed[k.GEN], other.fixed[k.GEN], rtol=1e-4, atol=1e-5)


def test_a_first_compilation_is_stated_and_a_later_run_is_silent(tmp_path):
    """In processes of their own, with a folder of compiled kernels that is empty at first."""
    import os
    import subprocess
    import sys

    script = (
        "from closerlook_common.console import waiting as w; w.AFTER_SECONDS = 0.05\n"
        "import numpy as np\n"
        "from analyze.metrics import smooth_calibration_error\n"
        "with w.printing(): smooth_calibration_error(np.linspace(0, 1, 90), np.arange(90) % 2 == 0)\n"
    )
    parts = [
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stderr
        for _ in range(2)
    ]
    assert parts == ["compiling the numerical kernels, which are kept for later runs on this machine ...\n", ""]
