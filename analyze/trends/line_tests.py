"""Whether groups of models lie on one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from analyze.trends.dependence import FEWEST_FOR_TEST, FLIPS, flip_p_value
from analyze.trends.families import INDEPENDENT, Families
from analyze.trends.nested_fits import f_test, least_squares
from analyze.trends.scales import transform
from closerlook_common.console.terminal import counted
from closerlook_common.errors import UserError

FEWEST_IN_A_GROUP = 3
"""Families that each group needs: the line of fewer has no error that could be estimated."""


@dataclass(frozen=True)
class LineTest:
    """Whether two or more groups lie on one line.

    Attributes
    ----------
    f, p_value
        F statistic of one common line against a line for each group (both slope and intercept free), and its p-value:
        over families of models, or of the F distribution where models are taken as independent.
    slope_p_value
        Of equal slopes, given separate intercepts.
    offset_p_value
        Of equal intercepts, given a common slope.
    n, groups
        Models in all, and the groups compared.
    families, test
        Families that the models come in, and how the p-values were had, or why there are none.
    """

    f: float
    p_value: float
    slope_p_value: float
    offset_p_value: float
    n: int
    groups: tuple[str, ...]
    families: int = 0
    test: str = ""

    def __repr__(self) -> str:
        """Return one readable line."""
        if not np.isfinite(self.p_value):
            return f"{' / '.join(self.groups)}: F = {self.f:.2f}, no p-value ({self.test}; {counted(self.n, 'model')})"
        verdict = "on different lines" if self.p_value < 0.05 else "no sign of different lines"
        return (
            f"{' / '.join(self.groups)}: {verdict} (F = {self.f:.2f}, p = {self.p_value:.2g};"
            f" slopes p = {self.slope_p_value:.2g}, offsets p = {self.offset_p_value:.2g}; {counted(self.n, 'model')})"
        )


def same_line(
    x: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike,
    *,
    x_scale: str = "probit",
    y_scale: str = "probit",
    families: ArrayLike | Families | None = None,
    flips: int = FLIPS,
    seed: int = 0,
) -> LineTest:
    """Test whether groups of models lie on one line (analysis of covariance, ordinary least squares).

    Parameters
    ----------
    x, y, groups
        One value a model.
    x_scale, y_scale
        Axes on which the lines are straight.
    families
        (n_models,) a label each: models that share one are not independent, and signs of families are flipped for the
        p-values. None takes all models as independent, with ordinary F tests.
    flips, seed
        Signs that are drawn.

    Raises
    ------
    UserError
        Fewer than two groups, or a group of fewer than three models.
    """
    a, b = transform(x, x_scale), transform(y, y_scale)
    names, codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    counts = np.bincount(codes)
    if len(names) < 2 or counts.min() < 3:
        sizes = ", ".join(f"{name} ({count})" for name, count in zip(names, counts, strict=True))
        raise UserError(f"a test of lines needs two groups of at least three models each, got {sizes}")
    own = Families.independent(len(a)) if families is None else families
    own = own if isinstance(own, Families) else Families.of(own)
    others = len(names) - 1
    offsets = (codes[:, None] == np.arange(1, len(names))).astype(np.float64)
    free = np.column_stack([np.ones(len(a)), a, offsets, offsets * a[:, None]])
    parallel, pooled = free[:, : 2 + others], free[:, :2]
    fits = [least_squares(design, b) for design in (pooled, parallel, free)]
    known: dict[str, Any] = {"n": len(a), "groups": tuple(map(str, names)), "families": own.count}
    if fits[0].residual <= 1e-12 * max(float(((b - b.mean()) ** 2).sum()), float((b**2).sum())):
        return LineTest(0.0, 1.0, 1.0, 1.0, test="one line through every model", **known)
    f, ordinary = f_test(fits[2], fits[0])
    if own.by == INDEPENDENT:
        slopes, shifts = f_test(fits[2], fits[1])[1], f_test(fits[1], fits[0])[1]
        return LineTest(f, ordinary, slopes, shifts, test="F test: models taken as independent", **known)
    alone = [str(names[g]) for g in range(len(names)) if len(np.unique(own.codes[codes == g])) < FEWEST_IN_A_GROUP]
    if own.count < FEWEST_FOR_TEST or alone:
        if own.count < FEWEST_FOR_TEST:
            why = f"none: {counted(own.count, 'family', 'families')}, {FEWEST_FOR_TEST} are needed"
        else:
            why = f"none: {alone[0]} has fewer than {FEWEST_IN_A_GROUP} families"
        return LineTest(f, np.nan, np.nan, np.nan, test=why, **known)
    offset, slope = list(range(2, 2 + others)), list(range(2 + others, 2 + 2 * others))
    drawn: dict[str, Any] = {"flips": flips, "seed": seed}
    return LineTest(
        f,
        flip_p_value(free, b, own, offset + slope, **drawn),
        flip_p_value(free, b, own, slope, **drawn),
        flip_p_value(parallel, b, own, offset, **drawn),
        test=f"signs of {own.count} families by {own.by} flipped",
        **known,
    )
