"""SAPS, class-conditional and clustered conformal sets, coverage by class and size, p-values: against definitions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from analyze import metrics
from closerlook_common.errors import UserError

C = 6
seeds = st.integers(0, 2**32 - 1)


def drawn(seed: int, n: int, hard: float = 0.0) -> tuple[Any, Any]:
    """Probabilities that are too sure about the images of the later classes, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, C, n)
    logits = rng.normal(size=(n, C)) * (1 + hard * labels[:, None])
    logits[np.arange(n), labels] += 1.5
    return softmax(logits, axis=1), labels


def saps(row: Any, c: int, weight: float) -> float:
    rank = int((row >= row[c]).sum())
    return float(row.max() + weight * (rank - 1))


@given(seed=seeds, weight=st.sampled_from([0.0, 0.02, 0.5]))
def test_saps_by_definition(seed: int, weight: float) -> None:
    probabilities, labels = drawn(seed, 60)
    probabilities = np.round(probabilities, 2)  # ties
    fitted = metrics.fit_conformal(probabilities, labels, method="saps", alpha=0.2, weight=weight)
    own = sorted(saps(row, c, weight) for row, c in zip(probabilities, labels, strict=True))
    assert fitted.quantile == pytest.approx(own[int(np.ceil(61 * 0.8 - 1e-9)) - 1])
    scores = fitted.class_scores(probabilities)
    wanted = [[saps(row, c, weight) for c in range(C)] for row in probabilities]
    np.testing.assert_allclose(scores, wanted, atol=1e-12)
    np.testing.assert_array_equal(fitted.sets(probabilities), scores <= fitted.quantile)
    with pytest.raises(UserError, match="weight must be at least 0"):
        metrics.fit_conformal(probabilities, labels, method="saps", weight=-1)


@pytest.mark.parametrize("method", ["lac", "aps", "raps", "saps"])
def test_every_class_is_covered_where_plain_sets_miss_one(method: Any) -> None:
    plain, own, clustered = [], [], []
    for seed in range(30):
        fit, test = drawn(2 * seed, 1200, 0.8), drawn(2 * seed + 1, 1200, 0.8)
        for found, made in (
            (plain, metrics.fit_conformal(*fit, method=method, alpha=0.1)),
            (own, metrics.fit_class_conformal(*fit, method=method, alpha=0.1)),
            (clustered, metrics.fit_clustered_conformal(*fit, method=method, alpha=0.1, n_clusters=3, fraction=0.3)),
        ):
            found.append(metrics.coverage_by_class(made.sets(test[0]), test[1]).coverage)
    of_plain, of_own, of_clusters = (np.mean(found, axis=0) for found in (plain, own, clustered))
    assert of_plain.min() < 0.87
    # Means of 30 x 200 images have a standard error of about 0.006.
    assert of_own.min() > 0.88
    if method in ("lac", "saps"):  # the mass of all classes is 1 for many images at once: ties let too much in
        assert of_own.max() < 0.93
    assert np.abs(of_clusters - 0.9).mean() < 0.6 * np.abs(of_plain - 0.9).mean()


@given(seed=seeds)
def test_class_quantiles_are_those_of_each_class_alone(seed: int) -> None:
    probabilities, labels = drawn(seed, 150)
    fitted = metrics.fit_class_conformal(probabilities, labels, alpha=0.2)
    for c in np.unique(labels).tolist():
        own = labels == c
        alone = metrics.fit_conformal(probabilities[own], labels[own], alpha=0.2)
        assert fitted.quantiles[c] == alone.quantile
    test, truth = drawn(seed + 1, 40)
    sets = fitted.sets(test)
    assert fitted.coverage(test, truth) == sets[np.arange(40), truth].mean()
    assert fitted.mean_size(test) == pytest.approx(sets.sum(axis=1).mean())
    few = metrics.fit_class_conformal(probabilities[:3], labels[:3], alpha=0.2)
    assert few.sets(test).all()


@given(seed=seeds)
def test_one_cluster_of_all_images_is_the_plain_set(seed: int) -> None:
    probabilities, labels = drawn(seed, 300)
    one = metrics.fit_clustered_conformal(probabilities, labels, alpha=0.2, n_clusters=1, fraction=0.4, seed=seed)
    assert np.unique(one.quantiles[one.groups >= 0]).size == 1
    again = metrics.fit_clustered_conformal(probabilities, labels, alpha=0.2, n_clusters=1, fraction=0.4, seed=seed)
    np.testing.assert_array_equal(one.quantiles, again.quantiles)
    # A class too rare to be clustered has the quantile of all.
    rare = np.where(labels == 5, 4, labels)
    rare[0] = 5
    fitted = metrics.fit_clustered_conformal(probabilities, rare, alpha=0.2, n_clusters=2, fraction=0.4, seed=seed)
    assert fitted.groups[5] == -1
    assert (fitted.groups[:5] >= 0).all()


def test_clusters_part_classes_that_differ() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(C), 400)
    probabilities = np.full((labels.size, C), 0.0)
    sure = np.where(labels < 3, rng.uniform(0.8, 1.0, labels.size), rng.uniform(0.2, 0.4, labels.size))
    probabilities[:] = ((1 - sure) / (C - 1))[:, None]
    probabilities[np.arange(labels.size), labels] = sure
    fitted = metrics.fit_clustered_conformal(probabilities, labels, alpha=0.1, n_clusters=2, fraction=0.3)
    assert len(set(fitted.groups[:3].tolist())) == len(set(fitted.groups[3:].tolist())) == 1
    assert fitted.groups[0] != fitted.groups[3]
    assert fitted.quantiles[:3].max() < 0.25 < fitted.quantiles[3:].min()
    with pytest.raises(UserError, match="no class has the 99 images"):
        metrics.fit_clustered_conformal(probabilities[::10], labels[::10], alpha=0.01)


@given(seed=seeds)
def test_coverage_by_group_by_loops(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sets, labels = rng.random((80, C)) < 0.5, rng.integers(0, C - 1, 80)
    covered = np.array([sets[i, labels[i]] for i in range(80)])
    found = metrics.coverage_by_class(sets, labels)
    for c in range(C):
        own = labels == c
        assert found.counts[c] == own.sum()
        assert found.coverage[c] == pytest.approx(covered[own].mean()) if own.any() else np.isnan(found.coverage[c])
    shares = [covered[labels == c].mean() for c in np.unique(labels)]
    assert found.worst == min(shares)
    assert found.gap(0.1) == pytest.approx(np.mean(np.abs(np.array(shares) - 0.9)))
    sizes = metrics.coverage_by_size(sets, labels, bounds=(0, 2, 4))
    groups = [(0, 2), (2, 4), (4, C + 1)]
    parts = [covered[(sets.sum(axis=1) >= low) & (sets.sum(axis=1) < high)] for low, high in groups]
    assert sizes.counts.tolist() == [part.size for part in parts]
    worst = max(abs(part.mean() - 0.9) for part in parts if part.size)
    assert sizes.largest_violation(0.1) == pytest.approx(worst)
    assert np.average(found.coverage[:-1], weights=found.counts[:-1]) == pytest.approx(covered.mean())
    with pytest.raises(UserError, match="bounds must rise from 0"):
        metrics.coverage_by_size(sets, labels, bounds=(1, 2))


@given(seed=seeds, by_class=st.booleans(), method=st.sampled_from(["lac", "aps", "saps"]))
def test_p_values_by_counting_and_as_sets(seed: int, by_class: bool, method: Any) -> None:
    probabilities, labels = drawn(seed, 50)
    test, _ = drawn(seed + 1, 10)
    found = metrics.conformal_p_values(probabilities, labels, test, method=method, by_class=by_class)
    fit = metrics.fit_class_conformal if by_class else metrics.fit_conformal
    rule = metrics.fit_conformal(probabilities, labels, method=method)
    scores, of_test = rule.label_scores(probabilities, labels), rule.class_scores(test)
    for i in range(10):
        for c in range(C):
            others = scores[labels == c] if by_class else scores
            assert found[i, c] == (1 + sum(s >= of_test[i, c] for s in others)) / (others.size + 1)
    for alpha in (0.05, 0.2, 0.37):
        sets = fit(probabilities, labels, method=method, alpha=alpha).sets(test)
        np.testing.assert_array_equal(found > alpha + 1e-12, sets)


def test_p_values_of_true_classes_are_no_smaller_than_uniform() -> None:
    below = []
    for seed in range(200):
        fit, test = drawn(2 * seed, 100), drawn(2 * seed + 1, 20)
        found = metrics.conformal_p_values(*fit, test[0])
        below.append((found[np.arange(20), test[1]] <= 0.1).mean())
    # 200 fits: the mean has a standard error of about 0.006.
    assert 0.08 < np.mean(below) < 0.115


def test_other_numbers_of_classes_are_refused() -> None:
    probabilities, labels = drawn(0, 40)
    with pytest.raises(UserError, match="has 6 classes and test_probabilities has 5"):
        metrics.conformal_p_values(probabilities, labels, probabilities[:, :5] / 2)
    with pytest.raises(UserError, match="has 5 classes; the sets were fitted on 6"):
        metrics.fit_class_conformal(probabilities, labels).sets(probabilities[:, :5] / 2)
