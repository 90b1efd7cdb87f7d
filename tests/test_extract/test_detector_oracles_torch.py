"""The detectors against pytorch-ood, the same arrays in both; where it differs by design, the difference is undone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from analyze.detectors import Reference, get

peers = pytest.importorskip("pytorch_ood.detector")

C, D = 8, 16


class World:
    def __init__(self) -> None:
        rng = np.random.default_rng(11)
        self.w = rng.normal(size=(C, D)).astype("f4")
        self.b = (0.1 * rng.normal(size=C)).astype("f4")
        self.labels = np.arange(480) % C
        self.train = np.maximum(0.9 * self.w[self.labels] + rng.normal(size=(480, D)) + 0.4, 0).astype("f4")
        self.query = np.concatenate([self.train[:40] + 0.2, np.maximum(rng.normal(size=(80, D)) + 0.4, 0)]).astype("f4")
        self.linear = torch.nn.Linear(D, C)
        with torch.no_grad():
            self.linear.weight.copy_(torch.from_numpy(self.w))
            self.linear.bias.copy_(torch.from_numpy(self.b))
        self.linear.requires_grad_(False)

    def logits(self, f: np.ndarray) -> np.ndarray:
        return f @ self.w.T + self.b

    def ours(self, name: str, **options: Any) -> np.ndarray:
        z = self.logits(self.train)
        fitted = get(name, **options).fit(
            reference=Reference.from_arrays(self.train, z, self.labels),
            head=(self.w, self.b),
            validation=(self.train, z, self.labels),
        )
        return fitted.score(features=self.query, logits=self.logits(self.query)).astype(np.float64)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def on_logits(world: World, detector: Any, *, fit: bool = False) -> np.ndarray:
    if fit:
        detector.fit_logits(torch.from_numpy(world.logits(world.train)), torch.from_numpy(world.labels))
    return -detector.predict_logits(torch.from_numpy(world.logits(world.query))).double().numpy()


def on_features(world: World, detector: Any, *, fit: bool = True) -> np.ndarray:
    if fit:
        detector.fit_features(torch.from_numpy(world.train), torch.from_numpy(world.labels))
    return -detector.predict_features(torch.from_numpy(world.query)).double().numpy()


def on_maps(world: World, detector: Any, *, fit: bool = False) -> np.ndarray:
    if fit:
        detector.fit_feature_maps(torch.from_numpy(world.train)[..., None, None], torch.from_numpy(world.labels))
    return -detector.predict_feature_maps(torch.from_numpy(world.query)[..., None, None]).double().numpy()


def pooled(world: World) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda maps: world.linear(maps.flatten(1))


EQUAL: dict[str, tuple[dict[str, Any], Callable[[World], np.ndarray]]] = {
    "msp": ({}, lambda w: on_logits(w, peers.MaxSoftmax(None))),
    "mls": ({}, lambda w: on_logits(w, peers.MaxLogit(None))),
    "energy": ({"temperature": 2.0}, lambda w: on_logits(w, peers.EnergyBased(None, t=2.0))),
    "entropy": ({}, lambda w: on_logits(w, peers.Entropy(None))),
    # its GEN is a mean over the M largest
    "gen": ({"m": 5}, lambda w: 5 * on_logits(w, peers.GEN(None, gamma=0.1, M=5))),
    "klm": ({}, lambda w: on_logits(w, peers.KLMatching(None), fit=True)),
    "react": (
        {"percentile": 90},
        lambda w: on_maps(w, peers.ReAct(None, pooled(w), percentile=0.9), fit=True),
    ),
    "ash_p": ({"percentile": 65}, lambda w: on_maps(w, peers.ASH(None, pooled(w), "ash-p", 0.65))),
    "ash_s": ({"percentile": 65}, lambda w: on_maps(w, peers.ASH(None, pooled(w), "ash-s", 0.65))),
    "ash_b": ({"percentile": 65}, lambda w: on_maps(w, peers.ASH(None, pooled(w), "ash-b", 0.65))),
    "scale": ({"percentile": 65}, lambda w: on_maps(w, peers.SCALE(None, pooled(w), 0.65))),
    "lts": ({"top": 25}, lambda w: on_features(w, peers.LTS(None, w.linear, p=0.25), fit=False)),
    "dice": (
        {"percentile": 70},
        lambda w: on_features(w, peers.DICE(None, torch.from_numpy(w.w), torch.from_numpy(w.b), 0.7)),
    ),
    "she": ({}, lambda w: on_features(w, peers.SHE(None, w.linear))),
    "nci": ({"alpha": 0.05}, lambda w: on_features(w, peers.NCI(None, w.linear, alpha=0.05))),
    # its distance is a mean over the other classes
    "fdbd": ({}, lambda w: (C - 1) * on_features(w, peers.fDBD(None, w.linear))),
    "knn": ({"k": 7}, lambda w: on_features(w, peers.KNN(None, k=7))),
    "nnguide": ({"k": 10}, lambda w: on_features(w, peers.NNGuide(None, w.linear, k=10))),
    # its covariance is not divided by n, and halved
    "mds": ({}, lambda w: 2 * len(w.train) * on_features(w, peers.Mahalanobis(None))),
    "rmds": ({}, lambda w: len(w.train) * on_features(w, peers.RMD(None))),
    "vim": (
        {"dim": 6},
        lambda w: on_features(w, peers.ViM(None, 6, torch.from_numpy(w.w), torch.from_numpy(w.b))),
    ),
    # its regret is divided by log C
    "pnml": ({}, lambda w: np.log(C) * on_features(w, peers.PNML(None, w.linear))),
    "gmm": ({"reg": 1e-3}, lambda w: on_features(w, peers.GMM(None, reg=1e-3))),
    "mcm": (
        {"tau": 0.3},
        lambda w: on_features(w, peers.MCM(None, torch.from_numpy(w.w), temperature=0.3), fit=False),
    ),
}


@pytest.mark.parametrize("name", EQUAL)
def test_equals_pytorch_ood(world: World, name: str) -> None:
    options, peer = EQUAL[name]
    want = peer(world)
    if name in ("ash_p", "ash_s", "ash_b"):
        # of entries that tie for the last place torch keeps any, we the first: rows without such ties agree
        k = D - round(D * 0.65)
        ordered = -np.sort(-world.query, axis=1)
        clear = ordered[:, k - 1] > ordered[:, k]
        assert clear.mean() > 0.9
    elif name == "gen":
        # it clamps p to [1e-7, 1 - 1e-7] and takes 1 - p in float32
        p = -np.sort(-torch.from_numpy(world.logits(world.query)).double().softmax(1).numpy(), axis=1)
        clear = (p[:, 0] < 1 - 1e-3) & (p[:, 4] > 1e-6)
        assert clear.sum() > 20
    else:
        clear = np.ones(len(want), bool)
    got = world.ours(name, **options)
    scale = float(np.abs(want).max())
    np.testing.assert_allclose(got[clear], want[clear], rtol=1e-3, atol=1e-4 * scale)


def test_gradnorm_equals_autograd_of_the_head(world: World) -> None:
    peer = peers.GradNorm(world.linear.requires_grad_(True), param_filter=lambda name: name == "weight")
    try:
        want = peer.predict(torch.from_numpy(world.query)).double().numpy()
    finally:
        world.linear.requires_grad_(False)
    # its loss is the mean over classes, OpenOOD's and ours the sum
    np.testing.assert_allclose(world.ours("gradnorm"), -C * want if want.max() <= 0 else C * want, rtol=1e-4)


def test_openmax_orders_as_pytorch_ood(world: World) -> None:
    """It fits all rows, right or wrong, and its tails by a search: same order, not the same number."""
    detector = peers.OpenMax(None, tailsize=20, alpha=3)
    z = world.logits(world.train)
    right = z.argmax(axis=1) == world.labels
    detector.fit_logits(torch.from_numpy(z[right]), torch.from_numpy(world.labels[right]))
    want = -detector.predict_logits(torch.from_numpy(world.logits(world.query))).double().numpy()
    got = world.ours("openmax", tail=20, alpha=3)
    assert spearmanr(got, want).statistic > 0.99


def test_vra_clips_each_dimension_there_and_all_alike_here(world: World) -> None:
    """With one dimension's quantiles the two are the same."""
    w, b = world.w[:, :1], world.b
    train, query = world.train[:, :1], world.query[:, :1]
    linear = torch.nn.Linear(1, C)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(w))
        linear.bias.copy_(torch.from_numpy(b))
    detector = peers.VRA(None, lambda maps: linear(maps.flatten(1)), 0.2, 0.8)
    detector.fit_feature_maps(torch.from_numpy(train)[..., None, None], torch.from_numpy(world.labels))
    with torch.no_grad():
        want = -detector.predict_feature_maps(torch.from_numpy(query)[..., None, None]).double().numpy()
    fitted = get("vra", low=20, high=80).fit(head=(w, b), validation=(train, None))
    np.testing.assert_allclose(fitted.score(features=query), want, rtol=1e-5)
