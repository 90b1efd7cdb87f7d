"""A variant and a reference in, a fitted probe out: which rows are drawn and held out, and what was chosen on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.probes.banks import Bank, held_out_rows, shot_rows
from analyze.probes.l2_path import choose_l2
from analyze.probes.logistic import LinearProbe, fit_logistic
from analyze.probes.neighbours import NearestNeighbours
from analyze.probes.options import Variant
from analyze.probes.references import ProbeReference
from closerlook_common.errors import UserError


@dataclass(frozen=True, eq=False)
class FittedProbe:
    """A fitted probe.

    Attributes
    ----------
    scores
        (b, D) float64 features, scaled as the variant says -> (b, C) logits or log-probabilities.
    bank
        The rows that it was fitted on.
    linear
        The weights; None for neighbours.
    facts
        What came of the fit, for cards and records: images, and for a linear probe the strength that was chosen.
    """

    scores: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    bank: Bank
    linear: LinearProbe | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def fit_probe(variant: Variant, reference: ProbeReference) -> FittedProbe:
    """Fit a probe.

    The penalty is chosen on held-out rows of the reference. A probe of the whole reference is then fitted on all rows,
    those held out among them; one of a few shots on these alone.

    Raises
    ------
    UserError
        It cannot be fitted; the message says why.
    """
    if variant.is_linear and not variant.unit and reference.unit_already:
        raise UserError(
            f"the bank of {reference.card.id} holds features of unit length, the other stores do not: use unit ones"
        )
    labels, options = reference.bank.labels, variant.options
    bank = Bank(reference.bank.read, reference.bank.rows, labels, reference.bank.n_classes, variant.unit)
    held = held_out_rows(labels, options.held_out, options.seed)
    if variant.shots is None:
        drawn = np.ones(len(labels), dtype=bool)
    else:
        drawn = shot_rows(labels, ~held, variant.shots, variant.seed)
    used = bank.part(drawn).in_memory()
    facts: dict[str, Any] = {"images": len(used), "reference_kind": reference.kind}
    if variant.shots is not None:
        counts = np.bincount(used.labels, minlength=bank.n_classes)
        facts["classes_with_fewer_shots"] = int((counts < variant.shots).sum())
    if not variant.is_linear:
        neighbours = NearestNeighbours(used, options.k, options.temperature)
        return FittedProbe(neighbours.log_probabilities, used, facts=facts)
    path = options.l2_path
    if path is not None and len(set(path)) == 1:
        l2 = path[0]
    else:
        train, aside = (used.part(~held) if variant.shots is None else used), bank.part(held).in_memory()
        l2, tried = choose_l2(train, aside, path)
        best = next(one for one in tried if one.l2 == l2)
        facts |= {"held_out_images": len(aside), "held_out_accuracy": best.accuracy}
        facts["tried"] = [[one.l2, one.accuracy] for one in tried]
    probe = fit_logistic(used, l2)
    facts |= {"l2": l2, "iterations": probe.iterations, "converged": probe.converged}
    return FittedProbe(probe.logits, used, probe, facts)
