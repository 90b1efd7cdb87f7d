"""Matrix scaling and Dirichlet calibration: a linear map of logits or log-probabilities, with penalties."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analyze.metrics import _checks
from analyze.metrics._arrays import numbers
from analyze.reading.fitted_rows import fitted_rows
from closerlook_common.errors import UserError

if TYPE_CHECKING:
    from cache_schema.reading.store import PredictionStore

Floats = NDArray[np.float64]

_BLOCK = 1 << 21  # numbers that are widened to float64 at a time
_BLOCK_ROWS = 4096

LEAST_ROWS_A_CLASS = 10
"""Rows for each class, on average, below which `fit_matrix_store` fits none of the C x C weights."""


@dataclass(frozen=True, eq=False)
class MatrixFit:
    """A fitted linear map; probabilities are softmax(weight x + bias).

    Attributes
    ----------
    weight, bias
        (C, C) and (C,) float64; the bias has mean zero.
    of_log_probabilities
        Whether x are the log-probabilities (Dirichlet calibration) or the logits (matrix scaling).
    nll_before, nll_after
        Mean NLL in nats of the rows it was fitted on, before and after.
    n
        Rows it was fitted on.
    passes
        Passes over all rows.
    """

    weight: Floats
    bias: Floats
    of_log_probabilities: bool
    nll_before: float
    nll_after: float
    n: int
    passes: int

    @property
    def digest(self) -> str:
        """Hexadecimal digest of the parameters: equal for equal ones."""
        both = np.ascontiguousarray(np.concatenate([self.weight, self.bias[None]]), "<f8")
        return hashlib.sha256(both.tobytes()).hexdigest()[:16]

    def apply(self, logits: ArrayLike) -> Floats:
        """Return weight x + bias, (n, C) float64, the logits of the calibrated probabilities.

        Parameters
        ----------
        logits
            (n, C), finite. For matrix scaling the model's own, with no row's centre removed.
        """
        wide = _finite(logits)
        if wide.shape[1] != self.bias.size:
            raise UserError(f"logits (n, {self.bias.size}) expected, not {wide.shape}")
        moved = np.empty(wide.shape)
        for rows in _blocks(wide.shape):
            moved[rows] = self.move(wide[rows])
        return moved

    def move(self, block: NDArray[np.floating]) -> Floats:
        """Return weight x + bias of rows that are not checked, (b, C) float64.

        A -inf stays -inf, as a class that cannot win; to the other classes it counts as the row's least finite logit.
        """
        inputs = _inputs(block, self.of_log_probabilities)
        shut = inputs == -np.inf
        if shut.any():
            inputs = np.where(shut, np.where(shut, np.inf, inputs).min(axis=1, keepdims=True), inputs)
        with np.errstate(invalid="ignore"):
            moved: Floats = inputs @ self.weight.T + self.bias
        moved[shut] = -np.inf
        return moved


def fit_matrix_scaling(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    off_diagonal: float = 1.0,
    bias: float = 1.0,
    tolerance: float = 1e-4,
    max_passes: int = 2000,
) -> MatrixFit:
    """Fit matrix scaling with a penalty on the off-diagonal weights and on the bias (ODIR).

    The mean NLL plus ``off_diagonal`` x the mean square of the C (C - 1) off-diagonal weights plus ``bias`` x the mean
    square of the biases is convex; L-BFGS (scipy) finds its minimum from the identity. All sums are float64.

    Parameters
    ----------
    logits
        (n, C), finite. Unlike for a temperature, a constant added to a row matters.
    labels
        (n,) in 0 ... C - 1.
    off_diagonal, bias
        Penalties, above 0. The larger, the nearer to a scale a class; choose them on the rows that are fitted on, by
        cross-validation, never on the test rows.
    tolerance
        Largest derivative that counts as zero, as a share of 1/C.
    max_passes
        Passes over all rows after which it gives up.

    Raises
    ------
    UserError
        Where a logit is NaN or infinite (the row is named), a label is out of range, a penalty is not above 0, every
        row can be made right (there is no finite best), or the derivatives do not vanish.

    References
    ----------
    Guo et al., "On calibration of modern neural networks", ICML 2017; the penalties Kull et al., NeurIPS 2019.
    """
    return _fit(logits, labels, False, off_diagonal, bias, tolerance, max_passes)


def fit_dirichlet(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    off_diagonal: float = 1.0,
    bias: float = 1.0,
    tolerance: float = 1e-4,
    max_passes: int = 2000,
) -> MatrixFit:
    """Fit Dirichlet calibration: as `fit_matrix_scaling`, of the log-probabilities in place of the logits.

    A constant added to a row of logits changes nothing. Parameters and errors as there.

    References
    ----------
    Kull et al., "Beyond temperature scaling: obtaining well-calibrated multi-class probabilities with Dirichlet
    calibration", NeurIPS 2019.
    """
    return _fit(logits, labels, True, off_diagonal, bias, tolerance, max_passes)


def fit_matrix_store(
    store: PredictionStore, rows: NDArray[np.bool_], *, dirichlet: bool = False, off_diagonal: float, bias: float
) -> tuple[MatrixFit, NDArray[np.int64]]:
    """Fit matrix scaling or Dirichlet calibration to some rows of a store.

    Parameters
    ----------
    store
        With logits and labels.
    rows
        (n,) rows to fit on.
    dirichlet
        Whether of the log-probabilities (`fit_dirichlet`) or of the logits.
    off_diagonal, bias
        Penalties, as there.

    Returns
    -------
    tuple
        The fit of the classes that compete on the dataset, and their columns of the logits.

    Raises
    ------
    UserError
        As there; groups of classes; fewer than `LEAST_ROWS_A_CLASS` rows for each class.
    """
    what, title = f"{store.model.id} on {store.dataset.id}", _title(dirichlet)
    view, places, use = fitted_rows(store, rows, title, of_classes=True)
    n, least = int(use.sum()), LEAST_ROWS_A_CLASS * view.n_classes
    if n < least:
        raise UserError(
            f"{what}: {n:,} rows are too few for the {view.n_classes:,} x {view.n_classes:,} weights of {title}, which"
            f" needs {least:,}"
        )
    logits, done = np.empty((n, view.n_classes), np.float32), 0
    for start in range(0, len(store), _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, len(store))
        chosen = np.flatnonzero(use[start:stop])
        if chosen.size:
            block = view.reduce(store.centred_logits(start, stop)[chosen]).astype(np.float64)
            block += np.asarray(store.logit_centers(start, stop))[chosen, None]
            logits[done : done + chosen.size] = block
            done += chosen.size
    fit: Callable[..., MatrixFit] = fit_dirichlet if dirichlet else fit_matrix_scaling
    try:
        found = fit(logits, places[use], off_diagonal=off_diagonal, bias=bias)
    except UserError as error:
        raise UserError(f"{what}: {error}") from error
    return found, np.asarray(view.columns, np.int64)


def _title(dirichlet: bool) -> str:
    return "Dirichlet calibration" if dirichlet else "matrix scaling"


def _fit(
    logits: ArrayLike,
    labels: ArrayLike,
    of_log_probabilities: bool,
    off_diagonal: float,
    bias_penalty: float,
    tolerance: float,
    max_passes: int,
) -> MatrixFit:
    from scipy.optimize import minimize

    wide = _finite(logits)
    n, n_classes = wide.shape
    classes = _checks.labels(labels, n_classes, n, other="logits")
    off_diagonal, bias_penalty = (
        _checks.number(name, value, above=0) for name, value in (("off_diagonal", off_diagonal), ("bias", bias_penalty))
    )
    tolerance = _checks.fraction("tolerance", tolerance, open_ends=True)
    max_passes = _checks.whole_number("max_passes", max_passes)
    # Inputs of unit size make the problem as well conditioned as one number can; the weights are scaled back.
    size = float(
        np.sqrt(np.mean([np.square(_inputs(wide[rows], of_log_probabilities)).mean() for rows in _blocks(wide.shape)]))
    )
    size = size or 1.0
    identity = np.eye(n_classes) * size
    off = 1 - np.eye(n_classes)
    on_weight = off_diagonal / max(n_classes * (n_classes - 1), 1) / size**2
    on_bias = bias_penalty / n_classes
    passes = right = 0

    def loss(x: Floats) -> tuple[float, Floats]:
        nonlocal passes, right
        passes += 1
        weight, bias = x[:-n_classes].reshape(n_classes, n_classes), x[-n_classes:]
        total, right = 0.0, 0
        by_weight, by_bias = np.zeros_like(weight), np.zeros(n_classes)
        for rows in _blocks(wide.shape):
            inputs = _inputs(wide[rows], of_log_probabilities) / size
            scores = inputs @ weight.T + bias
            scores -= scores.max(axis=1, keepdims=True)
            own = classes[rows, None]
            own_scores = np.take_along_axis(scores, own, axis=1)[:, 0]
            right += int(np.count_nonzero(own_scores == 0))
            np.exp(scores, out=scores)
            sums = scores.sum(axis=1, keepdims=True)
            total += float((np.log(sums[:, 0]) - own_scores).sum())
            scores /= sums
            np.put_along_axis(scores, own, np.take_along_axis(scores, own, axis=1) - 1, axis=1)
            by_weight += scores.T @ inputs
            by_bias += scores.sum(axis=0)
        away = weight * off
        value = total / n + on_weight * float((away**2).sum()) + on_bias * float((bias**2).sum())
        slope = np.concatenate([(by_weight / n + 2 * on_weight * away).ravel(), by_bias / n + 2 * on_bias * bias])
        return value, slope

    start = np.concatenate([identity.ravel(), np.zeros(n_classes)])
    before, _ = loss(start)
    limit = tolerance / n_classes
    found = minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_passes, "maxfun": max_passes, "maxcor": 30, "ftol": 0.0, "gtol": limit / 10},
    )
    left = float(np.abs(found.jac).max())
    what = _title(of_log_probabilities)
    loss(found.x)
    if right == n:
        # A larger diagonal would have a lower NLL at no penalty, and so on.
        raise UserError(f"every row can be made right: the best scale of {what} is infinite")
    if not np.isfinite(found.fun) or left > limit:
        raise UserError(
            f"{what} did not converge in {passes} passes: a derivative of {left:.3g} is left, {limit:.3g} allowed"
        )
    weight, bias = found.x[:-n_classes].reshape(n_classes, n_classes), found.x[-n_classes:]
    penalty = on_weight * float(((weight * off) ** 2).sum()) + on_bias * float((bias**2).sum())
    return MatrixFit(
        weight / size, bias - bias.mean(), of_log_probabilities, before, float(found.fun) - penalty, n, passes
    )


def _finite(logits: ArrayLike) -> NDArray[np.floating]:
    values = numbers("logits", logits, 2)
    if 0 in values.shape:
        raise UserError(f"logits are of shape {values.shape}: there are no rows to calibrate")
    with np.errstate(over="ignore", invalid="ignore"):
        suspect = not np.isfinite(values.sum(dtype=np.float64))
    if suspect:
        bad = ~np.isfinite(values).all(axis=1)
        if bad.any():
            raise UserError(f"row {int(bad.argmax())}: a logit is NaN or infinite")
    return values


def _inputs(block: NDArray[np.floating], of_log_probabilities: bool) -> Floats:
    wide = block.astype(np.float64)
    if of_log_probabilities:
        with np.errstate(invalid="ignore"):
            wide -= wide.max(axis=1, keepdims=True)
            wide -= np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return wide


def _blocks(shape: tuple[int, ...]) -> list[slice]:
    rows = max(1, _BLOCK // shape[1])
    return [slice(start, start + rows) for start in range(0, shape[0], rows)]
