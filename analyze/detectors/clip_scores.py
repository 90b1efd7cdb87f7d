"""Scores of image-text models: MCM over the class names, NegLabel against names of other things."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from analyze.detectors.base import Detector, Inputs, Learnt, Needs, check_range
from analyze.detectors.products import Right
from analyze.detectors.rows import Rows, logsumexp, row_sum, unit_of
from analyze.metrics.spec import Evidence
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError


@dataclass(frozen=True)
class MaximumConceptMatching(Detector):
    """MCM (Ming et al. 2022): largest softmax probability of the *cosines* divided by tau.

    Cosines come from the logits and the head's scale and bias where the head has a scale; from features and weights at
    unit length where it has none. Without a head the logits are taken to be cosines times ``scale``.

    Attributes
    ----------
    tau
        Temperature of the unscaled cosines: 1 in the paper and OpenOOD.
    scale
        Multiplier that logits without a head carry (100 for most CLIPs); 1 when None.
    """

    tau: float = 1.0
    scale: float | None = None
    name = "mcm"
    evidence = Evidence(
        "max_c softmax(cosines / tau)_c", "Ming et al., NeurIPS 2022", "the formula, row by row; pytorch-ood",
        "test_detectors_oracles.py::test_equals_the_formula",
    )  # fmt: skip
    limits = (0.0, 1.0)
    uses_level = True
    zero_shot_only = True
    needs = Needs(logits=True)
    sweep: ClassVar[dict[str, tuple[Any, ...]]] = {"tau": (0.01, 0.1, 0.5, 1.0, 2.0)}

    def __post_init__(self) -> None:
        check_range(self.name, "tau", self.tau, 0, float("inf"))
        if self.scale is not None:
            check_range(self.name, "scale", self.scale, 0, float("inf"))

    def _fit(self, inputs: Inputs) -> Learnt:
        tau, head = np.float32(self.tau), inputs.head
        if head is not None and head.scale is None and self.scale is None:
            texts = Right.of(unit_of(head.weight).T)
            return Learnt(lambda rows: _top_share(_text_cosines(rows, texts) / tau))
        scale = np.float32(self.scale or (head.scale if head is not None else None) or 1)
        bias = head.bias if head is not None else np.float32(0)

        def rule(rows: Rows) -> Any:
            cosines = (rows.logits - bias) / scale
            largest = np.nanmax(np.abs(cosines), initial=0)
            if largest >= 1.05:
                raise UserError(
                    f"mcm: logits divided by {scale:g} are not cosines (up to {largest:.3g}); fit with"
                    " the model's head, or give the scale that its logits carry (mcm scale=100)"
                )
            return _top_share(cosines / tau)

        return Learnt(rule)


def _text_cosines(rows: Rows, texts: Right) -> NDArray[Any]:
    if not rows.has_features:
        raise UserError("mcm needs features where the head has no logit scale (or give the scale: mcm scale=100)")
    return rows.of_unit_length().product(texts)


def _top_share(values: NDArray[Any]) -> NDArray[Any]:
    return np.float32(1) / row_sum(np.exp(values - values.max(axis=1, keepdims=True)))


@dataclass(frozen=True)
class NegativeLabels(Detector):
    """NegLabel (Jiang et al. 2024): share of the class names in the softmax over these and names of other things.

    All negatives that are given count; `far_words` chooses those that the authors would of a list of words. They are
    split into groups by a seeded permutation; the score is the mean over groups, range (0, 1).

    Attributes
    ----------
    tau
        Temperature of the cosines.
    groups
        Number of groups; sizes differ by at most one (the authors' code drops the remainder).
    seed
        Of the permutation.
    """

    tau: float = 0.01
    groups: int = 100
    seed: int = 0
    name = "neglabel"
    evidence = Evidence(
        "share of the class names in the softmax over them and negative names, mean over groups",
        "Jiang et al., ICLR 2024", "the definition, row by row", "test_detectors_oracles.py::test_neglabel",
    )  # fmt: skip
    limits = (0.0, 1.0)
    needs = Needs(features=True, head=True, negatives=True)

    def __post_init__(self) -> None:
        check_range(self.name, "tau", self.tau, 0, float("inf"))
        check_range(self.name, "groups", self.groups, 1, float("inf"), open_ends=False)

    def _fit(self, inputs: Inputs) -> Learnt:
        head, negatives = inputs.the_head(), inputs.negatives
        assert negatives is not None
        if negatives.shape[1] != head.width:
            raise UserError(f"neglabel: negatives of width {negatives.shape[1]}, features of width {head.width}")
        groups = min(self.groups, len(negatives))
        order = np.random.default_rng(self.seed).permutation(len(negatives))
        bounds = np.linspace(0, len(negatives), groups + 1).astype(np.int64)
        ours = Right.of(unit_of(head.weight).T)
        others = Right.of(unit_of(negatives)[order].T)
        beta = np.float32(1 / self.tau)

        def rule(rows: Rows) -> Any:
            unit = rows.of_unit_length()
            known = logsumexp(unit.product(ours) * beta)
            cosines = unit.product(others) * beta
            total = np.zeros(len(known))
            for start, stop in itertools.pairwise(bounds):
                total += 1 / (1 + np.exp((logsumexp(cosines[:, start:stop]) - known).astype(np.float64)))
            return total / groups

        notes = (
            (f"{counted(groups, 'group')}: there are only {len(negatives)} negatives",) if groups < self.groups else ()
        )
        return Learnt(rule, "", notes)


MINED_QUANTILE = 0.95
"""Of a word's cosines with the classes, what words are ordered by; the authors' configuration for ImageNet."""

_WORDS_AT_ONCE = 4096


def far_words(words: NDArray[Any], classes: NDArray[Any], share: float) -> NDArray[np.int64]:
    """Return which words are furthest from the classes: NegLabel's choice of negative labels (NegMining).

    Words are ordered by the 0.95 quantile of their cosines with all classes, smallest first, as in the authors' code
    (XueJiang16/NegLabel, ``multi_modal.py``), which orders nouns and adjectives apart.

    Parameters
    ----------
    words, classes
        (M, D) and (C, D) text embeddings.
    share
        Of the words that are kept, rounded down; at least one is.

    Returns
    -------
    ndarray of shape (max(1, int(M * share)),)
        Rows of ``words``, ascending.

    Raises
    ------
    UserError
        Words and classes have different widths.
    """
    if words.shape[1:] != classes.shape[1:]:
        raise UserError(f"words of width {words.shape[1]}, classes of width {classes.shape[1]}")
    known = unit_of(np.asarray(classes, np.float32)).T
    near = np.empty(len(words))
    for start in range(0, len(words), _WORDS_AT_ONCE):
        block = slice(start, start + _WORDS_AT_ONCE)
        cosines = unit_of(np.asarray(words[block], np.float32)) @ known
        near[block] = np.quantile(cosines, MINED_QUANTILE, axis=1)
    kept = np.argsort(near, kind="stable")[: max(1, int(len(words) * share))]
    return np.sort(kept).astype(np.int64)


DETECTORS = (MaximumConceptMatching, NegativeLabels)
