"""What must not change a score, what must be refused, and what the detectors say of themselves."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analyze import metrics
from analyze.detectors import DETECTORS, Head, Reference, defaults, get, names, requirements, score_all, sweep
from analyze.detectors.products import Right, multiply
from analyze.detectors.rows import TILE
from closerlook_common.errors import UserError

C, D = 9, 24
NEGATIVES = np.random.default_rng(9).normal(size=(40, D)).astype(np.float32)


class World:
    def __init__(self, seed: int = 1, n_query: int = TILE + 300) -> None:
        rng = np.random.default_rng(seed)
        self.weight = rng.normal(size=(C, D)).astype(np.float32)
        self.bias = rng.normal(size=C).astype(np.float32)
        self.labels = rng.integers(0, C, 500)
        self.features = np.maximum(0.3 * self.weight[self.labels] + rng.normal(size=(500, D)) + 0.5, 0).astype("f4")
        self.query = np.maximum(rng.normal(size=(n_query, D)) + 0.5, 0).astype("f4")

    def logits(self, f: np.ndarray) -> np.ndarray:
        return (f @ self.weight.T + self.bias).astype(np.float32)

    @property
    def fit(self) -> dict[str, Any]:
        z = self.logits(self.features)
        return {
            "reference": Reference.from_arrays(self.features, z, self.labels),
            "head": (self.weight, self.bias),
            "validation": (self.features, z, self.labels),
            "negatives": NEGATIVES,
        }


def patches_of(z: np.ndarray) -> np.ndarray:
    """Return scores of best patches that go with rows of logits."""
    return (1 / np.exp(0.01 * (z - z.max(axis=1, keepdims=True))).sum(axis=1)).astype(np.float32)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def fitted(world: World) -> dict[str, Any]:
    given_ = world.fit
    return {name: get(name).fit(**given_) for name in names()}


@pytest.mark.parametrize("name", names())
def test_scores_do_not_depend_on_blocks_or_order(world: World, fitted: dict[str, Any], name: str) -> None:
    detector, f, z = fitted[name], world.query, world.logits(world.query)
    p = patches_of(z)
    whole = detector.score(features=f, logits=z, patch_scores=p)
    assert whole.dtype == np.float32
    assert whole.shape == (len(f),)
    assert np.isfinite(whole).all()
    bounds = [0, 1, 2, 9, 200, 201, TILE, TILE + 17, len(f)]
    parts = [detector.score(features=f[a:b], logits=z[a:b], patch_scores=p[a:b]) for a, b in itertools.pairwise(bounds)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    order = np.random.default_rng(0).permutation(len(f))
    moved = detector.score(features=f[order], logits=z[order], patch_scores=p[order])
    np.testing.assert_array_equal(moved, whole[order])
    strided = np.asfortranarray(f)
    again = detector.score(features=strided, logits=z[:, ::-1][:, ::-1], patch_scores=p[::-1][::-1])
    np.testing.assert_array_equal(again, whole)


def test_together_is_the_same_as_one_by_one(world: World, fitted: dict[str, Any]) -> None:
    f, z = world.query, world.logits(world.query)
    given_ = {"features": f, "logits": z, "patch_scores": patches_of(z)}
    together = score_all(list(fitted.values()), **given_)
    for detector, scores in zip(fitted.values(), together, strict=True):
        np.testing.assert_array_equal(scores, detector.score(**given_), err_msg=detector.name)


@pytest.mark.parametrize("name", names())
def test_a_bad_row_is_nan_and_spoils_no_other(world: World, fitted: dict[str, Any], name: str) -> None:
    f, z = world.query[:50].copy(), world.logits(world.query[:50])
    p = patches_of(z)
    whole = fitted[name].score(features=f, logits=z, patch_scores=p)
    f[7], z[7], p[7] = np.nan, np.nan, np.nan
    spoilt = fitted[name].score(features=f, logits=z, patch_scores=p)
    rest = np.arange(50) != 7
    np.testing.assert_array_equal(spoilt[rest], whole[rest])
    assert np.isnan(spoilt[7])


@pytest.mark.parametrize("name", [n for n in names() if n not in ("neglabel",)])
def test_invariant_to_the_order_of_classes(world: World, fitted: dict[str, Any], name: str) -> None:
    order = np.random.default_rng(2).permutation(C)
    place = np.argsort(order)
    z = world.logits(world.features)
    moved = get(name).fit(
        reference=Reference.from_arrays(world.features, z[:, order], place[world.labels]),
        head=(world.weight[order], world.bias[order]),
        validation=(world.features, z[:, order], place[world.labels]),
        negatives=NEGATIVES,
    )
    f = world.query[:200]
    z = world.logits(f)
    a = fitted[name].score(features=f, logits=z, patch_scores=patches_of(z))
    b = moved.score(features=f, logits=z[:, order], patch_scores=patches_of(z))
    if name == "cfood":  # its reference is the first rows of each class, class by class, and the last round is cut
        assert np.corrcoef(a, b)[0, 1] > 0.7
    else:
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-4 * float(np.abs(a).max()))


@pytest.mark.parametrize("name", ["mds", "rmds"])
def test_mahalanobis_is_invariant_to_affine_maps(world: World, name: str) -> None:
    rng = np.random.default_rng(5)
    matrix, shift = rng.normal(size=(D, D)) + 3 * np.eye(D), rng.normal(size=D)
    z, zeros = world.logits(world.features), world.logits(world.query[:300])
    plain = get(name).fit(reference=(world.features, z, world.labels))
    mapped = get(name).fit(reference=((world.features @ matrix + shift).astype("f4"), z, world.labels))
    a = plain.score(features=world.query[:300], logits=zeros)
    b = mapped.score(features=(world.query[:300] @ matrix + shift).astype("f4"))
    np.testing.assert_allclose(b, a, rtol=2e-3, atol=2e-3 * float(np.abs(a).max()))


def test_mahalanobis_by_whitening_is_mahalanobis_by_loops_where_the_covariance_is_singular(world: World) -> None:
    rng = np.random.default_rng(5)
    f = np.concatenate([world.features, world.features[:, :3] * 2, np.ones((500, 1), "f4")], axis=1)
    q = np.concatenate([world.query[:40], world.query[:40, :3] * 2, np.ones((40, 1), "f4")], axis=1)
    fit = get("mds").fit(reference=(f, world.logits(world.features), world.labels))
    assert "4 of 28 directions" in fit.notes[0]
    means = np.stack([f[world.labels == c].mean(axis=0, dtype=np.float64) for c in range(C)])
    centred = f - means[world.labels]
    precision = np.linalg.pinv(centred.T @ centred / len(f), rcond=1e-9, hermitian=True)
    want = [-min(float((x - m) @ precision @ (x - m)) for m in means) for x in q]
    np.testing.assert_allclose(fit.score(features=q), want, rtol=1e-3)
    # classes that differ where no class varies: the background sees it, the class distance does not
    flag = (world.labels == 2).astype("f4")[:, None] * 5
    odd = np.concatenate([world.features, flag], axis=1)
    queries = np.concatenate([world.query[:40], rng.normal(size=(40, 1)).astype("f4")], axis=1)
    fit = get("rmds").fit(reference=(odd, world.logits(world.features), world.labels))
    means = np.stack([odd[world.labels == c].mean(axis=0, dtype=np.float64) for c in range(C)])
    centred = odd - means[world.labels]
    precision = np.linalg.pinv(centred.T @ centred / len(odd), rcond=1e-9, hermitian=True)
    total = np.linalg.inv(np.cov(odd.T.astype(np.float64), bias=True))
    mean = odd.mean(axis=0, dtype=np.float64)
    want = [
        float((x - mean) @ total @ (x - mean)) - min(float((x - m) @ precision @ (x - m)) for m in means)
        for x in queries
    ]
    np.testing.assert_allclose(fit.score(features=queries), want, rtol=1e-3, atol=1e-2)


def test_ill_conditioned_features_keep_their_digits(world: World) -> None:
    scales = np.logspace(0, -5, D)
    f, q = (world.features * scales).astype("f4"), (world.query[:100] * scales).astype("f4")
    a = get("mds").fit(reference=(f, world.logits(world.features), world.labels)).score(features=q)
    means = np.stack([f[world.labels == c].mean(axis=0, dtype=np.float64) for c in range(C)])
    centred = (f - means[world.labels]) / scales
    precision = np.linalg.inv(centred.T @ centred / len(f))
    want = [-min(float(((x - m) / scales) @ precision @ ((x - m) / scales)) for m in means) for x in q]
    np.testing.assert_allclose(a, want, rtol=1e-4)


def test_gradnorm_is_the_norm_of_the_gradient(world: World) -> None:
    f = world.query[0].astype(np.float64)

    def loss(weight: np.ndarray) -> float:
        z = weight @ f + world.bias
        top = z.max()
        return -float((z - top - np.log(np.exp(z - top).sum())).sum())

    gradient, step = 0.0, 1e-5
    base = world.weight.astype(np.float64)
    for c in range(C):
        for d in range(D):
            moved = base.copy()
            moved[c, d] += step
            up = loss(moved)
            moved[c, d] -= 2 * step
            gradient += abs(up - loss(moved)) / (2 * step)
    got = get("gradnorm").fit().score(features=world.query[:1], logits=world.logits(world.query[:1]))
    assert got[0] == pytest.approx(gradient, rel=1e-4)


def test_confident_rows_keep_what_a_softmax_rounds_away() -> None:
    z = np.zeros((3, 50), np.float32)
    z[:, 0] = (30.0, 40.0, 50.0)
    rest = 49 * np.exp(-z[:, 0].astype(np.float64))
    gen = get("gen", gamma=0.1, m=1).fit().score(logits=z)
    np.testing.assert_allclose(gen, -(rest**0.1), rtol=1e-4)
    entropy = get("entropy").fit().score(logits=z)
    np.testing.assert_allclose(entropy, -(rest * z[:, 0] + rest), rtol=1e-4)


@settings(max_examples=60)
@given(
    z=arrays(np.float32, (5, 6), elements=st.floats(-60, 60, width=32)),
    shift=st.integers(-64, 64),
)
def test_probability_scores_do_not_see_a_constant_and_energy_moves_by_it(z: np.ndarray, shift: int) -> None:
    moved = (z + np.float32(shift)).astype(np.float32)
    exact = np.all((moved - np.float32(shift)) == z)
    for name in ("msp", "entropy", "variance", "margin", "gen"):
        a, b = get(name).fit().score(logits=z), get(name).fit().score(logits=moved)
        np.testing.assert_allclose(b, a, rtol=1e-3 if not exact else 1e-5, atol=1e-5)
    a, b = get("energy").fit().score(logits=z), get("energy").fit().score(logits=moved)
    np.testing.assert_allclose(b - shift, a, atol=1e-4)
    assert (get("msp").fit().score(logits=z) >= 1 / 6 - 1e-6).all()
    assert (get("energy").fit().score(logits=z) >= z.max(axis=1)).all()


@settings(max_examples=40)
@given(
    n=st.integers(1, 40),
    k=st.integers(1, 900),
    m=st.integers(1, 70),
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from([np.float32, np.float64]),
)
def test_products_are_right_and_reproducible(n: int, k: int, m: int, seed: int, kind: Any) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(n, k)).astype(kind), rng.normal(size=(k, m)).astype(kind)
    prepared = Right.of(right)
    got = multiply(left, prepared)
    assert got.dtype == kind
    exact = left.astype(np.float64) @ right.astype(np.float64)
    scale = np.abs(left).astype(np.float64) @ np.abs(right).astype(np.float64)
    assert (np.abs(got - exact) <= k * np.finfo(kind).eps * scale + 1e-30).all()
    for i in (0, n - 1):
        np.testing.assert_array_equal(multiply(left[i : i + 1], prepared)[0], got[i])


@settings(max_examples=30)
@given(
    rows=arrays(np.float32, (30, 4), elements=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0])),
    k=st.integers(1, 12),
)
def test_knn_with_ties_is_the_sorted_distance(rows: np.ndarray, k: int) -> None:
    z = np.zeros((30, 2), np.float32)
    got = get("knn", k=k).fit(reference=(rows, z, np.zeros(30, int))).score(features=rows)
    length = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    u = rows / np.where(length > 0, length, 1)
    want = np.sort(np.linalg.norm(u[:, None] - u[None], axis=2), axis=1)[:, k - 1]
    np.testing.assert_allclose(-got, want, atol=2e-3)


def test_smaller_banks_cost_little_and_say_so(world: World) -> None:
    given_ = world.fit
    q = world.query[:400]
    exact = get("knn", k=10).fit(**given_).score(features=q)
    half = get("knn", k=10, half=True).fit(**given_)
    np.testing.assert_allclose(half.score(features=q), exact, atol=2e-3)
    full = get("knn", k=10, pca=D).fit(**given_)
    np.testing.assert_allclose(full.score(features=q), exact, atol=1e-4)
    some = get("knn", k=10, pca=D // 2).fit(**given_).score(features=q)
    assert (some >= exact - 1e-4).all()  # a projection brings points together
    # features of rank 6 in other coordinates: six components are all there is
    turn = np.random.default_rng(0).normal(size=(6, D))
    rows, asked = (world.features[:, :6] - 1) @ turn, (q[:, :6] - 1) @ turn
    flat = {"reference": (rows, world.logits(world.features), world.labels)}
    a, b = (get("knn", k=10, pca=p).fit(**flat).score(features=asked) for p in (6, None))
    np.testing.assert_allclose(a, b, atol=1e-4)
    few = get("knn", k=3, per_class=10).fit(**given_)
    assert few.notes == (f"bank of {10 * C} rows",)


def test_zero_shot_heads_work_on_unit_features(world: World) -> None:
    text = world.weight / np.linalg.norm(world.weight, axis=1, keepdims=True)
    head = Head(text * np.float32(20), np.zeros(C, np.float32), normalize=True, scale=20.0)
    unit = world.features / np.linalg.norm(world.features, axis=1, keepdims=True)
    z = unit @ text.T * np.float32(20)
    raw = Reference.from_arrays(world.features, z, world.labels)
    query = world.query[:100]
    u = query / np.linalg.norm(query, axis=1, keepdims=True)
    zq = u @ text.T * np.float32(20)
    plain = {"reference": Reference.from_arrays(unit, z, world.labels), "head": (head.weight, head.bias)}
    for name in ("react", "dice", "vim", "ash_s", "nci", "fdbd"):
        a = get(name).fit(reference=raw, head=head).score(features=query, logits=zq)
        b = get(name).fit(**plain).score(features=u, logits=zq)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4, err_msg=name)
    cosines = get("mcm", tau=0.5).fit(head=head).score(logits=zq)
    want = np.exp(2 * zq / 20).max(axis=1) / np.exp(2 * zq / 20).sum(axis=1)
    np.testing.assert_allclose(cosines, want, rtol=1e-5)
    np.testing.assert_allclose(get("mcm", tau=0.5, scale=20).fit().score(logits=zq), want, rtol=1e-5)
    few = Reference.from_arrays(world.features, z, world.labels, per_class=5)
    with pytest.raises(UserError, match="at their own length"):
        get("vim").fit(reference=few, head=head)


def test_summaries_are_enough_for_all_but_the_neighbours(world: World) -> None:
    """A reference whose bank is a part of the training set gives the same scores wherever no bank is named."""
    z = world.logits(world.features)
    whole = Reference.from_arrays(world.features, z, world.labels)
    small = Reference.from_arrays(world.features, z, world.labels, per_class=12)
    assert len(small.bank_labels) == 12 * C
    query = world.query[:100]
    for name in ("klm", "dice", "she", "nci", "fdbd", "mds", "rmds", "residual"):
        a, b = (
            get(name)
            .fit(reference=r, head=(world.weight, world.bias))
            .score(features=query, logits=world.logits(query))
            for r in (whole, small)
        )
        np.testing.assert_array_equal(a, b, err_msg=name)
    a, b = (get("vim").fit(reference=r, head=(world.weight, world.bias)).score(features=query) for r in (whole, small))
    assert np.corrcoef(a, b)[0, 1] > 0.99


def test_they_tell_in_from_out() -> None:
    """On well-separated data every detector that should does better than chance."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(C, D)).astype("f4")
    bias = np.zeros(C, np.float32)
    y = rng.integers(0, C, 900)
    f = np.maximum(2 * weight[y] + rng.normal(size=(900, D)), 0).astype("f4")
    train, inside, outside = f[:600], f[600:], np.maximum(rng.normal(size=(300, D)), 0).astype("f4")
    z = train @ weight.T + bias
    given_ = {"reference": (train, z, y[:600]), "head": (weight, bias), "validation": (train, z, y[:600])}
    for name in set(names()) - {
        "tempscale",
        "neglabel",
        "vra",
        "mcm",
        "l-mcm",
        "gl-mcm",
        "residual",
    }:  # noise of full rank has no residual
        fit = get(name).fit(**given_)
        scores = [fit.score(features=x, logits=x @ weight.T + bias) for x in (inside, outside)]
        assert metrics.auroc(*scores) > 0.6, name


def test_registry() -> None:
    assert set(names()) == set(DETECTORS)
    assert defaults("openood")["knn"]["k"] == 50
    assert defaults("paper")["ash_b"] != defaults("openood")["ash_b"]
    for name in names():
        assert DETECTORS[name].__doc__
        for values in defaults("paper")[name], defaults()[name]:
            get(name, **values)
        for option, tried in sweep(name).items():
            for value in tried:
                get(name, **{option: value})
        needs = requirements(name)
        assert needs.logits or needs.features or needs.patches


@pytest.mark.parametrize(
    ("make", "printed"),
    [
        (lambda: get("knnn"), "did you mean knn"),
        (lambda: get("knn", kk=3), "did you mean k"),
        (lambda: get("msp", k=3), "it has none"),
        (lambda: get("react", percentile=101), "percentile"),
        (lambda: get("gen", defaults="papers"), "did you mean paper"),
        (lambda: get("react").fit(reference=None, validation=None, head=None), "needs a head"),
        (lambda: get("knn").fit(), "needs a reference store"),
        (lambda: get("mds").fit(reference=(np.zeros((2, 3)), np.zeros((3, 2)), np.zeros(2, int))), "got"),
        (lambda: get("msp").fit().score(features=np.zeros((2, 3))), "msp scores logits"),
        (lambda: get("msp").fit().score(logits=np.zeros(3)), r"logits must have 2 dimension\(s\)"),
        (
            lambda: get("l-mcm", tau=0.5),
            "tau=0.5 cannot be answered: stores have the best patch at tau=1",
        ),
        (lambda: get("gl-mcm", weight=0), "weight=0"),
        (lambda: get("l-mcm").fit().score(logits=np.zeros((2, 3))), r"give score\(patch_scores=...\)"),
        (lambda: get("msp").fit().score(patch_scores=np.zeros(2)), "msp scores logits"),
        (lambda: get("mcm").fit().score(logits=np.full((1, 3), 30.0)), "not cosines"),
        (lambda: get("knn", k=5).fit(reference=(np.eye(3), np.eye(3), np.arange(3))), "more than the 3 rows"),
        (
            lambda: get("vim", dim=3).fit(reference=(np.eye(3), np.eye(3), np.arange(3)), head=(np.eye(3), None)),
            "dim=3",
        ),
    ],
)
def test_bad_input_is_answered(make: Any, printed: str) -> None:
    with pytest.raises(UserError, match=printed):
        make()


def test_non_affine_heads_answer_with_the_reason(world: World) -> None:
    class Bent:
        weight, bias, affine, residual = world.weight, world.bias, False, 0.25

    for name in (n for n in names() if requirements(n).head):
        with pytest.raises(UserError, match="not affine"):
            get(name).fit(**(world.fit | {"head": Bent()}))
    assert get("mds").fit(**(world.fit | {"head": Bent()})).head is None
