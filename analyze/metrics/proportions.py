"""Intervals of proportions: how sure a share of right images is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from analyze.metrics._checks import choice, fraction, number
from closerlook_common.errors import UserError


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Attributes
    ----------
    low, high
        Its ends.
    level
        Nominal coverage, 0.95 by default.
    method
        How it was made: ``wilson``, ``clopper-pearson``, ``percentile``, ``basic``.
    at_least
        Whether it covers more than its level on few rows, where rows are counted and no interval can meet the level.
    """

    low: float
    high: float
    level: float
    method: str
    at_least: bool = False

    def described(self) -> str:
        """Return method and level, as the result table has them.

        Examples
        --------
        >>> wilson_interval(8, 10).described()
        'wilson 95 %'
        >>> clopper_pearson_interval(8, 10).described()
        'clopper-pearson at least 95 %'
        """
        return f"{self.method} {'at least ' * self.at_least}{100 * self.level:g} %"


def _proportion(successes: object, n: object, level: object) -> tuple[float, float, float]:
    """Return right images, images and level as plain numbers."""
    successes, n = number("successes", successes), number("n", n)
    if not (0 <= successes <= n and n >= 1):
        raise UserError(f"a proportion needs 0 <= successes <= n and n >= 1; got {successes:g} of {n:g}")
    return successes, n, fraction("level", level, open_ends=True)


def normal_reach(level: float) -> float:
    """Return how many standard errors a two-sided normal interval of a level reaches to each side: 1.96 for 0.95."""
    from scipy.special import ndtri

    level = fraction("level", level, open_ends=True)
    return float(ndtri(0.5 + level / 2))


def wilson_interval(successes: float, n: float, *, level: float = 0.95) -> Interval:
    """Return Wilson's score interval of a proportion (1927): good coverage for every n, never outside [0, 1].

    Parameters
    ----------
    successes, n
        Right images, and images; fractions where ``n`` is an effective number of independent images.
    level
        Nominal coverage, strictly between 0 and 1.

    Raises
    ------
    UserError
        Where there are no images, or not between 0 and n successes; for a level outside (0, 1).

    References
    ----------
    Wilson, Probable Inference, the Law of Succession, and Statistical Inference, JASA 22, 1927.
    """
    successes, n, level = _proportion(successes, n, level)
    z2 = normal_reach(level) ** 2
    rate = successes / n
    middle = (rate + z2 / (2 * n)) / (1 + z2 / n)
    half = float(np.sqrt(z2 * (rate * (1 - rate) / n + z2 / (4 * n * n)))) / (1 + z2 / n)
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    return Interval(low, 1.0 if successes == n else min(1.0, middle + half), level, "wilson")


def clopper_pearson_interval(successes: float, n: float, *, level: float = 0.95) -> Interval:
    """Return the exact interval of a proportion (1934), whose coverage is never below ``level``.

    Parameters and errors as of ``wilson_interval``; 0 and n successes have one-sided ends, 0 and 1.

    References
    ----------
    Clopper and Pearson, The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial, Biometrika
    26, 1934.
    """
    from scipy.special import betaincinv

    successes, n, level = _proportion(successes, n, level)
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - tail))
    return Interval(low, high, level, "clopper-pearson", at_least=True)


def proportion_interval(
    successes: int, n: int, *, level: float = 0.95, method: Literal["wilson", "clopper-pearson"] = "wilson"
) -> Interval:
    """Return the named interval of a proportion: ``wilson_interval`` or ``clopper_pearson_interval``."""
    choice("method", method, ("wilson", "clopper-pearson"))
    return (wilson_interval if method == "wilson" else clopper_pearson_interval)(successes, n, level=level)
