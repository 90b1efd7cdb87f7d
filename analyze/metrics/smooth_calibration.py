"""Smooth calibration error: calibration without bins, by a Gaussian kernel whose width finds itself.

The reflected Gaussian on [0, 1] is the heat kernel of an insulated rod, so smoothing multiplies the k-th
cosine coefficient by exp(-(pi k sigma)^2 / 2). Two cosine transforms give the smoothed residual at any
width, with no boundary term left out; rows enter a fine grid by cubic weights, so that the grid's own error
is far below 1e-6.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.kernels.keeping import compiled
from analyze.metrics import _checks
from analyze.metrics._smooth_compat import relplot_error
from analyze.metrics.spec import TOP_LABEL, Evidence, Metric
from closerlook_common.errors import UserError

Kernel = Literal["reflected", "logit"]

_NODES = 1 << 14
_LOGIT_CLIP = 1e-3
_LOGIT_SLOPE = 4.0  # d logit(p) / dp at p = 1/2: there the logit kernel is as wide as the reflected one


def smooth_calibration_error(
    confidences: ArrayLike,
    correct: ArrayLike,
    *,
    kernel: Kernel = "reflected",
    compat: Literal["relplot"] | None = None,
    sigma: float | None = None,
) -> float:
    """Return the smooth expected calibration error (smECE). Lower is better.

    At width sigma, smECE_sigma is the integral over t in [0, 1] of abs(1/n sum_i K_sigma(f_i, t) (f_i -
    y_i)). It falls as sigma grows, and smECE is its fixed point, the one sigma with smECE_sigma = sigma.

    Parameters
    ----------
    confidences
        (n,) probability of the predicted class, in [0, 1].
    correct
        (n,) whether the prediction was right.
    kernel
        ``reflected``: Gaussian reflected at 0 and 1 (the paper's and relplot's default). ``logit``:
        Gaussian of width 4 sigma on the logit axis, confidences clipped to [0.001, 0.999]
        (torch-uncertainty's default); the integral then runs over the whole logit axis.
    compat
        ``relplot``: the value of relplot 1.0, whose mirrored copies leave out the end nodes, so that rows
        within about 0.001 of confidence 1 lose half their weight; its width comes from ten bisections.
    sigma
        Use this width in place of the fixed point.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    UserError
        For NaN, inf or a confidence outside [0, 1] (the row is named), no rows, lengths that differ.

    References
    ----------
    Blasiok and Nakkiran, "Smooth ECE: principled reliability diagrams via kernel smoothing", ICLR 2024.

    Examples
    --------
    >>> round(smooth_calibration_error([0.75, 0.75], [1, 0]), 6)
    0.25
    """
    confidence = _checks.confidences(confidences).astype(np.float64)
    right = _checks.correct(correct, confidence.size)
    _checks.choice("kernel", kernel, ("reflected", "logit"))
    if sigma is not None:
        sigma = _checks.number("sigma", sigma, above=0)
        if sigma > 1:
            raise UserError(f"sigma must lie in (0, 1]; got {sigma!r}")
    surplus = confidence - right
    if compat is not None:
        _checks.choice("compat", compat, ("relplot",))
        return relplot_error(confidence, surplus, kernel, sigma)
    if kernel == "reflected":
        smoothed = Smoother(grid_masses(confidence, surplus, _NODES) / confidence.size)
        return smoothed.at(sigma) if sigma is not None else smoothed.fixed_point(1.0)
    clipped = np.clip(confidence, _LOGIT_CLIP, 1 - _LOGIT_CLIP)
    place = np.log(clipped / (1 - clipped))
    # The axis must end far from all mass; how far depends on the width, found first on an axis fit for any.
    if sigma is not None:
        return _on_logit_axis(place, surplus, sigma).at(sigma)
    coarse = _on_logit_axis(place, surplus, 1.0).fixed_point(1.0)
    widest = min(1.0, 1.1 * coarse + 1e-3)
    return _on_logit_axis(place, surplus, widest).fixed_point(widest)


def _on_logit_axis(place: NDArray[np.float64], surplus: NDArray[np.float64], widest: float) -> Smoother:
    reach = np.log((1 - _LOGIT_CLIP) / _LOGIT_CLIP) + 8 * _LOGIT_SLOPE * widest
    masses = grid_masses((place + reach) / (2 * reach), surplus, _NODES) / place.size
    return Smoother(masses, _LOGIT_SLOPE / (2 * reach))


class Smoother:
    """Size of the smoothed residual as a function of the kernel's width.

    Parameters
    ----------
    masses
        (m + 1,) residual at equally spaced points of [0, 1], of a total of at most one.
    scale
        The width on [0, 1] that a sigma of one has.
    """

    def __init__(self, masses: NDArray[np.float64], scale: float = 1.0) -> None:
        from scipy.fft import dct

        halved = masses.copy()
        halved[1:-1] /= 2
        self._nodes = masses.size - 1
        self._coefficients = dct(halved, type=1)
        self._scale = scale
        self._floor = abs(float(masses.sum()))

    def at(self, sigma: float) -> float:
        """Return the integral of the absolute value at one width."""
        from scipy.fft import dct

        width = sigma * self._scale
        kept = int(min(9.0 / (np.pi * width), self._nodes)) + 1  # beyond, exp(-81 / 2) is below rounding
        # Fine enough that straight lines between points follow the smoothed residual to about 1e-8.
        nodes = min(self._nodes, 1 << max(11, int(np.ceil(np.log2(128 / width)))))
        damped = np.zeros(nodes + 1)
        damped[:kept] = self._coefficients[:kept] * np.exp(-0.5 * (np.arange(kept) * (np.pi * width)) ** 2)
        damped[-1] /= 2
        return integral_of_size(dct(damped, type=1))

    def fixed_point(self, widest: float) -> float:
        """Return the sigma whose value is sigma itself."""
        from scipy.optimize import brentq

        # No width gives less than the plain mean of the residual: a lower end that is often the answer.
        low = max(self._floor, 1e-9)
        if low >= widest:
            return min(low, 1.0)
        high = min(self.at(low), widest)
        if high <= low * (1 + 1e-9):
            return self._floor
        if self.at(high) >= high:
            return high
        return float(brentq(lambda sigma: self.at(sigma) - sigma, low, high, xtol=1e-10, rtol=1e-10))


@compiled(nogil=True, cache=True)
def _spread(place, mass, nodes, padded):  # type: ignore[no-untyped-def]
    """Add each mass to the four grid points around its place, by the weights of a cubic through them."""
    for i in range(place.size):
        scaled = place[i] * nodes
        cell = min(int(scaled), nodes - 1)
        u = scaled - cell
        padded[cell] += -u * (u - 1) * (u - 2) / 6 * mass[i]
        padded[cell + 1] += (u + 1) * (u - 1) * (u - 2) / 2 * mass[i]
        padded[cell + 2] += -(u + 1) * u * (u - 2) / 2 * mass[i]
        padded[cell + 3] += (u + 1) * u * (u - 1) / 6 * mass[i]


def grid_masses(place: NDArray[np.float64], mass: NDArray[np.float64], nodes: int) -> NDArray[np.float64]:
    """Spread masses at places in [0, 1] over ``nodes`` + 1 grid points, exact for cubics; the ends mirror."""
    padded = np.zeros(nodes + 3)
    _spread(place, mass, nodes, padded)
    inner = padded[1:-1].copy()
    inner[1] += padded[0]
    inner[-2] += padded[-1]
    return inner


def integral_of_size(values: NDArray[np.float64]) -> float:
    """Return the integral over [0, 1] of the size of straight lines through equally spaced values."""
    left, right = values[:-1], values[1:]
    whole = np.abs(left) + np.abs(right)
    crossing = left * right < 0
    spread = np.where(crossing, whole, 1.0)
    areas = np.where(crossing, (left**2 + right**2) / spread, whole)
    return float(areas.sum() / (2 * left.size))


ROWS = (
    Metric(
        "smece", "Smooth ECE", "lower", "fraction", columns=TOP_LABEL, function=smooth_calibration_error, version=6,
        evidence=Evidence(
            "the s with s = integral over [0, 1] of |1/n sum_i K_s(c_i, t) (c_i - y_i)| dt, K reflected Gaussian",
            "Blasiok and Nakkiran, ICLR 2024",
            "numerical integration, image by image; the authors' package relplot with compat",
        ),
    ),
    Metric(
        "smece_logit", "Smooth ECE (logit kernel)", "lower", "fraction", columns=TOP_LABEL,
        function=partial(smooth_calibration_error, kernel="logit"),
        evidence=Evidence(
            "as smece, with the Gaussian on the logit scale", "Blasiok and Nakkiran, ICLR 2024",
            "numerical integration, image by image; relplot with compat",
        ),
    ),
)  # fmt: skip
