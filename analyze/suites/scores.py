"""OOD scores of per-image statistics: what each needs, the options it has, and how it is read from a summary."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analyze.predictions.summaries import Summary
from closerlook_common.errors import UserError, nearest

Column = NDArray[Any]


@dataclass(frozen=True)
class ScoreSpec:
    """One score, higher = more in-distribution.

    Attributes
    ----------
    of
        Summary -> score of every row.
    needs
        What it is made from: ``logits`` (of any scale and offset), ``raw logits`` (their size counts, so probabilities
        will not do), ``logit scale`` (of a zero-shot head). The detectors' own registry, for features, heads and
        references, is ``analyze.detectors``.
    options
        Options of ``[ood]`` that it depends on.
    fit
        Name of the fit whose columns it reads: rows that were fitted on are then not scored. Empty for none.
    """

    of: Callable[[Summary], Column]
    needs: tuple[str, ...] = ("logits",)
    options: tuple[str, ...] = ()
    fit: str = ""


def _variance(rows: Summary) -> Column:
    # sum p^2 / C - 1 / C^2: an increasing function of the sum of squares.
    return (rows["sum_squares"].astype(np.float64) - 1.0 / rows.n_classes) / rows.n_classes


def _energy(rows: Summary) -> Column:
    return rows["energy"] if rows.facts.get("energy_temperature", 1.0) != 1.0 else rows["log_sum_exp"]


SCORES: Mapping[str, ScoreSpec] = {
    "msp": ScoreSpec(lambda rows: rows["confidence"]),
    "mls": ScoreSpec(lambda rows: rows["max_logit"], ("raw logits",)),
    "energy": ScoreSpec(_energy, ("raw logits",), ("energy_temperature",)),
    "entropy": ScoreSpec(lambda rows: -rows["entropy"]),
    "variance": ScoreSpec(_variance),
    "gen": ScoreSpec(lambda rows: -rows["gen"], options=("gen_m", "gen_gamma")),
    "margin": ScoreSpec(lambda rows: rows["margin"]),
    "klm": ScoreSpec(lambda rows: rows["klm"], fit="klm"),
    "tempscale": ScoreSpec(lambda rows: rows["scaled_confidence"], fit="temperature"),
    "mcm": ScoreSpec(lambda rows: rows["mcm"], ("logits", "logit scale"), ("mcm_tau",)),
}
"""Name in the column ``score`` -> what it is. ``variance`` is that of the C probabilities; ``entropy``, ``gen`` and the
divergence of ``klm`` are negated; ``tempscale`` is the confidence at the fitted temperature, ``mcm`` that on unscaled
cosines."""


def fits_of_scores() -> tuple[str, ...]:
    """Return the names of the fits that scores read."""
    return tuple(dict.fromkeys(spec.fit for spec in SCORES.values() if spec.fit))


def spec_of(name: str) -> ScoreSpec:
    """Return a score; unknown names get the nearest."""
    if name not in SCORES:
        raise UserError(f"no score {name!r}{nearest(name, SCORES)}; there are {', '.join(SCORES)}")
    return SCORES[name]


def score_of(name: str, rows: Summary) -> Column:
    """Return a score of every row, higher = more in-distribution.

    Parameters
    ----------
    name
        One of ``SCORES``.
    rows
        Statistics.

    Raises
    ------
    UserError
        For an unknown name, and where the statistics lack what the score needs.
    """
    spec = spec_of(name)
    kind = rows.facts.get("logits_kind", "logits")
    if "raw logits" in spec.needs and kind != "logits":
        raise UserError(f"{name} needs logits; the store holds {kind.replace('_', '-')}")
    return spec.of(rows)
