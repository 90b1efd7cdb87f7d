"""Every detector against its formula, written out row by row in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from scipy.stats import exponweib, multivariate_normal

from analyze.detectors import DETECTORS, Reference, get
from analyze.detectors.openmax import TRANSLATION, fit_tails

C, D = 7, 20


@dataclass(frozen=True)
class World:
    weight: np.ndarray
    bias: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    val: np.ndarray
    val_labels: np.ndarray
    query: np.ndarray

    def logits(self, f: np.ndarray) -> np.ndarray:
        return f @ self.weight.T + self.bias

    @property
    def fit(self) -> dict[str, Any]:
        return {
            "reference": Reference.from_arrays(self.features, self.logits(self.features), self.labels),
            "head": (self.weight, self.bias),
            "validation": (self.val, self.logits(self.val), self.val_labels),
        }


@pytest.fixture(scope="module")
def world() -> World:
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(C, D)).astype(np.float32).astype(np.float64)
    bias = rng.normal(size=C).astype(np.float32).astype(np.float64)

    def draw(n: int, pull: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
        y = rng.integers(0, C, n)
        f = np.maximum(pull * weight[y] + rng.normal(size=(n, D)) + 0.4, 0)
        return f.astype(np.float32).astype(np.float64), y

    features, labels = draw(400)
    val, val_labels = draw(150)
    query = np.concatenate([draw(30)[0], draw(30, 0.0)[0]])
    return World(weight, bias, features, labels, val, val_labels, query)


def p_of(z: np.ndarray) -> np.ndarray:
    return np.asarray(softmax(z, axis=-1))


def unit(f: np.ndarray) -> np.ndarray:
    return np.asarray(f / np.linalg.norm(f, axis=-1, keepdims=True))


def mean_of(w: World) -> np.ndarray:
    return np.asarray(w.features.mean(axis=0))


def within(w: World) -> np.ndarray:
    total = np.zeros((D, D))
    for f, y in zip(w.features, w.labels, strict=True):
        d = f - w.features[w.labels == y].mean(axis=0)
        total += np.outer(d, d)
    return total / len(w.features)


def mahalanobis(w: World, f: np.ndarray) -> float:
    precision = np.linalg.inv(within(w))
    gaps = [f - w.features[w.labels == c].mean(axis=0) for c in range(C)]
    return min(float(d @ precision @ d) for d in gaps)


def background(w: World, f: np.ndarray) -> float:
    d = f - mean_of(w)
    return float(d @ np.linalg.inv(np.cov(w.features.T, bias=True)) @ d)


def on_sphere(w: World) -> World:
    return replace(w, features=unit(w.features))


def residual(w: World, rows: np.ndarray, dim: int, f: np.ndarray) -> Any:
    u = -np.linalg.pinv(w.weight) @ w.bias
    _, vectors = np.linalg.eigh((rows - u).T @ (rows - u) / len(rows))
    return np.linalg.norm((f - u) @ vectors[:, : D - dim], axis=-1)


def vim(w: World, f: np.ndarray) -> float:
    lengths = residual(w, w.features, 8, w.features)
    alpha = w.logits(w.features).max(axis=1).mean() / lengths.mean()
    return float(logsumexp(w.logits(f)) - alpha * residual(w, w.features, 8, f))


def klm(w: World, f: np.ndarray, rows: np.ndarray) -> float:
    p, q = p_of(w.logits(f)), p_of(w.logits(rows))
    found = [
        float(np.sum(p * np.log(p / q[q.argmax(axis=1) == c].mean(axis=0))))
        for c in range(C)
        if (q.argmax(axis=1) == c).any()
    ]
    return -min(found)


def she(w: World, f: np.ndarray) -> float:
    c = int(w.logits(f).argmax())
    right = (w.labels == c) & (w.logits(w.features).argmax(axis=1) == c)
    return float(f @ w.features[right].mean(axis=0))


def fdbd(w: World, f: np.ndarray, by: str) -> float:
    z = w.logits(f)
    y = int(z.argmax())
    total = sum((z[y] - z[c]) / np.linalg.norm(w.weight[y] - w.weight[c]) for c in range(C) if c != y)
    return float(total / np.linalg.norm(f - mean_of(w) if by == "distance" else f))


def nci(w: World, f: np.ndarray, alpha: float) -> float:
    d = f - mean_of(w)
    return float(w.weight[w.logits(f).argmax()] @ d / np.linalg.norm(d) + alpha * np.abs(f).sum())


def pruned(f: np.ndarray, percentile: float) -> tuple[np.ndarray, int]:
    k = D - round(D * percentile / 100)
    kept = np.zeros(D)
    largest = np.argsort(-f, kind="stable")[:k]
    kept[largest] = f[largest]
    return kept, k


def ash_b(w: World, f: np.ndarray) -> float:
    kept, k = pruned(f, 65)
    # the k entries are set even where they are zero
    chosen = np.argsort(-f, kind="stable")[:k]
    kept[chosen] = f.sum() / k
    return float(logsumexp(w.logits(kept)))


def dice(w: World, f: np.ndarray) -> float:
    contribution = mean_of(w) * w.weight
    masked = np.where(contribution > np.percentile(contribution, 70), w.weight, 0)
    return float(logsumexp(masked @ f + w.bias))


def nnguide(w: World, f: np.ndarray) -> float:
    energy = logsumexp(w.logits(w.features), axis=1)
    similar = np.sort(unit(f) @ (unit(w.features) * energy[:, None]).T)[-10:]
    return float(logsumexp(w.logits(f)) * similar.mean())


def relation(w: World, f: np.ndarray, power: float, threshold: float) -> float:
    r = np.maximum(unit(w.features) @ unit(f), 0) * (p_of(w.logits(w.features)) @ p_of(w.logits(f)))
    return float((r[r > threshold] ** power).sum())


def pnml(w: World, f: np.ndarray) -> float:
    u = unit(w.features)
    x = unit(f) @ np.linalg.pinv(u.T @ u) @ unit(f)
    p = p_of(w.logits(unit(f)))
    g = x / (1 + x)
    return -float(np.log(np.sum(p / (p + (1 - p) * p**g))))


def gmm(w: World, f: np.ndarray) -> float:
    parts = []
    for c in range(C):
        rows = w.features[w.labels == c]
        spread = np.cov(rows.T, bias=True) + 1e-2 * np.eye(D)
        density = multivariate_normal(rows.mean(axis=0), spread)
        parts.append(np.log(len(rows) / len(w.features)) + density.logpdf(f))
    return float(logsumexp(parts))


def gmm_tied(w: World, f: np.ndarray) -> float:
    spread = within(w)
    parts = [
        np.log((w.labels == c).mean()) + multivariate_normal(w.features[w.labels == c].mean(axis=0), spread).logpdf(f)
        for c in range(C)
    ]
    return float(logsumexp(parts))


def gen(w: World, f: np.ndarray, gamma: float, m: int) -> float:
    p = np.sort(p_of(w.logits(f)))[-m:]
    return -float(np.sum(p**gamma * (1 - p) ** gamma))


def react(w: World, f: np.ndarray, rows: np.ndarray) -> float:
    return float(logsumexp(w.logits(np.minimum(f, np.percentile(rows, 90)))))


def vra(w: World, f: np.ndarray, below: str) -> float:
    low, high = np.percentile(w.val, 60), np.percentile(w.val, 95)
    return float(
        logsumexp(w.logits(np.clip(f, low, high) if below == "clip" else np.where(f < low, 0, np.minimum(f, high))))
    )


def sharp(f: np.ndarray, percentile: float) -> float:
    return float(np.exp(f.sum() / pruned(f, percentile)[0].sum()))


def lts(w: World, f: np.ndarray) -> float:
    positive = np.maximum(f, 0)
    k = max(1, D - round(D * 0.75))
    factor = (positive.sum() / np.sort(positive)[-k:].sum()) ** 2
    return float(logsumexp(w.logits(f) * factor))


def gradnorm(w: World, f: np.ndarray) -> float:
    return float(np.abs(np.outer(C * p_of(w.logits(f)) - 1, f)).sum())


def entropy(w: World, f: np.ndarray) -> float:
    p = p_of(w.logits(f))
    return float(np.sum(p * np.log(p)))


def cosines(w: World, f: np.ndarray) -> np.ndarray:
    return np.asarray(unit(w.weight) @ unit(f))


Oracle = Callable[[World, np.ndarray], float]
CASES: list[tuple[str, dict[str, Any], Oracle]] = [
    ("msp", {}, lambda w, f: p_of(w.logits(f)).max()),
    ("mls", {}, lambda w, f: w.logits(f).max()),
    ("energy", {}, lambda w, f: logsumexp(w.logits(f))),
    ("energy", {"temperature": 2.5}, lambda w, f: 2.5 * logsumexp(w.logits(f) / 2.5)),
    ("entropy", {}, entropy),
    ("variance", {}, lambda w, f: p_of(w.logits(f)).var()),
    ("margin", {}, lambda w, f: np.diff(np.sort(p_of(w.logits(f)))[-2:])[0]),
    ("gen", {}, lambda w, f: gen(w, f, 0.1, C)),
    ("gen", {"gamma": 0.5, "m": 3}, lambda w, f: gen(w, f, 0.5, 3)),
    ("klm", {}, lambda w, f: klm(w, f, w.val)),
    ("react", {}, lambda w, f: react(w, f, w.val)),
    ("vra", {"low": 60, "high": 95}, lambda w, f: vra(w, f, "clip")),
    ("vra", {"low": 60, "high": 95, "below": "zero"}, lambda w, f: vra(w, f, "zero")),
    ("dice", {"percentile": 70}, dice),
    ("ash_p", {"percentile": 65}, lambda w, f: logsumexp(w.logits(pruned(f, 65)[0]))),
    ("ash_b", {"percentile": 65}, ash_b),
    ("ash_s", {"percentile": 65}, lambda w, f: logsumexp(w.logits(pruned(f, 65)[0] * sharp(f, 65)))),
    ("scale", {"percentile": 65}, lambda w, f: logsumexp(w.logits(f * sharp(f, 65)))),
    ("lts", {"top": 25}, lts),
    ("gradnorm", {}, gradnorm),
    ("she", {}, she),
    ("nci", {"alpha": 0.01}, lambda w, f: nci(w, f, 0.01)),
    ("fdbd", {}, lambda w, f: fdbd(w, f, "distance")),
    ("fdbd", {"normalizer": "norm"}, lambda w, f: fdbd(w, f, "norm")),
    ("knn", {"k": 5}, lambda w, f: -np.sort(np.linalg.norm(unit(f) - unit(w.features), axis=1))[4]),
    ("nnguide", {"k": 10}, nnguide),
    ("relation", {}, lambda w, f: relation(w, f, 1, 0.03)),
    ("relation", {"power": 3, "threshold": 0.2}, lambda w, f: relation(w, f, 3, 0.2)),
    ("mds", {}, lambda w, f: -mahalanobis(w, f)),
    ("rmds", {}, lambda w, f: background(w, f) - mahalanobis(w, f)),
    ("mds++", {}, lambda w, f: -mahalanobis(on_sphere(w), unit(f))),
    ("rmds++", {}, lambda w, f: background(on_sphere(w), unit(f)) - mahalanobis(on_sphere(w), unit(f))),
    ("vim", {"dim": 8}, vim),
    ("residual", {"dim": 8}, lambda w, f: -residual(w, w.val, 8, f)),
    ("pnml", {}, pnml),
    ("gmm", {"reg": 1e-2}, gmm),
    ("gmm", {"covariance": "tied"}, gmm_tied),
    ("feature_norm", {}, lambda w, f: np.linalg.norm(f)),
    ("feature_norm", {"order": 1}, lambda w, f: np.abs(f).sum()),
    ("mcm", {}, lambda w, f: p_of(cosines(w, f)).max()),
    ("mcm", {"tau": 0.05}, lambda w, f: p_of(cosines(w, f) / 0.05).max()),
]


@pytest.mark.parametrize(("name", "options", "oracle"), CASES, ids=[f"{n}-{o}" for n, o, _ in CASES])
def test_equals_the_formula(world: World, name: str, options: dict[str, Any], oracle: Oracle) -> None:
    fitted = get(name, **options).fit(**world.fit)
    got = fitted.score(features=world.query, logits=world.logits(world.query))
    want = np.array([oracle(world, f) for f in world.query])
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-5 * max(1.0, float(np.abs(want).max())))
    # logits that are not given are those of the head
    np.testing.assert_allclose(fitted.score(features=world.query), got, rtol=2e-4, atol=1e-4)


def test_every_detector_has_an_oracle() -> None:
    elsewhere = {"openmax", "tempscale", "neglabel", "cfood"}  # below
    patches = {"l-mcm", "gl-mcm"}  # test_patch_detectors.py
    assert {name for name, _, _ in CASES} | elsewhere | patches == set(DETECTORS)


def test_klm_and_react_take_the_training_set_where_there_is_no_validation(world: World) -> None:
    given = world.fit | {"validation": None}
    z = world.logits(world.query)
    got = get("klm").fit(**given)
    assert got.fitted_on == "reference"
    want = [klm(world, f, world.features) for f in world.query]
    np.testing.assert_allclose(got.score(logits=z), want, rtol=1e-3, atol=1e-5)
    got = get("react").fit(**given)
    assert got.fitted_on == "bank"
    np.testing.assert_allclose(
        got.score(features=world.query), [react(world, f, world.features) for f in world.query], rtol=1e-5
    )
    got = get("residual", dim=8).fit(**given)
    want = [-residual(world, world.features, 8, f) for f in world.query]
    np.testing.assert_allclose(got.score(features=world.query), want, rtol=1e-4)


def test_tempscale(world: World) -> None:
    from scipy.optimize import minimize_scalar

    z, y = world.logits(world.val), world.val_labels

    def loss(t: float) -> float:
        return float(-(z / t - logsumexp(z / t, axis=1, keepdims=True))[np.arange(len(y)), y].mean())

    best = minimize_scalar(loss, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-10}).x
    got = get("tempscale").fit(**world.fit).score(logits=world.logits(world.query))
    np.testing.assert_allclose(got, p_of(world.logits(world.query) / best).max(axis=1), rtol=1e-5)
    fixed = get("tempscale", temperature=2.0).fit(**world.fit).score(logits=world.logits(world.query))
    np.testing.assert_allclose(fixed, p_of(world.logits(world.query) / 2).max(axis=1), rtol=1e-5)


def test_weibull_tails_have_the_likelihood_of_scipys_fit() -> None:
    rng = np.random.default_rng(0)
    tails = [np.sort(rng.gamma(4, size=20) * 3) for _ in range(4)]
    weibull = fit_tails([*tails, np.array([1.0]), np.array([2.0, 2.0])])
    assert (weibull.shape[-2:] == 0).all()
    for i, tail in enumerate(tails):
        x = tail - tail.min() + TRANSLATION
        _, c, _, scale = exponweib.fit(x, floc=0, f0=1)
        ours = exponweib.logpdf(x, 1, weibull.shape[i], 0, np.exp(weibull.log_scale[i])).sum()
        assert ours >= exponweib.logpdf(x, 1, c, 0, scale).sum() - 1e-6
        # and no shape nearby does better
        for factor in (0.99, 1.01):
            shape = weibull.shape[i] * factor
            best_scale = np.mean(x**1.0) * np.exp(np.log(np.mean((x / np.mean(x)) ** shape)) / shape)
            assert exponweib.logpdf(x, 1, shape, 0, best_scale).sum() <= ours + 1e-9


def test_openmax(world: World) -> None:
    z_train = world.logits(world.features)
    right = z_train.argmax(axis=1) == world.labels
    means, fits = {}, {}
    for c in range(C):
        rows = z_train[right & (world.labels == c)]
        means[c] = rows.mean(axis=0)
        tail = np.sort(np.linalg.norm(rows - means[c], axis=1))[-12:]
        fits[c] = (fit_tails([tail]), tail.min())
    got = get("openmax", tail=12, alpha=3).fit(**world.fit).score(logits=world.logits(world.query))
    want = []
    for z in world.logits(world.query):
        revised, unknown = z.copy(), 0.0
        for rank, c in enumerate(np.argsort(-z)[:3]):
            weibull, least = fits[c]
            x = np.linalg.norm(z - means[c]) - least + TRANSLATION
            taken = z[c] * exponweib.cdf(x, 1, weibull.shape[0], 0, np.exp(weibull.log_scale[0])) * (3 - rank) / 3
            revised[c] -= taken
            unknown += taken
        probability = np.exp(unknown) / (np.exp(revised).sum() + np.exp(unknown))
        want.append(probability)
    np.testing.assert_allclose(1 / (1 + np.exp(got.astype(np.float64))), want, rtol=1e-3, atol=1e-6)


def test_neglabel(world: World) -> None:
    rng = np.random.default_rng(0)
    negatives = rng.normal(size=(23, D))
    got = get("neglabel", tau=0.1, groups=4, seed=5).fit(head=(world.weight, world.bias), negatives=negatives)
    order = np.random.default_rng(5).permutation(23)
    groups = [order[a:b] for a, b in ((0, 5), (5, 11), (11, 17), (17, 23))]
    want = []
    for f in world.query:
        known = np.exp(cosines(world, f) / 0.1).sum()
        other = np.exp(unit(negatives) @ unit(f) / 0.1)
        want.append(np.mean([known / (known + other[g].sum()) for g in groups]))
    np.testing.assert_allclose(got.score(features=world.query), want, rtol=1e-4)


def test_cfood(world: World) -> None:
    rows = unit(world.features)
    m = len(rows)
    fractions = np.concatenate([np.linspace(0.001, 0.1, 100), np.linspace(0.105, 0.5, 81), np.linspace(0.51, 0.99, 49)])
    positions = np.maximum((fractions * m - 1).astype(int), 0)
    own = np.sort(np.linalg.norm(rows[:, None] - rows[None], axis=2), axis=1)
    got = get("cfood", alpha=1.0, accept=0.05).fit(**world.fit).score(features=world.query)
    want = []
    for f in world.query:
        distance = np.linalg.norm(unit(f) - rows, axis=1)
        accepted = [(own[:, min(k + 1, m - 1)] >= distance).mean() >= 0.05 for k in positions]
        want.append(-fractions[np.argmax(accepted)] if any(accepted) else -1.0)
    np.testing.assert_allclose(got, want, rtol=1e-6)
